#!/usr/bin/python3
"""append_lines.py [--lines N] [--later] [--lie KIND] FOLDER...: one process per folder appends N numbered lines to the file
`appended`, which must be the same one in all of them; then every folder's file must hold each line once, whole, and
each writer's in its order.

Exit code: 0 so it is; 1 it is not; 3 the file system refuses to append (EOPNOTSUPP). Its last line is JSON.
--later: the handles are set to append after they were opened. --lie lost|torn|twice: changes what was read back, which must be found.
"""

import argparse
import errno
import fcntl
import json
import os
import subprocess
import sys
import time
import zlib

NAME = 'appended'


def line_of(writer, number):
    """Of 20 to 200 bytes; it ends with a checksum of itself."""
    text = f'{writer} {number} ' + 'x' * (number * 37 % 181)
    return f'{text} {zlib.crc32(text.encode()):08x}\n'.encode()


def append(folder, writer, lines, later):
    """The writing process. Says "ready", waits for its input to end, writes."""
    fd = os.open(f'{folder}/{NAME}', os.O_WRONLY | os.O_CREAT | (0 if later else os.O_APPEND), 0o666)
    if later:
        fcntl.fcntl(fd, fcntl.F_SETFL, os.O_APPEND)
    print('ready', flush=True)
    sys.stdin.read()
    for number in range(lines):
        line = line_of(writer, number)
        try:
            written = os.write(fd, line)
        except OSError as error:
            print(f'line {number}: {error}', file=sys.stderr)
            return 3 if error.errno == errno.EOPNOTSUPP else 1
        if written != len(line):
            print(f'line {number}: {written} bytes of {len(line)}', file=sys.stderr)
            return 1
    os.close(fd)
    return 0


def read(folder, lie):
    with open(f'{folder}/{NAME}', 'rb') as file:
        lines = file.read().split(b'\n')
    middle = len(lines) // 2
    if lie == 'lost':
        del lines[middle]
    elif lie == 'torn':
        lines[middle] = lines[middle][:-3]
    elif lie == 'twice':
        lines.insert(middle, lines[middle])
    return lines


def wrong_in(lines, writers, count):
    """What is wrong with the lines of one folder's file."""
    found = []
    if lines.pop() != b'':
        found.append('the last line has no end')
    seen = {writer: [] for writer in range(writers)}
    for at, line in enumerate(lines):
        try:
            writer, number = map(int, line.split()[:2])
            if line + b'\n' != line_of(writer, number):
                raise ValueError
            seen[writer].append(number)
        except (ValueError, KeyError, IndexError):
            found.append(f'line {at} is torn: {line[:60]!r}')
    for writer, numbers in seen.items():
        lost = sorted(set(range(count)) - set(numbers))
        if lost:
            found.append(f'writer {writer}: {len(lost)} lines are lost, the first is {lost[0]}')
        if len(set(numbers)) != len(numbers):
            found.append(f'writer {writer}: {len(numbers) - len(set(numbers))} lines are there twice')
        if numbers != sorted(numbers):
            found.append(f'writer {writer}: its lines are not in order')
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n', maxsplit=1)[0])
    parser.add_argument('folders', nargs='+')
    parser.add_argument('--lines', type=int, default=10_000)
    parser.add_argument('--later', action='store_true')
    parser.add_argument('--lie', choices=['lost', 'torn', 'twice'])
    parser.add_argument('--writer', type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.writer is not None:
        return append(options.folders[0], options.writer, options.lines, options.later)
    own = ['--lines', str(options.lines), *(['--later'] if options.later else [])]
    writers = [subprocess.Popen([sys.executable, '-B', __file__, '--writer', str(number), *own, folder],
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE)
               for number, folder in enumerate(options.folders)]
    for writer in writers:
        writer.stdout.readline()
    began = time.monotonic()
    for writer in writers:
        writer.stdin.close()
    codes = [writer.wait() for writer in writers]
    seconds = time.monotonic() - began
    wrong = [f'writer {number} ended with code {code}' for number, code in enumerate(codes) if code]
    if 3 not in codes:
        for folder in options.folders:
            wrong += [f'{folder}: {what}' for what in wrong_in(read(folder, options.lie), len(writers), options.lines)]
    for line in wrong[:20]:
        print(line)
    print(json.dumps({'writers': len(writers), 'lines': options.lines, 'wrong': len(wrong), 'seconds': round(seconds, 2)}))
    return 3 if 3 in codes else 1 if wrong else 0


if __name__ == '__main__':
    sys.exit(main())
