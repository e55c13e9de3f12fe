"""A process that waits for servers which are all frozen can be ended: SIGKILL, Ctrl-C, unmount."""

import os
import signal
import subprocess
import time

import pytest

from lab import Call, Control

LAB = {'big_mib': 64}
SOURCE = '//root1/dfs'
LINK = 'three'  # Its targets: t1, t2, t3.
KILL_BOUND = 1.0
STATFS_BOUND = 1.0
UNMOUNT_BOUND = 5.0
# How long a call must have waited before it counts as waiting.
SURELY = 0.3
# Long attribute time-outs: the call under test waits itself, not a LOOKUP before it.
OPTIONS = 'actimeo=60'

# operation: the path under the link. What it reads of big.bin lies in a part of its own, so that nobody's
# read-ahead has brought it into the page cache.
WAITING = {
    'read': 'big.bin', 'direct-read': 'big.bin', 'mmap': 'big.bin', 'libaio': 'big.bin', 'io_uring': 'big.bin',
    'open': 'hello.txt', 'stat': 'never-seen', 'opendir': 'many', 'getdents': 'wide', 'seek-data': 'sparse.bin',
    'flock': 'big.bin',
}
# Answered without a server.
AT_ONCE = {'close': 'big.bin', 'fsync': 'big.bin'}
# Those which any signal ends. (A page that is being read is waited for until a signal that kills.)
INTERRUPTIBLE = ('direct-read', 'libaio', 'open', 'stat', 'opendir', 'getdents', 'seek-data', 'flock')
PART = 4 << 20


@pytest.fixture(name='control')
def make_control():
    with Control() as control:
        yield control


@pytest.fixture(name='calls')
def make_calls(lab):
    """calls(operation, path): a Call that is ready; ended after the test, before the unmount."""
    made = []

    def make(operation, path):
        made.append(Call(lab, operation, path, PART * (1 + len(made)) if path.endswith('big.bin') else 0))
        return made[-1]
    yield make
    for call in made:
        call.end()


@pytest.fixture(name='folder')
def mount_link(lab, engine, calls):
    """The mounted link, in use: its target is connected."""
    if not os.path.exists(lab.data('t1', 'share/wide')):
        lab.make_entries(count=20_000)
    folder = f'{engine.mount(SOURCE, options=OPTIONS)}/{LINK}'
    lab.run_in('client', ['cat', f'{folder}/who'])
    return folder


def freeze_all(lab):
    for host in lab.servers:
        lab.fail('stop', host)


def wait_until_blocked(lab, call):
    """It has waited for a while, in the kernel, and was told nothing."""
    since = time.monotonic()

    def blocked():
        nonlocal since
        if not call.is_blocked():
            since = time.monotonic()
        assert call.process.poll() is None, f'{call.operation} has ended'
        return time.monotonic() - since > SURELY
    try:
        lab.wait_until(blocked, 20, f'{call.operation} waits')
    except TimeoutError:
        pytest.fail(f'{call.operation} does not wait: {call.outcome(0)}')


def check_end(call, number, control):
    start = time.monotonic()
    took = call.kill(number, 30)
    allowed = control.allowed(KILL_BOUND, start)
    print(f'{call.operation}: {"still there" if took is None else f"{took:.3f} s"} (allowed {allowed:.1f})')
    assert took is not None and took <= allowed, (call.operation, took, allowed)
    assert call.process.returncode == -number
    assert call.outcome(5) == 'gone', 'it was told something'


@pytest.mark.parametrize('operation', WAITING)
def test_sigkill_ends_a_process_that_waits_in(lab, folder, calls, control, operation):
    if operation == 'io_uring' and uring_is_off():
        pytest.skip('kernel.io_uring_disabled')
    call = calls(operation, f'{folder}/{WAITING[operation]}')
    freeze_all(lab)
    call.begin()
    wait_until_blocked(lab, call)
    check_end(call, signal.SIGKILL, control)


def uring_is_off():
    try:
        with open('/proc/sys/kernel/io_uring_disabled') as file:
            return file.read().strip() != '0'
    except OSError:
        return False


@pytest.mark.parametrize('operation', AT_ONCE)
def test_no_server_is_needed_for(lab, folder, calls, control, operation):
    """What has nothing to tell the server does not wait for it. The last close when a process ends likewise."""
    call, other = calls(operation, f'{folder}/{AT_ONCE[operation]}'), calls('close', f'{folder}/who')
    freeze_all(lab)
    start = time.monotonic()
    call.begin()
    said = call.outcome(30)
    took = time.monotonic() - start
    print(f'{operation}: {said}, {took:.3f} s')
    assert said == 'ok 0' and took <= control.allowed(KILL_BOUND, start), (said, took)
    check_end(other, signal.SIGKILL, control)


def test_statfs_answers_by_itself(lab, folder, calls, control):
    """df of the mount and of the dead link: from the last known values."""
    mount = os.path.dirname(folder)
    ready = [calls('statfs', mount), calls('statfs', folder), calls('statfs', mount)]
    freeze_all(lab)
    for call in ready:
        start = time.monotonic()
        call.begin()
        said = call.outcome(30)
        took = time.monotonic() - start
        print(f'statfs: {said}, {took:.3f} s')
        assert said == 'ok 0' and took <= control.allowed(STATFS_BOUND, start), (said, took)


@pytest.mark.parametrize('operation', INTERRUPTIBLE)
def test_a_signal_interrupts(lab, folder, calls, control, operation):
    """Ctrl-C of a program that catches it: EINTR."""
    call = calls(operation, f'{folder}/{WAITING[operation]}')
    freeze_all(lab)
    call.begin()
    wait_until_blocked(lab, call)
    start = time.monotonic()
    call.process.send_signal(signal.SIGINT)
    said = call.outcome(30)
    took = time.monotonic() - start
    print(f'{operation}: {said}, {took:.3f} s')
    assert said == 'error EINTR' and took <= control.allowed(KILL_BOUND, start), (said, took)


@pytest.mark.parametrize('command', [['cat', 'big.bin'], ['ls', '-l', 'many'], ['md5sum', 'big.bin'], ['df', '.']])
def test_ctrl_c_ends(lab, folder, control, command):
    """Of programs as they are."""
    freeze_all(lab)
    process = lab.popen_in('client', ['sh', '-c', f'cd {folder} && exec "$@"', 'sh', *command],
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        begun = time.monotonic()
        lab.wait_until(lambda: process.poll() is not None or time.monotonic() - begun > SURELY, 10, 'it waits')
        if command[0] != 'df':  # It needs no server.
            assert process.poll() is None, 'it did not wait'
        start = time.monotonic()
        process.send_signal(signal.SIGINT)
        process.wait(timeout=30)
        took = time.monotonic() - start
        assert took <= control.allowed(KILL_BOUND, start), took
    finally:
        process.kill()
        process.wait(timeout=30)


@pytest.mark.parametrize('waiting', [False, True], ids=['idle', 'waiting'])
@pytest.mark.parametrize('command', [['umount'], ['umount', '-f'], ['dfsctl', 'unmount']], ids=' '.join)
def test_unmounts_while_all_servers_are_frozen(lab, engine, folder, calls, control, command, waiting):
    """It takes no server to unmount. umount says at once that a mount is in use; with -f it ends the requests."""
    mount = os.path.dirname(folder)
    readers = [calls(operation, f'{folder}/{WAITING[operation]}') for operation in ('read', 'direct-read', 'stat')]
    freeze_all(lab)
    if waiting:
        for call in readers:
            call.begin()
        for call in readers:
            wait_until_blocked(lab, call)
    else:
        for call in readers:
            call.end()
    program = engine.program('dfsctl') if command[0] == 'dfsctl' else command[0]
    start = time.monotonic()
    run = lab.run_in('client', [program, *command[1:], mount], check=False, timeout=60)
    took = time.monotonic() - start
    print(f'{" ".join(command)}: exit {run.returncode}, {took:.3f} s {run.stderr.strip()}')
    assert took <= control.allowed(UNMOUNT_BOUND, start), took
    busy = waiting and command[0] == 'umount'
    assert (run.returncode == 0) != busy, run
    if busy and '-f' in command:
        said = {call.operation: call.outcome(10) for call in readers}
        assert set(said.values()) <= {'error ECONNABORTED', 'error ENOTCONN', 'error EIO'}, said
    for call in readers:
        call.end()  # Raises if it would not die.
    lab.wait_until(lambda: busy or not lab.client_mounts(), 10, 'nothing is mounted')
    others = set(lab.client_processes()) - set(engine.all_pids())
    assert not others, others
    # The programs can be ended, too: Engine.stop() of the fixture sees to it.
    if not busy:
        engine.forget(mount)


MAPS_BESIDE_A_WRITE = """
import mmap, os, sys, time
def settle(pid):  # It waits in the kernel for an answer, or has ended.
    end = time.monotonic() + 30
    while True:
        with open(f'/proc/{pid}/stack') as stack, open(f'/proc/{pid}/stat') as stat:
            if 'fuse' in stack.read() or stat.read().rsplit(')', 1)[1].split()[0] == 'Z': return
        assert time.monotonic() < end
writer = os.open(sys.argv[1], os.O_RDWR)
reader = os.open(sys.argv[1], os.O_RDONLY)
print('open', flush=True)
sys.stdin.readline()
writes = os.fork()
if writes == 0:
    os.pwrite(writer, b'x' * 4096, 0)
    os._exit(0)
settle(writes)
maps = os.fork()
if maps == 0:
    mmap.mmap(reader, 4096, mmap.MAP_SHARED, mmap.PROT_READ)
    os._exit(0)
settle(maps)
for pid in (maps, writes):
    began = time.monotonic()
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    print(time.monotonic() - began, flush=True)
"""


@pytest.mark.parametrize('options', ['rw', 'rw,cache=none'])
def test_sigkill_ends_who_maps_a_file_whose_write_waits(lab, engine, control, options):
    """And who writes. With writes in parallel the kernel let the mapping wait for them, where no signal ends it."""
    path = lab.data('t1', 'share/mapped-and-written.bin')
    with open(path, 'wb') as file:
        file.write(b'.' * 8192)
    os.chmod(path, 0o666)
    mount = engine.mount('//t1/share', options=options)
    process = lab.popen_in('client', ['/usr/bin/python3', '-c', MAPS_BESIDE_A_WRITE, f'{mount}/mapped-and-written.bin'],
                           stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == 'open\n'
        lab.fail('stop', 't1')
        start = time.monotonic()
        said, _ = process.communicate('go\n', timeout=60)
        took = [float(line) for line in said.split()]
        print(took)
        assert len(took) == 2 and max(took) <= control.allowed(KILL_BOUND, start), took
    finally:
        lab.heal('t1')
        process.kill()
        process.wait(timeout=30)
