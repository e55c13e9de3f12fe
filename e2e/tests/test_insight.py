"""What dfsctl and the logs tell of a running engine: open files, slow operations, the log's level and its length."""

import fcntl
import json
import os
import re
import signal

import pytest

from lab import Application, Call

LAB = {'big_mib': 8}
MOUNT = '/mnt/dfs'
SOCKETS = '/run/dfs-csi-local'


@pytest.fixture(name='app')
def application(lab, engine):
    engine.mount('//root1/dfs', options='rw')
    with Application(lab) as made:
        yield made
    engine.check_idle()


def log_of(lab, program='dfs-node-agent'):
    with open(lab.path('client', f'{SOCKETS}/{program}.log'), errors='replace') as file:
        return file.read()


def opens(engine, *arguments):
    return json.loads(engine.dfsctl('opens', *arguments, '--json').stdout)['files']


def test_open_files_are_listed_with_their_server(lab, engine, app):
    assert not opens(engine)
    app.keep('a', f"os.open('{MOUNT}/two/hello.txt', os.O_RDONLY)")
    app.keep('b', f"os.open('{MOUNT}/two/hello.txt', os.O_RDONLY)")
    app.keep('c', f"os.open('{MOUNT}/two/opened', os.O_RDWR | os.O_CREAT)")
    listed = {(file['path'], file['mode']): file for file in opens(engine)}
    assert set(listed) == {('two/hello.txt', 'r'), ('two/opened', 'rw')}
    hello, opened = listed['two/hello.txt', 'r'], listed['two/opened', 'rw']
    assert hello['opens'] == 2 and not hello['written'] and not opened['written']
    assert hello['link'].lower() == '//root1/dfs/two' and re.fullmatch(r'//t1(\.lab\.test)?/share', hello['target'])
    app.do("os.write(kept['c'], b'x')")
    assert [file['written'] for file in opens(engine, MOUNT) if file['mode'] == 'rw'] == [True]
    table = engine.dfsctl('opens').stdout.splitlines()
    assert len(table) == 3 and f'{MOUNT}/two/opened' in table[-1] + table[-2]
    # It moves with its link, and the next agent knows it, too.
    engine.kill_active_agent()
    app.do("os.fstat(kept['c']).st_size")
    assert len(opens(engine)) == 2
    for name in 'abc':
        app.do(f"os.close(kept['{name}'])")
    app.do(f"os.unlink('{MOUNT}/two/opened')")
    lab.wait_until(lambda: not opens(engine), 10, 'nothing is open')


def test_a_file_that_is_bound_to_a_lost_server_is_listed_there(lab, engine, app):
    app.keep('read', f"os.open('{MOUNT}/two/hello.txt', os.O_RDONLY)")
    app.keep('written', f"os.open('{MOUNT}/two/bound', os.O_RDWR | os.O_CREAT)")
    app.do("os.write(kept['written'], b'x') + (os.fsync(kept['written']) or 0)")
    lab.fail('stop', 't1')
    app.do("os.posix_fadvise(kept['read'], 0, 0, os.POSIX_FADV_DONTNEED)")
    app.do("os.pread(kept['read'], 5, 0)")
    hosts = {file['path']: re.match(r'//(\w+)', file['target'])[1] for file in opens(engine)}
    assert hosts == {'two/hello.txt': 't2', 'two/bound': 't1'}
    lab.heal_all()
    app.do("os.close(kept['written'])")
    app.do("os.close(kept['read'])")
    lab.wait_until(lambda: not opens(engine), 10, 'nothing is open')
    os.unlink(lab.data('t1', 'share/bound'))


def locks(engine, *arguments):
    return json.loads(engine.dfsctl('locks', *arguments, '--json').stdout)['locks']


def test_locks_are_listed(lab, engine, app):
    assert not locks(engine)
    for name in 'ab':
        app.keep(name, f"os.open('{MOUNT}/two/locked', os.O_RDWR | os.O_CREAT)")
    app.do("__import__('fcntl').lockf(kept['a'], 2, 10, 5)")
    app.do("__import__('fcntl').flock(kept['b'], 1)")
    listed = {lock['kind']: lock for lock in locks(engine)}
    assert set(listed) == {'fcntl', 'flock'}
    assert (listed['fcntl']['type'], listed['fcntl']['first'], listed['fcntl']['last']) == ('exclusive', '5', '14')
    assert listed['fcntl']['pid'] == app.pid and listed['flock']['type'] == 'shared'
    assert all(lock['path'] == 'two/locked' and re.fullmatch(r'//t1(\.lab\.test)?/share', lock['target']) for lock in listed.values())
    # The next agent knows them, too.
    engine.kill_active_agent()
    app.do("os.fstat(kept['a']).st_size")
    assert len(locks(engine, MOUNT)) == 2
    table = engine.dfsctl('locks').stdout.splitlines()
    assert len(table) == 3 and table[0].split()[:2] == ['KIND', 'TYPE']
    for name in 'ab':
        app.do(f"os.close(kept['{name}'])")
    lab.wait_until(lambda: not locks(engine), 10, 'nothing is locked')
    app.do(f"os.unlink('{MOUNT}/two/locked')")


def test_locks_of_what_is_no_mount(engine, app):
    del app
    run = engine.dfsctl('locks', '/mnt', check=False)
    assert run.returncode == 12 and len(run.stderr.splitlines()) == 1


def test_opens_of_what_is_no_mount(engine, app):
    del app
    run = engine.dfsctl('opens', '/mnt', check=False)
    assert run.returncode == 12 and len(run.stderr.splitlines()) == 1


def test_the_log_level_of_the_agent(engine, app):
    assert engine.dfsctl('log-level').stdout.strip() == 'info'
    assert engine.dfsctl('log-level', 'debug').stdout.strip() == 'debug'
    assert engine.dfsctl('log-level').stdout.strip() == 'debug'
    run = engine.dfsctl('log-level', 'loud', check=False)
    assert run.returncode == 2 and len(run.stderr.splitlines()) == 1
    # It is that agent's: the next begins with its own.
    engine.kill_active_agent()
    app.do(f"os.listdir('{MOUNT}')")
    assert engine.dfsctl('log-level').stdout.strip() == 'info'


@pytest.mark.parametrize('level', ['info', 'debug'])
def test_a_slow_operation_is_logged_without_its_path(lab, engine, app, level):
    app.do(f"os.stat('{MOUNT}/single/hello.txt').st_size")
    engine.dfsctl('log-level', level)
    before = len(log_of(lab))
    said = lambda pattern: re.search(pattern, log_of(lab)[before:])
    lab.fail('stop', 't1')
    call = Call(lab, 'stat', f'{MOUNT}/single/sub/deep/leaf.txt')
    call.begin()
    lab.wait_until(lambda: said(r'W mount \d+: (LOOKUP|GETATTR) waits since .*//root1/dfs/single'), 20, 'that it waits')
    lab.heal('t1')
    call.outcome(30)
    call.end()
    lab.wait_until(lambda: said(r'W mount \d+: (LOOKUP|GETATTR) took '), 20, 'that it is over')
    # The level alone decides whether names are told.
    assert ('that was of /single' in log_of(lab)[before:]) == (level == 'debug')


def test_logs_are_bounded(lab, engine, app):
    path = lab.path('client', f'{SOCKETS}/dfs-node-agent.log')
    with open(path, 'ab') as file:
        file.truncate(17 << 20)
    lab.wait_until(lambda: os.path.getsize(path) < 1 << 20, 20, 'the log begins anew')
    assert os.path.getsize(path + '.1') >= 17 << 20
    # And it is still the agent's.
    engine.kill_active_agent()
    app.do(f"os.listdir('{MOUNT}')")
    lab.wait_until(lambda: os.path.getsize(path) > 0, 20, 'something is said')
    os.unlink(path + '.1')


def test_a_mount_below_a_link_says_who_serves_it(lab, engine):
    engine.mount('//root1/dfs/two/sub', options='ro')
    [mount] = json.loads(engine.dfsctl('mounts', '--json').stdout)['mounts']
    assert not mount['serving'] and 'not used yet' in engine.dfsctl('mounts').stdout
    with Application(lab) as app:
        app.do(f"os.listdir('{MOUNT}')")
    [mount] = json.loads(engine.dfsctl('mounts', '--json').stdout)['mounts']
    assert re.fullmatch(r'//t1(\.lab\.test)?/share', mount['serving'])


@pytest.mark.parametrize('source', ['//ROOT1/dfs', '//root1/DFS', '//Root1/Dfs/'])
def test_names_of_hosts_and_namespaces_have_no_case(engine, source):
    engine.mount('//root1/dfs', options='ro')
    engine.mount(source, options='ro')
    engine.forget('/mnt/dfs')  # It was noted twice.


def test_another_source_is_still_refused(engine):
    engine.mount('//root1/dfs', options='ro')
    assert engine.mount('//root1/dfs/two', options='ro', check=False).returncode == 12


def test_a_target_that_was_never_tried_is_neither_up_nor_down(engine):
    engine.mount('//root1/dfs', options='ro')
    targets = json.loads(engine.dfsctl('targets', '--json').stdout)['targets']
    shown = set(re.findall(r'target_up\{target="([^"]*)"\}', engine.dfsctl('metrics').stdout))
    assert shown == {target['path'] for target in targets if target['state'] != 'unknown'}


def test_mounts_are_one_line_each_whatever_their_options(engine):
    engine.mount('//t1/share', options='ro,rsize=secret\nforged,uid=7')
    said = engine.dfsctl('mounts').stdout
    assert said.splitlines()[1].endswith('  ro,rsize,uid=7') and len(said.splitlines()) == 2
    assert engine.listed('mounts')[0]['options'] == ['ro', 'rsize', 'uid=7']
    engine.unmount()


def test_where_a_path_is_that_nobody_has_used(engine):
    engine.mount('//root1/dfs')
    for path, server in (('single', r't1(\.lab\.test)?/share'), ('single/sub/none', r't1(\.lab\.test)?/share'),
                         ('plain-dir', 'root1/dfs'), ('none', 'root1/dfs')):
        said = engine.dfsctl('referrals', f'//root1/dfs/{path}').stdout
        assert re.search(f'^served by //{server}$', said, re.M), said
        assert ('//root1/dfs/single  link, fresh' in said) == path.startswith('single'), said
        engine.dfsctl('cache', 'flush')
    engine.unmount()


def test_without_a_cache_every_read_goes_to_the_server(lab, engine):
    engine.mount('//t1/share', options='ro,cache=none')
    with Application(lab) as app:
        app.do(f"open('{MOUNT}/hello.txt').read()")
        with lab.capture('t1') as seen:
            app.do(f"open('{MOUNT}/hello.txt').read()")
        assert seen.commands().get('READ')
    engine.check_idle()


def test_mounts_where_nothing_runs_is_an_error(engine):
    run = engine.dfsctl('mounts', '--socket-dir', '/run/nothing-runs', check=False)
    assert run.returncode == 13 and 'no agent runs in /run/nothing-runs' in run.stderr
    assert not run.stdout


def status_of(pid, field):
    with open(f'/proc/{pid}/status') as file:
        return next(line.split()[1] for line in file if line.startswith(field + ':'))


def test_an_interrupted_mount_does_not_undo_what_another_made_there(lab, engine):
    engine.mount('//t2/share', '/mnt/other')
    os.makedirs(lab.path('client', MOUNT), exist_ok=True)
    lab.fail('stop', 't1')
    mounting = lab.popen_in('client', [engine.program('dfsctl'), 'mount', '//t1/share', MOUNT, '--credentials',
                                       engine.credentials()])
    lab.wait_until(lambda: lab.connections('t1'), 10, 'the agent asks the server')
    mounting.send_signal(signal.SIGTERM)
    # As soon as the first is given up, while who asked for it still looks whether it was made.
    lab.wait_until(lambda: engine.mount('//t2/share', MOUNT, check=False).returncode == 0, 20, 'another mounts there')
    assert mounting.wait(20) == -signal.SIGTERM
    assert MOUNT in {point for point, _ in lab.client_mounts()}
    assert lab.run_in('client', ['cat', f'{MOUNT}/who']).stdout == 't2\n'
    engine.unmount(MOUNT)
    engine.unmount('/mnt/other')


def test_an_interrupted_mount_stays_once_it_was_made(lab, engine):
    """Another who asked for the same in between was told that it is there."""
    engine.mount('//t2/share', '/mnt/other')
    os.makedirs(lab.path('client', MOUNT), exist_ok=True)
    for i in range(3):  # The signal and the agent's answer are there at once: either may be first.
        options = f'connect_timeout={20 + i}s'  # So each has a connection of its own.
        before = len(lab.connections('t1'))
        lab.fail('stop', 't1')
        mounting = lab.popen_in('client', [engine.program('dfsctl'), 'mount', '//t1/share', MOUNT, '-o', options,
                                           '--credentials', engine.credentials()])
        lab.wait_until(lambda: len(lab.connections('t1')) > before, 10, 'the agent asks the server')
        mounting.send_signal(signal.SIGSTOP)
        lab.heal('t1')
        lab.wait_until(lambda: engine.mount('//t1/share', MOUNT, options, check=False).returncode == 0, 20,
                       'the other is told that it is there')
        mounting.send_signal(signal.SIGTERM)
        mounting.send_signal(signal.SIGCONT)
        assert mounting.wait(20) == 0
        assert MOUNT in {point for point, _ in lab.client_mounts()}
        engine.unmount(MOUNT)
    engine.unmount('/mnt/other')


@pytest.mark.parametrize('late', [False, True])
def test_a_mount_that_is_interrupted_is_whole_or_not_there(lab, engine, late):
    """Late: when the agent has made it, and its keeper is still looked for."""
    def is_mounted():
        return MOUNT in {point for point, _ in lab.client_mounts()}
    engine.mount('//root1/dfs', '/mnt/other')
    os.makedirs(lab.path('client', MOUNT), exist_ok=True)
    lab.fail('stop', 't1')
    mounting = lab.popen_in('client', [engine.program('dfsctl'), 'mount', '//t1/share', MOUNT, '--credentials',
                                       engine.credentials()])
    lab.wait_until(lambda: lab.connections('t1'), 10, 'the agent asks the server')
    with open(lab.path('client', f'{SOCKETS}/dfsctl.lock')) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # Keepers are started under it.
        if late:
            lab.heal('t1')
            lab.wait_until(is_mounted, 10, 'it is mounted')
        mounting.send_signal(signal.SIGTERM)
        if late:  # The signal is there, and does nothing.
            lab.wait_until(lambda: int(status_of(mounting.pid, 'ShdPnd'), 16) >> (signal.SIGTERM - 1) & 1, 5, 'it is held')
        else:
            lab.heal('t1')
    assert mounting.wait(20) == (0 if late else -signal.SIGTERM)
    assert is_mounted() == late
    if late:
        assert engine.pids('dfs-keeper')
        engine.dfsctl('unmount', MOUNT)
    engine.unmount('/mnt/other')
    engine.check_idle()
