"""Suites of others on a mount, and on a local disk beside it: stress-ng's file-system stressors, CPython's own file
tests and the POSIX cases of go-fuse. What must fail is listed with its reason: a test that begins to pass fails until it is taken from here.
All of them, for longer: long/test_suites_long.py."""

import os
import re
import shutil
import subprocess

import pytest

LAB = {'big_mib': 0}
MOUNT = '/mnt/dfs'
LOCAL = '/var/tmp'
SECONDS = int(os.environ.get('DFSCSI_STRESS_SECONDS', '1'))
PATIENCE = 240
ALL_STRESSORS = ('access chattr chdir chmod chown copy-file dentry dir dirdeep dirmany dnotify dup fallocate fcntl file-ioctl '
                 'filename flock fpunch fstat getdent handle hdd inotify lease link locka lockf lockofd mknod open readahead '
                 'rename seek sendfile symlink sync-file touch utime xattr').split()
STRESSORS = ['access', 'dentry', 'fallocate', 'flock', 'hdd', 'link', 'lockf', 'mknod', 'rename', 'xattr']
PYTHON = ['test_mmap', 'test_shutil', 'test_fcntl', 'test_tempfile', 'test_posix', 'test_dbm_dumb']

MODES = 'modes are those of the mount, file_mode and dir_mode'
NO_FIFO = 'SMB has no FIFOs and devices'
STRESSORS_THAT_FAIL = {'access': MODES, 'mknod': NO_FIFO}
PYTHON_THAT_FAILS = {
    'test_copyfile_named_pipe': NO_FIFO, 'test_copytree_named_pipe': NO_FIFO, 'test_mkfifo': NO_FIFO,
    'test_mkfifo_dir_fd': NO_FIFO, 'test_mknod': NO_FIFO, 'test_mknod_dir_fd': NO_FIFO,
    'test_copymode_follow_symlinks': MODES, 'test_chmod_dir_fd': MODES,
}
# One process' own locks never conflict: no file system passes.
POSIX_THAT_FAILS_EVERYWHERE = {'FcntlFlockLocksFile'}
POSIX_THAT_FAILS = {'RenameOpenDir': 'servers replace no folder that is open'}
TOOLS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), 'tools')


@pytest.fixture(name='folders')
def a_local_folder_and_one_of_the_mount(lab, engine):
    local = f'{LOCAL}/dfs-csi-suites-{lab.name}'
    engine.mount('//t1/bench', MOUNT, options='rw,mfsymlinks')
    lab.run_in('client', ['mkdir', local, f'{MOUNT}/suite'])
    yield local, f'{MOUNT}/suite'
    lab.run_in('client', ['rm', '-rf', local, f'{MOUNT}/suite'])
    engine.check_idle()
    assert [entry for entry in os.listdir(lab.data('t1', 'bench')) if entry != 'copy'] == []


def stress(lab, stressor, folder):
    """(whether it passed, what it says)"""
    run = lab.run_in('client', ['stress-ng', f'--{stressor}', '1', '--timeout', str(SECONDS), '--verify', '--temp-path', folder],
                     check=False, timeout=PATIENCE)
    assert run.returncode in (0, 2), run.stdout + run.stderr
    return run.returncode == 0, run.stdout + run.stderr


def check_stressor(lab, folders, stressor):
    local, mounted = folders
    passed, text = stress(lab, stressor, local)
    assert passed, text
    passed, text = stress(lab, stressor, mounted)
    assert passed != (stressor in STRESSORS_THAT_FAIL), text


@pytest.mark.parametrize('stressor', STRESSORS)
def test_stressor(lab, folders, stressor):
    check_stressor(lab, folders, stressor)


def python_failures(lab, folder, names):
    """({name: how} of the tests that failed, how many ran)"""
    run = lab.run_in('client', ['/usr/bin/python3', '-B', '-m', 'test', '--tempdir', folder, '-v', *names], check=False,
                     timeout=PATIENCE)
    text = run.stdout + run.stderr
    ran = sum(int(count) for count in re.findall(r'^Ran (\d+) tests? in ', text, re.MULTILINE))
    failed = {name: how for how, name in re.findall(r'^(FAIL|ERROR): (\w+) \(', text, re.MULTILINE)}
    assert len(re.findall(r'^Ran ', text, re.MULTILINE)) == len(names), text[-3000:]
    return failed, ran


def check_python(lab, folders, names):
    local, mounted = folders
    failed, ran = python_failures(lab, local, names)
    assert not failed and ran > 10
    failed, _ = python_failures(lab, mounted, names)
    expected = PYTHON_THAT_FAILS if 'test_posix' in names else {}
    assert set(failed) == set(expected)


def test_cpythons_own_tests(lab, folders):
    check_python(lab, folders, PYTHON)


@pytest.fixture(name='posix_cases')
def the_posix_cases_of_go_fuse(tmp_path):
    """Built from its Go module, or skipped where that cannot be; CI must have what it takes."""
    program = str(tmp_path / 'posix-cases')
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/local/go/bin"
    go = shutil.which('go', path=path)
    if go is None:
        why = 'no Go'
    else:
        environment = {'HOME': str(tmp_path), **os.environ, 'PATH': path}
        built = subprocess.run([go, 'test', '-c', '-o', program, './posix'], cwd=TOOLS, capture_output=True, text=True,
                               timeout=PATIENCE, check=False, env=environment)
        why = '' if built.returncode == 0 else built.stderr
    if why and os.environ.get('CI') == 'true':
        pytest.fail(why)
    if why:
        pytest.skip(f'the POSIX cases of go-fuse need Go 1.26 and its module proxy: {why}')
    return program


def posix_failures(lab, program, folder):
    """(the cases that failed, how many ran, what it says)"""
    run = lab.run_in('client', [program, '-test.v', '-folder', folder], check=False, timeout=PATIENCE)
    cases = {name: outcome for outcome, name in re.findall(r'^    --- (\w+): TestPosix/(\w+) ', run.stdout, re.MULTILINE)}
    return {name for name, outcome in cases.items() if outcome == 'FAIL'}, len(cases), run.stdout


def test_posix_cases_of_go_fuse(lab, folders, posix_cases):
    local, mounted = folders
    failed, ran, text = posix_failures(lab, posix_cases, local)
    assert failed == POSIX_THAT_FAILS_EVERYWHERE and ran >= 30, text
    failed, ran_here, text = posix_failures(lab, posix_cases, mounted)
    assert failed == POSIX_THAT_FAILS_EVERYWHERE | set(POSIX_THAT_FAILS) and ran_here == ran, text
