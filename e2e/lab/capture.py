"""Records one server's SMB traffic and counts what passed: the server's side of the truth."""

import collections
import os
import select
import subprocess
import time

COMMANDS = ('NEGOTIATE', 'SESSION_SETUP', 'LOGOFF', 'TREE_CONNECT', 'TREE_DISCONNECT', 'CREATE', 'CLOSE',
            'FLUSH', 'READ', 'WRITE', 'LOCK', 'IOCTL', 'CANCEL', 'ECHO', 'QUERY_DIRECTORY',
            'CHANGE_NOTIFY', 'QUERY_INFO', 'SET_INFO', 'OPLOCK_BREAK')
FSCTL = {0x00060194: 'DFS_GET_REFERRALS', 0x000601b0: 'DFS_GET_REFERRALS_EX',
         0x00140204: 'VALIDATE_NEGOTIATE_INFO', 0x001401fc: 'QUERY_NETWORK_INTERFACE_INFO',
         0x000900a8: 'GET_REPARSE_POINT', 0x000940cf: 'QUERY_ALLOCATED_RANGES'}
DIALECTS = {0x0202: '2.0.2', 0x0210: '2.1', 0x0300: '3.0', 0x0302: '3.0.2', 0x0311: '3.1.1'}
SIGNING = {0: 'HMAC-SHA256', 1: 'AES-128-CMAC', 2: 'AES-128-GMAC'}
CIPHERS = {0: None, 1: 'AES-128-CCM', 2: 'AES-128-GCM', 3: 'AES-256-CCM', 4: 'AES-256-GCM'}
FIELDS = ('frame.time_epoch', 'tcp.dstport', 'tcp.stream', 'nbss.type', 'smb2.cmd',
          'smb2.flags.response', 'smb2.flags.signature', 'smb2.ioctl.function', 'smb2.dialect',
          'smb2.negotiate_context.signing_id', 'smb2.negotiate_context.cipher_id',
          'smb2.header.transform.flags.encrypted', 'smb2.nt_status')

Request = collections.namedtuple('Request', 'time stream commands functions encrypted signed')
Negotiated = collections.namedtuple('Negotiated', 'dialect signing cipher')


class Capture:
    """Captures from __enter__ to __exit__; the counts may be asked after that."""

    def __init__(self, lab, host):
        self._lab = lab
        self._host = host
        self._file = f'{lab.folder}/fs/capture-{host}-{time.monotonic_ns()}.pcapng'
        self._process = None
        self._packets = None

    def __enter__(self):
        # Written to the lab's own tmpfs. -q: dumpcap says "File:" once it captures.
        self._process = self._lab.popen_in(
            'switch', ['dumpcap', '-q', '-i', f'v-{self._host}', '-f', 'tcp port 445', '-B', '64',
                       '-w', self._file], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE)
        text = b''
        deadline = time.monotonic() + 20
        while b'File:' not in text:
            ready, _, _ = select.select([self._process.stderr], [], [],
                                        max(0, deadline - time.monotonic()))
            more = os.read(self._process.stderr.fileno(), 4096) if ready else b''
            if not more:
                self._process.kill()
                self._process.wait()
                raise RuntimeError('dumpcap does not start: ' + text.decode().strip())
            text += more
        return self

    def __exit__(self, *_):
        time.sleep(0.3)  # The kernel hands packets to dumpcap in blocks, the last one late.
        self._process.terminate()
        _, errors = self._process.communicate(timeout=20)
        dropped = [line for line in errors.decode().splitlines() if 'dropped' in line]
        if any('/0 ' not in line and "0 packets dropped" not in line and '0/' not in line
               for line in dropped):
            self.dropped = dropped
        else:
            self.dropped = []

    def packets(self):
        """One dict of fields per packet that holds SMB2, in order."""
        if self._packets is None:
            command = ['tshark', '-r', self._file, '-Y', 'smb2', '-T', 'fields', '-E', 'separator=/t',
                       '-E', 'occurrence=a', '-E', 'aggregator=,']
            for field in FIELDS:
                command += ['-e', field]
            text = self._lab.run_in('switch', command, timeout=120).stdout
            self._packets = [dict(zip(FIELDS, line.split('\t'))) for line in text.splitlines()]
        return self._packets

    def requests(self):
        """Request frames (a compound is one): time, stream, commands, functions, encrypted, signed."""
        found = []
        for packet in self.packets():
            if packet['tcp.dstport'] != '445':
                continue
            commands = [int(value) for value in packet['smb2.cmd'].split(',') if value]
            functions = [FSCTL.get(int(value, 0), value)
                         for value in packet['smb2.ioctl.function'].split(',') if value]
            encrypted = '1' in packet['smb2.header.transform.flags.encrypted'] or not commands
            signed = '1' in packet['smb2.flags.signature'] or 'True' in packet['smb2.flags.signature']
            found.append(Request(float(packet['frame.time_epoch']), int(packet['tcp.stream']),
                                 [COMMANDS[c] for c in commands if c < len(COMMANDS)], functions,
                                 encrypted, signed))
        return found

    def frames(self, *without):
        """Number of request frames; `without`: commands that do not count ('READ', 'ECHO')."""
        count = 0
        for packet, request in zip([p for p in self.packets() if p['tcp.dstport'] == '445'],
                                   self.requests()):
            if request.commands and set(request.commands) <= set(without):
                continue
            count += max(1, len([t for t in packet['nbss.type'].split(',') if t]))
        return count

    def commands(self):
        """Counter of request commands; parts of a compound each count. Encrypted ones are unseen."""
        return collections.Counter(c for request in self.requests() for c in request.commands)

    def functions(self):
        """Counter of FSCTLs, by name."""
        return collections.Counter(f for request in self.requests() for f in request.functions)

    def referrals(self):
        """Number of referral requests."""
        counts = self.functions()
        return counts['DFS_GET_REFERRALS'] + counts['DFS_GET_REFERRALS_EX']

    def connections(self):
        """Number of TCP connections on which SMB2 was spoken."""
        return len({packet['tcp.stream'] for packet in self.packets()})

    def attempts(self, client):
        """When that address tried to connect; repetitions of a lost SYN do not count."""
        text = self._lab.run_in('switch', [
            'tshark', '-r', self._file, '-Y', f'tcp.flags.syn==1 && tcp.flags.ack==0 && ip.src=={client}',
            '-T', 'fields', '-e', 'frame.time_epoch', '-e', 'tcp.stream'], timeout=120).stdout
        first = {}
        for line in text.splitlines():
            at, stream = line.split('\t')
            first.setdefault(stream, float(at))
        return sorted(first.values())

    def negotiated(self):
        """Dialect, signing algorithm and cipher of each NEGOTIATE reply, in order."""
        found = []
        for packet in self.packets():
            if packet['tcp.dstport'] == '445' or packet['smb2.cmd'].split(',')[0] != '0':
                continue
            number = lambda field: int(packet[field].split(',')[0], 0) if packet[field] else None
            dialect = DIALECTS.get(number('smb2.dialect'))
            if dialect is None:
                continue  # 0x02FF: the answer to a multi-protocol NEGOTIATE.
            signing = number('smb2.negotiate_context.signing_id')
            cipher = number('smb2.negotiate_context.cipher_id')
            if signing is None:  # [MS-SMB2] 3.2.5.2: what the dialect implies.
                signing = 1 if dialect.startswith('3') else 0
            found.append(Negotiated(dialect, SIGNING.get(signing, signing),
                                    CIPHERS.get(cipher, cipher) if cipher is not None else None))
        return found
