"""What people do on a mount: git, tar, rsync, thousands of small files, SQLite. Once plain; at length, and while
servers and agents die: long/test_programs_long.py."""

import os
import random
import shutil
import subprocess

import pytest

from conftest import E2E
from death.keeper import Keeper
from test_exercise import kill_agents, pause

LAB = {'big_mib': 0}
MOUNT = '/mnt/dfs'
PROGRAMS = ['git', 'tar', 'rsync', 'packages']
FILES = int(os.environ.get('DFSCSI_PROGRAM_FILES', '120'))
TRANSACTIONS = int(os.environ.get('DFSCSI_PROGRAM_TRANSACTIONS', '150'))
PATIENCE = 240
SERVER_FAULTS = ['restart', 'reset', 'stop', 'kill']


class Program:
    """A program of tools/ on the client: is_running(), check()."""

    def __init__(self, lab, name, *arguments):
        self._process = lab.popen_in('client', ['/usr/bin/python3', '-B', os.path.join(E2E, 'tools', name), *arguments],
                                     stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait(timeout=30)
        self._process.stdout.close()

    def is_running(self):
        return self._process.poll() is None

    def check(self, patience=None, code=0):
        text, _ = self._process.communicate(timeout=patience or PATIENCE)
        assert self._process.returncode == code, text
        return text


@pytest.fixture(name='mounted')
def mount_for_writing(lab, engine):
    engine.mount('//t1/bench', MOUNT, options='rw')
    yield engine
    engine.check_idle()
    for entry in list(os.scandir(lab.data('t1', 'bench'))):
        if entry.name != 'copy':
            shutil.rmtree(entry.path) if entry.is_dir() else os.unlink(entry.path)


def trouble(lab, engine, kind, program):
    """Until the program ends: the active agent is killed, or its server dies for a while. Returns how often."""
    if kind == 'agent':
        with Keeper(lab, engine):
            return kill_agents(lab, engine, program)
    faults = 0
    while program.is_running():
        lab.fail(SERVER_FAULTS[faults % len(SERVER_FAULTS)], 't1')
        pause(lab, random.uniform(0.2, 2), program)
        lab.heal('t1')
        faults += 1
        pause(lab, random.uniform(0.5, 2), program)
    return faults


@pytest.mark.parametrize('program', PROGRAMS)
def test_program(lab, mounted, program):
    with Program(lab, 'user_programs.py', '--files', str(FILES), program, MOUNT) as run:
        run.check()


@pytest.mark.parametrize('program', PROGRAMS)
def test_a_changed_byte_is_found(lab, mounted, program):
    with Program(lab, 'user_programs.py', '--files', '30', '--lie', program, MOUNT) as run:
        run.check(code=1)


@pytest.mark.parametrize('kind', ['agent', 'server'])
def test_sqlite_while_something_dies(lab, mounted, kind):
    """Two programs of one node, journal mode "delete"."""
    faults = 0
    for _ in range(20):  # On a fast machine one run is over before enough has happened.
        with Program(lab, 'sqlite_transactions.py', '--transactions', str(TRANSACTIONS), MOUNT, MOUNT) as run:
            faults += trouble(lab, mounted, kind, run)
            run.check()
        if faults >= 3:
            break
    assert faults >= 3
