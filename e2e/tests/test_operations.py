"""What programs do besides reading and writing: each is compared with the server's disk."""

import errno
import hashlib
import os
import random
import subprocess
import sys
import time

import pytest

from lab import Application

LAB = {}
MOUNT = '/mnt/dfs'


def on_server(lab, path, host='t1'):
    return lab.data(host, f'bench/{path}')


def names(lab):
    """What lies in the share, but for what the lab made."""
    return sorted(name for name in os.listdir(on_server(lab, '')) if name != 'copy')


@pytest.fixture(name='app')
def application(lab, engine):
    engine.mount('//t1/bench', options='rw,file_mode=0644,dir_mode=0755')
    with Application(lab) as made:
        yield made
    engine.check_idle()


def test_a_read_only_file_is_removed_and_leaves_nothing(lab, app):
    for is_open in (False, True):
        app.do(f"open('{MOUNT}/locked', 'w').close()")
        app.do(f"os.chmod('{MOUNT}/locked', 0o444)")
        assert app.do(f"os.stat('{MOUNT}/locked').st_mode & 0o222") == 0
        if is_open:
            app.keep('f', f"os.open('{MOUNT}/locked', os.O_RDONLY)")
        app.do(f"os.unlink('{MOUNT}/locked')")
        assert app.errno_of(f"os.stat('{MOUNT}/locked')") == errno.ENOENT
        if is_open:
            app.do("os.close(kept['f'])")
        lab.wait_until(lambda: not names(lab), 20, 'nothing is left')


def test_a_folder_shows_at_once_what_was_made_in_it(lab, app):
    app.do(f"os.mkdir('{MOUNT}/folder')")
    os.utime(on_server(lab, 'folder'), (1_500_000_000, 1_500_000_000))
    lab.wait_until(lambda: app.do(f"int(os.stat('{MOUNT}/folder').st_mtime)") == 1_500_000_000, 20, 'it is seen')
    app.do(f"open('{MOUNT}/folder/file', 'w').close()")
    assert app.do(f"os.stat('{MOUNT}/folder').st_mtime") > 1_600_000_000
    app.do(f"os.unlink('{MOUNT}/folder/file')")
    app.do(f"os.rmdir('{MOUNT}/folder')")


def test_seek_knows_what_another_handle_has_made_of_the_size(lab, app):
    app.keep('f', f"os.open('{MOUNT}/seek', os.O_CREAT | os.O_RDONLY)")
    app.keep('g', f"os.open('{MOUNT}/seek', os.O_RDWR)")
    app.do("os.pwrite(kept['g'], b'x' * 9000, 0)")
    assert app.do("os.lseek(kept['f'], 5, os.SEEK_DATA)") == 5
    assert app.do("os.lseek(kept['f'], 5, os.SEEK_HOLE)") == 9000
    app.do("os.ftruncate(kept['g'], 100)")
    assert app.errno_of("os.lseek(kept['f'], 500, os.SEEK_HOLE)") == errno.ENXIO
    app.do("os.close(kept['f'])")
    app.do("os.close(kept['g'])")
    app.do(f"os.unlink('{MOUNT}/seek')")


# --- Symbolic links

@pytest.fixture(name='links')
def application_with_links(lab, engine):
    engine.mount('//t1/bench', options='rw,mfsymlinks,file_mode=0644,dir_mode=0755')
    with Application(lab) as made:
        yield made
    engine.check_idle()


def mf_symlink(target):
    """What cifs writes for a link, by the letter."""
    text = target.encode()
    content = b'XSym\n%04d\n%s\n' % (len(text), hashlib.md5(text).hexdigest().encode()) + text
    return (content + b'\n').ljust(1067, b' ')[:1067]


def test_links_that_cifs_has_written_are_links(lab, links):
    m = MOUNT
    with open(on_server(lab, 'target'), 'wb') as file:
        file.write(b'of the target')
    for name, content in (('link', mf_symlink('target')), ('plain', b'x' * 1067)):
        with open(on_server(lab, name), 'wb') as file:
            file.write(content)
    assert links.do(f"os.readlink('{m}/link')") == 'target'
    assert links.do(f"os.lstat('{m}/link').st_size") == 6
    assert links.do(f"open('{m}/link').read()") == 'of the target'
    assert links.do(f"sorted((e.name, e.is_symlink()) for e in os.scandir('{m}') if e.name in ('link', 'plain'))") == [
        ('link', True), ('plain', False)]
    assert links.do(f"os.path.getsize('{m}/plain')") == 1067
    links.do(f"os.unlink('{m}/link')")
    assert names(lab) == ['plain', 'target']
    for name in ('target', 'plain'):
        links.do(f"os.unlink('{m}/{name}')")


def test_links_are_made_as_cifs_makes_them(lab, links):
    m = MOUNT
    for target in ('a', '../a/b', '/etc/hosts', 'grüße', 't' * 1024):
        links.do(f"os.symlink({target!r}, '{m}/made')")
        with open(on_server(lab, 'made'), 'rb') as file:
            assert file.read() == mf_symlink(target)
        assert links.do(f"os.readlink('{m}/made')") == target
        assert links.errno_of(f"os.symlink('x', '{m}/made')") == errno.EEXIST
        assert links.errno_of(f"os.open('{m}/made', os.O_RDONLY | os.O_NOFOLLOW)") == errno.ELOOP
        links.do(f"os.rename('{m}/made', '{m}/moved')")
        assert links.do(f"os.path.islink('{m}/moved')")
        links.do(f"os.unlink('{m}/moved')")
        assert not names(lab)
    assert links.errno_of(f"os.symlink('t' * 1025, '{m}/made')") == errno.ENAMETOOLONG
    links.do(f"os.symlink('loop', '{m}/loop')")
    assert links.errno_of(f"os.open('{m}/loop', os.O_RDONLY)") == errno.ELOOP
    links.do(f"os.unlink('{m}/loop')")


# --- Space, copies

FALLOCATE = "__import__('ctypes').CDLL(None, use_errno=True)"


def allocate(app, mode, offset, length):
    return app.do(f"(lambda c: c.fallocate(kept['f'], {mode}, __import__('ctypes').c_long({offset}), "
                  f"__import__('ctypes').c_long({length})) and __import__('ctypes').get_errno())({FALLOCATE})")


def test_space_is_allocated_and_given_back(lab, app):
    app.keep('f', f"os.open('{MOUNT}/space', os.O_CREAT | os.O_RDWR)")
    path = on_server(lab, 'space')
    assert allocate(app, 0, 0, 1 << 20) == 0
    assert os.stat(path).st_size == app.do("os.fstat(kept['f']).st_size") == 1 << 20
    assert app.do("os.pwrite(kept['f'], b'x' * (1 << 20), 0)") == 1 << 20
    assert allocate(app, 1, 0, 2 << 20) == 0  # KEEP_SIZE
    assert os.stat(path).st_size == 1 << 20
    before = os.stat(path).st_blocks
    assert allocate(app, 3, 0, 1 << 19) == 0  # PUNCH_HOLE | KEEP_SIZE
    assert os.stat(path).st_size == 1 << 20
    assert os.stat(path).st_blocks < before
    with open(path, 'rb') as file:
        assert file.read() == b'\0' * (1 << 19) + b'x' * (1 << 19)
    assert app.do("os.pread(kept['f'], 2, (1 << 19) - 1)") == b'\0x'
    assert app.do("os.lseek(kept['f'], 0, os.SEEK_DATA)") == 1 << 19
    assert allocate(app, 8, 0, 4096) == errno.EOPNOTSUPP  # COLLAPSE_RANGE
    app.do("os.close(kept['f'])")
    app.do(f"os.unlink('{MOUNT}/space')")


def test_the_server_copies(lab, app):
    size = 40 << 20
    with open(on_server(lab, 'from'), 'wb') as file:
        file.write(os.urandom(size))
    app.keep('f', f"os.open('{MOUNT}/from', os.O_RDONLY)")
    app.keep('g', f"os.open('{MOUNT}/to', os.O_CREAT | os.O_RDWR)")
    with lab.capture('t1') as seen:
        copied = 0
        while copied < size:
            some = app.do(f"os.copy_file_range(kept['f'], kept['g'], {size} - {copied}, {copied}, {copied})")
            assert some > 0
            copied += some
    assert seen.frames('READ', 'WRITE') == seen.frames(), 'no byte came here'
    with open(on_server(lab, 'from'), 'rb') as one, open(on_server(lab, 'to'), 'rb') as other:
        assert one.read() == other.read()
    assert app.do("os.fstat(kept['g']).st_size") == size
    for name in ('f', 'g'):
        app.do(f"os.close(kept['{name}'])")
    for name in ('from', 'to'):
        app.do(f"os.unlink('{MOUNT}/{name}')")


# --- Extended attributes

def test_user_attributes_are_those_of_the_server(lab, app):
    path = f'{MOUNT}/attributes'
    app.do(f"open('{path}', 'w').close()")
    os.mkdir(on_server(lab, 'folder'))
    os.chmod(on_server(lab, 'folder'), 0o777)
    for at, there in ((path, 'attributes'), (f'{MOUNT}/folder', 'folder')):
        app.do(f"os.setxattr('{at}', 'user.Colour', b'blue\\0green')")
        assert os.getxattr(on_server(lab, there), 'user.Colour').rstrip(b'\0') == b'blue\0green'
        assert app.do(f"os.getxattr('{at}', 'user.Colour')") == b'blue\0green'
        assert app.do(f"os.listxattr('{at}')") == ['user.Colour']
        assert app.errno_of(f"os.getxattr('{at}', 'user.none')") == errno.ENODATA
        assert app.errno_of(f"os.setxattr('{at}', 'user.Colour', b'x', os.XATTR_CREATE)") == errno.EEXIST
        assert app.errno_of(f"os.setxattr('{at}', 'user.none', b'x', os.XATTR_REPLACE)") == errno.ENODATA
        assert app.errno_of(f"os.setxattr('{at}', 'user.big', b'x' * 65537)") == errno.E2BIG
        app.do(f"os.removexattr('{at}', 'user.Colour')")
        assert app.do(f"os.listxattr('{at}')") == []
        assert app.errno_of(f"os.removexattr('{at}', 'user.Colour')") == errno.ENODATA
        assert app.errno_of(f"os.getxattr('{at}', 'security.selinux')") == errno.EOPNOTSUPP
    app.do(f"os.unlink('{path}')")
    app.do(f"os.rmdir('{MOUNT}/folder')")


# --- The engine dies

CHANGES = r'''
import errno, os, sys, time
folder, end = sys.argv[1], time.monotonic() + float(sys.argv[2])
rounds = 0
def refused(number, call, *arguments):
    try:
        call(*arguments)
    except OSError as error:
        assert error.errno == number, error
    else:
        raise AssertionError('done, where it must be refused')
while time.monotonic() < end:
    link, path = f'{folder}/link{rounds}', f'{folder}/file{rounds}'
    os.symlink(f'target{rounds}', link)
    refused(errno.EEXIST, os.symlink, 'x', link)
    assert os.readlink(link) == f'target{rounds}'
    os.unlink(link)
    with open(path, 'wb') as file:
        file.write(b'%08d' % rounds)
    os.setxattr(path, 'user.A', b'%d' % rounds, os.XATTR_CREATE)
    assert os.getxattr(path, 'user.A') == b'%d' % rounds
    os.removexattr(path, 'user.A')
    os.chmod(path, 0o444)
    os.unlink(path)
    refused(errno.ENOENT, os.unlink, path)
    rounds += 1
print(rounds)
'''


def test_the_active_agent_is_killed_again_and_again(lab, engine):
    engine.mount('//t1/bench', options='rw,mfsymlinks')
    process = lab.popen_in('client', [sys.executable, '-c', CHANGES, MOUNT, '12'], stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE, text=True)
    kills = 0
    while kills < 20 and process.poll() is None:  # On a loaded machine an agent may take longer to come.
        time.sleep(random.uniform(0.1, 0.5))
        engine.kill_active_agent()
        kills += 1
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0 and not err, err
    assert int(out) > 3 and kills > 5
    lab.wait_until(lambda: not names(lab), 30, 'nothing is left')
