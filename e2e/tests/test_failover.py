"""Servers die under readers of a live mount: catalogue C. Bounds: those of a quiet machine (lab/trial.py)."""

import errno
import os
import signal
import time
from contextlib import ExitStack

import pytest

from lab import Application, Trial

LAB = {'big_mib': 16}
ROOT = '//root1/dfs'
POINT = '/mnt/dfs'
TARGETS = ('t1', 't2', 't3')
SOON, SILENT = 0.5, 3.0  # Seconds: a dead target says so; a silent one says nothing.


@pytest.fixture(name='mounted')
def mount_of_the_namespace(lab, engine):
    """//root1/dfs on /mnt/dfs; afterwards, once servers are back, nobody holds anything in the agent."""
    engine.mount(ROOT)
    yield engine
    lab.heal_all()
    engine.check_idle()


def share_of(target):
    return f'//{target}.lab.test/share'


@pytest.mark.parametrize('mode', ['kill', 'reset'])
def test_c01_reset(lab, mounted, mode):
    with Trial(lab, mounted, f'{POINT}/three', watch='t1') as trial:
        trial.fail(mode, 't1')
        trial.wait_for('t2').check(SOON, serves='t2', failovers=1)
        assert mounted.hint(f'{ROOT}/three') == share_of('t2')
        assert mounted.state_of('//t1.lab.test') == 'down'
    trial.connects_within_rate()


def test_c02_drop_while_idle(lab, mounted):
    with Application(lab) as app:
        app.keep('big', f"os.open('{POINT}/three/big.bin', os.O_RDONLY)")
        assert app.do(f"read('{POINT}/three/who')") == b't1\n'
        with Trial(lab, mounted, f'{POINT}/single', modes=()) as trial:
            trial.fail('drop', 't1')
            who = app.do(f"read('{POINT}/three/who')")
            trial.check_took(app.took, SILENT)
            assert who == b't2\n'
            with open(lab.data('t1', 'share/big.bin'), 'rb') as file:
                assert app.do("os.pread(kept['big'], 4096, 8 << 20)") == os.pread(file.fileno(), 4096, 8 << 20)
            trial.check_took(app.took, SILENT)
        assert trial.failovers_before == 0 and trial.failovers() == 1


@pytest.mark.parametrize('mode', ['drop', 'half', 'stop'], ids=['c03_drop', 'c04_half_open', 'c05_hang'])
def test_silent_target(lab, mounted, mode):
    """C03, C04, C05: mid-stream; one application reads a file in order, others check block by block."""
    with Application(lab) as app, Trial(lab, mounted, f'{POINT}/three', watch='t1',
                                        modes=('open', 'fresh', 'held', 'cached')) as trial:
        app.start(f"digests('{POINT}/three/big.bin', 4)")
        trial.fail(mode, 't1')
        trial.wait_for('t2').check(SILENT, serves='t2', failovers=1)
        assert app.result(60) == [lab.big_sha256]
        assert mounted.hint(f'{ROOT}/three') == share_of('t2')
    trial.connects_within_rate()


def listener_alone(lab, host):
    """SIGSTOP to the smbd that accepts connections, SIGKILL to those that serve them."""
    with open(lab.path('switch', f'{lab.folder}/fs/{host}/pid/smbd.pid')) as file:
        parent_inside = file.read().strip()
    lab.run_in(host, ['/bin/kill', '-STOP', parent_inside])
    for pid in lab.server_pids(host):
        with open(f'/proc/{pid}/status') as file:
            inside = next(line.split()[-1] for line in file if line.startswith('NSpid:'))
        if inside != parent_inside:
            os.kill(pid, signal.SIGKILL)


def test_c06_negotiate_is_never_answered(lab, mounted):
    with Trial(lab, mounted, f'{POINT}/three', watch='t1') as trial:
        trial.begin()
        listener_alone(lab, 't1')
        trial.wait_for('t2').check(SILENT, serves='t2', failovers=1)
        assert lab.answers('t1')  # TCP does, SMB does not.
    trial.connects_within_rate()


def test_c07_log_on_fails_on_reconnect(lab, mounted):
    try:
        with Trial(lab, mounted, f'{POINT}/three', watch='t1') as trial:
            assert trial.served_by() == 't1'
            lab.set_password('t1', 'dfsuser', 'another-password')
            trial.fail('restart', 't1')
            trial.wait_for('t2').check(SOON, serves='t2', failovers=1)
    finally:
        lab.set_password('t1', 'dfsuser', 'dfspass')
    trial.connects_within_rate()


def test_c07_denied_is_not_down(lab, mounted):
    """The same while nobody reads, so that t1 is back, and refuses, when it is asked again."""
    with Application(lab) as app:
        assert app.do(f"read('{POINT}/three/who')") == b't1\n'
        lab.set_password('t1', 'dfsuser', 'another-password')
        try:
            lab.fail('restart', 't1')
            with lab.capture('t1') as seen:
                for _ in range(5):
                    assert app.do(f"read('{POINT}/three/who')") == b't2\n'
        finally:
            lab.set_password('t1', 'dfsuser', 'dfspass')
        assert mounted.state_of('//t1.lab.test') == 'denied'
    assert seen.commands()['SESSION_SETUP'] == 2  # One log-on: NTLM takes two.


def test_c08_share_is_gone_on_reconnect(lab, mounted):
    with Application(lab) as app:
        app.keep('file', f"os.open('{POINT}/three/hello.txt', os.O_RDONLY)")
        assert app.do(f"read('{POINT}/three/who')") == b't1\n'
        lab.fail('kill', 't1')
        lab.wait_until(lambda: not lab.server_pids('t1'), 10, 'nothing is left to reload')
        lab.configure('t1', unshare=['share'])
        lab.start_server('t1')
        with lab.capture('t1') as seen:
            assert app.do(f"read('{POINT}/three/who')") == b't2\n'
            assert app.do("os.pread(kept['file'], 100, 0)") == b'the same on every target\n'
    assert seen.commands()['TREE_CONNECT'] >= 1 and seen.commands()['CREATE'] == 0
    assert mounted.hint(f'{ROOT}/three') == share_of('t2')


def test_c09_share_closed_and_back(lab, mounted):
    with Trial(lab, mounted, f'{POINT}/three', watch='t1') as trial:
        trial.fail('close-share', 't1')
        trial.run_on().check(SOON, serves='t1', failovers=0)
        assert mounted.counter('handle_rebinds_total') >= 1
    assert trial.seen.commands()['TREE_CONNECT'] >= 1


def test_c10_share_gone_for_good(lab, mounted):
    with Trial(lab, mounted, f'{POINT}/three', watch='t1') as trial:
        trial.fail('unshare', 't1')
        trial.wait_for('t2').check(SOON, serves='t2', failovers=1)
    trial.connects_within_rate()


@pytest.mark.parametrize('dead', [('t1',), ('t2',), ('t3',), ('t1', 't2'), ('t1', 't3'), ('t2', 't3')],
                         ids='-'.join)
def test_c11_some_targets_down(lab, mounted, dead):
    expected = next(target for target in TARGETS if target not in dead)
    with Trial(lab, mounted, f'{POINT}/three') as trial:
        trial.begin()
        for target in dead:
            lab.fail('kill', target)
        trial.wait_for(expected).check(SOON, serves=expected)
        # With t1 and t2 killed one after the other, readers may have met t2 in between.
        least = int('t1' in dead)
        most = 2 if dead == ('t1', 't2') else least
        assert least <= trial.failovers() - trial.failovers_before <= most


def kill_all(lab):
    """The one that serves last: in between nobody can have moved to the others."""
    for target in reversed(TARGETS):
        lab.fail('kill', target)


def test_c11_all_targets_down_hard(lab, mounted):
    """Waits, and goes on with whoever is back."""
    with Trial(lab, mounted, f'{POINT}/three', watch='t3') as trial:
        kill_all(lab)
        trial.begin()
        lab.heal('t3')
        back = time.monotonic() - trial.since
        trial.wait_for('t3').check(5 + back, serves='t3', failovers=1)
    trial.connects_within_rate()


def test_c11_all_targets_down_soft(lab, engine):
    engine.mount(ROOT, options='soft,op_timeout=1s')
    with Application(lab) as app, Trial(lab, engine, POINT, modes=()) as trial:
        app.keep('file', f"os.open('{POINT}/three/hello.txt', os.O_RDONLY)")
        for target in TARGETS:
            lab.fail('kill', target)
        for expression in (f"read('{POINT}/three/who')", "os.pread(kept['file'], 10, 0)"):
            trial.begin()
            assert app.errno_of(expression) == errno.EHOSTDOWN, expression
            assert app.took >= 0.9
            trial.check_took(app.took, 1.1)


def outage(lab, mounted, seconds):
    """C12: all targets are down that long; readers wait, the agent rests, then they go on."""
    with Trial(lab, mounted, f'{POINT}/three', watch='t3') as trial:
        kill_all(lab)
        agent = mounted.active_agent()
        spent, began = processor_seconds(agent), time.monotonic()
        lab.wait_until(lambda: time.monotonic() >= began + seconds, seconds + 5, 'the outage is over')
        spent = processor_seconds(agent) - spent
        assert not trial.errors()
        trial.begin()
        lab.heal('t3')
        trial.wait_for('t3').check(5 + time.monotonic() - trial.since, serves='t3', failovers=1)
    assert spent <= 0.1 * seconds, f'{spent:.2f} s of processor time in {seconds} s'
    assert trial.connects_within_rate() >= 2


def processor_seconds(pid):
    with open(f'/proc/{pid}/stat') as file:
        fields = file.read().rsplit(')', 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


def test_c12_outage(lab, mounted):
    outage(lab, mounted, 6)  # 60 s: long/test_failover_long.py.


@pytest.mark.parametrize('name', ['KILL', 'INT'])
def test_c13_signal_while_all_targets_are_down(lab, mounted, name):
    """An open, a read, a listing and a stat that wait: the signal ends the application."""
    folder = f'{POINT}/three'
    operations = (f"read('{folder}/who')", "os.pread(kept['file'], 10, 0)", f"os.listdir('{folder}')",
                  f"os.stat('{folder}/whoami.txt')")  # One that nobody has seen.
    with ExitStack() as stack:
        trial = stack.enter_context(Trial(lab, mounted, POINT, modes=()))
        apps = [stack.enter_context(Application(lab)) for _ in operations]
        for app in apps:
            app.keep('file', f"os.open('{folder}/hello.txt', os.O_RDONLY)")
        for target in TARGETS:
            lab.fail('kill', target)
        for app, operation in zip(apps, operations):
            app.start(operation)
        assert not any(app.is_done(0.2) for app in apps)
        trial.begin()
        for app, operation in zip(apps, operations):
            os.kill(app.pid, getattr(signal, 'SIG' + name))
            app.wait_for_end(20)
            trial.check_took(time.monotonic() - trial.since, 1.0)


@pytest.mark.parametrize('mode', ['kill', 'stop'])
def test_h11_unmount_while_all_targets_are_down(lab, engine, mode):
    """With an application that waits in it: nothing of it is stuck afterwards. C13: so by force, too."""
    engine.mount(ROOT)
    with Application(lab) as app, Trial(lab, engine, POINT, modes=()) as trial:
        assert app.do(f"read('{POINT}/three/who')") == b't1\n'
        for host in (*TARGETS, 'root1'):
            lab.fail(mode, host)
        app.start(f"read('{POINT}/three/hello.txt')")
        assert not app.is_done(0.3)
        begin = time.monotonic()
        engine.unmount(POINT, timeout=20)
        trial.check_took(time.monotonic() - begin, 5.0)
        assert not lab.client_mounts()
    lab.wait_until(lambda: app.pid not in lab.client_processes(), 5, 'the application is gone')
    lab.wait_until(lambda: not lab.client_processes(), 15, 'the programs end')
