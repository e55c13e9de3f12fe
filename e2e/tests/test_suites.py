"""Suites of others on a mount, and on a local disk beside it: stress-ng's file-system stressors and CPython's own
file tests. What must fail is listed with its reason: a test that begins to pass fails until it is taken from here.
All of them, for longer: long/test_suites_long.py."""

import os
import re

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
