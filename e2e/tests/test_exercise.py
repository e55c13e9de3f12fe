"""A model test of the mount: random operations by several handles, and what then lies on the server's disk. Long
runs, with servers and agents dying: long/test_exercise_long.py. `again:` of what a failure prints is run on the
lab's client; --shrink=60 finds the few operations that it needs."""

import os
import random
import shutil
import time

import pytest

from death.keeper import Keeper
from lab import Application, Exercise

LAB = {'big_mib': 0}
MOUNT = '/mnt/dfs'
OPERATIONS = int(os.environ.get('DFSCSI_EXERCISE', '1200'))
SECONDS = int(os.environ.get('DFSCSI_EXERCISE_SECONDS', '6'))
PATIENCE = 4 * SECONDS + 120
# No holes: the kernel does not write mapped pages before it asks a FUSE file system where data is, so that SEEK_DATA
# passes over what is only in them (docs/posix.md).
FILE = ('--direct', '--no-holes')
TREE = ('--names=16', '--smb')
# What was wrong once, and the operations that showed it (fs-exercise --replay).
MENDED = {
    'SEEK_HOLE and SEEK_DATA know the size that another handle has given the file': ['write b 0 1303 1', 'seek-hole 5'],
    'mapped pages stay away after O_TRUNC': 10 * [
        'write a 3973230 7025 1', 'fsync a', 'hold', 'map-write 1502741 10 2 lazy', 'empty'],
}


def on_server(lab, path=''):
    return lab.data('t1', f'bench/{path}')


def clear(lab):
    for entry in list(os.scandir(on_server(lab))):
        if entry.name != 'copy':
            shutil.rmtree(entry.path) if entry.is_dir() else os.unlink(entry.path)


@pytest.fixture(name='mounted')
def mount_for_writing(lab, engine):
    engine.mount('//t1/bench', MOUNT, options='rw')
    yield engine
    engine.check_idle()
    clear(lab)


def exercise(lab, *options, **values):
    with Exercise(lab, MOUNT, *options, **values) as run:
        code, text = run.result(PATIENCE)
    assert code == 0, text
    return text


@pytest.mark.parametrize('size_max', [64 << 10, 4 << 20])
def test_a_file_is_as_its_model(lab, mounted, size_max):
    exercise(lab, *FILE, '--keep', size_max=size_max, operations=OPERATIONS, seconds=SECONDS, shadow='/run/shadow')
    with open(on_server(lab, 'exercised-file'), 'rb') as file, open(lab.path('client', '/run/shadow'), 'rb') as shadow:
        assert file.read() == shadow.read()


def test_a_tree_is_as_its_model(lab, mounted):
    exercise(lab, *TREE, operations=OPERATIONS, seconds=SECONDS)
    lab.wait_until(lambda: os.listdir(on_server(lab)) == ['copy'], 20, 'nothing is left on the server')


def test_a_lie_is_found(lab, mounted):
    for options in FILE, TREE:
        with Exercise(lab, MOUNT, *options, operations=600, lie=100) as run:
            code, text = run.result(PATIENCE)
        assert code == 1 and 'wrong bytes' in text, text


def replay(lab, operations):
    with open(lab.path('client', '/run/operations'), 'w') as file:
        file.writelines(operation + '\n' for operation in operations)
    with Exercise(lab, MOUNT, '--direct', size_max=4 << 20, replay='/run/operations') as run:
        return run.result(PATIENCE)


@pytest.mark.parametrize('what', MENDED)
def test_what_is_mended(lab, mounted, what):
    code, text = replay(lab, MENDED[what])
    assert code == 0, text


def test_a_lost_close_leaves_nothing(lab, mounted):
    """The server has the file open, and its name would stay, though removed, until it notices."""
    def is_connected():
        sockets = lab.run_in('client', ['ss', '-Htn', 'state', 'established', '( dport = :445 )']).stdout
        return lab.address('t1') in sockets
    with Application(lab) as app:
        app.do(f"os.mkdir('{MOUNT}/d')")
        app.keep('f', f"os.open('{MOUNT}/d/f', os.O_CREAT | os.O_RDWR)")
        lab.fail('reset', 't1')
        app.do("os.close(kept['f'])")
        lab.wait_until(lambda: not is_connected(), 20, 'the connection is lost')
        lab.heal('t1')
        found = [app.errno_of(f"os.unlink('{MOUNT}/d/f')"), app.do(f"os.listdir('{MOUNT}/d')"),
                 app.errno_of(f"os.close(os.open('{MOUNT}/d/f', os.O_CREAT | os.O_EXCL))")]
    assert found == [0, [], 0]


@pytest.mark.parametrize('options', [FILE, TREE], ids=['file', 'tree'])
def test_while_the_agent_is_killed(lab, mounted, options):
    with Keeper(lab, mounted), Exercise(lab, MOUNT, *options, operations=10 ** 6, seconds=SECONDS) as run:
        kills = kill_agents(lab, mounted, run)
        code, text = run.result(PATIENCE)
    assert code == 0, text
    assert kills >= 3


def kill_agents(lab, engine, run):
    """Each a third of a second after it became active, for as long as the exercise runs. Returns how many."""
    kills = 0
    while run.is_running():
        killed = engine.kill_active_agent()
        kills += 1
        lab.wait_until(lambda dead=killed: engine.active_agent() not in (None, dead), 30, 'the next agent is active')
        lab.wait_until(lambda: len(engine.pids('dfs-node-agent')) >= 2, 30, 'a standby')
        pause(lab, random.uniform(0.1, 0.4), run)
    return kills


def pause(lab, seconds, run):
    """The time between two faults; less if the exercise ends."""
    end = time.monotonic() + seconds
    lab.wait_until(lambda: time.monotonic() >= end or not run.is_running(), seconds + 10, 'the next fault')
