"""dfsctl put, cp, rm and mkdir: what they leave on the server, and what they say when they fail."""

import contextlib
import hashlib
import os
import signal
import subprocess
import time

import pytest

from test_errors import disk_of_a_folder, server_option

LAB = {'big_mib': 64}
PASSWORD = 'dfspass'
T1 = '//t1/bench'
OTHER, USAGE, WRONG_PASSWORD, UNREACHABLE, NO_SHARE, MISSING, DENIED, THIS_MACHINE = 1, 2, 3, 5, 6, 7, 8, 13


@pytest.fixture(name='credentials')
def credentials_file(lab):
    path = lab.path('client', '/mnt/credentials')
    with open(path, 'w', opener=lambda p, f: os.open(p, f, 0o600)) as file:
        file.write(f'username=dfsuser\npassword={PASSWORD}\n')
    return '/mnt/credentials'


@pytest.fixture(name='dfsctl')
def run_dfsctl(lab, program, credentials):
    """dfsctl(words…, code=0): fails if it ends otherwise; what it said."""
    def run(*words, code=0, **keywords):
        done = lab.run_in('client', [program('dfsctl'), *words, '--credentials', credentials], check=False,
                          timeout=90, **keywords)
        assert done.returncode == code, done.stderr
        assert not done.stdout
        assert len(done.stderr.strip().splitlines()) == (1 if code else 0), done.stderr
        return done.stderr
    return run


@pytest.fixture(autouse=True)
def nothing_is_left(lab):
    """Each test begins with an empty folder on every server, and leaves no temporary file."""
    def clear(folder):
        for name in os.listdir(folder):
            subprocess.run(['rm', '-rf', f'{folder}/{name}'], check=True)

    folders = [lab.data(host, 'bench') for host in ('t1', 't2', 't3')]
    for folder in folders:
        clear(folder)
    yield
    for folder in folders:
        # The server removes it when it notices that the connection is gone.
        lab.wait_until(lambda folder=folder: not [n for n in os.listdir(folder) if n.startswith('.dfsctl')], 30,
                       'no temporary file is left')
        clear(folder)


def on_client(lab, name, content):
    path = lab.path('client', f'/mnt/{name}')
    with open(path, 'wb') as file:
        file.write(content)
    return f'/mnt/{name}'


def on_server(lab, name, content=None, host='t1'):
    """Reads, or makes as its user may change it."""
    path = lab.data(host, f'bench/{name}')
    if content is None:
        with open(path, 'rb') as file:
            return file.read()
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, 'wb') as file:
        file.write(content)
    subprocess.run(['chmod', '-R', 'a+rwX', lab.data(host, 'bench')], check=True)
    return content


# --- put

@pytest.mark.parametrize('size', [0, 1, 4096, (4 << 20) - 1, 4 << 20, (9 << 20) + 5])
def test_put(lab, dfsctl, size):
    content = os.urandom(size)
    dfsctl('put', on_client(lab, 'local', content), f'{T1}/new')
    assert on_server(lab, 'new') == content


def test_put_of_standard_input(lab, dfsctl):
    dfsctl('put', '-', f'{T1}/new', input='what comes in')
    assert on_server(lab, 'new') == b'what comes in'


def test_put_of_a_closed_standard_input(lab, program, credentials):
    lab.run_in('client', ['sh', '-c', f"{program('dfsctl')} put - {T1}/new --credentials {credentials} <&-"])
    assert on_server(lab, 'new') == b''


def test_put_through_a_link(lab, dfsctl):
    dfsctl('put', on_client(lab, 'local', b'through'), '//root1/dfs/two/put-here')
    found = [host for host in ('t1', 't2', 't3') if os.path.exists(lab.data(host, 'share/put-here'))]
    assert len(found) == 1
    dfsctl('rm', '//root1/dfs/two/put-here')
    assert not os.path.exists(lab.data(found[0], 'share/put-here'))


def test_put_replaces_a_file_only_by_the_whole(lab, dfsctl):
    on_server(lab, 'there', b'x' * 1000)
    dfsctl('put', on_client(lab, 'local', b'new'), f'{T1}/there')
    assert on_server(lab, 'there') == b'new'


@pytest.mark.parametrize('file,target,code,says', [
    ('/mnt/none', f'{T1}/new', THIS_MACHINE, '/mnt/none'),
    ('/mnt', f'{T1}/new', THIS_MACHINE, 'folder'),
    ('/mnt/local', f'{T1}', USAGE, 'share'),
    ('/mnt/local', f'{T1}/dir', MISSING, 'folder'),
    ('/mnt/local', f'{T1}/new/', USAGE, 'folder'),
    ('/mnt/local', f'{T1}/there/', USAGE, 'folder'),
    ('/mnt/local', '\\\\t1\\bench\\new\\', USAGE, 'folder'),
    ('/mnt/local', f'{T1}/none/new', MISSING, 'no such'),
    ('/mnt/local', f'{T1}/there/new', MISSING, ''),
    ('/mnt/local', f'{T1}/../new', USAGE, ''),
    ('/mnt/local', '//root1/dfs/two', MISSING, 'folder'),
    ('/mnt/local', '//t1/none/new', NO_SHARE, 'none'),
    ('/mnt/local', 'new', USAGE, ''),
    ('/mnt/local', f'{T1}/' + 'n' * 300, USAGE, ''),
])
def test_put_that_cannot_be(lab, dfsctl, file, target, code, says):
    on_client(lab, 'local', b'local')
    on_server(lab, 'there', b'there')
    on_server(lab, 'dir/inside', b'inside')
    assert says in dfsctl('put', file, target, code=code)
    assert on_server(lab, 'there') == b'there'
    assert sorted(os.listdir(lab.data('t1', 'bench'))) == ['dir', 'there']


def test_put_onto_a_read_only_share_or_file(lab, dfsctl):
    on_client(lab, 'local', b'local')
    on_server(lab, 'there', b'there')
    with server_option(lab, read_list='dfsuser'):
        dfsctl('put', '/mnt/local', f'{T1}/there', code=DENIED)
        dfsctl('put', '/mnt/local', f'{T1}/new', code=DENIED)
    os.chmod(lab.data('t1', 'bench/there'), 0o444)
    dfsctl('put', '/mnt/local', f'{T1}/there', code=DENIED)
    os.chmod(lab.data('t1', 'bench/there'), 0o666)
    lab.smbclient('//t1/bench', 'setmode there +r')
    dfsctl('put', '/mnt/local', f'{T1}/there', code=DENIED)
    assert on_server(lab, 'there') == b'there'
    assert os.listdir(lab.data('t1', 'bench')) == ['there']


def test_put_onto_a_full_disk_leaves_what_was_there(lab, dfsctl):
    on_client(lab, 'local', os.urandom(8 << 20))
    folder = lab.data('t1', 'bench/small')
    os.makedirs(folder)
    with disk_of_a_folder(lab, 'mode=0777'):
        dfsctl('put', '/mnt/credentials', f'{T1}/small/there')
        assert 'full' in dfsctl('put', '/mnt/local', f'{T1}/small/there', code=OTHER)
        dfsctl('cp', f'{T1}/small/there', f'{T1}/small/again')
        kept = lab.smbclient('//t1/bench', 'cd small; ls').stdout
        assert 'there' in kept and 'again' in kept and '.dfsctl' not in kept
        dfsctl('rm', f'{T1}/small/again')


def test_names_are_those_of_a_mount(lab, program, credentials, dfsctl, engine):
    """Characters that Windows does not have: put, listed, copied, read and removed as a mount has them."""
    on_client(lab, 'local', b'local')
    names = ['there:stream', 'a*b', 'what?', '"<|>', 'end.', 'back\\slash', '\\', '\\end\\']
    dfsctl('mkdir', f'{T1}/dir:1')
    for name in names:
        dfsctl('put', '/mnt/local', f'{T1}/dir:1/{name}')
    dfsctl('cp', f'{T1}/dir:1/a*b', f'{T1}/dir:1/copy>')
    point = engine.mount(T1)
    assert sorted(lab.run_in('client', ['ls', f'{point}/dir:1']).stdout.splitlines()) == sorted([*names, 'copy>'])
    engine.unmount(point)

    def says(*words):
        return lab.run_in('client', [program('dfsctl'), *words, '--credentials', credentials]).stdout
    listed = [line.split(None, 2)[2] for line in says('ls', f'{T1}/dir:1').splitlines()]
    assert sorted(set(listed) - {'.', '..'}) == sorted([*names, 'copy>'])
    assert says('ls', f'{T1}/dir:1/copy>').split(None, 2)[2] == f'{T1}/dir:1/copy>\n'
    assert says('get', f'{T1}/dir:1/copy>', '-') == 'local'
    assert f"{T1}/dir:1/none*" in dfsctl('get', f'{T1}/dir:1/none*', '-', code=MISSING)
    for name in names:
        dfsctl('rm', f'{T1}/dir:1/{name}')
    dfsctl('rm', '-r', f'{T1}/dir:1')
    assert not os.listdir(lab.data('t1', 'bench'))


def test_a_name_that_the_server_reserves(lab, dfsctl):
    on_client(lab, 'local', b'local')
    with server_option(lab, veto_files='/*.exe/'):
        dfsctl('put', '/mnt/local', f'{T1}/x.exe', code=MISSING)
        dfsctl('mkdir', f'{T1}/y.exe', code=MISSING)
    assert not os.listdir(lab.data('t1', 'bench'))


def start_put(lab, program, credentials, target, size=64 << 20):
    """A put that has begun and cannot end: its input stays open."""
    process = lab.popen_in('client', [program('dfsctl'), 'put', '-', target, '--credentials', credentials],
                           stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdin.write(os.urandom(size))
    process.stdin.flush()
    return process


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_put_leaves_what_was_there(lab, program, credentials, number):
    on_server(lab, 'there', b'there')
    process = start_put(lab, program, credentials, f'{T1}/there', 9 << 20)
    folder = lab.data('t1', 'bench')
    try:
        lab.wait_until(lambda: len(os.listdir(folder)) == 2, 10, 'the temporary file is there')
        os.kill(process.pid, number)
        process.communicate(timeout=10)
    finally:
        process.kill()
        process.wait()
    assert process.returncode != 0
    lab.wait_until(lambda: os.listdir(folder) == ['there'], 20, 'the server removes the temporary file')
    assert on_server(lab, 'there') == b'there'


def test_a_put_goes_on_at_another_target_when_its_server_dies(lab, program, credentials):
    lab.fail('kill', 't1')
    on_client(lab, 'local', b'local' * 1000)
    done = lab.run_in('client', [program('dfsctl'), 'put', '/mnt/local', '//root1/dfs/two/put-here', '--credentials', credentials])
    assert done.returncode == 0
    lab.heal('t1')
    holders = [host for host in ('t1', 't2', 't3') if os.path.exists(lab.data(host, 'share/put-here'))]
    assert len(holders) == 1 and holders[0] != 't1'
    os.unlink(lab.data(holders[0], 'share/put-here'))


@pytest.mark.parametrize('mode', ['reset', 'stop'])
def test_a_put_whose_server_is_lost_fails_within_its_time(lab, program, credentials, mode):
    process = start_put(lab, program, credentials, f'{T1}/new', 9 << 20)
    try:
        lab.wait_until(lambda: os.listdir(lab.data('t1', 'bench')), 10, 'the temporary file is there')
        lab.fail(mode, 't1')
        began = time.monotonic()
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(os.urandom(16 << 20))
            process.stdin.close()
        process.stdin = None
        error = process.communicate(timeout=60)[1]
        assert time.monotonic() - began <= 40
    finally:
        process.kill()
        process.wait()
        lab.heal('t1')
    if mode == 'reset':  # Of which the server has not heard: it would keep the connection for hours.
        lab.fail('restart', 't1')
        lab.heal('t1')
    assert process.returncode == UNREACHABLE, error
    assert not os.path.exists(lab.data('t1', 'bench/new'))


# --- cp

def test_cp_in_one_share_is_made_by_its_server(lab, dfsctl):
    with lab.capture('t1') as seen:
        dfsctl('cp', '//t1/share/big.bin', '//t1/share/copied')
    path = lab.data('t1', 'share/copied')
    with open(path, 'rb') as file:
        assert hashlib.sha256(file.read()).hexdigest() == lab.big_sha256
    os.unlink(path)
    assert not seen.commands().get('READ') and not seen.commands().get('WRITE')


@pytest.mark.parametrize('host', ['t1', 't2'])
def test_cp_between_shares_and_servers_passes_through_here(lab, dfsctl, host):
    dfsctl('cp', '//t1/share/big.bin', f'//{host}/bench/copied')
    assert hashlib.sha256(on_server(lab, 'copied', host=host)).hexdigest() == lab.big_sha256


@pytest.mark.parametrize('source,target,code', [
    (f'{T1}/none', f'{T1}/new', MISSING), (f'{T1}/dir', f'{T1}/new', MISSING), (f'{T1}/there', f'{T1}/dir', MISSING),
    (f'{T1}/there', f'{T1}/THERE', USAGE), (f'{T1}/there', f'{T1}/none/new', MISSING), (f'{T1}/there', T1, USAGE),
    (f'{T1}/there', f'{T1}/new/', USAGE), (f'{T1}/there/', f'{T1}/new', USAGE),
    (f'{T1}/there', '//t2/none/new', NO_SHARE)])
def test_cp_that_cannot_be(lab, dfsctl, source, target, code):
    on_server(lab, 'there', b'there')
    on_server(lab, 'dir/inside', b'inside')
    dfsctl('cp', source, target, code=code)
    assert on_server(lab, 'there') == b'there'
    assert sorted(os.listdir(lab.data('t1', 'bench'))) == ['dir', 'there']


def test_cp_replaces(lab, dfsctl):
    on_server(lab, 'a', b'a' * 100)
    on_server(lab, 'b', b'b' * 999)
    on_server(lab, 'nothing', b'')
    dfsctl('cp', f'{T1}/a', f'{T1}/b')
    assert on_server(lab, 'b') == b'a' * 100
    dfsctl('cp', f'{T1}/nothing', f'{T1}/b')
    assert on_server(lab, 'b') == b''


# --- rm

def test_rm(lab, dfsctl):
    on_server(lab, 'file', b'x')
    on_server(lab, 'keep', b'x')
    dfsctl('rm', f'{T1}/file')
    assert os.listdir(lab.data('t1', 'bench')) == ['keep']


def test_rm_of_a_tree(lab, dfsctl):
    for number in range(300):
        on_server(lab, f'tree/many/file{number}', b'x')
    on_server(lab, 'tree/a/b/c/leaf', b'x')
    on_server(lab, 'keep', b'x')
    os.makedirs(lab.data('t1', 'bench/tree/empty'))
    assert '-r' in dfsctl('rm', f'{T1}/tree', code=MISSING)
    assert os.path.exists(lab.data('t1', 'bench/tree/a/b/c/leaf'))
    dfsctl('rm', '-r', f'{T1}/tree')
    assert os.listdir(lab.data('t1', 'bench')) == ['keep']


@pytest.mark.parametrize('path,code', [
    (f'{T1}/none', MISSING), (f'{T1}/none/none', MISSING), (T1, USAGE), ('//root1/dfs/two', USAGE), ('//root1/dfs', USAGE),
    (f'{T1}/keep:stream', MISSING), ('//t1/none/x', NO_SHARE)])
def test_rm_that_cannot_be(lab, dfsctl, path, code):
    on_server(lab, 'keep', b'x')
    for words in ([], ['-r']):
        dfsctl('rm', *words, path, code=code)
    assert on_server(lab, 'keep') == b'x'
    assert os.listdir(lab.data('t1', 'share'))


def test_rm_of_a_tree_with_a_link_removes_neither_it_nor_what_is_behind_it(lab, dfsctl):
    folder = lab.data('root1', 'tree')
    os.makedirs(folder)
    os.symlink(r'msdfs:t1\bench', f'{folder}/behind')
    subprocess.run(['chmod', '-R', 'a+rwX', folder], check=True)
    on_server(lab, 'precious', b'x')
    try:
        assert 'DFS link' in dfsctl('rm', '-r', '//root1/dfs/tree', code=USAGE)
        assert on_server(lab, 'precious') == b'x'
        assert os.path.islink(f'{folder}/behind')
    finally:
        os.unlink(f'{folder}/behind')
        os.rmdir(folder)


def test_rm_of_what_may_not_be_removed(lab, dfsctl):
    on_server(lab, 'locked', b'x')
    lab.smbclient('//t1/bench', 'setmode locked +r')
    dfsctl('rm', f'{T1}/locked', code=DENIED)
    with server_option(lab, read_list='dfsuser'):
        dfsctl('rm', f'{T1}/locked', code=DENIED)
        dfsctl('mkdir', f'{T1}/new', code=DENIED)
    assert os.listdir(lab.data('t1', 'bench')) == ['locked']


# --- mkdir

def test_mkdir(lab, dfsctl):
    dfsctl('mkdir', f'{T1}/a')
    assert 'already' in dfsctl('mkdir', f'{T1}/a', code=OTHER)
    dfsctl('mkdir', f'{T1}/a/b/c', code=MISSING)
    dfsctl('mkdir', '-p', f'{T1}/a/b/c')
    dfsctl('mkdir', '-p', f'{T1}/a/b/c')
    assert os.path.isdir(lab.data('t1', 'bench/a/b/c'))
    on_server(lab, 'a/file', b'x')
    dfsctl('mkdir', '-p', f'{T1}/a/file', code=MISSING)
    dfsctl('mkdir', '-p', f'{T1}/a/file/x', code=MISSING)
    dfsctl('mkdir', T1, code=USAGE)


def test_mkdir_through_a_link(lab, dfsctl):
    dfsctl('mkdir', '-p', '//root1/dfs/two/made/here')
    made = [host for host in ('t1', 't2', 't3') if os.path.isdir(lab.data(host, 'share/made/here'))]
    assert len(made) == 1
    dfsctl('rm', '-r', '//root1/dfs/two/made')
    assert not os.path.exists(lab.data(made[0], 'share/made'))


@pytest.mark.parametrize('words', [['put', '/mnt/credentials'], ['cp', f'{T1}/x'], ['rm'], ['mkdir']])
def test_a_dead_server_is_an_error_within_20_s(lab, dfsctl, words):
    lab.fail('stop', 't3')
    began = time.monotonic()
    if words[0] == 'cp':
        on_server(lab, 'x', b'x')
    dfsctl(*words, '//t3/bench/new', code=UNREACHABLE)
    assert time.monotonic() - began <= 20


@pytest.mark.parametrize('words', [['put'], ['put', 'a'], ['put', 'a', f'{T1}/b', 'c'], ['cp', f'{T1}/a'], ['rm'], ['rm', '-x', f'{T1}/a'],
                                   ['mkdir'], ['mkdir', '-r', f'{T1}/a'], ['rm', f'{T1}/a', f'{T1}/b']])
def test_words_that_are_missing_or_too_many(dfsctl, words):
    dfsctl(*words, code=USAGE)
