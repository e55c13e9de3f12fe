"""Several programs in one file, on one machine and on two: appending, SQLite, locks. Each program of tools/ runs on
a local disk first: what fails there is no fault of the mount."""

import ast
import os
import random
import subprocess
import sys
import time

import pytest

from conftest import E2E

sys.path.insert(0, os.path.join(E2E, 'tools'))
import append_lines  # noqa: E402  pylint: disable=wrong-import-position

LAB = {'big_mib': 0}
LINES = int(os.environ.get('DFSCSI_APPENDED_LINES', '500'))
TRANSACTIONS = int(os.environ.get('DFSCSI_TRANSACTIONS', '60'))
PATIENCE = 60 + (LINES + TRANSACTIONS) // 10
MOUNT = '/mnt/dfs'

# SMB's locks are mandatory for other machines: docs/posix.md.
NOT_OF_TWO = {'who has the lock writes, who has not may as well'}


@pytest.fixture(name='local')
def local_folders(lab):
    """The same folder of the machine's own disk, twice."""
    folder = f'/var/tmp/dfs-csi-sharing-{lab.name}'
    lab.run_in('client', ['mkdir', folder])
    yield [folder, folder]
    lab.run_in('client', ['rm', '-rf', folder])


@pytest.fixture(name='node')
def one_node(lab, engine):
    """The same folder of one mount, twice."""
    engine.mount('//t1/bench', MOUNT, options='rw')
    yield [MOUNT, MOUNT]
    engine.check_idle()
    empty(lab)


@pytest.fixture(name='nodes')
def two_nodes(lab, engine):
    """The same folder on two nodes: two agents, two mounters, two clients to the server."""
    engine.mount('//t1/bench', MOUNT, options='rw')
    with engine.second_node('//t1/bench') as second:
        yield [MOUNT, second]
    engine.check_idle()
    empty(lab)


def empty(lab):
    folder = lab.data('t1', 'bench')
    for name in os.listdir(folder):
        if name != 'copy':
            os.unlink(f'{folder}/{name}')


def run(lab, program, *arguments):
    return lab.run_in('client', ['/usr/bin/python3', '-B', os.path.join(E2E, 'tools', program), *arguments], check=False,
                      timeout=PATIENCE, stderr=subprocess.STDOUT, stdout=subprocess.PIPE, capture_output=False)


def append(lab, folders, *arguments):
    return run(lab, 'append_lines.py', '--lines', str(LINES), *arguments, *folders)


def transact(lab, folders, *arguments):
    return run(lab, 'sqlite_transactions.py', '--transactions', str(TRANSACTIONS), *arguments, *folders)


def wrong_locks(lab, folders, *arguments):
    """{case: what was wrong, or None}"""
    text = run(lab, 'range_locks.py', *arguments, *folders).stdout
    return dict(ast.literal_eval(line) for line in text.splitlines())


# --- The programs themselves

def test_on_a_local_disk_all_is_right(lab, local):
    assert append(lab, local).returncode == 0
    assert transact(lab, local[:1]).returncode == 0
    assert transact(lab, local).returncode == 0
    assert not any(wrong_locks(lab, local).values())


def test_what_is_wrong_is_found(lab, local):
    for lie in ('lost', 'torn', 'twice'):
        lab.run_in('client', ['rm', '-f', f'{local[0]}/appended'])
        assert append(lab, local, '--lie', lie).returncode == 1, lie
    assert transact(lab, local, '--lie').returncode == 1
    assert all(wrong_locks(lab, local, '--lie').values())


# --- On one node

# A handle that is opened to append, or set to later.
LATER = pytest.mark.parametrize('later', [[], ['--later']], ids=['opened', 'set-later'])


@LATER
def test_appenders_of_one_node(lab, node, later):
    done = append(lab, node, *later)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize('journal', ['delete', 'truncate'])
def test_sqlite_by_one_program(lab, node, journal):
    done = transact(lab, node[:1], '--journal', journal)
    assert done.returncode == 0, done.stdout


def test_sqlite_by_two_programs_of_one_node(lab, node):
    done = transact(lab, node)
    assert done.returncode == 0, done.stdout


def test_locks_of_one_node(lab, node):
    assert {name: wrong for name, wrong in wrong_locks(lab, node).items() if wrong} == {}


# --- On two

def test_appenders_of_two_nodes(lab, nodes):
    done = append(lab, nodes)
    assert done.returncode == 0, done.stdout


def test_appenders_of_two_nodes_that_are_set_later_overwrite_nothing(lab, nodes):
    """The kernel sends a line that crosses a page as two: the other's may come between them."""
    done = append(lab, nodes, '--later')
    assert done.returncode in (0, 1), done.stdout
    written = sum(len(append_lines.line_of(writer, number)) for writer in range(2) for number in range(LINES))
    assert os.path.getsize(lab.data('t1', 'bench/appended')) == written


@pytest.mark.parametrize('fault', ['reset', 'restart', 'agent'])
def test_appenders_of_two_nodes_while_something_dies(lab, engine, nodes, fault):
    """Until it is over: the server's connections, the server, one node's agent."""
    lines = max(LINES, 3000 if fault == 'agent' else 1000)
    program = ['/usr/bin/python3', '-B', os.path.join(E2E, 'tools', 'append_lines.py'), '--lines', str(lines), *nodes]
    faults = 0
    for _ in range(20):  # On a fast machine one run is over before enough has happened.
        with lab.popen_in('client', program, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as appending:
            while appending.poll() is None and faults < 100:
                time.sleep(random.uniform(0.1, 0.5))
                faults += 1
                if fault == 'agent':
                    engine.kill_active_agent()
                else:
                    lab.fail(fault, 't1')
                    lab.heal('t1')
            text = appending.communicate(timeout=PATIENCE)[0]
            assert appending.returncode == 0, text
        if faults > 2:
            break
        lab.run_in('client', ['rm', f'{nodes[0]}/appended'])
    assert faults > 2


def test_locks_of_two_nodes(lab, nodes):
    wrong = {name: what for name, what in wrong_locks(lab, nodes).items() if what}
    assert wrong.keys() == NOT_OF_TWO, wrong


def test_sqlite_by_two_nodes(lab, nodes):
    done = transact(lab, nodes)
    assert done.returncode == 0, done.stdout
