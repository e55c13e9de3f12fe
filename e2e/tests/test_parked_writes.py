"""Writers of one link whose server is frozen: what they write waits, in bounded memory; nobody else on the mount
notices, and all of it is written once the server answers again."""

import os
import shutil
import subprocess
import time

import pytest

from death.keeper import Keeper
from lab import Control, Walkers
from lab.footprint import memory
from test_healthy_link import in_flight, make_local_tree

LAB = {'big_mib': 16}
SOURCE = '//root1/dfs'
DEAD, DEAD_HOST = 'single', 't1'
HEALTHY = 'emoji-😀'  # t2's.
FOLDER = 'written'
BOUND = 0.1
SECONDS = float(os.environ.get('DFSCSI_FROZEN_SECONDS', '8'))
PATIENCE = 180

# Each thread writes its own MiB, again and again, until it is told to end; then it says which round was the last.
WRITERS = r'''
import mmap, os, sys, threading
folder, count = sys.argv[1], int(sys.argv[2])
ended = threading.Event()
lines, say = [], threading.Lock()
threading.stack_size(1 << 18)
def make(number):
    direct = os.O_DIRECT if number % 2 else 0
    return os.open(f'{folder}/file{number}', os.O_CREAT | os.O_WRONLY | direct, 0o644)
def write(number, fd):
    buffer = mmap.mmap(-1, 1 << 20)
    number_of_round = 0
    try:
        while number_of_round == 0 or not ended.is_set():
            number_of_round += 1
            buffer[:] = f'{number:07} {number_of_round:07} '.encode() * (1 << 16)
            assert os.pwrite(fd, buffer, 0) == 1 << 20
        os.close(fd)
        result = number_of_round
    except OSError as error:
        result = repr(error)
    with say:
        print(number, result, flush=True)
threads = [threading.Thread(target=write, args=(number, make(number))) for number in range(count)]
print('started', flush=True)
for thread in threads: thread.start()
sys.stdin.read()
ended.set()
for thread in threads: thread.join()
'''


class Writers:
    """`with Writers(lab, folder, 200) as writers: …; writers.end()`"""

    def __init__(self, lab, folder, count):
        self._lab = lab
        self._argv = ['/usr/bin/python3', '-c', WRITERS, folder, str(count)]

    def __enter__(self):
        self.process = self._lab.popen_in('client', self._argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                          text=True)
        assert self.process.stdout.readline() == 'started\n'
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait(timeout=30)
        self.process.stdin.close()
        self.process.stdout.close()

    def end(self):
        """{number of the writer: its last round, or the error that it saw}"""
        self.process.stdin.close()
        text = self.process.stdout.read()
        self.process.wait(timeout=PATIENCE)
        return {int(line.split(None, 1)[0]): line.split(None, 1)[1] for line in text.splitlines()}


@pytest.fixture(name='control')
def make_control():
    with Control() as control:
        yield control


@pytest.fixture(name='mount')
def writable_mount(lab, engine):
    for host in ('t1', 't2'):
        os.mkdir(lab.data(host, f'share/{FOLDER}'))
        os.chmod(lab.data(host, f'share/{FOLDER}'), 0o777)
    yield engine.mount(SOURCE, options='rw')
    engine.check_idle()
    for host in ('t1', 't2'):
        shutil.rmtree(lab.data(host, f'share/{FOLDER}'))


def check_written(lab, last_rounds, count):
    """All wrote without an error, and the servers' disk has what each wrote last."""
    assert sorted(last_rounds) == list(range(count))
    for number, last in last_rounds.items():
        assert last.isdigit(), (number, last)
        with open(lab.data(DEAD_HOST, f'share/{FOLDER}/file{number}'), 'rb') as file:
            assert file.read() == f'{number:07} {int(last):07} '.encode() * (1 << 16), number


def test_writers_that_wait_stall_nobody_else(lab, engine, control, mount):
    count = 200
    dead, healthy, local = f'{mount}/{DEAD}', f'{mount}/{HEALTHY}', make_local_tree(lab)
    walks = {
        'read': ('read', healthy), 'stat': ('stat', healthy), 'ls of the link': ('ls', f'{healthy}/many'),
        'ls -l /': ('ls-l', mount), 'df': ('df', mount), 'write': ('write', f'{healthy}/{FOLDER}/file'),
        'control: ls -l': ('ls-l', f'{local}/many'), 'control: stat': ('stat', local),
    }
    lab.run_in('client', ['ls', '-l', mount, dead])  # A mount in use: its links have been seen.
    with Walkers(lab, walks) as walkers, Writers(lab, f'{dead}/{FOLDER}', count) as writers:
        lab.wait_until(lambda: in_flight(engine) > count // 2, 60, 'they write')
        lab.fail('stop', DEAD_HOST)
        lab.wait_until(lambda: in_flight(engine) >= count, 30, 'all of them wait')
        start = time.monotonic()
        lab.wait_until(lambda: time.monotonic() - start > SECONDS, SECONDS + 5, 'the time is over')
        seen = walkers.seen(start)
        parked = engine.metrics()['dfscsi_parked_requests']
        lab.heal(DEAD_HOST)
        last_rounds = writers.end()
    machine = max(longest for name, (_, longest, _) in seen.items() if name.startswith('control'))
    allowed = max(control.allowed(BOUND, start), BOUND + machine)
    print(f'\n{parked:g} requests parked; the machine itself: {machine:.3f} s; allowed {allowed:.2f} s')
    for name, (rounds, longest, errors) in seen.items():
        print(f'  {name:<24}{rounds:>6} rounds, longest {longest * 1000:>7.0f} ms {" ".join(sorted(errors))}')
    assert parked >= count // 2
    check_written(lab, last_rounds, count)
    for name, (rounds, longest, errors) in seen.items():
        assert not errors, (name, errors)
        assert rounds > SECONDS and longest <= allowed, (name, rounds, longest)


def test_a_thousand_writes_that_wait_survive_their_agent(lab, engine, mount):
    count = 1000
    with Writers(lab, f'{mount}/{DEAD}/{FOLDER}', count) as writers:
        lab.wait_until(lambda: in_flight(engine) > count // 2, 60, 'they write')
        lab.fail('stop', DEAD_HOST)
        lab.wait_until(lambda: in_flight(engine) >= count, 60, 'all of them wait')
        assert engine.metrics()['dfscsi_parked_requests'] > 900
        killed = engine.kill_active_agent()
        lab.wait_until(lambda: engine.active_agent() not in (None, killed), 30, 'the next agent is active')
        lab.wait_until(lambda: in_flight(engine) >= count, 60, 'all of them wait')
        metrics = engine.metrics()
        held = memory(engine.active_agent())
        lab.heal(DEAD_HOST)
        last_rounds = writers.end()
    print(f'\nparked: {metrics["dfscsi_parked_requests"]:g} requests, '
          f'{metrics["dfscsi_parked_request_bytes"] / 2 ** 20:.0f} MiB; the agent beside it: {held.pss / 1024:.0f} MiB')
    check_written(lab, last_rounds, count)
    lab.wait_until(lambda: engine.metrics()['dfscsi_parked_request_bytes'] == 0, 30, 'nothing is parked')
    assert held.pss < 80 << 10


def test_who_waits_while_no_more_can_be_parked_can_be_killed(lab, engine, mount):
    """The mount is not read any more, and so no INTERRUPT is."""
    count = 60
    with Keeper(lab, engine, flags=['--parked_max_mib=8']):
        for _ in range(2):  # The ones that dfsctl has started have room for all.
            killed = engine.kill_active_agent()
            lab.wait_until(lambda dead=killed: engine.active_agent() not in (None, dead), 30, 'the next agent is active')
        with Writers(lab, f'{mount}/{DEAD}/{FOLDER}', count) as writers:
            lab.wait_until(lambda: in_flight(engine) > 0, 60, 'they write')
            lab.fail('stop', DEAD_HOST)
            lab.wait_until(lambda: engine.metrics()['dfscsi_parked_full_total'] > 0, 60, 'no more can be parked')
            writers.process.kill()
            lab.wait_until(lambda: writers.process.poll() is not None, 15, 'they are dead')
            lab.run_in('client', ['ls', f'{mount}/{HEALTHY}'], timeout=15)
            lab.heal(DEAD_HOST)
