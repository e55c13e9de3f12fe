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
# Beyond what the agent has when it comes into the group: version 1 does not count that.
LIMIT = 256 << 10
ROOT = '/sys/fs/cgroup/memory'


def own_group():
    """The folder of this process's own memory group."""
    with open('/proc/self/cgroup') as file:
        path = next((line.strip().split(':', 2)[2] for line in file if line.split(':')[1] == 'memory'), None)
    if path is None or not os.path.isdir(ROOT):
        pytest.skip('no memory cgroup of version 1')
    return ROOT + path if os.path.isdir(ROOT + path) else ROOT


@pytest.fixture(name='group')
def memory_group(lab):
    path = f'{own_group()}/{lab.name}-oom'
    try:
        os.mkdir(path)
        with open(f'{path}/memory.limit_in_bytes', 'w') as file:
            file.write(str(LIMIT))
    except OSError as error:
        pytest.skip(f'{path}: {error}')
    yield path
    lab.wait_until(lambda: not read(path, 'cgroup.procs').split(), 10, 'the group is empty')
    os.rmdir(path)


def read(group, name):
    with open(f'{group}/{name}') as file:
        return file.read()


@pytest.fixture(autouse=True)
def empty_share(lab):
    yield
    empty(lab)


def oom_kills(group):
    match = re.search(r'^oom_kill (\d+)', read(group, 'memory.oom_control'), re.MULTILINE)
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
            with open(f'{group}/cgroup.procs', 'w') as file:
                file.write(str(pid))
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
