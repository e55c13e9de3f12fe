"""The kernel kills the agent because its container's memory is used up, while it writes and reads."""

import os
import re
import time

import pytest

from keeper import Keeper
from lab import Control, Readers, Writers
from writing import MOUNT, PATIENCE, check_disk, empty, percentile

LAB = {'big_mib': 64}
MODES = ['blocks', 'direct', 'append', 'append', 'names', 'locks', 'locks', 'records']
DEATHS = 5 if int(os.environ.get('DFSCSI_KILLS', '500')) >= 500 else 3
BOUND = 1.0
# Beyond what the agent has when it comes into the group: what it has is counted where it was.
LIMIT = 256 << 10
CGROUPS = '/sys/fs/cgroup'


def folder_of_a_group(name):
    """(a new memory group's folder, the file of its limit); an OSError or LookupError where none can be made."""
    with open('/proc/self/cgroup') as file:
        own = {line.split(':')[1]: line.strip().split(':', 2)[2] for line in file}
    if 'memory' in own and os.path.isdir(f'{CGROUPS}/memory'):  # Version 1: below our own.
        root = f'{CGROUPS}/memory'
        parent = root + own['memory'] if os.path.isdir(root + own['memory']) else root
        limit = 'memory.limit_in_bytes'
    else:  # Version 2: only the root, and groups without processes, have controllers for those below.
        parent, limit = CGROUPS, 'memory.max'
        if 'memory' not in read(parent, 'cgroup.controllers').split():
            raise LookupError('no memory controller')
        if 'memory' not in read(parent, 'cgroup.subtree_control').split():
            write(parent, 'cgroup.subtree_control', '+memory')
    path = f'{parent}/{name}'
    os.mkdir(path)
    return path, limit


@pytest.fixture(name='group')
def memory_group(lab):
    """CI must have one."""
    path = None
    try:
        path, limit = folder_of_a_group(f'{lab.name}-oom')
        write(path, limit, LIMIT)
        if os.path.exists(f'{path}/memory.swap.max'):
            write(path, 'memory.swap.max', 0)
    except (OSError, LookupError) as error:
        if path is not None:
            os.rmdir(path)
        if os.environ.get('CI') == 'true':
            pytest.fail(f'no memory group can be made: {error}')
        pytest.skip(f'no memory group can be made: {error}')
    yield path
    lab.wait_until(lambda: not read(path, 'cgroup.procs').split(), 10, 'the group is empty')
    os.rmdir(path)


def read(group, name):
    with open(f'{group}/{name}') as file:
        return file.read()


def write(group, name, value):
    with open(f'{group}/{name}', 'w') as file:
        file.write(str(value))


@pytest.fixture(autouse=True)
def empty_share(lab):
    yield
    empty(lab)


def oom_kills(group):
    counts = 'memory.events' if os.path.exists(f'{group}/memory.events') else 'memory.oom_control'
    match = re.search(r'^oom_kill (\d+)', read(group, counts), re.MULTILINE)
    return int(match.group(1)) if match else int(read(group, 'memory.failcnt')) > 0


def test_out_of_memory_under_writers(lab, engine, group):
    lab.set_link('root1', 'written', ['t1{s}/bench'])
    engine.mount('//root1/dfs', options='rw,file_mode=0644,dir_mode=0755')
    stalls = []
    with Control() as control, Keeper(lab, engine), Readers(lab, f'{MOUNT}/two', modes=('open', 'fresh')) as readers, \
            Writers(lab, f'{MOUNT}/written', MODES) as writers:
        lab.wait_until(lambda: writers.all_got_on(0.0), 30, 'every writer writes')
        begin = time.monotonic()
        for _ in range(DEATHS):
            lab.wait_until(lambda: engine.active_agent() and len(engine.pids('dfs-node-agent')) >= 2, 20, 'a standby')
            pid = engine.active_agent()
            at = time.monotonic()
            write(group, 'cgroup.procs', pid)
            lab.wait_until(lambda victim=pid: victim not in engine.pids('dfs-node-agent'), 30, 'the kernel kills it')
            died = time.monotonic()
            lab.wait_until(lambda since=died: writers.all_got_on(since), 30, 'every writer goes on')
            stalls.append(max(writers.longest_stall(at), readers.seen(at).longest_stall))
        killed = oom_kills(group)
        states = writers.end(PATIENCE)
        seen = readers.seen(begin)
    print(f'\n{DEATHS} deaths by the out-of-memory killer ({killed} counted): {writers.count()} operations of writers, '
          f'{seen.operations} of readers; stall p50 {percentile(stalls, 0.5):.3f} s, longest {max(stalls):.3f} s')
    assert killed
    assert not writers.problems(), writers.problems()[:5]
    assert not seen.errors and not seen.wrong, (seen.errors[:5], seen.wrong[:5])
    assert not (wrong := check_disk(lab, states)), wrong[:5]
    assert max(stalls) <= control.allowed(BOUND, begin), stalls
