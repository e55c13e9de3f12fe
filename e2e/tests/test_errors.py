"""What a program is told when a server refuses: the first table of docs/errors.md, row by row, on real servers."""

import contextlib
import errno
import os
import re

import pytest

from lab import Application

LAB = {'big_mib': 16}
M = '/mnt/dfs'
PAGE = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), 'docs', 'errors.md')


@contextlib.contextmanager
def nothing_special(lab):
    del lab
    yield


@contextlib.contextmanager
def server_option(lab, **options):
    lab.configure('t1', {name.replace('_', ' '): value for name, value in options.items()}, restart=False)
    try:
        yield
    finally:
        lab.configure('t1', {}, restart=False)


def a_read_only_share(lab):
    return server_option(lab, read_list='dfsuser')


def names_that_are_reserved(lab):
    return server_option(lab, veto_files='/*.exe/')


@contextlib.contextmanager
def a_folder_without_rights(lab):
    os.chmod(lab.data('t1', 'bench/dir'), 0o555)
    try:
        yield
    finally:
        os.chmod(lab.data('t1', 'bench/dir'), 0o777)


@contextlib.contextmanager
def a_file_without_rights(lab):
    os.chmod(lab.data('t1', 'bench/dir/file'), 0o000)
    try:
        yield
    finally:
        os.chmod(lab.data('t1', 'bench/dir/file'), 0o666)


@contextlib.contextmanager
def disk_of_a_folder(lab, options):
    folder = f'{lab.folder}/fs/data/t1/bench/small'
    lab.run_in('t1', ['mount', '-t', 'tmpfs', '-o', f'size=1m,{options}', 'none', folder])
    try:
        yield
    finally:
        lab.run_in('t1', ['umount', '-l', folder])


def a_full_disk(lab):
    return disk_of_a_folder(lab, 'mode=0777')


def a_disk_that_is_read_only(lab):
    return disk_of_a_folder(lab, 'ro')


# (what is the matter, what a program does, its expression, what it is told)
ROWS = [
    ('the share is read-only for the user', 'create', f"os.open('{M}/new', os.O_CREAT | os.O_WRONLY)", 'EACCES'),
    ('the share is read-only for the user', 'open for writing', f"os.open('{M}/dir/file', os.O_WRONLY)", 'EACCES'),
    ('the share is read-only for the user', 'mkdir', f"os.mkdir('{M}/new')", 'EACCES'),
    ('the share is read-only for the user', 'unlink', f"os.unlink('{M}/dir/file')", 'EACCES'),
    ('the share is read-only for the user', 'rename', f"os.rename('{M}/dir/file', '{M}/moved')", 'EACCES'),
    ('the share is read-only for the user', 'truncate', f"os.truncate('{M}/dir/file', 0)", 'EACCES'),
    ('the share is read-only for the user', 'utime', f"os.utime('{M}/dir/file')", 'EACCES'),
    ('the user has no rights on the folder', 'create', f"os.open('{M}/dir/new', os.O_CREAT | os.O_WRONLY)", 'EACCES'),
    ('the user has no rights on the folder', 'mkdir', f"os.mkdir('{M}/dir/new')", 'EACCES'),
    ('the user has no rights on the folder', 'unlink', f"os.unlink('{M}/dir/file')", 'EACCES'),
    ('the user has no rights on the folder', 'rename', f"os.rename('{M}/dir/file', '{M}/moved')", 'EACCES'),
    ('the user has no rights on the file', 'open', f"os.open('{M}/dir/file', os.O_RDONLY)", 'EACCES'),
    ('the user has no rights on the file', 'open for writing', f"os.open('{M}/dir/file', os.O_WRONLY)", 'EACCES'),
    ('the user has no rights on the file', 'truncate', f"os.truncate('{M}/dir/file', 0)", 'EACCES'),
    ('the file is read-only', 'open for writing', f"os.open('{M}/dir/read-only', os.O_WRONLY)", 'EACCES'),
    ('the file is read-only', 'truncate', f"os.truncate('{M}/dir/read-only', 0)", 'EACCES'),
    ('the disk is full', 'write', f"write_all('{M}/small/new', 4 << 20)", 'ENOSPC'),
    ('the disk is full', 'ftruncate and fsync', f"grow('{M}/small/grown', 4 << 20)", 'ENOSPC'),
    ('the disk is full', 'mmap and msync', f"map_all('{M}/small/mapped', 1 << 20)", 'ENOSPC'),
    ('the disk is read-only', 'create', f"os.open('{M}/small/new', os.O_CREAT | os.O_WRONLY)", 'EROFS'),
    ('the disk is read-only', 'mkdir', f"os.mkdir('{M}/small/new')", 'EROFS'),
    ('the server reserves the name', 'create', f"os.open('{M}/a.exe', os.O_CREAT | os.O_WRONLY)", 'ENOENT'),
    ('the server reserves the name', 'mkdir', f"os.mkdir('{M}/a.exe')", 'ENOENT'),
    ('the server reserves the name', 'rename', f"os.rename('{M}/dir/file', '{M}/a.exe')", 'ENOENT'),
    ('the server reserves the name', 'stat', f"os.stat('{M}/a.exe')", 'ENOENT'),
    ('a name has more than 255 characters', 'create', f"os.open('{M}/' + 'n' * 256, os.O_CREAT | os.O_WRONLY)",
     'ENAMETOOLONG'),
    ("a new name has more bytes than the server's disk takes", 'create', f"os.open('{M}/' + 'é' * 128, os.O_CREAT | os.O_WRONLY)",
     'ENAMETOOLONG'),
    ("a new name has more bytes than the server's disk takes", 'mkdir', f"os.mkdir('{M}/' + 'é' * 128)", 'ENAMETOOLONG'),
    ("a new name has more bytes than the server's disk takes", 'rename', f"os.rename('{M}/dir/file', '{M}/' + 'é' * 128)",
     'ENAMETOOLONG'),
    ('a folder is written to', 'open for writing', f"os.open('{M}/dir', os.O_WRONLY)", 'EISDIR'),
    ('a folder is written to', 'truncate', f"os.truncate('{M}/dir', 0)", 'EISDIR'),
]
SITUATIONS = {
    'the share is read-only for the user': a_read_only_share,
    'the user has no rights on the folder': a_folder_without_rights,
    'the user has no rights on the file': a_file_without_rights,
    'the disk is full': a_full_disk,
    'the disk is read-only': a_disk_that_is_read_only,
    'the server reserves the name': names_that_are_reserved,
}


@pytest.fixture(name='app')
def application(lab, engine):
    for name in ('dir', 'small'):
        os.makedirs(lab.data('t1', f'bench/{name}'), exist_ok=True)
        os.chmod(lab.data('t1', f'bench/{name}'), 0o777)
    for name, mode in (('file', 0o666), ('read-only', 0o444)):
        path = lab.data('t1', f'bench/dir/{name}')
        with open(path, 'w') as file:
            file.write('here')
        os.chmod(path, mode)
    engine.mount('//t1/bench', options='rw')
    with Application(lab) as made:
        yield made
    engine.check_idle()


def test_the_page_has_these_rows():
    with open(PAGE) as file:
        refused = file.read().split('## A server is lost')[0]
    found = re.findall(r'^\| (.+?) \| (.+?) \| `(E\w+)` \|$', refused, re.MULTILINE)
    assert found == [(situation, operation, told) for situation, operation, _, told in ROWS]
    assert {situation for situation, *_ in ROWS} >= set(SITUATIONS)


WRITE_ALL = ("(lambda fd: sum(os.write(fd, b'x' * 65536) for _ in range({size} // 65536)))"
             "(os.open('{path}', os.O_CREAT | os.O_WRONLY))")
GROW = ("(lambda fd: (os.ftruncate(fd, {size}), [os.pwrite(fd, b'x' * 65536, at) for at in range(0, {size}, 65536)], "
        "os.fsync(fd)))(os.open('{path}', os.O_CREAT | os.O_WRONLY))")
# The pages go out in one request, of which a part fits.
MAP_ALL = ("(lambda full, fd: (os.write(full, bytes(300_000)), os.ftruncate(fd, {size}), "
           "(lambda map: (map.__setitem__(slice(0, {size}), b'm' * {size}), map.flush()))(mmap.mmap(fd, {size}))))"
           "(os.open('{path}-too', os.O_CREAT | os.O_WRONLY), os.open('{path}', os.O_CREAT | os.O_RDWR))")
CALLS = {'write_all': WRITE_ALL, 'grow': GROW, 'map_all': MAP_ALL}


def spelt_out(expression):
    """write_all(), grow() and map_all() of ROWS as one expression."""
    call = re.fullmatch(r"(write_all|grow|map_all)\('(.+)', (.+)\)", expression)
    if call is None:
        return expression
    name, path, size = call.groups()
    return CALLS[name].format(path=path, size=f'({size})')


@pytest.mark.parametrize('situation,operation,expression,told', ROWS,
                         ids=[f'{situation}: {operation}' for situation, operation, *_ in ROWS])
def test_row(lab, app, situation, operation, expression, told):
    with SITUATIONS.get(situation, nothing_special)(lab):
        number = app.errno_of(spelt_out(expression))
    assert errno.errorcode.get(number) == told
    # Nothing was lost, or made.
    with open(lab.data('t1', 'bench/dir/file')) as file:
        assert file.read() == 'here'
    assert not os.path.exists(lab.data('t1', 'bench/new')) and not os.path.exists(lab.data('t1', 'bench/moved'))
