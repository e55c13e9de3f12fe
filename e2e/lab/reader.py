#!/usr/bin/python3
"""An application that reads one mounted tree for ever and checks every byte. Runs on the lab's client.

  reader.py MODE DIR REFERENCE [PAUSE]

MODE   open    opens, reads and closes DIR/who each time; says what it read: who serves
       fresh   opens DIR/big.bin each time and reads one block of it
       held    keeps DIR/big.bin open, reads blocks past the page cache (O_DIRECT)
       cached  keeps DIR/big.bin open, reads blocks through the page cache
       list    lists DIR; the names must always be the same

One line per operation: "BEGIN END ok|error|wrong WHAT", times of CLOCK_MONOTONIC. REFERENCE is a file with
big.bin's bytes. Ends when its stdout does, or by SIGTERM.
"""

import errno
import mmap
import os
import random
import sys
import time

BLOCK = 64 << 10
TARGETS = {b't1\n', b't2\n', b't3\n'}


class Wrong(Exception):
    """Bytes that no server holds."""


class Reader:
    def __init__(self, folder, reference):
        self.folder = folder
        self.big = os.path.join(folder, 'big.bin')
        self.reference = os.open(reference, os.O_RDONLY) if reference != '-' else None
        self.size = os.fstat(self.reference).st_size if self.reference is not None else 0
        self.buffer = mmap.mmap(-1, BLOCK)  # O_DIRECT wants aligned memory.
        self.fd = None
        self.names = None

    def check(self, text, offset):
        if text != os.pread(self.reference, BLOCK, offset):
            raise Wrong(f'{len(text)} bytes at {offset}')
        return 'read'

    def offset(self):
        return random.randrange(self.size // BLOCK) * BLOCK

    def open(self):
        fd = os.open(os.path.join(self.folder, 'who'), os.O_RDONLY)
        try:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            text = os.read(fd, 100)
        finally:
            os.close(fd)
        if text not in TARGETS:
            raise Wrong(repr(text))
        return text.decode().strip()

    def fresh(self):
        fd = os.open(self.big, os.O_RDONLY)
        try:
            offset = self.offset()
            os.posix_fadvise(fd, offset, BLOCK, os.POSIX_FADV_DONTNEED)
            return self.check(os.pread(fd, BLOCK, offset), offset)
        finally:
            os.close(fd)

    def held(self):
        if self.fd is None:
            self.fd = os.open(self.big, os.O_RDONLY | os.O_DIRECT)
        offset = self.offset()
        count = os.preadv(self.fd, [self.buffer], offset)
        return self.check(self.buffer[:count], offset)

    def cached(self):
        if self.fd is None:
            self.fd = os.open(self.big, os.O_RDONLY)
        offset = self.offset()
        os.posix_fadvise(self.fd, offset, BLOCK, os.POSIX_FADV_DONTNEED)
        return self.check(os.pread(self.fd, BLOCK, offset), offset)

    def list(self):
        names = sorted(os.listdir(self.folder))
        if self.names is None:
            self.names = names
        if names != self.names:
            raise Wrong(f'{len(names)} names instead of {len(self.names)}')
        return 'listed'


def main():
    mode, folder, reference = sys.argv[1:4]
    pause = float(sys.argv[4]) if len(sys.argv) > 4 else 0.01
    reader = Reader(folder, reference)
    operation = getattr(reader, mode)
    while True:
        begin = time.monotonic()
        try:
            outcome = 'ok ' + operation()
        except Wrong as wrong:
            outcome = f'wrong {wrong}'
        except OSError as error:
            outcome = f'error {errno.errorcode.get(error.errno, error.errno)}'
        try:
            print(f'{begin:.4f} {time.monotonic():.4f} {outcome}', flush=True)
        except BrokenPipeError:
            os._exit(0)
        time.sleep(pause)


if __name__ == '__main__':
    main()
