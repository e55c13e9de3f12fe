#!/usr/bin/python3
"""range_locks.py [--lie] FOLDER FOLDER: two processes, one per folder, lock parts of the file `locked`, which must
be the same one in both; each case says what each of them must be answered.

It prints one line per case, as Python writes it: its name, and None or what was wrong. Exit code: 0 all was right.
--lie: expects the contrary in each first step.
"""

import ast
import os
import select
import signal
import subprocess
import sys

NAME = 'locked'
# How long a lock that is free may take, and how long one that is not must be waited for, in seconds.
PATIENCE, SURELY = 20, 0.3

# Runs beside the file: one expression per line of input, its value or the name of its errno per line of output.
PROGRAM = r'''
import errno, fcntl, os, struct, sys
path = sys.argv[1]
files = {}
def f(name='f', flags=os.O_RDWR):
    if name not in files: files[name] = os.open(path, flags)
    return files[name]
def close(name='f'): os.close(files.pop(name))
def lock(kind, start, size, name='f', wait=False):
    kinds = {'w': fcntl.LOCK_EX, 'r': fcntl.LOCK_SH, 'u': fcntl.LOCK_UN}
    fcntl.lockf(f(name), kinds[kind] | (0 if wait or kind == 'u' else fcntl.LOCK_NB), size, start)
def own(kind, start, size, name='f'):
    """A lock of the open file (F_OFD_SETLK), not of the process."""
    kinds = {'w': fcntl.F_WRLCK, 'r': fcntl.F_RDLCK, 'u': fcntl.F_UNLCK}
    fcntl.fcntl(f(name), 37, struct.pack('hhqqi4x', kinds[kind], 0, start, size, 0))
def who(start, size):
    """The kind of lock that is in the way of a write lock."""
    answer = fcntl.fcntl(f(), fcntl.F_GETLK, struct.pack('hhqqi4x', fcntl.F_WRLCK, 0, start, size, 0))
    kind, _, begin, length, _ = struct.unpack('hhqqi4x', answer)
    return {fcntl.F_UNLCK: 'free', fcntl.F_RDLCK: 'r', fcntl.F_WRLCK: 'w'}[kind], begin if kind != fcntl.F_UNLCK else 0
def whole(kind, name='f'):
    fcntl.flock(f(name), {'w': fcntl.LOCK_EX, 'r': fcntl.LOCK_SH, 'u': fcntl.LOCK_UN}[kind] | fcntl.LOCK_NB)
print('ready', flush=True)
for line in sys.stdin:
    try:
        value = eval(line)
    except OSError as error:
        value = errno.errorcode[error.errno]
    print(repr(value), flush=True)
'''

BUSY = ('EAGAIN', 'EACCES')  # POSIX allows either.
WAITS = object()  # Not answered yet.
# name: steps of (who, expression, what it must be). 'a!' ends a process: its locks must go with it. 'a?': what a
# step that waited has come to.
CASES = {
    'two write locks exclude each other': [
        ('a', "lock('w', 0, 10)", None), ('b', "lock('w', 0, 10)", BUSY), ('b', "lock('w', 9, 1)", BUSY),
        ('b', "lock('w', 10, 10)", None), ('a', "lock('w', 15, 1)", BUSY)],
    'read locks are shared, and exclude a write lock': [
        ('a', "lock('r', 0, 10)", None), ('b', "lock('r', 5, 10)", None), ('b', "lock('w', 5, 10)", BUSY),
        ('a', "lock('u', 0, 10)", None), ('b', "lock('w', 5, 10)", None), ('a', "lock('r', 0, 10)", BUSY)],
    'an unlocked part is free, the rest is not': [
        ('a', "lock('w', 0, 100)", None), ('a', "lock('u', 40, 20)", None), ('b', "lock('w', 40, 20)", None),
        ('b', "lock('w', 39, 1)", BUSY), ('b', "lock('w', 60, 1)", BUSY)],
    'a lock of its own kind changed in place': [
        ('a', "lock('w', 0, 100)", None), ('a', "lock('r', 0, 50)", None), ('b', "lock('r', 0, 50)", None),
        ('b', "lock('r', 50, 1)", BUSY)],
    'a lock to the end holds what comes later': [
        ('a', "lock('w', 1000, 0)", None), ('b', "lock('w', 1 << 40, 1)", BUSY), ('b', "lock('w', 0, 1000)", None)],
    'a lock beyond the end of the file': [
        ('a', "lock('w', 1 << 30, 10)", None), ('b', "lock('w', 1 << 30, 1)", BUSY)],
    'who is in the way': [
        ('a', "lock('w', 10, 10)", None), ('b', 'who(0, 100)', ('w', 10)), ('b', 'who(0, 10)', ('free', 0)),
        ('a', "lock('u', 10, 10)", None), ('b', 'who(0, 100)', ('free', 0))],
    'who waits is answered once it is free': [
        ('a', "lock('w', 0, 10)", None), ('b', "lock('w', 0, 10, wait=True)", WAITS), ('a', "lock('u', 0, 10)", None),
        ('b?', '', None), ('a', "lock('w', 0, 10)", BUSY)],
    'closing any handle gives the locks of the process back': [
        ('a', "lock('w', 0, 10)", None), ('a', "f('g')", int), ('a', "close('g')", None), ('b', "lock('w', 0, 10)", None)],
    'the locks of a process that was killed are free': [
        ('a', "lock('w', 0, 10)", None), ('b', "lock('w', 0, 10, wait=True)", WAITS), ('a!', '', None), ('b?', '', None)],
    'one process does not exclude itself': [
        ('a', "lock('w', 0, 10)", None), ('a', "lock('w', 0, 10, 'g')", None)],
    'a read-only handle takes read locks alone': [
        ('a', "f('g', os.O_RDONLY)", int), ('a', "lock('w', 0, 1, 'g')", 'EBADF'), ('a', "lock('r', 0, 1, 'g')", None)],
    'locks of open files exclude each other in one process': [
        ('a', "own('w', 0, 10)", None), ('a', "own('w', 0, 10, 'g')", BUSY), ('b', "own('w', 0, 10)", BUSY),
        ('a', "close()", None), ('b', "own('w', 0, 10)", None)],
    'flock: exclusive': [
        ('a', "whole('w')", None), ('b', "whole('w')", BUSY), ('b', "whole('r')", BUSY), ('a', "whole('u')", None),
        ('b', "whole('w')", None)],
    'flock: shared': [
        ('a', "whole('r')", None), ('b', "whole('r')", None), ('b', "whole('w')", BUSY), ('a', 'close()', None),
        ('b', "whole('w')", None)],
    'flock: of one process and two handles': [
        ('a', "whole('w')", None), ('a', "whole('w', 'g')", BUSY)],
    'what was written under a lock is read under the next': [
        ('a', "lock('w', 0, 10)", None), ('b', 'os.pread(f(), 10, 0)', b''), ('a', "os.pwrite(f(), b'0123456789', 0)", 10),
        ('a', "lock('u', 0, 10)", None), ('b', "lock('w', 0, 10)", None), ('b', 'os.pread(f(), 10, 0)', b'0123456789'),
        ('b', "os.pwrite(f(), b'x', 5)", 1), ('b', "lock('u', 0, 10)", None), ('a', "lock('r', 0, 10)", None),
        ('a', 'os.pread(f(), 10, 0)', b'01234x6789')],
    'who has the lock writes, who has not may as well': [
        ('a', "lock('w', 0, 10)", None), ('b', "os.pwrite(f(), b'1', 0)", 1), ('a', 'os.pread(f(), 1, 0)', b'1')],
}


class Side:
    """One of the two processes."""

    def __init__(self, folder):
        self._process = subprocess.Popen([sys.executable, '-Bc', PROGRAM, f'{folder}/{NAME}'], stdin=subprocess.PIPE,
                                         stdout=subprocess.PIPE)
        self._text = b''
        self._answer(PATIENCE)

    def _answer(self, seconds):
        while b'\n' not in self._text:
            if not select.select([self._process.stdout], [], [], seconds)[0]:
                return WAITS
            piece = os.read(self._process.stdout.fileno(), 4096)
            if not piece:
                return 'it ended'
            self._text += piece
        line, self._text = self._text.split(b'\n', 1)
        return None if line == b'ready' else ast.literal_eval(line.decode())

    def do(self, expression, seconds):
        if expression:
            self._process.stdin.write(expression.encode() + b'\n')
            self._process.stdin.flush()
        return self._answer(seconds)

    def kill(self):
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(timeout=PATIENCE)
        self._process.stdin.close()
        self._process.stdout.close()


def is_right(found, expected):
    if expected is BUSY:
        return found in BUSY
    if expected is int:
        return isinstance(found, int)
    return found is expected or found == expected


def run(steps, folders, lie):
    """None, or what was wrong first."""
    with open(f'{folders[0]}/{NAME}', 'wb'):
        pass
    sides = {'a': Side(folders[0]), 'b': Side(folders[1])}
    try:
        for number, (who, expression, expected) in enumerate(steps):
            if who == 'a!':
                sides.pop('a').kill()
                continue
            found = sides[who[0]].do(expression, SURELY if expected is WAITS else PATIENCE)
            if is_right(found, expected) == (lie and number == 0):
                shown = ['waits' if value is WAITS else repr(value) for value in (found, expected)]
                return f'{who} {expression}: {shown[0]} instead of {shown[1]}'
    finally:
        for side in sides.values():
            side.kill()
    return None


def main():
    folders = [word for word in sys.argv[1:] if word != '--lie']
    if len(folders) != 2:
        sys.exit(__doc__)
    wrong = 0
    for name, steps in CASES.items():
        found = run(steps, folders, '--lie' in sys.argv)
        print(repr((name, found)), flush=True)
        wrong += found is not None
    return 1 if wrong else 0


if __name__ == '__main__':
    sys.exit(main())
