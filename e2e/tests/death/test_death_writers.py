"""The active agent dies, again and again, under writers that know every result; then targets die with it.

What is acknowledged is looked for on the server's disk.
"""

import errno
import json
import os
import random
import subprocess
import time

import pytest

from keeper import Keeper
from lab import Application, Readers, Writers
from lab.control import SLACK
from writing import (MOUNT, PATIENCE, check_disk, check_records, content, empty, hidden, on_server, percentile,
                     wait_for_other)

LAB = {'big_mib': 16}
KILLS = int(os.environ.get('DFSCSI_KILLS', '500'))
FAILOVERS = 2 if KILLS < 500 else 10
# Product bounds are held by quiet machines (docs/performance.md); a loaded one may take this much longer.

MODES = ['blocks', 'direct', 'append', 'append', 'names', 'opened', 'locks', 'locks', 'records', 'pairs', 'pairs']
WRITTEN = f'{MOUNT}/written'  # A link to one target: what waits for it has nowhere else to go.
READ = f'{MOUNT}/two'  # Two targets.

# Eight jobs, half of them with O_DIRECT.
FIO = ['fio', '--rw=randrw', '--bsrange=4k-256k', '--size=8m', '--verify=crc32c', '--verify_fatal=1',
       '--verify_backlog=64', '--verify_state_save=0', '--time_based', '--runtime=86400', '--ioengine=psync',
       '--numjobs=4', '--group_reporting', '--output-format=json', f'--directory={WRITTEN}']


@pytest.fixture(autouse=True)
def empty_share(lab):
    yield
    empty(lab)


def start_fio(lab):
    return [lab.popen_in('client', [*FIO, f'--name={name}', f'--direct={direct}'], stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE, text=True)
            for name, direct in (('buffered', 0), ('direct', 1))]


def fio_problems(processes):
    problems, operations = [], 0
    for process in processes:
        process.terminate()
    for process in processes:
        out, err = process.communicate(timeout=PATIENCE)
        err = '\n'.join(line for line in err.splitlines() if 'terminating on signal' not in line)
        if process.returncode not in (0, 128) or err.strip():  # 128: told to end.
            problems.append(f'fio: exit code {process.returncode}: {err.strip()[-500:]}')
        for job in json.loads(out[out.index('{'):])['jobs']:
            operations += job['write']['total_ios'] + job['read']['total_ios']
            if job['error']:
                problems.append(f'fio: error {job["error"]}')
    return problems, operations


def disturb(lab, engine, keeper, readers, number):
    """Mostly SIGKILL to the active agent; now and then an upgrade, the mounter's death, or the server's with it."""
    if number % 25 == 24:
        for pid in engine.pids('dfs-mounter'):
            os.kill(pid, 9)
        lab.wait_until(lambda: not engine.pids('dfs-mounter'), 5, 'the mounter is dead')
        keeper.start_mounter()
        lab.wait_until(lambda: MOUNT in engine.dfsctl('mounts', check=False).stdout, 10, 'the new mounter knows')
        return 'mounter'
    lab.wait_until(lambda: len(engine.pids('dfs-node-agent')) >= 2, 10, 'a standby')
    if number % 20 == 14:
        lab.fail('kill', 't1')
        wait_for_other(lab, engine, engine.kill_active_agent())
        try:
            dead = time.monotonic()
            lab.wait_until(lambda: all(count > 3 for count in readers.counts(dead).values()), 30, 'readers go on at t2')
        finally:
            lab.heal('t1')
        return 'server'
    if number % 10 == 9:
        pid = engine.active_agent()
        os.kill(pid, 15)
        wait_for_other(lab, engine, pid)
        lab.wait_until(lambda: pid not in engine.pids('dfs-node-agent'), 10, 'the old agent has ended')
        return 'upgrade'
    wait_for_other(lab, engine, engine.kill_active_agent())
    return 'kill'


@pytest.mark.parametrize('options', ['rw', 'rw,write_behind'])
def test_kill_under_writers(lab, engine, options):
    lab.set_link('root1', 'written', ['t1{s}/bench'])
    engine.mount('//root1/dfs', options=f'{options},file_mode=0644,dir_mode=0755')
    rng = random.Random(1)
    stalls = {'kill': [], 'upgrade': [], 'mounter': [], 'server': []}
    number = 0
    with Keeper(lab, engine) as keeper, Readers(lab, READ, modes=('open', 'fresh')) as readers, \
            Writers(lab, WRITTEN, MODES) as writers:
        begin = time.monotonic()
        fio = start_fio(lab)
        try:
            lab.wait_until(lambda: writers.all_got_on(0.0), 30, 'every writer writes')
            while len(stalls['kill']) < KILLS:
                at = time.monotonic()
                what = disturb(lab, engine, keeper, readers, number)
                # A random instant: after so many operations more.
                done = writers.count() + rng.randrange(1, 60)
                lab.wait_until(lambda until=done: writers.count() >= until, 30, 'the writers go on')
                stalls[what].append(writers.longest_stall(at))
                if number % 5 == 4:  # On a loaded machine nobody would get on between two kills.
                    lab.wait_until(lambda: writers.all_got_on(at), 60, 'every writer goes on')
                    assert not (wrong := check_records(lab, writers.last('synced'))), (number, wrong)
                assert not writers.problems(), (number, what, writers.problems()[:5], writers.under_way())
                assert all(process.poll() is None for process in fio), (number, fio_problems(fio))
                number += 1
            states = writers.end(PATIENCE)
        finally:
            problems, operations = fio_problems(fio)
        count = writers.count()
        seen = readers.seen(begin)
    print(f'\n{KILLS} kills, {len(stalls["upgrade"])} upgrades, {len(stalls["mounter"])} deaths of the mounter, '
          f'{len(stalls["server"])} of the server with an agent: {operations} operations of fio, {count} of writers, '
          f'{seen.operations} of readers; stall per kill p50 {percentile(stalls["kill"], 0.5):.3f} s, p99 '
          f'{percentile(stalls["kill"], 0.99):.3f} s, longest {max(stalls["kill"]):.3f} s; per upgrade '
          f'{max(stalls["upgrade"], default=0.0):.3f} s; where the server dies, too, {max(stalls["server"], default=0.0):.3f} s')
    assert not writers.problems(), writers.problems()[:5]
    assert not seen.errors and not seen.wrong, (seen.errors[:5], seen.wrong[:5])
    assert not problems, problems
    assert not (wrong := check_disk(lab, states)), wrong[:5]
    assert count > 5 * KILLS and operations > KILLS
    assert percentile(stalls['kill'], 0.99) <= SLACK * 0.3, sorted(stalls['kill'])[-10:]
    lab.wait_until(lambda: len(hidden(lab)) <= KILLS // 100, 20, 'hidden files go')


def test_a_target_dies_with_the_agent_under_writers(lab, engine):
    """What was acknowledged stays on the server that acknowledged it; what is open there is lost once the link has
    moved (ESTALE, or EIO for what was under way), and nothing of it is written to the other copy."""
    lab.set_link('root1', 'written', ['t1{s}/bench', 't2{s}/bench'])
    engine.mount('//root1/dfs', options='rw,file_mode=0644,dir_mode=0755,write_grace=5s')
    folder = f'{MOUNT}/written'
    with Keeper(lab, engine), Application(lab) as app:
        for number in range(FAILOVERS):
            own, lost = f'own{number}', f'{folder}/own{number}'
            app.keep('f', f"os.open('{lost}', os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644)", timeout=60)
            app.do("os.pwrite(kept['f'], b'acknowledged', 0)")
            app.do("os.fsync(kept['f'])")
            serving, other = ('t1', 't2') if os.path.exists(on_server(lab, own, 't1')) else ('t2', 't1')
            lab.fail('kill', serving)
            wait_for_other(lab, engine, engine.kill_active_agent())
            assert app.errno_of("os.pwrite(kept['f'], b'lost', 0)", timeout=60) in (errno.ESTALE, errno.EIO)
            app.do(f"open('{folder}/next{number}', 'w').write('next') and None", timeout=60)
            assert app.errno_of("os.pwrite(kept['f'], b'lost', 0)", timeout=60) in (errno.ESTALE, errno.EIO)
            app.do("os.close(kept['f'])", timeout=60)
            assert content(lab, own, serving) == b'acknowledged'
            assert not os.path.exists(on_server(lab, own, other))
            assert content(lab, f'next{number}', other) == b'next'
            assert not os.path.exists(on_server(lab, f'next{number}', serving))
            lab.heal(serving)
