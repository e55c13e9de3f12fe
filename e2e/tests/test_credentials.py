"""Targets that refuse the user, hosts that may not be given the credential, targets that demand more: F."""

import errno
import os
import subprocess

import pytest

from lab import CRYPTO, Application, Trial
from lab.engine import BIN
from lab.lab import PASSWORDS

LAB = {'big_mib': 16}
ROOT = '//root1/dfs'
POINT = '/mnt/dfs'
LOG_ON = 2  # SESSION_SETUPs of one NTLM log-on.


@pytest.fixture(name='app')
def application(lab, engine):
    """An application; afterwards nobody holds anything in the agent."""
    with Application(lab) as made:
        yield made
    engine.check_idle()


@pytest.fixture(name='passwords', autouse=True)
def put_passwords_back(lab):
    yield
    for host in ('t1', 't2', 't3'):
        lab.set_password(host, 'dfsuser', 'dfspass')


@pytest.fixture(name='asking')
def dfsctl_at_a_terminal(lab, engine):
    """Starts dfsctl mount at a terminal of its own and waits until it asks; then types, and says how it ended."""
    def run(typed):
        mount = f'{BIN}/dfsctl mount //t1/share {POINT} -o username=dfsuser --state-dir {engine.state_dir}'
        command = f'mkdir -p {POINT}; trap : INT; stty -a; {mount}; code=$?; stty -a; exit $code'
        process = lab.popen_in('client', ['script', '-qec', command, '/dev/null'], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        shown = b''
        while b'Password of dfsuser: ' not in shown:
            piece = os.read(process.stdout.fileno(), 4096)
            assert piece, shown
            shown += piece
        process.stdin.write(typed)
        process.stdin.flush()
        rest, _ = process.communicate(timeout=60)
        return process.returncode, (shown + rest).decode()
    return run


def test_the_password_that_is_typed_is_not_shown(lab, engine, asking):
    code, shown = asking(PASSWORDS['dfsuser'].encode() + b'\n')
    assert code == 0 and PASSWORDS['dfsuser'] not in shown, shown
    assert lab.run_in('client', ['cat', f'{POINT}/who']).stdout == 't1\n'
    engine.dfsctl('unmount', POINT)


def test_interrupt_while_the_password_is_asked_for(lab, asking):
    code, shown = asking(b'\x03')
    assert code == 130 and 'dfsctl:' not in shown, shown
    # The terminal echoes again.
    assert [' echo ' in settings for settings in shown.split('speed ')[1:]] == [True, True], shown
    assert not lab.client_mounts()


def who(app, name):
    return app.do(f"read('{POINT}/{name}/who')").decode().strip()


def test_two_users_at_one_server_are_one_series_of_metrics(engine, lab):
    """Each has a connection; a scraper takes two lines of the same labels for an error."""
    engine.mount('//t1/share', POINT)
    engine.mount('//t1/share', '/mnt/other', user='dfsuser2')
    for point in (POINT, '/mnt/other'):
        assert lab.run_in('client', ['cat', f'{point}/who']).stdout == 't1\n'
    assert len([c for c in engine.listed('targets', 'connections') if c['host'] == 't1']) == 2
    series = [line.rpartition(' ')[0] for line in engine.dfsctl('metrics').stdout.splitlines() if line[0] != '#']
    assert len(series) == len(set(series))
    engine.unmount('/mnt/other')
    engine.unmount(POINT)


def test_a_target_that_is_missing_is_counted_as_failed(engine, app):
    engine.mount(ROOT)
    for name in ('dangling', 'noshare'):
        assert app.errno_of(f"read('{POINT}/{name}/who')") == errno.ENOENT
    for target in ('//nosuchhost.lab.test', '//t1.lab.test/nosuchshare'):
        assert engine.counter('target_failures_total', target=target, **{'class': 'missing'}) >= 1
        assert [int(t['failures']) >= 1 for t in engine.listed('targets') if t['path'] == target] == [True]


@pytest.mark.parametrize('how', ['log_on', 'share'])
def test_f01_first_target_denies(lab, engine, app, how):
    if how == 'log_on':
        lab.set_password('t1', 'dfsuser', 'another-password')
    else:
        lab.configure('t1', {'invalid users': 'dfsuser'})
    engine.mount(f'{ROOT}/two')
    assert app.do(f"read('{POINT}/who')") == b't2\n'
    target = '//t1.lab.test' if how == 'log_on' else '//t1.lab.test/share'
    assert engine.state_of(target) == 'denied'
    assert engine.counter('target_failures_total', **{'class': 'denied'}) == 1
    assert engine.counter('target_failures_total', **{'class': 'transport'}) == 0


def test_f02_all_targets_deny(lab, engine, app):
    """EACCES, not EHOSTDOWN; and one log-on for each target however often it is tried."""
    for host in ('t1', 't2', 't3'):
        lab.set_password(host, 'dfsuser', 'another-password')
    engine.mount(ROOT)
    with lab.capture('t1') as first, lab.capture('t3') as last:
        for _ in range(20):
            assert app.errno_of(f"read('{POINT}/three/who')") == errno.EACCES
            assert app.errno_of(f"os.listdir('{POINT}/three')") == errno.EACCES
    assert first.commands()['SESSION_SETUP'] == last.commands()['SESSION_SETUP'] == LOG_ON
    assert app.do(f"read('{POINT}/readme.txt')") == b'a file in root1 itself\n'


def test_f02_a_new_agent_does_not_try_again(lab, engine, app):
    """The log-on guard: a refused password is not sent again by whoever takes over."""
    for host in ('t1', 't2', 't3'):
        lab.set_password(host, 'dfsuser', 'another-password')
    engine.mount(ROOT)
    with lab.capture('t1') as seen:
        assert app.errno_of(f"read('{POINT}/three/who')") == errno.EACCES
        pid = engine.kill_active_agent()
        lab.wait_until(lambda: engine.active_agent() not in (None, pid), 10, 'the standby is active')
        for _ in range(5):
            assert app.errno_of(f"read('{POINT}/three/who')") == errno.EACCES
    assert seen.commands()['SESSION_SETUP'] == LOG_ON


def test_f02_a_mended_account_is_tried_after_a_flush(lab, engine, app):
    """Until then `targets` says how long it is not: as long as the guard does. One line of the log says why."""
    for host in ('t1', 't2', 't3'):
        lab.set_password(host, 'dfsuser', 'another-password')
    engine.mount(ROOT)
    lines_before = engine.log_text().count('log-on to t1.lab.test: STATUS_LOGON_FAILURE, user dfsuser; not tried again for 5 min')
    for _ in range(3):
        assert app.errno_of(f"read('{POINT}/two/who')") == errno.EACCES
    retry_in = [t['retry_in_seconds'] for t in engine.listed('targets') if t['path'] == '//t1.lab.test']
    assert len(retry_in) == 1 and 200 < retry_in[0] <= 300
    # Again at once: one log-on more, and no more than that.
    with lab.capture('t1') as seen:
        engine.dfsctl('cache', 'flush')
        for _ in range(3):
            assert app.errno_of(f"read('{POINT}/two/who')") == errno.EACCES
    assert seen.commands()['SESSION_SETUP'] == LOG_ON
    log = engine.log_text()
    assert log.count('log-on to t1.lab.test: STATUS_LOGON_FAILURE, user dfsuser; not tried again for 5 min') == lines_before + 2
    assert PASSWORDS['dfsuser'] not in log
    for host in ('t1', 't2', 't3'):
        lab.set_password(host, 'dfsuser', PASSWORDS['dfsuser'])
    assert app.errno_of(f"read('{POINT}/two/who')") == errno.EACCES
    engine.dfsctl('cache', 'flush')
    assert who(app, 'two') == 't1'


def test_f02_a_mount_that_was_refused_says_how_to_try_again(lab, engine):
    engine.mount('//t2/share', '/mnt/other')
    lab.set_password('t1', 'dfsuser', 'another-password')
    run = engine.mount('//t1/share', check=False)
    assert run.returncode == 3 and 'STATUS_LOGON_FAILURE' in run.stderr, run.stderr
    lab.set_password('t1', 'dfsuser', PASSWORDS['dfsuser'])
    run = engine.mount('//t1/share', check=False)
    assert run.returncode == 3 and 'dfsctl cache flush' in run.stderr, run.stderr
    engine.dfsctl('cache', 'flush')
    engine.mount('//t1/share')
    engine.unmount(POINT)
    engine.unmount('/mnt/other')


def test_f03_a_file_that_denies_is_no_reason_to_move(lab, engine, app):
    engine.mount(ROOT)
    os.chmod(lab.data('t1', 'share/hello.txt'), 0)
    try:
        with lab.capture('t2') as seen:
            assert app.errno_of(f"read('{POINT}/two/hello.txt')") == errno.EACCES
            assert who(app, 'two') == 't1'
    finally:
        os.chmod(lab.data('t1', 'share/hello.txt'), 0o666)
    assert seen.connections() == 0
    assert engine.counter('failovers_total') == 0


def test_f05_a_host_outside_the_allowed_targets(lab, engine, app):
    """It is passed over, and where it is the only one EACCES; no connection is made to it."""
    engine.mount(ROOT, options='allowed_targets=root1:t2.lab.test')
    with lab.capture('t1') as seen:
        assert who(app, 'two') == 't2'
        assert app.errno_of(f"read('{POINT}/single/who')") == errno.EACCES
    assert seen.attempts(lab.address('client')) == []


def test_a_source_without_a_dns_suffix_is_warned_of_once(lab, engine, app):
    """Then a referral may lead the credential to any host; not so where somebody has said which."""
    del lab, app

    def warnings():
        return engine.log_text().count('a referral may lead its credential to any host: root1 has no DNS suffix')
    before = warnings()
    engine.mount(ROOT, options='allowed_targets=root1:t1:t2:t3:root2')
    assert warnings() == before
    engine.unmount(POINT)
    engine.mount(ROOT)
    assert warnings() == before + 1


@pytest.mark.parametrize('variant,clear', [('3.1.1-aes-256-gcm', False), ('3.0-cmac', True)])
def test_f09_h06_next_target_demands_something_else(lab, engine, variant, clear):
    """Signing, encryption and dialect are those of each connection; nothing in the clear before."""
    lab.configure('t2', CRYPTO[variant])
    engine.mount(ROOT)
    with Trial(lab, engine, f'{POINT}/two', watch='t2') as trial:
        trial.fail('kill', 't1')
        trial.wait_for('t2').check(0.5, serves='t2', failovers=1)
    after = [request for request in trial.seen.requests()
             if not set(request.commands) & {'NEGOTIATE', 'SESSION_SETUP'}]
    assert after and all(request.signed or request.encrypted for request in after)
    if not clear:
        assert not set(trial.seen.commands()) & {'CREATE', 'READ', 'TREE_CONNECT'}
    assert trial.seen.negotiated()[-1].dialect == variant.split('-')[0]
    engine.check_idle()


def test_f10_a_target_below_the_least_dialect(lab, engine):
    lab.configure('t2', CRYPTO['2.1-hmac-sha256'])
    engine.mount(ROOT, options='vers=3.1.1')
    with Trial(lab, engine, f'{POINT}/three') as trial:
        trial.fail('kill', 't1')
        trial.wait_for('t3').check(0.5, serves='t3', failovers=1)
    engine.check_idle()


def test_f11_a_guest_session_is_refused(lab, engine, app):
    lab.configure('t2', {'map to guest': 'Bad Password', 'guest account': 'dfsuser2'})
    lab.set_password('t2', 'dfsuser', 'another-password')
    engine.mount(ROOT)
    lab.fail('kill', 't1')
    with lab.capture('t2') as seen:
        assert who(app, 'three') == 't3'
    assert seen.commands()['SESSION_SETUP'] >= LOG_ON and seen.commands()['CREATE'] == 0


def test_f15_first_tree_connect_is_signed(lab, engine, app):
    """Although neither side asks for signing: [MS-SMB2] 3.2.4.1.1, an unsigned one is refused."""
    lab.configure('t1', CRYPTO['plain'])
    with lab.capture('t1') as seen:
        engine.mount('//t1/share', options='signing=if_required')
        assert app.do(f"read('{POINT}/who')") == b't1\n'
    first = next(request for request in seen.requests() if 'TREE_CONNECT' in request.commands)
    assert first.signed
    assert not any(r.signed for r in seen.requests() if 'READ' in r.commands)
