"""The lab itself: its servers answer, its faults do what they say, and nothing of it stays."""

import hashlib
import os
import signal
import subprocess
import sys
import time

import pytest

from conftest import E2E, leftovers
from lab import CRYPTO, Engine, Lab, LabError, Probe, Readers, live_labs, reap
from lab.faults import MODES
from lab.namespaces import libc, start_time
from lab.samba import nt_hash
from lab.seed import LINKS

LAB = {'big_mib': 16}
LAB_PROGRAM = os.path.join(E2E, 'lab', 'lab')


def served_by(lab, source, link='.'):
    """The `who` file as smbclient reads it through the link."""
    run = lab.smbclient(source, f'cd "{link}"; get who /dev/stdout', check=False)
    return run.stdout.splitlines()[0] if run.returncode == 0 and run.stdout else run.stderr + run.stdout


class TestServers:
    @pytest.mark.parametrize('host', ['t1', 't2', 't3'])
    def test_target_serves_its_own_tree(self, lab, host):
        assert served_by(lab, f'//{host}/share') == host
        assert served_by(lab, f'//{host}.lab.test/share') == host

    def test_the_second_user_may_log_on_and_a_wrong_password_may_not(self, lab):
        assert lab.smbclient('//t1/share', 'ls', user='dfsuser2').returncode == 0
        run = lab.smbclient('//t1/share', 'ls', password='wrong', check=False)
        assert 'NT_STATUS_LOGON_FAILURE' in run.stdout + run.stderr

    def test_nt_hash(self):
        # The known answer of [MS-NLMP] 4.2.2.1.2 (password "Password").
        assert nt_hash('Password') == 'A4F49C406510BDCAB6824EE7C30FD852'

    @pytest.mark.parametrize('link,host', [
        ('single', 't1'), ('two', 't1'), ('three', 't1'), ('nestlink', 't2'), ('plain-dir/deeplink', 't3'),
        ('a/b/c/link', 't1'), ('ünïcødé-链接', 't1'), ('emoji-😀', 't2'), ('chain1', 't2'),
        ('nested/inner', 't2')])
    def test_link_leads_to_its_first_target(self, lab, link, host):
        assert served_by(lab, '//root1/dfs', link) == host

    def test_link_to_a_path_below_a_share(self, lab):
        assert 'leaf.txt' in lab.smbclient('//root1/dfs', 'cd below; ls').stdout

    @pytest.mark.parametrize('link', ['dangling', 'noshare', 'empty', 'broken'])
    def test_bad_link_is_refused(self, lab, link):
        run = lab.smbclient('//root1/dfs', f'cd {link}; ls', check=False)
        assert 'NT_STATUS' in run.stdout + run.stderr

    def test_every_link_is_listed(self, lab):
        listing = lab.smbclient('//root1/dfs', 'ls').stdout
        for name in LINKS['root1']:
            assert name.split('/')[0] in listing

    def test_big_file_is_the_same_on_every_target(self, lab):
        for host in ('t1', 't2', 't3'):
            with open(lab.data(host, 'share/big.bin'), 'rb') as file:
                assert hashlib.sha256(file.read()).hexdigest() == lab.big_sha256
        assert os.path.getsize(lab.data('t1', 'share/big.bin')) == 16 << 20

    def test_copies_have_the_same_size_and_time(self, lab):
        def stats(host):
            top = lab.data(host, 'share')
            return {os.path.relpath(os.path.join(folder, name), top):
                    (os.lstat(os.path.join(folder, name)).st_size, os.lstat(os.path.join(folder, name)).st_mtime_ns)
                    for folder, _, names in os.walk(top) for name in names if 'only-' not in folder + name}
        first, second = stats('t1'), stats('t2')
        assert first.pop('differs.txt') != second.pop('differs.txt')
        assert first == second and len(first) > 200

    def test_tree_and_wide_directory_on_demand(self, lab):
        lab.make_tree('tree-5x20', 5, 20, targets=['t1'])
        lab.make_entries('wide-3000', 3000, targets=['t1'])
        assert lab.smbclient('//t1/share', 'cd tree-5x20; recurse; ls').stdout.count('.txt') == 100
        assert lab.smbclient('//t1/share', 'cd wide-3000; ls').stdout.count('entry-') == 3000
        assert lab.make_big('more.bin', 2, ['t1', 't2']) == lab.make_big('more.bin', 2, ['t1'])

    def test_link_can_be_changed_while_it_is_served(self, lab):
        lab.set_link('root1', 'moving', ['t1{s}/share'])
        assert served_by(lab, '//root1/dfs', 'moving') == 't1'
        lab.set_link('root1', 'moving', ['t3{s}/share'])
        assert served_by(lab, '//root1/dfs', 'moving') == 't3'
        lab.set_link('root1', 'moving', None)
        assert 'NT_STATUS' in served_by(lab, '//root1/dfs', 'moving')

    def test_the_machine_is_untouched(self, lab):
        with open('/etc/passwd') as file:
            assert 'dfsuser' not in file.read()
        with open('/etc/hosts') as file:
            assert 'lab.test' not in file.read()
        with open('/proc/self/mounts') as file:
            assert lab.name not in file.read()
        assert not os.path.exists('/run/netns') or not any(lab.name in n for n in os.listdir('/run/netns'))

    def test_password_of_one_server_can_be_changed(self, lab):
        lab.set_password('t3', 'dfsuser', 'other')
        try:
            assert 'LOGON_FAILURE' in served_by(lab, '//t3/share')
            assert lab.smbclient('//t3/share', 'ls', password='other').returncode == 0
            assert served_by(lab, '//t2/share') == 't2'
        finally:
            lab.set_password('t3', 'dfsuser', 'dfspass')


class TestWhatServersSee:
    def test_sessions_trees_and_opens(self, lab):
        held = lab.popen_in('client', ['smbclient', '//t1/share', '-U', 'dfsuser'],
                            env={'PASSWD': 'dfspass'}, stdin=subprocess.PIPE,
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True)
        try:
            held.stdin.write('posix\nopen hello.txt\n')
            held.stdin.flush()
            lab.wait_until(lambda: lab.trees('t1'), 10, 'a tree on t1')
            assert [session['username'] for session in lab.sessions('t1')] == ['dfsuser']
            assert [tree['service'] for tree in lab.trees('t1')] == ['share']
            assert lab.connections()['t1'] == 1 and lab.connections()['t2'] == 0
            assert lab.connections('t1')[0].startswith(lab.address('client') + ':')
        finally:
            held.kill()
            held.wait()
        lab.wait_until(lambda: not lab.sessions('t1'), 10, 'no session on t1')

    def test_capture_counts_what_one_client_did(self, lab):
        with lab.capture('root1') as root, lab.capture('t1') as target:
            lab.smbclient('//root1/dfs', 'cd single; get big.bin /dev/null')
        assert root.referrals() > target.referrals() and root.commands()['READ'] == 0
        assert target.commands()['READ'] >= 2  # 16 MiB in requests of 8 MiB at most.
        assert target.frames() == target.frames('READ') + target.commands()['READ']
        assert target.connections() == 1

    def test_capture_of_silence_is_empty(self, lab):
        with lab.capture('t3') as seen:
            lab.smbclient('//t1/share', 'ls')
        assert seen.frames() == 0 and seen.connections() == 0 and not seen.negotiated()


class TestCrypto:
    @pytest.mark.parametrize('variant', sorted(CRYPTO))
    def test_server_requires_the_variant(self, lab, variant):
        """The algorithm is read from the wire; a client that does not offer the dialect is refused."""
        lab.configure('t1', CRYPTO[variant])
        try:
            with lab.capture('t1') as seen:
                run = lab.smbclient('//t1/share', 'get hello.txt /dev/null', check=False)
            negotiated = seen.negotiated()
            assert run.returncode == 0, run.stdout + run.stderr
            dialect, _, algorithm = variant.partition('-')
            if variant == 'plain':
                assert not any(request.signed or request.encrypted for request in seen.requests()
                               if set(request.commands) & {'READ', 'CREATE'})
                return
            assert negotiated[-1].dialect == dialect
            if 'cm' in algorithm and algorithm.startswith('aes'):
                assert any(request.encrypted for request in seen.requests())
                assert seen.commands()['READ'] == 0  # All of them inside the encryption.
                if dialect == '3.1.1':
                    assert negotiated[-1].cipher == algorithm.upper()
            else:
                reads = [r for r in seen.requests() if 'READ' in r.commands]
                assert reads and all(request.signed for request in reads)
                want = {'cmac': 'AES-128-CMAC', 'gmac': 'AES-128-GMAC', 'hmac-sha256': 'HMAC-SHA256'}
                assert negotiated[-1].signing == want[algorithm]
        finally:
            lab.configure('t1', {})

    def test_server_refuses_a_client_without_the_cipher(self, lab):
        lab.configure('t1', CRYPTO['3.1.1-aes-256-gcm'])
        try:
            run = lab.smbclient('//t1/share', 'ls', check=False, arguments=[
                '--option=client smb3 encryption algorithms=AES-128-GCM'])
            assert run.returncode != 0 and 'NT_STATUS' in run.stdout + run.stderr
        finally:
            lab.configure('t1', {})

    def test_options_of_all_servers_and_of_one(self, lab):
        lab.configure('t2', {'smb2 max read': '65536', 'server max protocol': 'SMB3_02'})
        try:
            with lab.capture('t2') as seen:
                lab.smbclient('//t2/share', 'get big.bin /dev/null')
            assert seen.negotiated()[-1].dialect == '3.0.2'
            assert seen.commands()['READ'] >= 256
        finally:
            lab.configure('t2', {})


class TestFaults:
    """One server each, so that the names say what broke."""

    def probe(self, lab, host='t1'):
        probe = Probe(lab, host)
        assert probe.connect() == 'ok'
        return probe

    def test_kill(self, lab):
        with self.probe(lab) as old, Probe(lab, 't1') as new:
            assert old.ask() == 'ok'
            lab.fail('kill', 't1')
            assert old.ask(send=False) in ('closed', 'reset')
            assert new.connect() == 'refused'
            assert not lab.server_pids('t1')
            assert lab.answers('t2')
        lab.heal('t1')
        assert served_by(lab, '//t1/share') == 't1'

    def test_restart(self, lab):
        with self.probe(lab) as old, Probe(lab, 't1') as new:
            assert old.ask() == 'ok'
            before = lab.server_pids('t1')
            lab.fail('restart', 't1')
            assert old.ask(send=False) in ('closed', 'reset')
            assert new.connect() == 'ok' and new.ask() == 'ok'
            assert not set(before) & set(lab.server_pids('t1'))

    def test_reset(self, lab):
        with self.probe(lab) as old, Probe(lab, 't1') as new:
            lab.fail('reset', 't1')
            assert old.ask() == 'reset'
            assert new.connect() == 'refused'
            assert lab.server_pids('t1')
        lab.heal('t1')
        assert served_by(lab, '//t1/share') == 't1'

    def test_drop(self, lab):
        with self.probe(lab) as old, Probe(lab, 't1') as new:
            lab.fail('drop', 't1')
            assert old.ask(0.5) == 'silent'
            assert new.connect(0.5) == 'silent'
            lab.heal('t1')
            assert old.ask(5, send=False) == 'ok'  # TCP sends again what was lost.

    def test_half_loses_replies_only(self, lab):
        with self.probe(lab) as old, Probe(lab, 't1') as new:
            lab.fail('half', 't1')
            with lab.capture('t1') as seen:
                assert old.ask(0.5) == 'silent'
                assert new.connect(0.5) == 'silent'
            assert seen.commands()['NEGOTIATE'] == 1  # It arrived.
            lab.heal('t1')
            assert old.ask(5, send=False) == 'ok'

    def test_stop_accepts_and_never_answers(self, lab):
        with self.probe(lab) as old, Probe(lab, 't1') as new:
            lab.fail('stop', 't1')
            assert old.ask(0.5) == 'silent'
            assert new.connect(0.5) == 'ok' and new.ask(0.5) == 'silent'
            lab.heal('t1')
            assert old.ask(5, send=False) == 'ok' and new.ask(5, send=False) == 'ok'

    def test_link(self, lab):
        with self.probe(lab) as old, Probe(lab, 't1') as new:
            lab.fail('link', 't1')
            assert old.ask(0.5) == 'silent'
            assert new.connect(5) in ('silent', 'unreachable')
            lab.heal('t1')
        assert served_by(lab, '//t1/share') == 't1'

    def test_loss(self, lab):
        def retransmitted():
            text = lab.run_in('t1', ['nstat', '-asz', 'TcpRetransSegs']).stdout
            return int(text.split('TcpRetransSegs')[1].split()[0])
        before = retransmitted()
        lab.fail('loss:10', 't1')

        def goes_on():
            return lab.smbclient('//t1/share', 'get big.bin /dev/null', timeout=60).returncode == 0
        # By chance all of one transfer's large segments may come through.
        lab.wait_until(lambda: goes_on() and retransmitted() > before, 60, 'data is sent again')
        lab.fail('loss:99', 't1')
        with Probe(lab, 't1') as probe:
            assert probe.connect(0.5) == 'silent'
        with pytest.raises(ValueError):
            lab.fail('loss:many', 't1')

    def test_blackhole_passes_small_packets_only(self, lab):
        lab.fail('blackhole', 't1')
        with Probe(lab, 't1') as probe:
            assert probe.connect() == 'ok' and probe.ask() == 'ok'
        with pytest.raises(subprocess.TimeoutExpired):
            lab.smbclient('//t1/share', 'get big.bin /dev/null', timeout=3)

    @pytest.mark.parametrize('mode', ['close-share', 'unshare'])
    def test_share_goes_from_under_its_tree(self, lab, mode):
        with lab.popen_in('client', ['smbclient', '//t1/share', '-U', 'dfsuser'],
                          env={'PASSWD': 'dfspass'}, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True) as held:
            lab.wait_until(lambda: lab.trees('t1'), 10, 'a tree on t1')
            lab.fail(mode, 't1')
            lab.wait_until(lambda: not lab.trees('t1'), 10, 'no tree on t1')
            output, _ = held.communicate('ls\n', timeout=20)
            assert 'NT_STATUS' in output
        again = served_by(lab, '//t1/share')
        if mode == 'close-share':
            assert again == 't1'
        else:
            assert 'NT_STATUS_BAD_NETWORK_NAME' in again
            lab.heal('t1')
            assert served_by(lab, '//t1/share') == 't1'

    def test_unknown_fault_names_the_known(self, lab):
        with pytest.raises(ValueError, match='kill.*drop'):
            lab.fail('explode', 't1')
        with pytest.raises(ValueError, match='no argument'):
            lab.fail('kill:9', 't1')

    def test_every_mode_has_a_test(self):
        tested = ' '.join(name for name in dir(TestFaults) if name.startswith('test_'))
        for mode in set(MODES) - {'close-share', 'unshare'}:
            assert f'test_{mode}' in tested


class TestReaders:
    """The checking readers, on a server's own files: what they report is what happened."""

    MODES = ('open', 'fresh', 'cached', 'list')

    def test_nothing_happens(self, lab):
        with Readers(lab, lab.data('t2', 'share'), self.MODES) as readers:
            start = time.monotonic()
            lab.wait_until(lambda: readers.seen(start).operations > 50, 20, '50 operations')
            seen = readers.seen(start)
            assert not seen.errors and not seen.wrong and seen.served_by == 't2'
            assert seen.longest_stall < 2
            assert readers.alive()
        assert not lab.client_processes()

    def test_a_stall_is_seen_while_it_lasts_and_after_it(self, lab):
        with Readers(lab, lab.data('t2', 'share'), ('open', 'list')) as readers:
            start = time.monotonic()
            os.kill(readers.pids()['open'], signal.SIGSTOP)
            lab.wait_until(lambda: readers.seen(start).stalls['open'] > 1, 20, 'the stall is seen')
            os.kill(readers.pids()['open'], signal.SIGCONT)
            mark = time.monotonic()
            lab.wait_until(lambda: readers.seen(mark).operations > 20, 20, 'it goes on')
            seen = readers.seen(start)
            assert seen.stalls['open'] > 1 > seen.stalls['list']
            assert seen.longest_stall == seen.stalls['open']
            later = time.monotonic()
            lab.wait_until(lambda: readers.seen(later).operations > 20, 20, 'some more')
            assert readers.seen(later).longest_stall < 1

    def test_errors_wrong_bytes_and_changed_names_are_seen(self, lab):
        lab.run_in('client', ['cp', '-a', lab.data('t2', 'share'), '/mnt/copy'])
        copy = lab.path('client', '/mnt/copy')
        try:
            with Readers(lab, '/mnt/copy', self.MODES) as readers:
                start = time.monotonic()
                os.rename(f'{copy}/who', f'{copy}/was')
                with open(f'{copy}/big.bin', 'r+b') as file:
                    for offset in range(0, 16 << 20, 64 << 10):
                        file.seek(offset)
                        file.write(b'?')
                lab.wait_until(lambda: len({text.split(':')[0] for text in readers.seen(start).wrong}) == 3,
                               20, 'fresh, cached and list are wrong')
                seen = readers.seen(start)
                assert 'open: ENOENT' in seen.errors
                assert any(text.startswith('list: ') for text in seen.wrong)
        finally:
            lab.run_in('client', ['rm', '-rf', '/mnt/copy'])

    def test_a_reader_that_cannot_read_is_noticed(self, lab):
        with Readers(lab, '/mnt/nowhere', ('open',)) as readers:
            assert set(readers.seen(0).errors) == {'open: ENOENT'} and readers.served_by() is None


class TestTraces:
    """Nothing of a lab stays, however it ended."""

    def gone(self, name):
        return not leftovers([name])

    def test_two_labs_at_once(self, lab):
        with Lab(big_mib=1) as second:
            assert second.address('t1') != lab.address('t1')
            second.fail('kill', 't1')
            assert served_by(lab, '//t1/share') == 't1'
            assert served_by(second, '//t2/share') == 't2'
            assert {lab.name, second.name} <= set(live_labs())
        assert self.gone(second.name) and lab.answers('t1')

    def test_a_taken_name_is_refused(self, lab):
        with pytest.raises(LabError, match='exists already'):
            Lab(lab.name).up()
        assert lab.answers('t1')

    def owner(self, name):
        """A process that brings a lab up, starts something on its client, and waits."""
        code = ('import sys, time; sys.path.insert(0, %r)\nfrom lab import Lab\n'
                'lab = Lab(%r, big_mib=1).up()\n'
                'lab.run_in("client", ["mkdir", "/mnt/x"])\n'
                'lab.run_in("client", ["mount", "-t", "tmpfs", "x", "/mnt/x"])\n'
                'lab.popen_in("client", ["sleep", "1000"])\n'
                'print("up", flush=True)\ntime.sleep(1000)\n') % (E2E, name)
        process = subprocess.Popen([sys.executable, '-B', '-c', code], stdout=subprocess.PIPE)
        assert process.stdout.readline() == b'up\n'
        assert not self.gone(name)
        return process

    def test_the_owner_is_killed(self, lab):
        with self.owner('ownerdies') as process:
            process.kill()
        lab.wait_until(lambda: self.gone('ownerdies'), 10, 'all gone')

    def test_owner_and_watcher_are_killed_then_the_next_up_reaps(self, lab):
        with self.owner('bothdie') as process:
            watcher = Lab.attach('bothdie').state['watcher']['pid']
            os.kill(watcher, signal.SIGKILL)
            process.kill()
        lab.wait_until(lambda: start_time(watcher) is None, 10, 'the watcher is dead')
        # The servers die with the watcher at once; what ran on the client waits for the next lab.
        assert not self.gone('bothdie')
        with Lab(big_mib=1):
            assert self.gone('bothdie')

    def test_reap_leaves_live_labs_and_strangers_alone(self, lab):
        stranger = '/run/dfs-csi-lab-stranger-%d' % os.getpid()
        os.mkdir(stranger)
        try:
            reap()
            assert os.path.isdir(stranger) and lab.answers('t1')
        finally:
            os.rmdir(stranger)

    def test_command_line(self, lab):
        def call(*arguments, code=0):
            run = subprocess.run([LAB_PROGRAM, *arguments], capture_output=True, text=True, timeout=60)
            assert run.returncode == code, run.stdout + run.stderr
            return run.stdout + run.stderr
        name = 'cli-%d' % os.getpid()
        try:
            out = call('up', '--name', name, '--big-mib', '1', '--set', 't2:server signing=mandatory',
                       '--set', 'all:log level=2')
            assert out.count('  answers') == 5
            assert 'root:x:0' in call('--name', name, 'exec', 't1', 'cat', '/etc/passwd')
            assert 'dfsuser' in call('--name', name, 'exec', 'client', '--', 'cat', '/etc/passwd')
            config = call('--name', name, 'exec', 't2', 'cat', f'/run/dfs-csi-lab-{name}/fs/t2/smb.conf')
            assert 'server signing = mandatory' in config and 'log level = 2' in config
            call('--name', name, 'fail', 'unshare', 't3')
            call('--name', name, 'fail', 'kill', 't1')
            assert 'does not answer' in call('--name', name, 'status')
            call('--name', name, 'heal', 't1')
            call('--name', name, 'heal', 't3')
            assert call('--name', name, 'status').count('  answers') == 5
            assert 't1:' in call('--name', name, 'conns')
            assert 'no host "t9"' in call('--name', name, 'heal', 't9', code=1)
            assert 'no fault' in call('--name', name, 'fail', 'explode', 't1', code=1)
            assert 'HOST:OPTION' in call('up', '--set', 'nonsense', code=1)
        finally:
            call('--name', name, 'down')
        assert self.gone(name)
        assert 'no lab' in call('--name', name, 'down', code=1)

    def test_up_is_fast(self, lab):
        start = time.monotonic()
        with Lab(big_mib=16):
            took = time.monotonic() - start
        assert took < 10  # 0.6 s on a quiet machine.


def waits_in_kernel(pid):
    with open(f'/proc/{pid}/stack') as file:
        stack = file.read()
    return 'fuse' in stack or 'folio_wait' in stack


def test_who_waits_on_a_mount_ends_with_the_lab_though_its_fd_is_held_elsewhere():
    """As by a thread of a killed program that the kernel does not end."""
    pidfd_getfd = 438
    held = -1
    with Lab(big_mib=16) as lab:
        engine = Engine(lab)
        engine.mount('//t1/share')
        agent = engine.active_agent()
        fuse = next(int(fd) for fd in os.listdir(f'/proc/{agent}/fd')
                    if os.readlink(f'/proc/{agent}/fd/{fd}') == '/dev/fuse')
        process = os.pidfd_open(agent)
        held = libc.syscall(pidfd_getfd, process, fuse, 0)
        os.close(process)
        assert held >= 0
        lab.fail('stop', 't1')
        reader = lab.popen_in('client', ['cat', '/mnt/dfs/big.bin'], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        lab.wait_until(lambda: waits_in_kernel(reader.pid), 20, 'cat waits')
    try:
        reader.wait(timeout=20)
    finally:
        os.close(held)


def test_a_report_of_a_sanitizer_fails_the_test_that_made_it(lab):
    """Whatever a program writes into its log: only what is new counts."""
    folder = lab.path('client', '/run/dfs-csi-local')
    os.makedirs(folder, exist_ok=True)

    def write(line):
        with open(f'{folder}/dfs-node-agent.log', 'a') as file:
            file.write(line + '\n')
    write('==7==ERROR: AddressSanitizer: heap-use-after-free')
    engine = Engine(lab)
    write('AddressSanitizer is mentioned')
    engine.stop()
    for line in ('==9==ERROR: AddressSanitizer: stack-overflow', 'a.cc:1:2: runtime error: shift exponent'):
        engine = Engine(lab)
        write(line)
        with pytest.raises(LabError, match='Sanitizer|runtime error'):
            engine.stop()
