"""dfsctl get and ls against one server: reads of every shape, and clear errors."""

import hashlib
import os
import signal
import stat
import subprocess
import time

import pytest

from lab import CRYPTO

LAB = {'big_mib': 64}
PASSWORD = 'dfspass'


@pytest.fixture(name='credentials', scope='module')
def credentials_file(lab):
    """A function that makes a credentials file on the client, readable by root alone."""
    def make(user='dfsuser', password=PASSWORD, name='credentials'):
        path = lab.path('client', f'/mnt/{name}')
        with open(path, 'w', opener=lambda p, f: os.open(p, f, 0o600)) as file:
            file.write(f'username={user}\npassword={password}\n')
        return f'/mnt/{name}'
    return make


@pytest.fixture(name='dfsctl')
def run_dfsctl(lab, program, credentials):
    def run(*arguments, options=None, check=True, timeout=60, **keywords):
        command = [program('dfsctl'), *arguments, '--credentials', keywords.pop('file', credentials())]
        return lab.run_in('client', command + (['-o', options] if options else []), check=check,
                          timeout=timeout, **keywords)
    return run


def sha256_of_get(lab, dfsctl, source, options=None):
    """Of the bytes that `dfsctl get` writes to its output."""
    run = dfsctl('get', source, '-', options=options, text=False)
    return hashlib.sha256(run.stdout).hexdigest()


def test_plain_reads_are_plain(lab, dfsctl):
    lab.configure('t1', CRYPTO['plain'])
    try:
        with lab.capture('t1') as seen:
            assert sha256_of_get(lab, dfsctl, '//t1/share/big.bin', 'nosign') == lab.big_sha256
    finally:
        lab.configure('t1', {})
    reads = [request for request in seen.requests() if 'READ' in request.commands]
    assert len(reads) >= 8 and not any(r.signed or r.encrypted for r in reads)


def test_we_sign_although_the_server_does_not_ask(lab, dfsctl):
    with lab.capture('t2') as seen:
        dfsctl('get', '//t2/share/hello.txt', '-')
    reads = [request for request in seen.requests() if 'READ' in request.commands]
    assert reads and all(request.signed for request in reads)


def test_many_reads_are_in_flight_on_one_connection(lab, dfsctl):
    with lab.capture('t2') as seen:
        assert sha256_of_get(lab, dfsctl, '//t2/share/big.bin') == lab.big_sha256
    assert seen.connections() == 1


def test_a_server_with_one_credit_is_slow_but_works(lab, dfsctl):
    lab.configure('t1', {'smb2 max credits': '1'})
    try:
        run = dfsctl('get', '//t1/share/sparse.bin', '-', text=False, timeout=120)
    finally:
        lab.configure('t1', {})
    with open(lab.data('t1', 'share/sparse.bin'), 'rb') as file:
        assert run.stdout == file.read()


def test_a_server_with_small_reads(lab, dfsctl):
    lab.configure('t1', {'smb2 max read': '65536'})
    try:
        with lab.capture('t1') as seen:
            assert sha256_of_get(lab, dfsctl, '//t1/share/big.bin') == lab.big_sha256
    finally:
        lab.configure('t1', {})
    assert seen.commands()['READ'] >= 1024


def test_get_into_a_file(lab, dfsctl):
    dfsctl('get', '//t1/share/big.bin', '/mnt/big.bin')
    path = lab.path('client', '/mnt/big.bin')
    with open(path, 'rb') as file:
        assert hashlib.sha256(file.read()).hexdigest() == lab.big_sha256
    os.unlink(path)


@pytest.mark.parametrize('path,want', [
    ('', {'hello.txt', 'sub', 'grüße.txt', '文件.txt', 'emoji-😀.txt', 'İıß.txt', 'n' * 251 + '.txt'}),
    ('/sub/deep', {'leaf.txt'}),
    ('/empty-dir', set()),
])
def test_ls(lab, dfsctl, path, want):
    output = dfsctl('ls', '//t1/share' + path).stdout
    for name in want:
        assert any(line.endswith(name) or line.split()[-1].rstrip('/') == name
                   for line in output.splitlines()), output
    if not want:
        assert not output.strip()


def test_ls_of_many(lab, dfsctl):
    output = dfsctl('ls', '//t1/share/many').stdout
    assert sum(f'f{number:04}' in output for number in range(200)) == 200


@pytest.mark.parametrize('source,user,password,what', [
    ('//t1/share/hello.txt', 'dfsuser', 'Sesame-9', None),
    ('//t1/share/hello.txt', 'nobody-knows-me', 'x', None),
    ('//nosuchhost.lab.test/share/x', 'dfsuser', PASSWORD, 'nosuchhost'),
    ('//t1/nosuchshare/x', 'dfsuser', PASSWORD, 'nosuchshare'),
    ('//t1/share/no/such/file', 'dfsuser', PASSWORD, None),
    ('t1/share', 'dfsuser', PASSWORD, None),
    ('//t1', 'dfsuser', PASSWORD, None),
])
def test_an_error_is_one_clear_line(lab, dfsctl, credentials, source, user, password, what):
    start = time.monotonic()
    run = dfsctl('get', source, '-', file=credentials(user, password, 'other'), check=False)
    assert time.monotonic() - start <= 20
    assert run.returncode != 0 and not run.stdout
    assert len(run.stderr.strip().splitlines()) == 1, run.stderr
    assert what is None or what in run.stderr
    assert password == 'x' or password not in run.stderr


@pytest.mark.parametrize('mode', ['kill', 'drop', 'stop'])
def test_a_dead_server_is_an_error_within_20_s(lab, dfsctl, mode):
    lab.fail(mode, 't3')
    start = time.monotonic()
    run = dfsctl('get', '//t3/share/hello.txt', '-', check=False, timeout=60)
    assert run.returncode != 0 and len(run.stderr.strip().splitlines()) == 1
    assert time.monotonic() - start <= 20


def test_an_unreadable_credentials_file_is_an_error(lab, program):
    run = lab.run_in('client', [program('dfsctl'), 'ls', '//t1/share', '--credentials', '/mnt/none'],
                     check=False)
    assert run.returncode != 0 and '/mnt/none' in run.stderr


def test_the_password_is_in_no_argument_and_no_environment(lab, program, credentials):
    """While dfsctl and its dfs-auth run against a server that does not answer."""
    lab.fail('stop', 't3')
    process = lab.popen_in('client', [program('dfsctl'), 'ls', '//t3/share', '--credentials',
                                      credentials(password='Sesame-open-7')],
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        lab.wait_until(lambda: lab.connections('t3'), 10, 'it is connected')
        for pid in lab.client_processes():
            for name in ('cmdline', 'environ'):
                with open(f'/proc/{pid}/{name}', 'rb') as file:
                    assert b'Sesame-open-7' not in file.read()
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize('source,password', [
    ('//t1/share/no/such/file', PASSWORD), ('//t1/share/sub', PASSWORD), ('//nosuchhost/share/x', PASSWORD),
    ('//t1/nosuchshare/x', PASSWORD), ('//t1/share/hello.txt', 'Sesame-wrong-1')])
def test_a_get_that_fails_leaves_the_file_that_was_there(lab, dfsctl, credentials, source, password):
    folder = lab.path('client', '/mnt/kept')
    os.makedirs(folder, exist_ok=True)
    with open(folder + '/mine', 'w') as file:
        file.write('precious')
    run = dfsctl('get', source, '/mnt/kept/mine', file=credentials(password=password, name='other'), check=False)
    assert run.returncode != 0
    with open(folder + '/mine') as file:
        assert file.read() == 'precious'
    assert os.listdir(folder) == ['mine']


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_get_leaves_the_file_that_was_there(lab, program, credentials, number):
    folder = lab.path('client', '/mnt/kept')
    os.makedirs(folder, exist_ok=True)
    with open(folder + '/mine', 'w') as file:
        file.write('precious')
    lab.fail('stop', 't3')
    process = lab.popen_in('client', [program('dfsctl'), 'get', '//t3/share/hello.txt', '/mnt/kept/mine',
                                      '--credentials', credentials()],
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        lab.wait_until(lambda: len(os.listdir(folder)) == 2, 10, 'a temporary file is there')
        [pid] = [pid for pid in lab.client_processes() if b'get\0//t3' in command_of(pid)]
        os.kill(pid, number)
        process.communicate(timeout=10)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode != 0
    with open(folder + '/mine') as file:
        assert file.read() == 'precious'
    assert os.listdir(folder) == ['mine']


def command_of(pid):
    with open(f'/proc/{pid}/cmdline', 'rb') as file:
        return file.read()


def test_get_replaces_a_file_and_keeps_its_mode_and_its_link(lab, dfsctl):
    folder = lab.path('client', '/mnt/replaced')
    os.makedirs(folder)
    with open(folder + '/old', 'w') as file:
        file.write('x' * 1000)
    os.chmod(folder + '/old', 0o640)
    os.symlink('old', folder + '/link')
    dfsctl('get', '//t1/share/hello.txt', '/mnt/replaced/link')
    assert os.readlink(folder + '/link') == 'old'
    with open(folder + '/old', 'rb') as got, open(lab.data('t1', 'share/hello.txt'), 'rb') as want:
        assert got.read() == want.read()
    assert stat.S_IMODE(os.stat(folder + '/old').st_mode) == 0o640
    dfsctl('get', '//t1/share/hello.txt', '/mnt/replaced/new')
    assert stat.S_IMODE(os.stat(folder + '/new').st_mode) & 0o600 == 0o600
    assert sorted(os.listdir(folder)) == ['link', 'new', 'old']


def test_get_into_a_device_leaves_the_device(lab, dfsctl):
    node = lab.path('client', '/mnt/null')
    os.mknod(node, 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    try:
        dfsctl('get', '//t1/share/hello.txt', '/mnt/null')
        assert stat.S_ISCHR(os.stat(node).st_mode)
        assert dfsctl('get', '//t1/share/no/such', '/mnt/null', check=False).returncode != 0
        assert stat.S_ISCHR(os.stat(node).st_mode)
    finally:
        os.unlink(node)
