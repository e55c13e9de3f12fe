"""What people get wrong: one clear line, the documented exit code, within 20 s, and nothing left behind."""

import os
import re
import stat
import threading
import time

import pytest

LAB = {'big_mib': 0}
SECONDS = 20
# docs/options.md.
(USAGE, WRONG_CREDENTIAL, UNKNOWN_HOST, UNREACHABLE, UNKNOWN_SHARE, MISSING_PATH, ACCESS_DENIED, LOOP,
 DANGLING, PROTOCOL, MOUNT_POINT, SYSTEM) = range(2, 14)
OPTIONS_PAGE = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))),
                            'docs', 'options.md')
_codes_seen = set()
POINT = '/mnt/dfs'
ROOT = '//root1/dfs'


@pytest.fixture(name='refused')
def check_refusal(lab, engine):
    """refused(source, exit code, what the line says): tries to mount, then looks what is left."""
    os.makedirs(lab.path('client', POINT), exist_ok=True)

    def refused(source, code, says, point=POINT, options=None, credentials=None, arguments=None):
        if arguments is None:
            arguments = [source, point, '--credentials', credentials or engine.credentials(),
                         '--state-dir', engine.state_dir, *(['-o', options] if options else [])]
        mounts = lab.client_mounts()
        begin = time.monotonic()
        run = engine.dfsctl('mount', *arguments, check=False, timeout=2 * SECONDS)
        check(run, code, says, time.monotonic() - begin)
        assert lab.client_mounts() == mounts
        nothing_runs(lab)
    return refused


def check(run, code, says, took):
    line = run.stderr.strip()
    print(f'{took:5.1f} s  exit {run.returncode}  {line}')
    assert run.returncode == code, f'exit code {run.returncode} instead of {code}: {line}'
    _codes_seen.add(code)
    assert not run.stdout and len(line.splitlines()) == 1 and line.startswith('dfsctl: '), run
    for word in [says] if isinstance(says, str) else says:
        assert word.lower() in line.lower(), line
    assert 'dfspass' not in line and 'Sesame' not in line
    assert took <= SECONDS, f'{took:.1f} s'


def nothing_runs(lab):
    """What was started for the mount ends with it: dfsctl waits for its programs, their children follow."""
    try:
        lab.wait_until(lambda: not lab.client_processes(), 3, 'nothing runs')
    except TimeoutError:
        pytest.fail(f'processes left: {[_command(pid) for pid in lab.client_processes()]}')


def _command(pid):
    try:
        with open(f'/proc/{pid}/cmdline') as file:
            return file.read().replace('\0', ' ').strip()
    except OSError:
        return 'gone'


@pytest.mark.parametrize('user,password', [('dfsuser', 'Sesame-wrong-1'), ('nobody-knows-me', 'Sesame')])
@pytest.mark.parametrize('source', ['//t1/share', ROOT])
def test_wrong_credential(engine, refused, source, user, password):
    refused(source, WRONG_CREDENTIAL, source, credentials=engine.credentials(user, password))


def test_wrong_credential_again_beside_a_live_mount(lab, engine):
    """The target is not asked again, and what was wrong is still told."""
    engine.mount('//t1/share', POINT)
    os.makedirs(lab.path('client', '/mnt/other'), exist_ok=True)
    for source in ('//t1/share', '//t1/share', ROOT, ROOT + '/two', ROOT):
        begin = time.monotonic()
        run = engine.dfsctl('mount', source, '/mnt/other', '--credentials',
                            engine.credentials('dfsuser', 'Sesame-wrong-1'), '--state-dir', engine.state_dir,
                            check=False)
        check(run, WRONG_CREDENTIAL, 'log-on', time.monotonic() - begin)
    engine.unmount(POINT)


@pytest.mark.parametrize('source,code,says', [
    ('//nosuchhost.lab.test/share', UNKNOWN_HOST, 'nosuchhost'),
    ('//nosuchhost/share', UNKNOWN_HOST, 'nosuchhost'),
    ('//t1/nosuchshare', UNKNOWN_SHARE, 'nosuchshare'),
    ('//t1/share/no/such/path', MISSING_PATH, ['no/such/path', 'no such file or folder (STATUS_']),
    ('//t1/share/hello.txt', MISSING_PATH, 'not a directory'),
    (ROOT + '/nosuch', MISSING_PATH, 'nosuch'),
    (ROOT + '/two/nosuch', MISSING_PATH, 'nosuch'),
    (ROOT + '/three/only-t9', MISSING_PATH, 'only-t9'),
    (ROOT + '/dangling', DANGLING, ['dangling', 'nosuchhost']),
    (ROOT + '/noshare', DANGLING, ['noshare', 'nosuchshare']),
    (ROOT + '/broken', DANGLING, 'broken'),
    (ROOT + '/loop', LOOP, 'loop'),
    (ROOT + '/pingpong', LOOP, 'pingpong'),
    ('//t1/IPC$', UNKNOWN_SHARE, 'not a file share'),
])
def test_source_that_leads_nowhere(refused, source, code, says):
    refused(source, code, says)


def test_servers_that_do_not_serve(lab, engine):
    """Dead in five ways, all asked at once; a link whose targets are down is not a dangling one."""
    faults = {'t1': 'drop', 't2': 'stop', 't3': 'kill', 'root2': 'reset'}
    sources = [*(f'//{host}/{"dfs" if host == "root2" else "share"}' for host in faults), ROOT + '/two']
    for host, mode in faults.items():
        lab.fail(mode, host)
    runs = {}

    def mount(number, source):
        point = f'/mnt/dead-{number}'
        os.makedirs(lab.path('client', point))
        begin = time.monotonic()
        run = engine.dfsctl('mount', source, point, '--credentials', engine.credentials(), '--state-dir',
                            engine.state_dir, check=False, timeout=2 * SECONDS)
        runs[source] = (run, time.monotonic() - begin)

    threads = [threading.Thread(target=mount, args=each) for each in enumerate(sources)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for source in sources:
        check(runs[source][0], UNREACHABLE, source, runs[source][1])
    assert not lab.client_mounts()
    nothing_runs(lab)


def test_a_port_where_nobody_listens(refused):
    """What is told is why the first attempt failed, not that the last found the host still down."""
    refused('//t3@446/share', UNREACHABLE, ['446', 'connection refused'])
    refused('//t3/share', UNREACHABLE, 'connection refused', options='port=1')


def test_a_host_without_cable(lab, refused):
    lab.fail('link', 't3')
    refused('//t3/share', UNREACHABLE, 't3')


@pytest.mark.parametrize('source', [
    't1/share', '/t1/share', '//t1', '//t1/', '//', '', '///share', '//t1/share/../..', '//t1/sh:are',
    'smb://t1/share', '//t1:445:1/share', '//t1/share/a\x01b', '//user@t1/share', '//t1/' + 'x' * 300])
def test_malformed_source(refused, source):
    refused(source, USAGE, ['//host/share', 'user name'] if 'user@' in source else '//host/share')


@pytest.mark.parametrize('options,says', [
    ('actimo=1', ['actimo', 'actimeo']),
    ('nonsense', 'nonsense'),
    ('uid', 'uid'), ('uid=nobody', 'uid'), ('uid=-1', 'uid'), ('gid=4294967296', 'gid'),
    ('file_mode=0999', 'file_mode'), ('dir_mode=777777', 'dir_mode'),
    ('ro=yes', 'ro'), ('=', 'name'),
    ('failback=soon', 'failback'), ('sec=krb5', 'not implemented'),
    ('cache=loose', 'cache'), ('sec=none', 'sec'), ('port=0', 'port'), ('port=66000', 'port'),
    ('vers=1.0', 'vers=1.0'), ('vers=2.0', 'vers'), ('vers=4', 'vers'),
    ('op_timeout=soon', 'op_timeout'), ('suspect_after=0', 'suspect_after'),
    ('referral_ttl_min=2h,referral_ttl_max=1h', 'referral_ttl'),
    ('password=Sesame', 'credentials file'), ('pass=Sesame', 'credentials file'),
    ('guest', 'guest'), ('sec=ntlmv2i', 'sec'), ('vers=3.1.1,vers=1.0', 'vers=1.0'),
    ('seal=yes', 'seal'), ('sing', ['sing', 'sign']), ('domian=X', ['domian', 'domain']),
    ('allowed_targets=t*', ['allowed_targets', 't*']),
    ('file_mod=0644', ['file_mod', 'file_mode']), ('pasword=Sesame', ['pasword', 'nearest'])])
def test_impossible_option(refused, options, says):
    refused('//t1/share', USAGE, says, options=options)


def test_more_options_than_the_programs_can_tell_each_other(refused):
    for options in ('site=' + 'x' * 100000, 'ro,' * 30000 + 'ro'):
        refused('//t1/share', USAGE, 'longer than', options=options)


def test_arguments_that_are_missing(refused, engine):
    refused(None, USAGE, 'argument', arguments=[])
    refused(None, USAGE, 'argument', arguments=['//t1/share'])
    refused(None, USAGE, 'credentials', arguments=['//t1/share', POINT])
    refused(None, USAGE, '--nonsense', arguments=['//t1/share', POINT, '--nonsense'])
    refused(None, USAGE, 'value', arguments=['//t1/share', POINT, '--credentials'])


@pytest.mark.parametrize('text,mode,says', [
    (None, None, 'No such file'),
    ('username=dfsuser\npassword=Sesame\n', 0o644, 'readable by everybody'),
    ('password=Sesame\n', 0o600, 'username'),
    ('username=dfsuser\n', 0o600, 'password'),
    ('username=dfsuser\npassword=\n', 0o600, 'password'),
    ('username=' + 'u' * 2000 + '\npassword=Sesame\n', 0o600, 'line 1'),
    ('username=dfsuser\npassword=' + 'Sesame' * 400 + '\n', 0o600, 'line 2'),
    ('dfsuser\nSesame\n', 0o600, 'line 1'),
    ('username=dfsuser\nSesame\n', 0o600, 'line 2'),
    ('', 0o600, 'username'),
    ('\0' * 100000, 0o600, 'line 1'),
    ('username=dfsuser\npassword=Sesame\0\n', 0o600, 'not UTF-8'),
    ('username=dfs\0user\npassword=Sesame\n', 0o600, 'control character'),
], ids=['missing', 'world-readable', 'no-user', 'no-password', 'empty-password', 'long-user', 'long-password',
        'no-key', 'no-key-2', 'empty', 'zeroes', 'zero-in-password', 'zero-in-user'])
def test_credentials_file(lab, refused, text, mode, says):
    path = '/run/other-credentials'
    if text is not None:
        with open(lab.path('client', path), 'w') as file:
            file.write(text)
        os.chmod(lab.path('client', path), mode)
    try:
        refused('//t1/share', USAGE, says, credentials=path)
    finally:
        if text is not None:
            os.unlink(lab.path('client', path))


def test_credentials_with_a_byte_order_mark(lab, engine):
    path = '/run/marked-credentials'
    with open(lab.path('client', path), 'w', encoding='utf-8-sig', opener=lambda p, f: os.open(p, f, 0o600)) as file:
        file.write('username=dfsuser\r\npassword=dfspass\r\n')
    assert 'hello.txt' in engine.dfsctl('ls', '//t1/share', '--credentials', path).stdout
    os.unlink(lab.path('client', path))


@pytest.mark.parametrize('arguments,code,says', [
    (['get', '//t1/share/hello.txt', '/nonexist/h'], SYSTEM, '/nonexist/h'),
    (['get', '//t1/share/hello.txt', '/mnt'], SYSTEM, 'folder'),
    (['get', '//t1/share/sub', '-'], MISSING_PATH, 'a folder'),
    (['get', '//t1/share/none', '-'], MISSING_PATH, ['none', 'no such file or folder (STATUS_']),
    (['ls', '//t1/share/none'], MISSING_PATH, 'no such file or folder (STATUS_'),
    (['ls', '//t1/share', '-o', 'password=Sesame'], USAGE, 'credentials file'),
    (['ls', '//t1/share', '-o', 'pasword=Sesame'], USAGE, "'pasword'"),
    (['get', '//t1/share/x', '-', '-o', 'vers=9,password=Sesame'], USAGE, 'vers'),
    (['ls', '//t1/nosuchshare'], UNKNOWN_SHARE, 'no such share (STATUS_')])
def test_get_and_ls_have_the_same_exit_codes(engine, arguments, code, says):
    begin = time.monotonic()
    run = engine.dfsctl(*arguments, '--credentials', engine.credentials(), check=False)
    check(run, code, says, time.monotonic() - begin)


@pytest.mark.parametrize('text', [
    'username=dfsuser\npassword=\n', 'username=dfsuser\n', 'username=' + 'u' * 2000 + '\npassword=Sesame\n'],
    ids=['empty', 'missing', 'long'])
def test_get_refuses_the_same_credentials_files(lab, engine, text):
    path = '/run/other-credentials'
    with open(lab.path('client', path), 'w', opener=lambda p, f: os.open(p, f, 0o600)) as file:
        file.write(text)
    run = engine.dfsctl('ls', '//t1/share', '--credentials', path, check=False)
    check(run, USAGE, path, 0)
    os.unlink(lab.path('client', path))


@pytest.mark.parametrize('text', [b'username=\xff\npassword=Sesame\n', b'username=dfsuser\npassword=Sesame\xfe\n'])
def test_credentials_that_are_not_utf_8(lab, engine, refused, text):
    """Refused before a server or the agent is asked, alike by mount and ls."""
    path = '/run/other-credentials'
    with open(lab.path('client', path), 'wb', opener=lambda p, f: os.open(p, f, 0o600)) as file:
        file.write(text)
    refused('//t1/share', USAGE, [path, 'not UTF-8'], credentials=path)
    check(engine.dfsctl('ls', '//t1/share', '--credentials', path, check=False), USAGE, [path, 'not UTF-8'], 0)
    os.unlink(lab.path('client', path))


def test_arguments_that_are_not_utf_8_or_hold_line_feeds(lab, refused):
    point = os.fsdecode(b'/mnt/not-utf-8-\xff')
    os.makedirs(lab.path('client', point))
    refused('//t1/share', USAGE, 'not UTF-8', point=point)
    os.rmdir(lab.path('client', point))
    refused(os.fsdecode(b'//t1/share/\xff'), USAGE, 'not UTF-8')
    refused('//t1/share', USAGE, 'not UTF-8', options=os.fsdecode(b'site=\xff'))
    refused('//t1/share', USAGE, 'uid=1?2', options='uid=1\n2')


@pytest.mark.parametrize('arguments', [['version'], ['help'], ['help', 'mount'], ['mounts'], ['ls', '//t1/share'],
                                       ['get', '//t1/share/hello.txt'], ['get', '//t1/share/hello.txt', '-']])
@pytest.mark.parametrize('output', ['>/dev/full', '>&-'])
def test_output_that_cannot_be_written_is_no_success(lab, engine, arguments, output):
    """With a closed standard output the file went into a descriptor of our own, and all seemed well."""
    credentials = ['--credentials', engine.credentials()] if arguments[0] in ('get', 'ls') else []
    if arguments == ['mounts']:
        engine.mount('//t1/share')
    run = lab.run_in('client', ['sh', '-c', f'exec "$0" "$@" {output}', engine.program('dfsctl'), *arguments,
                                *credentials], check=False, timeout=30)
    check(run, SYSTEM, 'bad file descriptor' if '&' in output else 'no space left', 0)


def test_get_without_any_standard_descriptor(lab, engine):
    run = lab.run_in('client', ['sh', '-c', 'exec "$0" "$@" <&- >&- 2>&-', engine.program('dfsctl'), 'get',
                                '//t1/share/hello.txt', '/run/copy', f'--credentials={engine.credentials()}'])
    assert not run.stdout and not run.stderr
    with open(lab.path('client', '/run/copy')) as file:
        assert file.read() == 'the same on every target\n'
    os.unlink(lab.path('client', '/run/copy'))


def test_credentials_that_are_a_folder_or_a_device(refused):
    refused('//t1/share', USAGE, '/run', credentials='/run')
    refused('//t1/share', USAGE, '/dev/zero', credentials='/dev/zero')


def test_mount_point_that_is_missing_or_a_file(lab, refused):
    with open(lab.path('client', '/mnt/file'), 'w'):
        pass
    refused('//t1/share', MOUNT_POINT, '/mnt/none', point='/mnt/none')
    refused('//t1/share', MOUNT_POINT, '/mnt/none', point='/mnt/none/below')
    refused('//t1/share', MOUNT_POINT, '/mnt/file', point='/mnt/file')
    refused('//t1/share', MOUNT_POINT, '/mnt/file/below', point='/mnt/file/below')
    os.unlink(lab.path('client', '/mnt/file'))


def test_mount_point_that_is_busy(lab, engine):
    """Of ours: what is mounted stays as it is."""
    engine.mount('//t1/share', POINT)
    before = lab.client_mounts()
    run = engine.mount('//t2/share', POINT, check=False)
    assert run.returncode == MOUNT_POINT and POINT in run.stderr and len(run.stderr.splitlines()) == 1, run
    assert lab.client_mounts() == before
    for source, options, differs in (('//t1@1445/share', None, 'with port 445, not 1445'),
                                     ('//t1/share', 'soft,dir_mode=0700', 'without soft,dir_mode=0700')):
        begin = time.monotonic()
        run = engine.mount(source, POINT, options, check=False)
        check(run, MOUNT_POINT, [POINT, '//t1/share is mounted there', differs, 'unmount'], time.monotonic() - begin)
        assert lab.client_mounts() == before
    with open(lab.path('client', POINT + '/who')) as file:
        assert file.read() == 't1\n'
    engine.unmount(POINT)


def test_mount_twice_of_the_same_is_one_mount(lab, engine):
    engine.mount('//t1/share', POINT)
    before = lab.client_mounts()
    run = engine.dfsctl('mount', '//t1/share', POINT, '--credentials', engine.credentials())
    assert run.returncode == 0 and lab.client_mounts() == before
    engine.unmount(POINT)


def test_mount_twice_with_another_password_is_refused(lab, engine):
    engine.mount('//t1/share', POINT)
    for user, password in (('dfsuser', 'Sesame'), ('dfsuser2', None)):
        begin = time.monotonic()
        run = engine.mount('//t1/share', POINT, user=user, password=password, check=False)
        check(run, MOUNT_POINT, ['another user or password', 'unmount'], time.monotonic() - begin)
    assert [point for point, _ in lab.client_mounts()] == [POINT]
    assert lab.run_in('client', ['cat', f'{POINT}/who']).stdout.strip() == 't1'
    engine.unmount(POINT)


def test_a_mount_point_that_is_a_symbolic_link(lab, engine):
    os.makedirs(lab.path('client', POINT), exist_ok=True)
    os.symlink('dfs', lab.path('client', '/mnt/link'))
    try:
        for mounted, unmounted in (('/mnt/link', '/mnt/link'), ('/mnt/link', POINT), (POINT, '/mnt/link/')):
            engine.dfsctl('mount', '//t1/share', mounted, '--credentials', engine.credentials(), '--state-dir',
                          engine.state_dir)
            assert [point for point, _ in lab.client_mounts()] == [POINT]
            engine.dfsctl('unmount', unmounted)
            assert not lab.client_mounts()
    finally:
        os.unlink(lab.path('client', '/mnt/link'))


def test_an_option_without_effect_is_a_warning(lab, engine):
    os.makedirs(lab.path('client', POINT), exist_ok=True)
    run = engine.dfsctl('mount', '//t1/share', POINT, '--credentials', engine.credentials(), '--state-dir',
                        engine.state_dir, '-o', 'noexec,nofail')
    assert run.stderr.splitlines() == ['dfsctl: warning: option noexec has no effect']
    engine.dfsctl('unmount', POINT)


def test_a_user_who_may_not_ask_is_told_so(lab, engine):
    engine.mount('//t1/share', POINT)
    for command in ('metrics', 'targets', 'referrals'):
        run = lab.run_in('client', ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups',
                                    engine.program('dfsctl'), command], check=False)
        assert run.returncode == SYSTEM and 'permission denied' in run.stderr.lower(), run
    engine.unmount(POINT)


def test_version_as_a_flag(engine):
    assert engine.dfsctl('--version').stdout == engine.dfsctl('version').stdout


def test_umount_is_unmount(engine):
    run = engine.dfsctl('umount', POINT, check=False)
    assert run.returncode == USAGE and 'unmount' in run.stderr, run


@pytest.mark.parametrize('options', [
    'vers=3.1.1', 'vers=3', 'vers=default', 'sec=ntlmssp', 'seal', 'sign', 'domain=WORKGROUP', 'workgroup=X,dom=',
    'user=nobody,username=dfsuser', 'ro,uid=1,uid=1000,gid=1000,file_mode=0600,dir_mode=0700,soft,hard',
    'failover_writes=error,target_policy=referral', 'rsize=65536,_netdev,nofail,noserverino,nobrl,iocharset=utf8'])
def test_words_of_mount_cifs(lab, engine, options):
    """Accepted; of a word that is given twice the last counts."""
    if 'seal' in options:
        lab.configure('t1', {'server smb encrypt': 'desired'})
    engine.mount('//t1/share', POINT, options=options)
    status = os.stat(lab.path('client', POINT + '/who'))
    assert (status.st_uid, stat.S_IMODE(status.st_mode)) == ((1000, 0o600) if 'uid=1000' in options else (0, 0o755))
    engine.unmount(POINT)


def test_sockets_that_cannot_be_made(lab, refused, engine):
    for folder in ('/dev/null/below', '/proc/none', '/run/' + 'x' * 200):
        refused(None, SYSTEM, folder[:20], arguments=[
            '//t1/share', POINT, '--credentials', engine.credentials(), '--socket-dir', folder])
    for flag in ('--socket-dir', '--state-dir'):
        refused(None, USAGE, f'{flag} must be an absolute path', arguments=[
            '//t1/share', POINT, '--credentials', engine.credentials(), flag, 'relative'])


@pytest.mark.parametrize('arguments', [['help'], ['--help'], ['-h'], ['help', 'help']])
def test_help_lists_every_command(engine, arguments):
    run = engine.dfsctl(*arguments)
    assert not run.stderr
    for command in ('mount', 'unmount', 'mounts', 'referrals', 'targets', 'cache flush', 'metrics', 'version', 'get', 'ls'):
        assert f'  dfsctl {command}' in run.stdout, command


@pytest.mark.parametrize('arguments', [['help', 'mount'], ['mount', '--help'], ['mount', '-h']])
def test_help_of_one_command(engine, arguments):
    run = engine.dfsctl(*arguments)
    assert run.stdout.startswith('usage: dfsctl mount SOURCE MOUNTPOINT') and not run.stderr
    for word in ('--credentials', '-o OPTIONS', 'vers=', 'seal', 'soft', '--state-dir'):
        assert word in run.stdout, word


@pytest.mark.parametrize('arguments', [[], ['help', 'nonsense'], ['nonsense', '--help'], ['mont', 'x']])
def test_a_command_that_there_is_not(engine, arguments):
    run = engine.dfsctl(*arguments, check=False)
    assert run.returncode == USAGE and len(run.stderr.splitlines()) == 1 and 'dfsctl help' in run.stderr, run


@pytest.mark.parametrize('point', ['/mnt/dfs', '/mnt/none', '/proc', 'relative'])
def test_unmount_of_what_is_not_ours(engine, lab, point):
    os.makedirs(lab.path('client', POINT), exist_ok=True)
    run = engine.dfsctl('unmount', point, check=False)
    assert run.returncode == MOUNT_POINT and len(run.stderr.splitlines()) == 1, run


def test_unmount_of_what_is_not_ours_beside_a_mount_that_is(engine):
    engine.mount('//t1/share', POINT)
    for point in ('/proc', '/', '/mnt/none'):
        run = engine.dfsctl('unmount', point, check=False)
        assert run.returncode == MOUNT_POINT and len(run.stderr.splitlines()) == 1, run
    engine.unmount(POINT)


@pytest.mark.parametrize('command', [['mounts'], ['targets'], ['referrals'], ['metrics'], ['cache', 'flush'],
                                     ['cache', 'fill'], ['nonsense'], ['mounts', 'too many']])
def test_commands_where_nothing_runs(engine, lab, command):
    run = engine.dfsctl(*command, check=False)
    print(run.returncode, run.stderr)
    assert run.returncode == (USAGE if command[-1] in ('fill', 'nonsense', 'too many') else 13), run
    assert run.stderr and not run.stdout
    assert not lab.client_processes()


@pytest.mark.parametrize('options,server,code,says', [
    ('vers=3.1.1', {'server max protocol': 'SMB3_02'}, PROTOCOL, 't2'),
    ('vers=3', {'server max protocol': 'SMB2_10'}, PROTOCOL, 't2'),
    ('seal', {'server smb encrypt': 'off'}, PROTOCOL, 'encrypt'),
    ('vers=3.0', {'server min protocol': 'SMB3_11'}, PROTOCOL, 't2'),
])
def test_dialect_or_encryption_that_the_server_lacks(lab, refused, options, server, code, says):
    lab.configure('t2', server)
    refused('//t2/share', code, says, options=options)


def test_a_server_of_smb1_alone(lab, refused):
    """It hangs up at the first word of SMB2, as a host does whose service starts: no more can be said."""
    lab.configure('t2', {'server min protocol': 'NT1', 'server max protocol': 'NT1'})
    refused('//t2/share', UNREACHABLE, ['t2', 'closed the connection'])


def test_path_that_refuses_the_user(lab, refused):
    os.makedirs(lab.data('t1', 'share/only-t1/below'), exist_ok=True)
    os.chmod(lab.data('t1', 'share/only-t1'), 0)
    try:
        refused('//t1/share/only-t1/below', ACCESS_DENIED, 'only-t1')
    finally:
        os.chmod(lab.data('t1', 'share/only-t1'), 0o777 | stat.S_IFDIR)


def test_share_that_refuses_the_user(lab, refused):
    lab.configure('t1', {'invalid users': 'dfsuser'})
    refused('//t1/share', ACCESS_DENIED, '//t1/share')


def documented_codes():
    """{exit code: its line} of docs/options.md."""
    with open(OPTIONS_PAGE) as file:
        table = file.read().split('## Exit codes of dfsctl', 1)[1]
    return {int(number): text for number, text in re.findall(r'^\| (\d+) \| (.+) \|$', table, re.MULTILINE)}


def test_every_documented_exit_code_is_provoked(engine, request):
    """Here, by a refused mount; help lists the same ones."""
    codes = documented_codes()
    assert sorted(codes) == list(range(SYSTEM + 1))
    listed = engine.dfsctl('help').stdout.split('Exit codes:', 1)[1]
    assert sorted(map(int, re.findall(r'\b(\d+) [a-z]', listed))) == sorted(codes)
    ran = {item.name for item in request.session.items if item.fspath == request.node.fspath}
    if request.config.option.keyword or any('::' in argument for argument in request.config.args):
        pytest.skip(f'only {len(ran)} of the tests before this one ran')
    assert _codes_seen == set(codes) - {0, 1}
