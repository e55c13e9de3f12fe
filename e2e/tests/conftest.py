"""Fixtures of all e2e suites: a lab per module, and proof that every test cleans up after itself."""

import os
import sys

import pytest

E2E = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, E2E)
sys.dont_write_bytecode = True

from lab import Engine, Lab  # noqa: E402  pylint: disable=wrong-import-position
from lab.namespaces import MARK  # noqa: E402  pylint: disable=wrong-import-position

BUILD_BIN = os.environ.get('DFSCSI_BIN_DIR', os.path.join(os.path.dirname(E2E), 'build', 'bin'))
_labs_made = []


@pytest.fixture(scope='module')
def lab(request):
    """A fresh lab for the module. LAB = dict(...) in the module are Lab's arguments."""
    made = Lab(**getattr(request.module, 'LAB', {}))
    _labs_made.append(made.name)
    with made:
        yield made


@pytest.fixture(autouse=True)
def clean_after_test(request):
    """Every test of a lab leaves it healed, and its client without processes and mounts."""
    if 'lab' not in request.fixturenames:
        yield
        return
    lab = request.getfixturevalue('lab')
    options = dict(lab.options)
    yield
    for host in lab.servers:
        if lab.options.get(host) != options.get(host):
            lab.configure(host, options.get(host, {}))
    lab.heal_all()
    lab.set_hosts(None)
    mounts, processes = lab.client_mounts(), lab.client_processes()
    if mounts or processes:
        commands = [_command_of(pid) for pid in processes]
        stuck = lab.end_client_processes()
        for point, _ in reversed(mounts):
            lab.run_in('client', ['umount', '-f', '-l', point], check=False)
        pytest.fail(f'left behind: mounts {mounts}, processes {commands}, unkillable {stuck}')


def _command_of(pid):
    try:
        with open(f'/proc/{pid}/cmdline') as file:
            return file.read().replace('\0', ' ').strip() or str(pid)
    except OSError:
        return str(pid)


@pytest.fixture(scope='session', autouse=True)
def nothing_left():
    """After the last test: no process, mount or folder of any lab of this run."""
    yield
    left = leftovers(_labs_made)
    assert not left, f'left on the machine: {left}'


def leftovers(names):
    """What there still is of the labs of these names."""
    found = []
    with open('/proc/self/mounts') as file:
        mounts = file.read()
    for name in names:
        if os.path.exists(f'/run/dfs-csi-lab-{name}'):
            found.append(f'/run/dfs-csi-lab-{name}')
        if f'dfs-csi-lab-{name}' in mounts:
            found.append(f'a mount of {name}')
    marks = {f'{MARK}={name}'.encode() for name in names}
    for entry in os.listdir('/proc'):
        if entry.isdigit() and int(entry) != os.getpid():
            try:
                with open(f'/proc/{entry}/environ', 'rb') as file:
                    marked = marks & set(file.read().split(b'\0'))
                with open(f'/proc/{entry}/cmdline', 'rb') as file:
                    command = file.read()
            except OSError:
                continue
            if (marked or any(f'dfs-csi-lab-{name}'.encode() in command for name in names)
                    or any(os.path.isdir(f'/proc/{entry}/root/run/dfs-csi-lab-{name}')
                           for name in names if not os.path.exists(f'/run/dfs-csi-lab-{name}'))):
                found.append(f'{entry} {command[:100]!r}')
    return found


@pytest.fixture
def engine(lab):
    """The programs under test on the lab's client: engine.mount(source). Ended after the test."""
    made = Engine(lab, BUILD_BIN)
    yield made
    made.stop()


@pytest.fixture(name='a')
def program_of_the_first(request, lab, nodes):
    """The test file's Program on the first of its two nodes."""
    with request.module.Program(lab, nodes[0]) as made:
        yield made


@pytest.fixture(name='b')
def program_of_the_second(request, lab, nodes, a):  # pylint: disable=unused-argument
    with request.module.Program(lab, nodes[1]) as made:
        yield made


@pytest.fixture(scope='session')
def program():
    """program('dfsctl'): the path of a built program; the test fails where it is missing."""
    def find(name):
        path = os.path.join(BUILD_BIN, name)
        if not os.access(path, os.X_OK):
            pytest.fail(f'{path} is missing: make build')
        return path
    return find


