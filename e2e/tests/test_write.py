"""Writing through the mount: each change is compared with the server's disk; then servers and agents die under
writers that check every result."""

import errno
import json
import os
import random
import subprocess
import sys
import time

import pytest

from lab import Application

LAB = {'big_mib': 16}
KILLS = int(os.environ.get('DFSCSI_WRITE_KILLS', '50'))
MOUNT = '/mnt/dfs'
PATIENCE = 120

# Makes, fills, renames, reads and removes, and says every result that is not as it must be.
METADATA = r'''
import os, sys, time
folder, end = sys.argv[1], time.monotonic() + float(sys.argv[2])
rounds = 0
wrong = []
def must(what, call, *arguments):
    try:
        return call(*arguments)
    except OSError as error:
        wrong.append(f'round {rounds}: {what}: {error}')
def refused(what, number, call, *arguments):
    try:
        call(*arguments)
    except OSError as error:
        if error.errno != number:
            wrong.append(f'round {rounds}: {what}: {error}, not {os.strerror(number)}')
    else:
        wrong.append(f'round {rounds}: {what}: done, where it must be refused')
while time.monotonic() < end and not wrong:
    directory, path = f'{folder}/d{rounds}', f'{folder}/d{rounds}/file'
    must('mkdir', os.mkdir, directory)
    refused('mkdir again', 17, os.mkdir, directory)
    fd = must('create', os.open, path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644)
    if fd is None: break
    refused('create again', 17, os.open, path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644)
    must('write', os.pwrite, fd, b'%08d' % rounds, 0)
    must('fsync', os.fsync, fd)
    must('close', os.close, fd)
    must('rename', os.rename, path, f'{directory}/moved')
    refused('stat of the old name', 2, os.stat, path)
    text = must('read', lambda: open(f'{directory}/moved', 'rb').read())
    if text != b'%08d' % rounds: wrong.append(f'round {rounds}: read {text!r}')
    refused('rmdir', 39, os.rmdir, directory)
    must('unlink', os.unlink, f'{directory}/moved')
    refused('unlink again', 2, os.unlink, f'{directory}/moved')
    must('rmdir', os.rmdir, directory)
    rounds += 1
print(rounds)
for line in wrong: print(line)
'''


def on_server(lab, path, host='t1'):
    return lab.data(host, f'bench/{path}')


def names(lab):
    """What lies in the share, but for what the lab made."""
    return [name for name in os.listdir(on_server(lab, '')) if name != 'copy']


def content(lab, path, host='t1'):
    with open(on_server(lab, path, host), 'rb') as file:
        return file.read()


@pytest.fixture(name='app')
def application(lab, engine):
    engine.mount('//t1/bench', options='rw,file_mode=0644,dir_mode=0755')
    with Application(lab) as made:
        yield made
    engine.check_idle()


def test_each_change_is_on_the_servers_disk(lab, app):
    m = MOUNT
    app.do(f"os.mkdir('{m}/dir')")
    assert os.path.isdir(on_server(lab, 'dir'))
    app.keep('f', f"os.open('{m}/dir/file', os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644)")
    assert app.do("os.pwrite(kept['f'], b'0123456789', 0)") == 10
    assert content(lab, 'dir/file') == b'0123456789'  # Before close and fsync: acknowledged is there.
    assert app.do("os.pwrite(kept['f'], b'x' * 3_000_000, 5)") == 3_000_000
    assert content(lab, 'dir/file') == b'01234' + b'x' * 3_000_000
    assert app.do("os.fstat(kept['f']).st_size") == 3_000_005
    app.do("os.ftruncate(kept['f'], 7)")
    assert content(lab, 'dir/file') == b'01234xx'
    app.do("os.fsync(kept['f'])")
    app.do("os.close(kept['f'])")
    app.do(f"os.truncate('{m}/dir/file', 3)")
    assert content(lab, 'dir/file') == b'012'
    app.do(f"os.utime('{m}/dir/file', (1_600_000_000, 1_500_000_000))")
    status = os.stat(on_server(lab, 'dir/file'))
    assert (int(status.st_atime), int(status.st_mtime)) == (1_600_000_000, 1_500_000_000)
    app.do(f"os.chmod('{m}/dir/file', 0o444)")
    assert app.do(f"os.stat('{m}/dir/file').st_mode & 0o222") == 0
    app.do(f"os.chmod('{m}/dir/file', 0o644)")
    assert app.do(f"os.stat('{m}/dir/file').st_mode & 0o222") != 0
    app.do(f"os.rename('{m}/dir/file', '{m}/moved')")
    assert content(lab, 'moved') == b'012' and not os.path.exists(on_server(lab, 'dir/file'))
    app.do(f"os.rename('{m}/moved', '{m}/MOVED')")
    assert 'MOVED' in os.listdir(on_server(lab, ''))
    app.do(f"open('{m}/over', 'w').write('over') and None")
    app.do(f"os.rename('{m}/over', '{m}/MOVED')")
    assert content(lab, 'MOVED') == b'over'
    app.do(f"open('{m}/MOVED', 'w').close()")
    assert content(lab, 'MOVED') == b''
    app.do(f"os.unlink('{m}/MOVED')")
    app.do(f"os.rmdir('{m}/dir')")
    assert not names(lab)


def test_what_is_refused(lab, app):
    m = MOUNT
    app.do(f"os.makedirs('{m}/full/inside')")
    app.do(f"open('{m}/plain', 'w').close()")
    cases = [(f"os.mkdir('{m}/full')", errno.EEXIST), (f"os.rmdir('{m}/full')", errno.ENOTEMPTY),
             (f"os.unlink('{m}/full')", errno.EISDIR), (f"os.rmdir('{m}/plain')", errno.ENOTDIR),
             (f"os.unlink('{m}/none')", errno.ENOENT), (f"os.rename('{m}/none', '{m}/x')", errno.ENOENT),
             (f"os.open('{m}/plain', os.O_CREAT | os.O_EXCL)", errno.EEXIST),
             (f"os.open('{m}/none', os.O_WRONLY)", errno.ENOENT),
             (f"os.open('{m}/full', os.O_WRONLY)", errno.EISDIR),
             (f"os.mkdir('{m}/none/x')", errno.ENOENT), (f"os.mkdir('{m}/plain/x')", errno.ENOTDIR),
             (f"os.mkdir('{m}/' + 'n' * 256)", errno.ENAMETOOLONG)]
    for expression, number in cases:
        assert app.errno_of(expression) == number, expression
    app.do(f"os.removedirs('{m}/full/inside')")
    app.do(f"os.unlink('{m}/plain')")


def test_a_file_outlives_its_name_while_it_is_open(lab, app):
    m = MOUNT
    app.keep('f', f"os.open('{m}/gone', os.O_CREAT | os.O_RDWR, 0o644)")
    app.do("os.pwrite(kept['f'], b'before', 0)")
    app.do(f"os.unlink('{m}/gone')")
    assert app.errno_of(f"os.stat('{m}/gone')") == errno.ENOENT
    assert app.do("os.pwrite(kept['f'], b'after', 6)") == 5
    assert app.do("os.pread(kept['f'], 20, 0)") == b'beforeafter'
    app.do(f"open('{m}/gone', 'w').write('new') and None")
    assert app.do("os.pread(kept['f'], 20, 0)") == b'beforeafter'
    assert content(lab, 'gone') == b'new'
    app.keep('g', f"os.open('{m}/gone', os.O_RDONLY)")
    app.do(f"open('{m}/other', 'w').write('other') and None")
    app.do(f"os.rename('{m}/other', '{m}/gone')")
    assert app.do("os.pread(kept['g'], 20, 0)") == b'new'
    assert content(lab, 'gone') == b'other'
    app.do("os.close(kept['f'])")
    app.do("os.close(kept['g'])")
    lab.wait_until(lambda: names(lab) == ['gone'], 20, 'the hidden files are removed')
    app.do(f"os.unlink('{m}/gone')")


def test_mapped_writes_arrive(lab, app):
    app.keep('f', f"os.open('{MOUNT}/mapped', os.O_CREAT | os.O_RDWR, 0o644)")
    app.do("os.ftruncate(kept['f'], 1 << 20)")
    app.keep('m', "mmap.mmap(kept['f'], 1 << 20)")
    app.do("kept['m'].__setitem__(slice(5000, 5005), b'hello')")
    app.do("kept['m'].flush()")
    assert content(lab, 'mapped')[5000:5005] == b'hello'
    app.do("kept['m'].close()")
    app.do("os.close(kept['f'])")
    app.do(f"os.unlink('{MOUNT}/mapped')")


def test_a_read_only_mount_refuses(lab, engine):
    with open(on_server(lab, 'there'), 'w') as file:
        file.write('there')
    os.chmod(on_server(lab, 'there'), 0o666)
    engine.mount('//t1/bench')
    with Application(lab) as app:
        for expression in (f"os.open('{MOUNT}/there', os.O_WRONLY)", f"os.open('{MOUNT}/new', os.O_CREAT)",
                           f"os.unlink('{MOUNT}/there')", f"os.mkdir('{MOUNT}/new')",
                           f"os.rename('{MOUNT}/there', '{MOUNT}/x')", f"os.truncate('{MOUNT}/there', 0)",
                           f"os.chmod('{MOUNT}/there', 0o444)"):
            assert app.errno_of(expression) == errno.EROFS, expression
    assert content(lab, 'there') == b'there'
    os.unlink(on_server(lab, 'there'))


def test_an_append_goes_to_the_end_where_the_server_cannot_append(lab, app):
    """Samba takes no WRITE at "the end" (INVALID_PARAMETER). Two nodes: test_sharing.py."""
    app.do(f"open('{MOUNT}/log', 'w').write('line') and None")
    app.keep('f', f"os.open('{MOUNT}/log', os.O_WRONLY | os.O_APPEND)")
    with open(on_server(lab, 'log'), 'ab') as file:
        file.write(b' of another,')
    app.do("os.write(kept['f'], b' ours') and None")
    app.do(f"os.write(kept['f'], b'.' * {1 << 20}) and None")
    app.do("os.close(kept['f'])")
    assert content(lab, 'log') == b'line of another, ours' + b'.' * (1 << 20)
    app.do(f"os.unlink('{MOUNT}/log')")


# --- Links: catalogue A32, A33

def test_a_link_is_not_changed_and_not_crossed(lab, engine):
    engine.mount('//root1/dfs', options='rw')
    with Application(lab) as app:
        for expression, number in ((f"os.rmdir('{MOUNT}/single')", errno.EBUSY),
                                   (f"os.rename('{MOUNT}/single', '{MOUNT}/x')", errno.EBUSY),
                                   (f"os.mkdir('{MOUNT}/single')", errno.EEXIST),
                                   (f"os.rename('{MOUNT}/single/hello.txt', '{MOUNT}/two/hello.txt')", errno.EXDEV)):
            assert app.errno_of(expression) == number, expression


# --- Servers die

def writer(lab, seconds, path):
    """Writes and reads back 4 KiB blocks; the last line says how many, the ones before what was wrong."""
    program = r'''
import os, sys, time, random
path, end = sys.argv[1], time.monotonic() + float(sys.argv[2])
fd = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
last, count, longest = {}, 0, 0.0
while time.monotonic() < end:
    block, fill = random.randrange(256), os.urandom(8) * 512
    begin = time.monotonic()
    try:
        assert os.pwrite(fd, fill, block * 4096) == 4096
        os.fsync(fd)
        last[block] = fill
    except OSError as error:
        print('write:', error); break
    longest = max(longest, time.monotonic() - begin)
    count += 1
    other = random.choice(list(last))
    try:
        if os.pread(fd, 4096, other * 4096) != last[other]: print('read: wrong bytes'); break
    except OSError as error:
        print('read:', error); break
for block, fill in last.items():
    if os.pread(fd, 4096, block * 4096) != fill: print('at the end: wrong bytes in', block)
print(count, round(longest, 2))
'''
    return lab.popen_in('client', [sys.executable, '-c', program, path, str(seconds)], stdout=subprocess.PIPE,
                        stderr=subprocess.PIPE, text=True)


def ended(process):
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0 and not err, err
    lines = out.splitlines()
    assert len(lines) == 1, lines
    return int(lines[0].split()[0])


@pytest.mark.parametrize('fault', ['stop', 'restart', 'reset', 'kill'])
def test_nothing_is_lost_when_the_server_comes_back(lab, engine, fault):
    engine.mount('//t1/bench', options='rw')
    process = writer(lab, 14, f'{MOUNT}/{fault}')
    path = on_server(lab, fault)
    lab.wait_until(lambda: os.path.exists(path) and os.path.getsize(path) > 0, 20, 'it writes')
    lab.fail(fault, 't1')
    time.sleep(4)  # So long it is down: longer than a server may be silent before it is suspect.
    lab.heal('t1')
    assert ended(process) > 10
    os.unlink(on_server(lab, fault))


# --- The engine dies

def test_the_active_agent_is_killed_again_and_again(lab, engine):
    engine.mount('//t1/bench', options='rw')
    seconds = max(10, KILLS * 0.5)
    fio = lab.popen_in('client', [
        'fio', '--name=w', '--rw=randrw', '--bs=4k-64k', '--size=8m', '--verify=crc32c', '--verify_fatal=1',
        '--verify_backlog=64', '--numjobs=2', '--time_based', f'--runtime={seconds}', f'--directory={MOUNT}', '--verify_state_save=0',
        '--ioengine=psync', '--output-format=json'], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    metadata = lab.popen_in('client', [sys.executable, '-c', METADATA, MOUNT, str(seconds)], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True)
    blocks = writer(lab, seconds, f'{MOUNT}/blocks')
    kills = 0
    while kills < KILLS and blocks.poll() is None:
        time.sleep(random.uniform(0.1, 0.5))
        engine.kill_active_agent()
        kills += 1
    assert ended(blocks) > 10
    out, err = metadata.communicate(timeout=PATIENCE)
    lines = out.splitlines()
    assert not err and len(lines) == 1 and int(lines[0]) > 3, (lines, err)
    out, err = fio.communicate(timeout=PATIENCE)
    assert fio.returncode == 0 and 'verify' not in err, err[-500:]
    assert all(job['error'] == 0 for job in json.loads(out[out.index('{'):])['jobs'])
    assert kills > KILLS * 0.5, kills
    for name in names(lab):
        os.unlink(on_server(lab, name))
