"""One link's only target is frozen under readers: nobody else on the mount notices."""

import os
import subprocess
import time

import pytest

from lab import Control, Walkers

LAB = {'big_mib': 64}
SOURCE = '//root1/dfs'
DEAD, DEAD_HOST = 'single', 't1'
HEALTHY = 'emoji-😀'  # t2's.
BOUND = 0.1
SECONDS = float(os.environ.get('DFSCSI_FROZEN_SECONDS', '8'))

# What readers of the dead link do, each in a thread of its own: every kind of request that can be parked.
READERS = '''
import mmap, os, sys, threading
folder, count = sys.argv[1], int(sys.argv[2])
size = os.stat(folder + '/big.bin').st_size
blocked = []
def read(flags, number):
    buffer = mmap.mmap(-1, 1 << 20)
    fd = os.open(folder + '/big.bin', os.O_RDONLY | flags)
    at = number * 7 * (1 << 20)
    while True:
        at = (at + (1 << 20)) % size
        os.posix_fadvise(fd, at, 1 << 20, os.POSIX_FADV_DONTNEED)
        os.preadv(fd, [buffer], at)
def stat(number):
    while True:
        for name in range(200):
            os.stat(f'{folder}/many/f{name:04}')
def open_close(number):
    while True:
        os.close(os.open(f'{folder}/many/f{number % 200:04}', os.O_RDONLY))
def walk(number):
    while True:
        os.listdir(folder + '/many')
ACTIONS = [lambda n: read(os.O_DIRECT, n), lambda n: read(0, n), stat, open_close, walk]
for number in range(count):
    threading.Thread(target=ACTIONS[number % len(ACTIONS)], args=(number,), daemon=True).start()
print('started', flush=True)
sys.stdin.read()
os._exit(0)
'''


@pytest.fixture(name='control')
def make_control():
    with Control() as control:
        yield control


class DeadLinkReaders:
    """A process whose threads read the link that dies."""

    def __init__(self, lab, folder, count):
        self._lab = lab
        self._argv = ['/usr/bin/python3', '-c', READERS, folder, str(count)]

    def __enter__(self):
        self.process = self._lab.popen_in('client', self._argv, stdin=subprocess.PIPE,
                                          stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline() == 'started\n'
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait(timeout=30)
        self.process.stdin.close()
        self.process.stdout.close()


def make_local_tree(lab):
    """The same shapes on the client's own tmpfs: what the machine alone costs."""
    folder = '/run/walkers'
    os.makedirs(lab.path('client', f'{folder}/many'), exist_ok=True)
    for number in range(200):
        with open(lab.path('client', f'{folder}/many/f{number:04}'), 'w'):
            pass
    return folder


@pytest.mark.parametrize('readers', [16, 200])
def test_nothing_else_stalls_while_one_link_is_frozen(lab, engine, control, readers):
    mount = engine.mount(SOURCE)
    dead, healthy, local = f'{mount}/{DEAD}', f'{mount}/{HEALTHY}', make_local_tree(lab)
    walks = {
        'read': ('read', healthy), 'stat': ('stat', healthy), 'ls of the link': ('ls', f'{healthy}/many'),
        'ls /': ('ls', mount), 'ls -l /': ('ls-l', mount), 'df': ('df', mount), 'stat of the dead link': ('self', dead),
        'control: ls -l': ('ls-l', f'{local}/many'), 'control: stat': ('stat', local),
    }
    lab.run_in('client', ['ls', '-l', mount, dead])  # A mount in use: its links have been seen.
    with Walkers(lab, walks) as walkers, DeadLinkReaders(lab, dead, readers):
        lab.wait_until(lambda: in_flight(engine) > 0, 20, 'readers read')
        lab.fail('stop', DEAD_HOST)
        start = time.monotonic()
        lab.wait_until(lambda: time.monotonic() - start > SECONDS, SECONDS + 5, 'the time is over')
        seen = walkers.seen(start)
        parked = in_flight(engine)
        lab.heal(DEAD_HOST)
    machine = max(longest for name, (_, longest, _) in seen.items() if name.startswith('control'))
    allowed = max(control.allowed(BOUND, start), BOUND + machine)
    print(f'\n{readers} readers, {parked:g} requests parked; the machine itself: {machine:.3f} s; allowed {allowed:.2f} s')
    for name, (rounds, longest, errors) in seen.items():
        print(f'  {name:<24}{rounds:>6} rounds, longest {longest * 1000:>7.0f} ms {" ".join(sorted(errors))}')
    assert parked >= min(readers // 2, 100)  # The others wait for one of these in the kernel.
    for name, (rounds, longest, errors) in seen.items():
        assert not errors, (name, errors)
        assert rounds > SECONDS and longest <= allowed, (name, rounds, longest)


def in_flight(engine):
    return sum(value for name, value in engine.metrics().items()
               if name.startswith('dfscsi_fuse_requests_in_flight'))
