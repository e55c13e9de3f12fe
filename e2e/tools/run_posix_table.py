#!/usr/bin/python3
"""run_posix_table.py FOLDER OTHER READ_ONLY [NAME...]: runs the rows of tests/posix_table.py in FOLDER, each in a
new folder of its own, and prints one line per row: its name and its outcome, as Python writes them.

OTHER: a folder of another file system. READ_ONLY: one of a read-only mount, with `file` and `dir` in it. NAME:
only these rows.
"""

import ast
import ctypes
import errno
import fcntl
import mmap
import os
import shutil
import socket
import stat
import subprocess
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), 'tests'))
from posix_table import ROWS  # noqa: E402  pylint: disable=wrong-import-position

AT_FDCWD = -100
libc = ctypes.CDLL(None, use_errno=True)


def renameat2(old, new, flags):
    if libc.renameat2(AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), flags) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def fallocate(fd, mode, offset, size):
    """Python has the C library's alone, which writes zeros where the file system refuses."""
    if libc.fallocate(fd, mode, ctypes.c_longlong(offset), ctypes.c_longlong(size)) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def birth(path):
    """When the file was made, in seconds; None where the file system does not tell."""
    mask, size_of_statx, btime_at = 0x800, 256, 80
    seen = ctypes.create_string_buffer(size_of_statx)
    if libc.statx(AT_FDCWD, os.fsencode(path), 0, mask, seen) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    told = int.from_bytes(seen[0:4], 'little') & mask
    return int.from_bytes(seen[btime_at:btime_at + 8], 'little', signed=True) if told else None


def name_of(error):
    """ENOTSUP is another name of EOPNOTSUPP."""
    return 'EOPNOTSUPP' if error.errno == errno.EOPNOTSUPP else errno.errorcode.get(error.errno, str(error))


def run(code, namespace):
    """The value of the last line; the name of the errno of what failed before it."""
    tree = ast.parse(code)
    last = ast.Expression(tree.body.pop().value)
    try:
        exec(compile(tree, '<row>', 'exec'), namespace)
        return eval(compile(last, '<row>', 'eval'), namespace)
    except OSError as error:
        return name_of(error)


def outcome(row, folder, other, read_only):
    opened = []

    def p(name):
        return f'{folder}/{name}'

    def fd(path, flags, mode=0o777):
        opened.append(os.open(path, flags, mode))
        return opened[-1]

    def make(name, content=b'x'):
        made = os.open(p(name), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        try:
            if content:
                assert os.write(made, content) == len(content)
        finally:
            os.close(made)
        return p(name)

    def v(call, *arguments):
        try:
            return call(*arguments)
        except OSError as error:
            return name_of(error)

    def e(call, *arguments):
        result = None
        try:
            result = call(*arguments)
        except OSError as error:
            return name_of(error)
        if call is os.open:
            opened.append(result)
        return 'ok'

    try:
        return run(row.code, {'os': os, 'stat': stat, 'mmap': mmap, 'fcntl': fcntl, 'socket': socket, 'subprocess': subprocess,
                              'time': time, 'birth': birth, 'renameat2': renameat2, 'fallocate': fallocate, 'p': p, 'fd': fd, 'make': make, 'v': v, 'e': e,
                              'other': other, 'ro': read_only})
    except Exception as error:  # pylint: disable=broad-except
        return f'{type(error).__name__}: {error}'
    finally:
        os.chdir('/')
        for one in opened:
            try:
                os.close(one)
            except OSError:
                pass


def main():
    top, other, read_only, *names = sys.argv[1:]
    for number, row in enumerate(ROWS):
        if names and row.name not in names:
            continue
        folder, elsewhere = f'{top}/row{number}', f'{other}/row{number}'
        os.mkdir(folder)
        os.mkdir(elsewhere)
        began = time.monotonic()
        found = outcome(row, folder, elsewhere, read_only)
        print(repr((row.name, found, round(time.monotonic() - began, 3))), flush=True)
        shutil.rmtree(elsewhere)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == '__main__':
    main()
