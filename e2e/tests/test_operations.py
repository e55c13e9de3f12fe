"""What programs do besides reading and writing: each is compared with the server's disk."""

import errno
import os

import pytest

from lab import Application

LAB = {}
MOUNT = '/mnt/dfs'


def on_server(lab, path, host='t1'):
    return lab.data(host, f'bench/{path}')


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
        lab.wait_until(lambda: not os.path.exists(on_server(lab, 'locked')) and not
                       [name for name in os.listdir(on_server(lab, '')) if name.startswith('.dfscsi')],
                       20, 'nothing is left')


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
