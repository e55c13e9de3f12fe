#!/usr/bin/python3
"""A name server for the lab: without it an unknown name looks like a name service that is down.

  name_server.py ADDRESS FILE

FILE is like /etc/hosts and read at each question; its names have A and AAAA records. Any other name does
not exist (NXDOMAIN). Started by namespaces.py beside the switch, whose death ends it.
"""

import ipaddress
import socket
import struct
import sys

A, AAAA = 1, 28
TTL_SECONDS = 5


def question_of(packet):
    """The first question's name (small letters, no final dot), type and end; ValueError if malformed."""
    labels, at = [], 12
    while True:
        length = packet[at]
        at += 1
        if length == 0:
            break
        if length > 63 or at + length > len(packet):
            raise ValueError('label')
        labels.append(packet[at:at + length].decode('ascii', 'replace').lower())
        at += length
    return '.'.join(labels), struct.unpack_from('>H', packet, at)[0], at + 4


def addresses_of(name, path):
    """What the file says about the name; None: it does not know it."""
    found = None
    with open(path) as file:
        for line in file:
            fields = line.split('#')[0].split()
            if name in (field.lower() for field in fields[1:]):
                found = [*(found or []), ipaddress.ip_address(fields[0])]
    return found


def answer_to(packet, path):
    """The reply: NOERROR with what there is of the type, or NXDOMAIN."""
    name, kind, end = question_of(packet)
    if end > len(packet):
        raise ValueError('question')
    addresses = addresses_of(name, path)
    records = b''.join(
        struct.pack('>HHHIH', 0xc00c, kind, 1, TTL_SECONDS, len(address.packed)) + address.packed
        for address in addresses or [] if {A: 4, AAAA: 6}.get(kind) == address.version)
    count = sum({A: 4, AAAA: 6}.get(kind) == address.version for address in addresses or [])
    # Response, authoritative; recursion desired as asked.
    flags = 0x8400 | (struct.unpack_from('>H', packet, 2)[0] & 0x0100) | (3 if addresses is None else 0)
    return packet[:2] + struct.pack('>HHHHH', flags, 1, count, 0, 0) + packet[12:end] + records


def main():
    address, path = sys.argv[1:]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((address, 53))
        while True:
            packet, client = server.recvfrom(4096)
            try:
                server.sendto(answer_to(packet, path), client)
            except (ValueError, IndexError, struct.error, OSError):
                continue  # A question that nobody understands gets no answer.


if __name__ == '__main__':
    main()
