"""What open files, mapped files and inodes are after a failover: catalogue D."""

import errno
import os
import signal
import subprocess
import time

import pytest

from lab import Application

LAB = {'big_mib': 16}
FOLDER = '/mnt/dfs/three'  # Served by t1, then by t2.


@pytest.fixture(name='app')
def application(lab, engine):
    """An application on a mounted namespace; afterwards nobody holds anything in the agent."""
    engine.mount('//root1/dfs')
    with Application(lab) as made:
        assert made.do(f"read('{FOLDER}/who')") == b't1\n'
        yield made
    engine.check_idle()


def move(lab, app):
    """t1 dies; afterwards t2 serves the link."""
    lab.fail('kill', 't1')
    assert app.do(f"read('{FOLDER}/who')") == b't2\n'


def block(lab, host, name, offset, size=4096):
    with open(lab.data(host, f'share/{name}'), 'rb') as file:
        return os.pread(file.fileno(), size, offset)


def open_file(app, name, path, flags='os.O_RDONLY'):
    app.keep(name, f"os.open('{FOLDER}/{path}', {flags})")


def test_d01_the_same_file(lab, engine, app):
    open_file(app, 'big', 'big.bin')
    open_file(app, 'direct', 'big.bin', 'os.O_RDONLY | os.O_DIRECT')
    assert app.do("os.pread(kept['big'], 4096, 0)") == block(lab, 't1', 'big.bin', 0)
    move(lab, app)
    for offset in (0, 5 << 20, (16 << 20) - 4096):
        assert app.do(f"os.pread(kept['big'], 4096, {offset})") == block(lab, 't2', 'big.bin', offset)
    app.keep('page', 'mmap.mmap(-1, 4096)')
    assert app.do("os.preadv(kept['direct'], [kept['page']], 8 << 20)") == 4096
    assert app.do("kept['page'][:]") == block(lab, 't2', 'big.bin', 8 << 20)
    assert engine.counter('handle_rebinds_total') == 2 and engine.counter('stale_handles_total') == 0


def test_d02_another_file_of_that_name(lab, engine, app):
    """ESTALE for this handle, and never a byte of the other file; a new open has that one."""
    open_file(app, 'file', 'differs.txt', 'os.O_RDONLY | os.O_DIRECT')
    open_file(app, 'good', 'hello.txt')
    move(lab, app)
    app.keep('page', 'mmap.mmap(-1, 4096)')
    for _ in range(2):
        assert app.errno_of("os.preadv(kept['file'], [kept['page']], 0)") == errno.ESTALE
    assert app.do("kept['page'][:1]") == b'\0'
    assert app.do(f"len(read('{FOLDER}/differs.txt'))") == 102
    assert app.do("os.pread(kept['good'], 3, 0)") == b'the'
    assert app.errno_of("os.close(kept['file'])") == 0
    assert engine.counter('stale_handles_total') == 1


def test_d02_the_same_size_and_another_time(lab, app):
    for target, when in (('t1', 1_700_000_000), ('t2', 1_700_000_010)):
        path = lab.data(target, 'share/later.txt')
        with open(path, 'w') as file:
            file.write('the same size')
        os.utime(path, (when, when))
    open_file(app, 'file', 'later.txt')
    move(lab, app)
    assert app.errno_of("os.pread(kept['file'], 10, 0)") == errno.ESTALE
    assert app.do(f"read('{FOLDER}/later.txt')") == b'the same size'


def test_d03_no_file_of_that_name(lab, app):
    open_file(app, 'file', 'only-t1.txt')
    move(lab, app)
    assert app.errno_of("os.pread(kept['file'], 10, 0)") == errno.ESTALE
    assert app.errno_of(f"read('{FOLDER}/only-t1.txt')") == errno.ENOENT
    assert app.do(f"read('{FOLDER}/only-t2.txt')") == b't2\n'


def test_d12_mapped_file(lab, app):
    open_file(app, 'big', 'big.bin')
    app.keep('map', "mmap.mmap(kept['big'], 0, prot=mmap.PROT_READ)")
    assert app.do("kept['map'][:4096]") == block(lab, 't1', 'big.bin', 0)
    move(lab, app)
    for offset in (0, 12 << 20):
        assert app.do(f"kept['map'][{offset}:{offset} + 4096]") == block(lab, 't2', 'big.bin', offset)


def test_d12_mapped_file_that_differs(lab, app):
    """SIGBUS, as on any file system whose file is gone; no byte of the other file."""
    for number, target in enumerate(('t1', 't2')):
        with open(lab.data(target, 'share/mapped.bin'), 'wb') as file:
            file.truncate((8 << 20) + 4096 * number)
    open_file(app, 'file', 'mapped.bin')
    app.keep('map', "mmap.mmap(kept['file'], 0, prot=mmap.PROT_READ)")
    assert app.do("kept['map'][0]") == 0
    move(lab, app)
    app.start("kept['map'][(8 << 20) - 1]")
    assert app.wait_for_end(20) == -signal.SIGBUS


def test_d16_inode_numbers_stay(lab, app):
    names = ['who', 'hello.txt', 'big.bin', 'sub', 'sub/deep/leaf.txt', 'many/f0007', '']
    numbers = f"[os.stat('{FOLDER}/' + name).st_ino for name in {names!r}]"
    before = app.do(numbers)
    listed = app.do(f"sorted((e.name, e.inode()) for e in os.scandir('{FOLDER}/many'))")
    assert len(set(before)) == len(names)
    move(lab, app)
    assert app.do(numbers) == before
    assert app.do(f"sorted((e.name, e.inode()) for e in os.scandir('{FOLDER}/many'))") == listed
    assert dict(listed)['f0007'] == before[5]


def test_d17_file_ids_of_two_servers_are_not_compared(lab, app):
    """On t2 each of two files has the id that the other one has on t1."""
    for name in ('left', 'right'):
        with open(lab.data('t1', f'share/{name}'), 'w') as file:
            file.write(name)
        os.utime(lab.data('t1', f'share/{name}'), (1_700_000_000, 1_700_000_000))
    os.link(lab.data('t1', 'share/left'), lab.data('t2', 'share/right'))
    os.link(lab.data('t1', 'share/right'), lab.data('t2', 'share/left'))
    inodes = app.do(f"[os.stat('{FOLDER}/' + n).st_ino for n in ('left', 'right')]")
    assert [app.do(f"read('{FOLDER}/{n}')") for n in ('left', 'right')] == [b'left', b'right']
    move(lab, app)
    assert app.do(f"[os.stat('{FOLDER}/' + n).st_ino for n in ('left', 'right')]") == inodes
    assert [app.do(f"read('{FOLDER}/{n}')") for n in ('left', 'right')] == [b'right', b'left']


def test_d18_a_servers_symlink_is_a_file_of_its_own(app):
    """Samba follows it: two names with one file id are two inodes, and no hard link."""
    link, target = (app.do(f"tuple(os.lstat('{FOLDER}/{name}'))[:4]")
                    for name in ('symlink-to-file', 'hello.txt'))
    assert link[1] != target[1] and link[3] == target[3] == 1
    assert app.do(f"read('{FOLDER}/symlink-to-file')") == b'the same on every target\n'


@pytest.mark.parametrize('mode', ['kill', 'stop'])
def test_d20_statfs_and_du_while_it_moves(lab, app, mode):
    """No error, whenever they come: of names that both targets have. One that t1 alone has is listed, and gone."""
    blocks = app.do(f"os.statvfs('{FOLDER}').f_blocks")
    du = f"du -s --exclude='only-t*' {FOLDER}"
    tree = lab.popen_in('client', ['bash', '-c', f'for i in 1 2 3 4 5 6; do {du} || exit 1; done'],
                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    lab.fail(mode, 't1')
    moved, deadline = False, time.monotonic() + 20
    while not moved:
        assert time.monotonic() < deadline
        assert app.do(f"os.statvfs('{FOLDER}').f_blocks") == blocks
        app.start(f"read('{FOLDER}/who')")
        moved = app.result() == b't2\n'
    out, err = tree.communicate(timeout=60)
    assert tree.returncode == 0 and not err, err
    assert len(out.splitlines()) == 6
