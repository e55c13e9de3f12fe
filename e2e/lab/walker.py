#!/usr/bin/python3
"""An application that does one thing over and over and says how long each time took. Runs on the lab's client.

  walker.py ACTION PATH [PAUSE]

ACTION  read   reads 64 KiB of PATH/big.bin past the page cache, another place each time
        stat   stat of one of PATH/many/f0000 … f0199, the next one each time
        self   stat of PATH itself
        ls     lists PATH
        ls-l   lists PATH and asks for the attributes of every name
        df     statvfs of PATH
        write  writes 64 KiB to PATH past the page cache, another place each time

One line per round: "BEGIN END ok" or "BEGIN END error NAME", times of CLOCK_MONOTONIC. Ends when its stdout does.
"""

import errno
import itertools
import mmap
import os
import sys
import time

BLOCK = 64 << 10


class Walker:
    def __init__(self, path):
        self.path = path
        self.count = itertools.count()
        self.buffer = mmap.mmap(-1, BLOCK)  # O_DIRECT wants aligned memory.
        self.fd = None

    def read(self):
        if self.fd is None:
            self.fd = os.open(os.path.join(self.path, 'big.bin'), os.O_RDONLY | os.O_DIRECT)
            self.blocks = os.fstat(self.fd).st_size // BLOCK
        os.preadv(self.fd, [self.buffer], next(self.count) * 37 % self.blocks * BLOCK)

    def write(self):
        if self.fd is None:
            self.fd = os.open(self.path, os.O_CREAT | os.O_WRONLY | os.O_DIRECT, 0o644)
        os.pwritev(self.fd, [self.buffer], next(self.count) * 37 % 256 * BLOCK)

    def stat(self):
        os.stat(f'{self.path}/many/f{next(self.count) % 200:04}')

    def self(self):
        os.stat(self.path)

    def ls(self):
        os.listdir(self.path)

    def ls_l(self):
        for name in os.listdir(self.path):
            os.lstat(os.path.join(self.path, name))

    def df(self):
        os.statvfs(self.path)


def main():
    action = getattr(Walker(sys.argv[2]), sys.argv[1].replace('-', '_'))
    pause = float(sys.argv[3]) if len(sys.argv) > 3 else 0.02
    while True:
        begin = time.monotonic()
        try:
            action()
            outcome = 'ok'
        except OSError as error:
            outcome = f'error {errno.errorcode.get(error.errno, error.errno)}'
        try:
            print(f'{begin:.4f} {time.monotonic():.4f} {outcome}', flush=True)
        except BrokenPipeError:
            os._exit(0)
        time.sleep(pause)


if __name__ == '__main__':
    main()
