"""Locks on two machines (two agents, two mounters) while something dies: who had one has it afterwards, and who
has not does not get it."""

import errno
import os
import signal
import time

import pytest

from lab import Application, Control

LAB = {'big_mib': 0}
SOURCE = '//root1/dfs/bench'  # t1, t2
FIRST = '/mnt/dfs'
KILL_BOUND = 1.0
CLOSE_BOUND = 1.0
# write_grace: shorter than by default, so that a test need not wait for long.
OPTIONS = 'rw,write_grace=5s'
SURELY = 0.5
# In another page: the kernel reads whole ones, and SMB's locks are mandatory.
ELSEWHERE = 8192


class Program(Application):
    """Has the file open, and locks parts of it."""

    def __init__(self, lab, folder):
        super().__init__(lab)
        self._folder = folder

    def __enter__(self):
        super().__enter__()
        self.do("exec('import fcntl', globals())")
        self.open()
        return self

    def open(self):
        self.do(f"kept.__setitem__('f', os.open('{self._folder}/locked', os.O_RDWR))")

    def lock(self, kind, first=0, size=10, timeout=60):
        self.do(self.locking(kind, first, size), timeout)

    @staticmethod
    def locking(kind, first=0, size=10, wait=False):
        flags = {'w': 'fcntl.LOCK_EX', 'r': 'fcntl.LOCK_SH', 'u': 'fcntl.LOCK_UN'}[kind]
        if not wait and kind != 'u':
            flags += ' | fcntl.LOCK_NB'
        return f"fcntl.lockf(kept['f'], {flags}, {size}, {first})"

    def may(self, kind, first=0, size=10):
        """Whether it gets the lock; it is given back."""
        try:
            self.lock(kind, first, size)
        except OSError as error:
            assert error.errno in (errno.EAGAIN, errno.EACCES), error
            return False
        self.lock('u', first, size)
        return True


@pytest.fixture(name='nodes')
def two_nodes(lab, engine, request):
    options = getattr(request, 'param', OPTIONS)
    for host in ('t1', 't2'):
        with open(lab.data(host, 'bench/locked'), 'wb') as file:
            file.write(b'.' * 16384)
        os.chmod(lab.data(host, 'bench/locked'), 0o666)
        os.utime(lab.data(host, 'bench/locked'), (1_700_000_000, 1_700_000_000))
    engine.mount(SOURCE, FIRST, options=options)
    with engine.second_node(SOURCE, options=options) as second:
        yield [FIRST, second]
    engine.check_idle()
    for host in ('t1', 't2'):
        os.unlink(lab.data(host, 'bench/locked'))


@pytest.mark.parametrize('nodes', [OPTIONS + ',nobrl'], indirect=True)
def test_without_them_on_the_server_each_machine_has_its_own(nodes, a, b):
    a.lock('w')
    assert b.may('w')
    assert b.do("os.pwrite(kept['f'], b'x', 3)") == 1
    with pytest.raises(BlockingIOError):  # flock: by another open file of the same machine.
        a.do(f"(fcntl.flock(kept['f'], 2), fcntl.flock(os.open('{nodes[0]}/locked', os.O_RDWR), 6))")


def test_a_killed_agent_holds_its_locks_afterwards(engine, a, b):
    a.lock('w')
    a.lock('r', ELSEWHERE)
    for _ in range(3):
        engine.kill_active_agent()
        assert a.do("os.pwrite(kept['f'], b'x', 3)") == 1  # Its successor serves.
        assert not b.may('r')
        assert not b.may('w', ELSEWHERE)
        assert b.may('r', ELSEWHERE)
    assert engine.counter('lost_locks_total') == 0
    a.lock('u')
    assert b.may('w')


def test_who_waits_while_the_agent_is_killed(engine, a, b):
    b.lock('w')
    a.start(a.locking('w', wait=True))
    assert not a.is_done(SURELY)
    engine.kill_active_agent()
    assert not a.is_done(3)
    b.lock('u')
    a.result(60)
    assert not b.may('r')


def test_who_is_waited_for_dies_with_its_locks(a, b):
    a.lock('w')
    b.start(b.locking('w', wait=True))
    assert not b.is_done(SURELY)
    os.kill(a.pid, signal.SIGKILL)
    b.result(30)


@pytest.mark.parametrize('fault', ['reset', 'restart'])
def test_the_server_is_away_for_a_moment(lab, engine, a, b, fault):
    a.lock('w')
    a.do("os.pwrite(kept['f'], b'x', 3)")
    lab.fail(fault, 't1')
    a.start("os.pwrite(kept['f'], b'z', 5)")
    if fault == 'restart':
        assert a.result(60) == 1
    lab.heal('t1')
    if fault == 'reset':
        assert a.result(60) == 1
    lab.wait_until(lambda: engine.counter('retaken_locks_total') > 0, 60, 'the lock is taken again')
    assert not b.may('r')
    assert a.do("os.pwrite(kept['f'], b'y', 4)") == 1
    assert engine.counter('lost_locks_total') == 0
    assert lab.opens('t2') == []


def test_d10_another_target_takes_over(lab, engine, a, b):
    a.lock('w')
    b.lock('w', ELSEWHERE)
    lab.fail('kill', 't1')
    assert a.do("os.pread(kept['f'], 10, 0)", timeout=90) == b'.' * 10
    assert b.do(f"os.pread(kept['f'], 10, {ELSEWHERE})", timeout=90) == b'.' * 10
    assert not b.may('r')
    assert not a.may('w', ELSEWHERE)
    assert engine.counter('lost_locks_total') == 0


def test_d10_what_another_machine_was_given_meanwhile_is_lost(engine, a, b):
    """Servers give the locks of who dies to those who wait."""
    a.lock('w')
    b.start(b.locking('w', wait=True))
    assert not b.is_done(SURELY)
    engine.kill_active_agent()
    b.result(30)
    with pytest.raises(OSError) as found:
        a.do("os.pwrite(kept['f'], b'x', 3)", timeout=60)
    assert found.value.errno == errno.EIO
    assert engine.counter('lost_locks_total') == 1
    a.do("os.close(kept.pop('f'))")
    a.open()
    assert a.do(f"os.pread(kept['f'], 1, {ELSEWHERE})") == b'.'
    b.lock('u')
    assert a.may('w')


@pytest.mark.parametrize('what', ['lock', 'wait'])
def test_a_process_that_a_silent_server_keeps_waiting_can_be_killed(lab, a, b, what):
    if what == 'wait':
        b.lock('w')
        a.start(a.locking('w', wait=True))
        assert not a.is_done(SURELY)
    for host in ('t1', 't2'):
        lab.fail('stop', host)
    if what == 'lock':
        a.start(a.locking('w'))
    assert not a.is_done(SURELY)
    with Control() as control:
        start = time.monotonic()
        os.kill(a.pid, signal.SIGKILL)
        a.wait_for_end(30)
        took = time.monotonic() - start
        assert took <= control.allowed(KILL_BOUND, start), took


@pytest.mark.parametrize('how', ['close', 'exit'])
def test_a_process_that_ends_with_a_lock_is_not_kept_by_a_silent_server(lab, a, b, how):  # pylint: disable=unused-argument
    """Who exits takes no signal any more: nothing but an answer could end its wait."""
    a.lock('w', 30)
    for host in ('t1', 't2'):
        lab.fail('stop', host)
    with Control() as control:
        start = time.monotonic()
        if how == 'close':
            a.do("os.close(kept['f'])")
        else:
            a.end()
            a.wait_for_end(30)
        took = time.monotonic() - start
        assert took <= control.allowed(CLOSE_BOUND, start), took
