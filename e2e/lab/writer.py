"""One writer on the client: `writer.py MODE FOLDER`, until standard input ends. For each operation one line,

    BEGIN END ok|error|wrong WHAT

and at last `state JSON`: what was acknowledged, and so must be on the server's disk.

blocks, direct   writes a block, fsync, reads another one back; buffered, and with O_DIRECT
append           lines of its own to one file that others append to, too
names            makes, fills, cuts, renames and removes, and knows every result
opened           replaces, removes and cuts what it has open, and reads what it has open
locks            adds one to the number in a file, under a lock; several do
records          writes records and says how many an fsync has acknowledged
pairs            one thread writes, reads, cuts, looks at and locks files through handles (pairs.py), while another
                 renames, removes and replaces them
"""

import errno
import fcntl
import json
import mmap
import os
import random
import select
import sys
import threading
import time

from pairs import Pair

BLOCK, BLOCKS = 4096, 128


SAYING = threading.Lock()


def say(begin, outcome, what):
    with SAYING:
        print(f'{begin:.6f} {time.monotonic():.6f} {outcome} {what}', flush=True)


def goes_on():
    return not select.select([sys.stdin], [], [], 0)[0]


def must(what, call, *arguments):
    begin = time.monotonic()
    try:
        result = call(*arguments)
    except OSError as error:
        say(begin, 'error', f'{what}: {error}')
        return None
    say(begin, 'ok', what)
    return result


def refused(what, number, call, *arguments):
    begin = time.monotonic()
    try:
        call(*arguments)
    except OSError as error:
        say(begin, 'ok' if error.errno == number else 'wrong', f'{what}: {error}')
    else:
        say(begin, 'wrong', f'{what}: done, where it must be refused')


def write_blocks(folder, mode):
    direct = os.O_DIRECT if mode == 'direct' else 0
    fd = os.open(f'{folder}/{mode}', os.O_CREAT | os.O_RDWR | direct, 0o644)
    out, back = mmap.mmap(-1, BLOCK), mmap.mmap(-1, BLOCK)  # O_DIRECT wants pages.
    last = {}
    while goes_on():
        block, token = random.randrange(BLOCKS), os.urandom(8).hex()
        out[:] = token.encode() * (BLOCK // len(token))
        if must('write', os.pwritev, fd, [out], block * BLOCK) == BLOCK:
            last[block] = token
        must('fsync', os.fsync, fd)
        other = random.choice(list(last or [block]))
        if other in last and must('read', os.preadv, fd, [back], other * BLOCK) is not None:
            if back[:] != last[other].encode() * (BLOCK // len(last[other])):
                say(time.monotonic(), 'wrong', f'block {other}')
    os.close(fd)
    return last


def append_lines(folder, _):
    me = os.getpid()
    fd = os.open(f'{folder}/log', os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)
    count = 0
    while goes_on():
        line = f'{me} {count}'.ljust(63, '.') + '\n'
        if must('append', os.write, fd, line.encode()) is not None:
            count += 1
        if count % 8 == 0:
            must('fsync', os.fsync, fd)
    os.close(fd)
    return {'pid': me, 'lines': count}


def change_names(folder, _):
    rounds = 0
    while goes_on():
        directory = f'{folder}/d{rounds}'
        path, moved = f'{directory}/file', f'{directory}/moved'
        must('mkdir', os.mkdir, directory)
        refused('mkdir again', errno.EEXIST, os.mkdir, directory)
        fd = must('create', os.open, path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644)
        if fd is None:
            break
        refused('create again', errno.EEXIST, os.open, path, os.O_CREAT | os.O_EXCL | os.O_RDWR)
        must('write', os.pwrite, fd, b'%08d' % rounds, 0)
        must('ftruncate', os.ftruncate, fd, 6)
        must('close', os.close, fd)
        must('rename', os.rename, path, moved)
        refused('stat of the old name', errno.ENOENT, os.stat, path)
        must('truncate', os.truncate, moved, 4)
        with open(moved, 'rb') as file:
            text = file.read()
        if text != (b'%08d' % rounds)[:4]:
            say(time.monotonic(), 'wrong', f'read {text!r} in round {rounds}')
        refused('rmdir', errno.ENOTEMPTY, os.rmdir, directory)
        must('unlink', os.unlink, moved)
        refused('unlink again', errno.ENOENT, os.unlink, moved)
        must('rmdir', os.rmdir, directory)
        rounds += 1
    return {'rounds': rounds}


def must_read(fd, expected, what):
    found = must(f'read of {what}', os.pread, fd, 64, 0)
    if found not in (None, expected):
        say(time.monotonic(), 'wrong', f'{what}: {found!r} instead of {expected!r}')


def change_opened(folder, _):
    rounds = 0
    one, other = f'{folder}/opened', f'{folder}/opened-next'
    while goes_on():
        first, second = b'first %08d' % rounds, b'second %08d' % rounds
        # From the second round on there is something to be cut.
        old = must('open and cut', os.open, one, os.O_CREAT | os.O_TRUNC | os.O_RDWR, 0o644)
        new = must('create', os.open, other, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644)
        if old is None or new is None:
            break
        must_read(old, b'', 'a file that was cut')
        must('write', os.pwrite, old, first, 0)
        must('write', os.pwrite, new, second, 0)
        must('rename', os.rename, other, one)
        must_read(old, first, 'a file that was replaced while it was open')
        must('close', os.close, old)
        must('unlink', os.unlink, one)
        refused('stat of what was removed', errno.ENOENT, os.stat, one)
        must_read(new, second, 'a file that was removed while it was open')
        must('close', os.close, new)
        left = must('create', os.open, one, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        if left is None:
            break
        must('write', os.pwrite, left, second, 0)
        must('close', os.close, left)
        rounds += 1
    return {'rounds': rounds}


def add_under_lock(folder, _):
    fd = os.open(f'{folder}/number', os.O_CREAT | os.O_RDWR, 0o644)
    added = 0
    while goes_on():
        must('lock', fcntl.lockf, fd, fcntl.LOCK_EX, 16, 0)
        number = must('read', os.pread, fd, 16, 0)
        if number is not None and must('write', os.pwrite, fd, b'%016d' % (int(number or b'0') + 1), 0) == 16:
            added += 1
        must('unlock', fcntl.lockf, fd, fcntl.LOCK_UN, 16, 0)
    os.close(fd)
    return {'added': added}


RECORD = 64


def record(number):
    return f'record {number}'.ljust(RECORD - 1, '.').encode() + b'\n'


def write_records(folder, _):
    fd = os.open(f'{folder}/records', os.O_CREAT | os.O_RDWR, 0o644)
    written = 0
    while goes_on():
        for _ in range(4):
            if must('write', os.pwrite, fd, record(written), written * RECORD) != RECORD:
                return {'synced': -1}
            written += 1
        begin = time.monotonic()
        os.fsync(fd)
        say(begin, 'ok', f'synced {written}')
    os.close(fd)
    return {'synced': written}


def use_pair(folder, _):
    return Pair(f'{folder}/pair{os.getpid()}', must, say).run(goes_on)


MODES = {'blocks': write_blocks, 'direct': write_blocks, 'append': append_lines, 'names': change_names,
         'opened': change_opened, 'locks': add_under_lock, 'records': write_records, 'pairs': use_pair}

if __name__ == '__main__':
    STATE = MODES[sys.argv[1]](sys.argv[2], sys.argv[1])
    print('state', json.dumps(STATE), flush=True)
