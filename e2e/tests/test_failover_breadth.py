"""Many links, many handles, lists in progress, names and networks that change: catalogue C14-C35, and H."""

import errno
import hashlib
import os
import subprocess
import time

import pytest

from lab import Application, Trial

LAB = {'big_mib': 16}
ROOT = '//root1/dfs'
POINT = '/mnt/dfs'
SOON, SILENT = 0.5, 3.0


@pytest.fixture(name='app')
def application(lab, engine):
    """An application; once servers are back, nobody holds anything in the agent."""
    with Application(lab) as made:
        yield made
    lab.heal_all()
    if lab.client_mounts():
        engine.check_idle()


def who(app, path):
    return app.do(f"read('{POINT}/{path}/who')").decode().strip()


def pause(lab, seconds):
    """Lets an outage or a load last that long."""
    end = time.monotonic() + seconds
    lab.wait_until(lambda: time.monotonic() >= end, seconds + 10, 'time passes')


def test_c14_c15_flapping_target(lab, engine):
    """It is left once; whoever serves goes on to, however often the other comes and goes."""
    engine.mount(ROOT)
    with Trial(lab, engine, f'{POINT}/three', watch='t1') as trial:
        trial.fail('kill', 't1')
        trial.wait_for('t2')
        for _ in range(4):
            lab.heal('t1')
            trial.run_on(40)
            lab.fail('kill', 't1')
            trial.run_on(20)
        lab.heal('t1')
        trial.run_on(60).check(SOON, serves='t2', failovers=1)
        assert engine.hint(f'{ROOT}/three') == '//t2.lab.test/share'
    trial.connects_within_rate()
    engine.check_idle()


def test_c21_next_target_is_a_link_itself(lab, engine):
    """t1, else a link of the other namespace, whose own targets are t2 and t3."""
    lab.set_link('root1', 'or-nested', ['t1{s}/share', 'root2{s}/dfs/inner'])
    engine.mount(ROOT)
    with Trial(lab, engine, f'{POINT}/or-nested') as trial:
        trial.fail('kill', 't1')
        trial.wait_for('t2').check(SOON, serves='t2')
        trial.fail('kill', 't2')
        trial.wait_for('t3').check(SOON, serves='t3')
    engine.check_idle()


def test_c22_next_target_has_another_prefix(lab, engine, app):
    for copy in ('t1', 'share'), ('t2', 'bench/copy'):
        path = lab.data(copy[0], f'{copy[1]}/sub/below.txt')
        with open(path, 'w') as file:
            file.write('the same below\n')
        os.utime(path, (1_700_000_000, 1_700_000_000))
    engine.mount(ROOT)
    folder = f'{POINT}/elsewhere'
    app.keep('open', f"os.open('{folder}/sub/below.txt', os.O_RDONLY)")
    app.keep('folder', f"os.open('{folder}/sub', os.O_RDONLY | os.O_DIRECTORY)")
    inodes = f"[os.stat('{folder}' + p).st_ino for p in ('/hello.txt', '/sub', '/sub/below.txt')]"
    before = app.do(inodes)
    assert who(app, 'elsewhere') == 't1'
    lab.fail('kill', 't1')
    assert who(app, 'elsewhere') == 't2'
    assert app.do("os.pread(kept['open'], 100, 4)") == b'same below\n'
    assert app.do(inodes) == before
    assert app.do("os.read(os.open('below.txt', os.O_RDONLY, dir_fd=kept['folder']), 8)") == b'the same'
    assert app.errno_of(f"os.stat('{folder}/sub/deep')") == errno.ENOENT  # t1 alone has it.


def test_c23_target_with_a_new_address(lab, engine):
    """The name leads to another host when the connection is made again."""
    engine.mount(ROOT)
    with open(lab.path('client', '/etc/hosts')) as file:
        hosts = file.read()
    with Trial(lab, engine, f'{POINT}/single') as trial:
        trial.begin()
        lab.set_hosts(hosts.replace(lab.address('t1') + ' ', lab.address('t3') + ' ')
                      .replace(lab.address6('t1') + ' ', lab.address6('t3') + ' '))
        trial.run_on().check(SOON, serves='t1')
        trial.fail('kill', 't1')
        trial.wait_for('t3').check(SOON, serves='t3', failovers=0)
    engine.check_idle()


def test_c24_name_service_is_down(lab, engine, app):
    """Addresses that were right a moment ago will do."""
    engine.mount(ROOT)
    assert who(app, 'two') == 't1'
    lab.fail('kill', 't1')
    assert who(app, 'two') == 't2'
    lab.heal('t1')
    lab.set_hosts('127.0.0.1 localhost\n')
    table = 'table inet no_names { chain out { type filter hook output priority 0; udp dport 53 drop; }; }'
    lab.run_in('client', ['nft', table])
    try:
        lab.fail('kill', 't2')
        assert who(app, 'two') == 't1'
    finally:
        lab.run_in('client', ['nft', 'delete table inet no_names'])


def test_c25_two_mounts_of_one_target(lab, engine):
    """Both move, over one new connection."""
    engine.mount(ROOT)
    engine.mount(ROOT, '/mnt/second')
    with Trial(lab, engine, f'{POINT}/two', watch='t2') as one, \
            Trial(lab, engine, '/mnt/second/two', point='/mnt/second') as other:
        for trial in (one, other):
            trial.begin()
        lab.fail('kill', 't1')
        for trial in (one, other):
            trial.wait_for('t2').check(SOON, serves='t2', failovers=1)
        assert len(lab.sessions('t2')) == 1
    assert one.connects_within_rate() <= 2
    engine.check_idle()


def test_c26_two_hundred_links(lab, engine, app):
    """The first target of all dies: all go on, by few connections."""
    names = [f'many-{number:03}' for number in range(200)]
    for name in names:
        lab.set_link('root1', name, ['t1{s}/share', 't2{s}/share'])
    engine.mount(ROOT)
    everywhere = f"set(read('{POINT}/many-%03d/who' % n) for n in range(200))"
    assert app.do(everywhere, 120) == {b't1\n'}
    with lab.capture('t2') as seen, lab.capture('t1') as dead:
        lab.fail('kill', 't1')
        begin = time.monotonic()
        assert app.do(everywhere, 120) == {b't2\n'}
        took = time.monotonic() - begin
    assert took < 30, took
    assert len(seen.attempts(lab.address('client'))) <= 3
    tried = dead.attempts(lab.address('client'))
    assert max((sum(at <= other < at + 1 for other in tried) for at in tried), default=0) <= 10
    for name in names:
        lab.set_link('root1', name, None)


@pytest.mark.parametrize('mode', ['kill', 'stop'])
def test_c27_a_listing_in_progress(lab, engine, app, mode):
    """50,000 names, half of them read from t1: each comes once."""
    count = 50_000
    if not os.path.exists(lab.data('t1', 'share/wide')):
        lab.make_entries('wide', count, targets=('t1', 't2'))
    engine.mount(ROOT)
    app.keep('list', f"os.scandir('{POINT}/two/wide')")
    names = app.do("take(kept['list'], 10000)")
    lab.fail(mode, 't1')
    names += app.do("take(kept['list'], 1000000)", 120)
    app.do("kept['list'].close()")
    assert who(app, 'two') == 't2'
    assert len(names) == count == len(set(names))
    assert min(names) == 'entry-000000' and max(names) == f'entry-{count - 1:06}'


def test_c29_a_thousand_open_files(lab, engine, app):
    """Each is opened on the next target when it is read, and not before."""
    engine.mount(ROOT)
    app.keep('fds', f"[os.open('{POINT}/two/hello.txt', os.O_RDONLY | os.O_DIRECT) for _ in range(1000)]", 120)
    app.keep('page', 'mmap.mmap(-1, 4096)')
    lab.fail('kill', 't1')
    with lab.capture('t2') as seen:
        assert min(app.do("[os.preadv(fd, [kept['page']], 0) for fd in kept['fds'][:10]]")) > 0
    assert engine.counter('open_handles') == 1000
    assert 10 <= seen.commands()['CREATE'] <= 40, seen.commands()
    assert app.do("min(os.preadv(fd, [kept['page']], 0) for fd in kept['fds'])", 120) > 0
    app.do("[os.close(fd) for fd in kept['fds']]")


def test_c32_a_slow_target_is_not_left(lab, engine):
    """Half a second there and back, while t2 is fast."""
    lab.set_link('root1', 'slow', ['slow.lab.test/share', 't2{s}/share'])
    gateway = lab.run_in('switch', ['ip', '-4', '-o', 'addr', 'show', 'scope', 'global']).stdout
    gateway = gateway.split('inet ')[1].split('/')[0]
    with open(lab.path('client', '/etc/hosts')) as file:
        lab.set_hosts(file.read() + f'{gateway} slow.lab.test\n')
    program = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), 'lab', 'slow_path.py')
    hop = lab.popen_in('switch', ['/usr/bin/python3', '-BI', program, gateway, lab.address('t1'), '0.25'],
                       stdout=subprocess.PIPE)
    try:
        assert hop.stdout.readline() == b'listens\n'
        engine.mount(ROOT)
        with Application(lab) as app:
            lab.fail('kill', 't2')  # Or it would win the race to be first.
            assert who(app, 'slow') == 't1'
            lab.heal('t2')
            engine.dfsctl('cache', 'flush')
        with Trial(lab, engine, f'{POINT}/slow', modes=('open', 'held')) as trial:
            trial.begin()
            pause(lab, 4)
            trial.check(2.0, serves='t1', failovers=0)
            # An idle moment, and it is asked again.
            assert engine.counter('failovers_total') == 0
        engine.check_idle()
        engine.unmount(POINT)
    finally:
        hop.kill()
        hop.wait()
        hop.stdout.close()


@pytest.mark.parametrize('percent', [5, 20])
def test_c33_lost_packets(lab, engine, percent):
    """At 5 % slow progress on the same target; at 20 % it may be left; nothing is lost."""
    engine.mount(ROOT)
    with Trial(lab, engine, f'{POINT}/two', modes=('open', 'held')) as trial:
        trial.fail(f'loss:{percent}', 't1')
        pause(lab, 4)
        trial.run_on(5)
        assert not trial.errors()
        if percent == 5:
            assert trial.served_by() == 't1' and trial.failovers() == trial.failovers_before
        lab.heal('t1')
    engine.check_idle()


def test_c34_large_packets_vanish(lab, engine):
    engine.mount(ROOT)
    with Trial(lab, engine, f'{POINT}/two', modes=('open', 'held', 'fresh')) as trial:
        trial.fail('blackhole', 't1')
        trial.wait_for('t2').check(SILENT, serves='t2', failovers=1)
    engine.check_idle()


def test_c35_graceful_restart(lab, engine):
    """FIN: its own server is asked again at once, and the next one while it does not listen."""
    engine.mount(ROOT)
    with Trial(lab, engine, f'{POINT}/two', watch='t1') as trial:
        trial.fail('restart', 't1')
        trial.run_on(50)
        serves = trial.served_by()
        assert serves in ('t1', 't2')
        trial.check(SOON, serves=serves, failovers=int(serves == 't2'))
    assert trial.connects_within_rate() >= 1  # t1 was asked.
    engine.check_idle()


def test_h01_one_credit(lab, engine):
    """Slow, but every reader goes on, and a listing ends."""
    lab.configure('t1', {'smb2 max credits': '1'})
    engine.mount(ROOT)
    with Application(lab) as app, Trial(lab, engine, f'{POINT}/single', modes=('open', 'fresh', 'held', 'list')) as trial:
        trial.begin()
        trial.run_on(30)
        assert app.do(f"digests('{POINT}/single/big.bin', 0.1)", 120) == [lab.big_sha256]
        assert not trial.errors()
    engine.check_idle()


@pytest.mark.parametrize('first,second', [({}, {'smb2 max read': '65536'}), ({'smb2 max read': '65536'}, {})],
                         ids=['to_small_reads', 'to_large_reads'])
def test_h05_reads_of_another_size(lab, engine, app, first, second):
    lab.configure('t1', first)
    lab.configure('t2', second)
    engine.mount(ROOT)
    app.keep('file', f"os.open('{POINT}/two/big.bin', os.O_RDONLY | os.O_DIRECT)")
    app.keep('room', 'mmap.mmap(-1, 4 << 20)')
    with open(lab.data('t1', 'share/big.bin'), 'rb') as file:
        expected = hashlib.sha256(file.read(4 << 20)).hexdigest()
    for target in ('t1', 't2'):
        with lab.capture(target) as seen:
            assert app.do("os.preadv(kept['file'], [kept['room']], 0)") == 4 << 20
        assert app.do("hashlib.sha256(kept['room']).hexdigest()") == expected
        small = (first if target == 't1' else second) != {}
        assert 4 <= seen.commands()['READ'] and (seen.commands()['READ'] >= 64) == small, seen.commands()
        lab.fail('kill', 't1')


def test_h09_soft_deadlines(lab, engine, app):
    """Each operation ends with EHOSTDOWN at op_timeout, neither much before nor much after."""
    engine.mount(ROOT, options='soft,op_timeout=1s')
    folder = f'{POINT}/three'
    app.keep('file', f"os.open('{folder}/big.bin', os.O_RDONLY | os.O_DIRECT)")
    app.keep('page', 'mmap.mmap(-1, 4096)')
    app.keep('list', f"os.scandir('{folder}')")
    with Trial(lab, engine, POINT, modes=()) as trial:
        for target in ('t1', 't2', 't3'):
            lab.fail('drop', target)
        for expression in ("os.preadv(kept['file'], [kept['page']], 0)", f"os.stat('{folder}/hello.txt')",
                           f"read('{folder}/who')", f"os.listdir('{folder}/many')",
                           f"os.readlink('{folder}/symlink-to-file')"):
            trial.begin()
            assert app.errno_of(expression) == errno.EHOSTDOWN, expression
            assert app.took >= 0.9, (expression, app.took)
            trial.check_took(app.took, 1.1)
        assert app.errno_of(f"os.statvfs('{folder}').f_bsize") == 0  # From the last known values.
        trial.check_took(app.took, 1.0)
    app.do("(os.close(kept['file']), kept['list'].close())")
