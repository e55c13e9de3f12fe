"""Every row of posix_table.py, on a local disk and on a writable mount at the same time, and what each must be."""

import ast
import os
import subprocess

import pytest

import posix_table
from conftest import BUILD_BIN, E2E
from lab import Engine
from posix_row import Row, defect, later, smb

LAB = {'big_mib': 0}
PROGRAM = os.path.join(E2E, 'tools', 'run_posix_table.py')
DOCUMENT = os.path.join(os.path.dirname(E2E), 'docs', 'posix.md')
MOUNT, MOUNT_READ_ONLY, LOCAL_READ_ONLY = '/mnt/posix', '/mnt/posix-ro', '/mnt/local-ro'
FOLDER = 'posix'
PATIENCE = 120


def prepare(lab, engine, local):
    """Two file systems to write in, and two that are read-only."""
    shared = lab.data('t1', f'bench/{FOLDER}')
    os.makedirs(f'{shared}/dir')
    with open(f'{shared}/file', 'w') as file:
        file.write('x')
    for path in (shared, f'{shared}/dir', f'{shared}/file'):
        os.chmod(path, 0o777)
    engine.mount('//t1/bench', MOUNT, options='rw,mfsymlinks')
    engine.mount(f'//t1/bench/{FOLDER}', MOUNT_READ_ONLY, options='ro')
    read_only = LOCAL_READ_ONLY
    lab.run_in('client', ['sh', '-ec', f'mkdir -p {read_only}; mount -t tmpfs local {read_only}; mkdir {read_only}/dir; '
                          f'echo > {read_only}/file; mount -o remount,ro {read_only}; mkdir {local} {MOUNT}/table'])


def start(lab, folder, read_only):
    other = f'/run/other-than{read_only.replace("/", "-")}'
    os.makedirs(lab.path('client', other))
    return lab.popen_in('client', ['/usr/bin/python3', '-B', PROGRAM, folder, other, read_only],
                        stdout=subprocess.PIPE, text=True)


@pytest.fixture(name='outcomes', scope='module')
def run_both(request):
    """({row: outcome} of the local disk, {row: outcome} of the mount, the local disk's file system)."""
    # Not an argument: between two rows there is nothing to clean.
    lab = request.getfixturevalue('lab')
    engine = Engine(lab, BUILD_BIN)
    local = f'/var/tmp/dfs-csi-posix-{lab.name}'
    try:
        prepare(lab, engine, local)
        kind = lab.run_in('client', ['stat', '-f', '-c', '%T', local]).stdout.strip()
        runs = [start(lab, local, LOCAL_READ_ONLY), start(lab, f'{MOUNT}/table', MOUNT_READ_ONLY)]
        texts = [run.communicate(timeout=PATIENCE)[0] for run in runs]
        found = [{name: outcome for name, outcome, _ in map(ast.literal_eval, text.splitlines())} for text in texts]
        assert [run.returncode for run in runs] == [0, 0]
        engine.check_idle()
    finally:
        lab.run_in('client', ['sh', '-c', f'umount {LOCAL_READ_ONLY}; rm -rf {local}'], check=False)
        engine.stop()
    assert not lab.client_mounts() and not lab.client_processes()
    return found[0], found[1], kind


def judge(row, local, mount, kind='ext2/ext3'):
    """Fails or skips as the row's outcomes want it."""
    if local != row.local:
        # Another file system than that which the table was written for may do otherwise.
        assert not kind.startswith('ext'), f'a local disk: {local!r}'
    if not row.why:
        assert mount == row.local
        return
    if row.kind != 'smb' and mount == row.local:
        pytest.fail(f'it works now: take the mark "{row.why}" from this row')
    assert mount == row.mount, f'expected otherwise, because: {row.why}'
    if row.kind != 'smb':
        pytest.skip(f'{posix_table.KINDS[row.kind].lower()}: {row.why}: {row.mount!r}')


@pytest.mark.parametrize('row', posix_table.ROWS, ids=lambda row: row.name)
def test_posix(outcomes, row):
    local, mount, kind = outcomes
    judge(row, local[row.name], mount[row.name], kind)


@pytest.mark.parametrize('marks,local,mount,verdict', [
    ({}, 'ok', 'ok', None), ({}, 'ok', 'EIO', AssertionError), ({}, 'EIO', 'ok', AssertionError),
    (smb('EPERM', 'why'), 'ok', 'EPERM', None), (smb('EPERM', 'why'), 'ok', 'ok', AssertionError),
    (later('EPERM', 'why'), 'ok', 'EPERM', pytest.skip.Exception), (later('EPERM', 'why'), 'ok', 'EIO', AssertionError),
    (later('EPERM', 'why'), 'ok', 'ok', pytest.fail.Exception), (defect('EPERM', 'why'), 'ok', 'ok', pytest.fail.Exception),
])
def test_each_difference_is_judged(marks, local, mount, verdict):
    row = Row('a row', '', 'ok', **marks)
    if verdict is None:
        judge(row, local, mount)
        return
    with pytest.raises(verdict):
        judge(row, local, mount)


def test_the_differences_are_documented():
    with open(DOCUMENT) as file:
        assert posix_table.markdown().strip() in file.read(), 'print them anew: e2e/tests/posix_table.py'
