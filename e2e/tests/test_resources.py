"""What the programs hold, idle and at work, and that it does not grow.

The gates are PSS of /proc/PID/smaps without the request arena, which is printed beside it. What must not grow is
lab.footprint's `data`: anonymous memory and the tables. Marks are compared after a warm-up of as many cycles,
each when two looks one second apart are the same.
"""

import os
import time

import pytest

from lab import Footprint, Peak, memory, zombies

LAB = {'big_mib': 16}
SOURCE = '//root1/dfs'
LINK = 'single'
KEPT = '/mnt/kept'
IDLE_KIB = 40 << 10
PEAK_KIB = 64 << 10
ENTRIES = 100_000
# How far two marks may lie apart: 2 %, and at least what the allocator's page granularity makes of noise.
GROWTH, NOISE_KIB = 0.02, 256
# gRPC's pool and that of what blocks have one more or less, as it comes.
POOL_THREADS = 2
MOUNTS = [int(count) for count in os.environ.get('DFSCSI_MOUNT_CYCLES', '100,200').split(',')]
OPENS = [int(count) for count in os.environ.get('DFSCSI_OPEN_CYCLES', '1000,2000').split(',')]

MOUNT_LOOP = '''
set -e
for i in $(seq "$1"); do
  "$2" mount "$3" /mnt/cycled --credentials "$4" --state-dir "$5"
  cat /mnt/cycled/single/who > /mnt/read-back
  "$2" unmount /mnt/cycled
done
'''

OPEN_LOOP = '''
import os, sys
folder, count = sys.argv[1], int(sys.argv[2])
for number in range(count):
    path = f'{folder}/many/f{number % 200:04}'
    fd = os.open(f'{folder}/who', os.O_RDONLY)
    os.read(fd, 100)
    os.close(fd)
    os.close(os.open(path, os.O_RDONLY))
    os.stat(path)
    if len(os.listdir(f'{folder}/many')) != 200:
        sys.exit('a wrong listing')
'''

WALK_LOOP = '''
import os, sys, threading
folder, threads = sys.argv[1], int(sys.argv[2])
wrong = []
def walk():
    try:
        seen = 0
        for parent, names, files in os.walk(folder):
            for name in files:
                seen += os.stat(os.path.join(parent, name)).st_size >= 0
        if seen != 5000:
            wrong.append(seen)
    except OSError as error:
        wrong.append(error)
workers = [threading.Thread(target=walk) for _ in range(threads)]
[worker.start() for worker in workers]
[worker.join() for worker in workers]
sys.exit(str(wrong) if wrong else 0)
'''


def python(lab, text, *arguments, timeout=600):
    return lab.run_in('client', ['/usr/bin/python3', '-c', text, *arguments], timeout=timeout)


def told(held):
    return f'{held.pss} KiB (of it data {held.data}, of which tables {held.tables}), and of the arena {held.arena}'


def table(marks):
    lines = [f'  {name:<24}' + ''.join(f'{mark.get(name, "-"):>12}' for _, mark in marks)
             for name in marks[-1][1]]
    return '  ' + ' ' * 24 + ''.join(f'{title:>12}' for title, _ in marks) + '\n' + '\n'.join(lines)


def check_growth(marks):
    """Nothing of the last mark is more than 2 % above the one before."""
    print('\n' + table(marks))
    (_, before), (_, after) = marks[-2:]
    assert set(before) == set(after), set(before) ^ set(after)
    grown = []
    for name, value in after.items():
        allowance = NOISE_KIB if 'KiB' in name else POOL_THREADS if name.endswith('threads') else 0
        allowed = before[name] + max(GROWTH * before[name], allowance)
        if value > allowed:
            grown.append(f'{name}: {before[name]} -> {value}')
    assert not grown, grown


@pytest.fixture(name='kept')
def keep_a_mount(engine):
    """Programs that stay: they end some seconds after the last mount."""
    return engine.mount(SOURCE, KEPT)


def test_an_idle_agent_is_small(lab, engine, kept):
    """Just mounted, and read a little."""
    lab.run_in('client', ['ls', '-lR', f'{kept}/{LINK}/sub', f'{kept}/two/many'])
    footprint = Footprint(lab, engine)
    footprint.settled()
    for role, pid in footprint.processes().items():
        held = memory(pid)
        print(f'{role}: {told(held)}')
        assert held.pss <= IDLE_KIB, (role, held)


def test_mounting_leaks_nothing(lab, engine, kept):
    lab.run_in('client', ['cat', f'{kept}/{LINK}/who'])
    os.makedirs(lab.path('client', '/mnt/cycled'), exist_ok=True)
    footprint, marks, done = Footprint(lab, engine), [], 0
    for count in MOUNTS:
        start = time.monotonic()
        lab.run_in('client', ['sh', '-c', MOUNT_LOOP, 'sh', str(count - done), engine.program('dfsctl'), SOURCE,
                              engine.credentials(), engine.state_dir], timeout=3 + 2 * (count - done))
        print(f'{count - done} mounts: {(time.monotonic() - start) / (count - done) * 1000:.0f} ms each')
        done = count
        marks.append((str(count), footprint.settled()))
    check_growth(marks)
    check_clean(lab, engine)


def test_opening_leaks_nothing(lab, engine, kept):
    footprint, marks, done = Footprint(lab, engine), [], 0
    for count in OPENS:
        python(lab, OPEN_LOOP, f'{kept}/{LINK}', str(count - done))
        done = count
        marks.append((str(count), footprint.settled()))
    check_growth(marks)
    check_clean(lab, engine)


def check_clean(lab, engine):
    assert not zombies(engine.all_pids() + [os.getpid()]), 'zombies'
    assert lab.opens('t1') == [] and lab.opens('root1') == []


# Logs of the last run, and locks: files that nobody holds.
STAYS = {'dfsctl.lock', 'mounter.lock', 'keeper.lock', 'dfs-node-agent.log', 'dfs-mounter.log', 'dfs-keeper.log'}


def test_nothing_is_left_in_run(lab, engine, kept):
    """After the last unmount the programs end, and only what is meant to stay lies in their folder."""
    lab.run_in('client', ['cat', f'{kept}/{LINK}/who'])
    engine.unmount(KEPT)
    lab.wait_until(lambda: not engine.all_pids(), 60, 'the programs end by themselves')
    run = lab.path('client', '/run')
    left = {name for folder in os.listdir(run) if folder == 'dfs-csi-local'
            for _, _, files in os.walk(f'{run}/{folder}') for name in files}
    sockets = {name for name in left if name.endswith('.sock')}
    assert not sockets and left <= STAYS, left


def test_a_large_listing_needs_little_memory(lab, engine, kept):
    """100,000 entries: names alone, and with attributes of each."""
    lab.make_entries('huge', ENTRIES, targets=('t1',))
    pid = engine.active_agent()
    for command in (['ls', '-f'], ['ls', '-l']):
        with Peak(pid) as peak:
            run = lab.run_in('client', ['sh', '-c', '"$@" | wc -l', 'sh', *command, f'{kept}/{LINK}/huge'], timeout=120)
        print(f'{" ".join(command)}: {run.stdout.strip()} lines; agent at most {told(peak.held)}')
        assert ENTRIES <= int(run.stdout) <= ENTRIES + 3
        assert engine.active_agent() == pid and peak.held.pss <= PEAK_KIB, peak.held


def test_many_walks_at_once_need_little_memory(lab, engine, kept):
    """24 walkers of 5,000 files in 50 directories, three times; the third time nothing has grown. (The second may have a
    higher peak, of which the allocator keeps something.)"""
    lab.make_tree('tree', 50, 100, targets=('t1',))
    pid, footprint, marks = engine.active_agent(), Footprint(lab, engine), []
    for turn in ('once', 'twice', 'thrice'):
        with Peak(pid) as peak:
            python(lab, WALK_LOOP, f'{kept}/{LINK}/tree', '24')
        print(f'{turn}: agent at most {told(peak.held)}')
        assert engine.active_agent() == pid and peak.held.pss <= PEAK_KIB, peak.held
        marks.append((turn, footprint.settled()))
    check_growth(marks)
    check_clean(lab, engine)
