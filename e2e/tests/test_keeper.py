"""Outside Kubernetes: dfs-keeper starts anew who dies, and ends with the last mount."""

import itertools
import json
import os
import signal
import subprocess
import time

import pytest

from lab import LabError, Readers

LAB = {'big_mib': 8}
SOURCE = '//root1/dfs'
POINT = '/mnt/dfs'
KILLS = 20
SOCKET_DIR = '/run/dfs-csi-local'


def wait_for_pair(lab, engine, not_among=()):
    """An active agent and a standby, both alive."""
    def pair():
        pids = [pid for pid in engine.pids('dfs-node-agent') if pid not in not_among]
        return len(pids) >= 2 and engine.active_agent() in pids
    lab.wait_until(pair, 20, 'an active agent and a standby')


def what_they_saw(lab, readers, begin):
    """Of all readers since then, once they have gone on from here."""
    now = time.monotonic()
    lab.wait_until(lambda: readers.seen(now).operations > 10, 20, 'readers go on')
    return readers.seen(begin)


def test_the_active_agent_dies_again_and_again(lab, engine):
    engine.mount(SOURCE, POINT)
    dead = []
    with Readers(lab, POINT + '/single', modes=('open', 'fresh', 'held')) as readers:
        begin = time.monotonic()
        for _ in range(KILLS):
            wait_for_pair(lab, engine, dead)
            dead.append(engine.kill_active_agent())
        wait_for_pair(lab, engine, dead)
        seen = what_they_saw(lab, readers, begin)
    assert len(set(dead)) == KILLS
    assert not seen.errors and not seen.wrong, seen
    assert len(engine.pids('dfs-node-agent')) == 2  # Not more than wanted.


@pytest.mark.skipif('ASAN_OPTIONS' in os.environ, reason='the sanitizer says it instead')
@pytest.mark.parametrize('number', [signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS])
def test_a_crash_that_a_successor_hides_fails_the_test_that_it_happens_in(lab, engine, number):
    engine.mount(SOURCE, POINT)
    wait_for_pair(lab, engine)
    crashed = engine.active_agent()
    os.kill(crashed, number)
    lab.wait_until(lambda: crashed not in engine.pids('dfs-node-agent'), 10, 'it is dead')
    wait_for_pair(lab, engine, [crashed])
    lab.run_in('client', ['ls', POINT + '/single'])
    with pytest.raises(LabError, match=f'crashed by signal {number.value:02}'):
        engine.stop()
    engine.forgive_crashes()


def test_both_agents_die_at_once(lab, engine):
    engine.mount(SOURCE, POINT)
    wait_for_pair(lab, engine)
    with Readers(lab, POINT + '/single', modes=('open', 'fresh', 'held')) as readers:
        begin = time.monotonic()
        for _ in range(3):
            dead = engine.pids('dfs-node-agent')
            for pid in dead:
                os.kill(pid, signal.SIGKILL)
            wait_for_pair(lab, engine, dead)
        seen = what_they_saw(lab, readers, begin)
    assert not seen.errors and not seen.wrong, seen


def test_the_standby_and_the_mounter_die(lab, engine):
    engine.mount(SOURCE, POINT)
    wait_for_pair(lab, engine)
    with Readers(lab, POINT + '/single', modes=('open', 'fresh', 'held')) as readers:
        begin = time.monotonic()
        active = engine.active_agent()
        standby = [pid for pid in engine.pids('dfs-node-agent') if pid != active]
        for pid in standby:
            os.kill(pid, signal.SIGKILL)
        wait_for_pair(lab, engine, standby)
        assert engine.active_agent() == active
        dead = engine.pids('dfs-mounter')
        for pid in dead:
            os.kill(pid, signal.SIGKILL)
        lab.wait_until(lambda: set(engine.pids('dfs-mounter')) - set(dead), 20, 'another mounter')
        lab.wait_until(lambda: POINT in engine.dfsctl('mounts', check=False).stdout, 20,
                       'it knows the mount')
        # The new one sees an agent die, too.
        dead = [engine.kill_active_agent()]
        wait_for_pair(lab, engine, dead)
        seen = what_they_saw(lab, readers, begin)
    assert not seen.errors and not seen.wrong, seen


def test_a_planned_upgrade_is_followed_by_a_new_standby(lab, engine):
    engine.mount(SOURCE, POINT)
    wait_for_pair(lab, engine)
    old = engine.active_agent()
    os.kill(old, signal.SIGTERM)
    lab.wait_until(lambda: old not in engine.pids('dfs-node-agent'), 10, 'the old agent has ended')
    wait_for_pair(lab, engine, [old])


def test_what_it_starts_inherits_nothing(lab, engine):
    """Neither the keeper's connection to the mounter nor its locks: only an agent's own descriptors."""
    engine.mount(SOURCE, POINT)
    wait_for_pair(lab, engine)
    [keeper] = engine.pids('dfs-keeper')
    dead = [engine.kill_active_agent()]
    wait_for_pair(lab, engine, dead)

    def descriptors(pid):
        return {fd: os.readlink(f'/proc/{pid}/fd/{fd}') for fd in os.listdir(f'/proc/{pid}/fd')}
    kept = {link for fd, link in descriptors(keeper).items() if int(fd) > 2}
    assert kept and not any('fuse' in link or 'memfd' in link for link in kept), kept
    for pid in engine.pids('dfs-node-agent'):
        shared = {link for link in descriptors(pid).values() if link.startswith('socket:')} & kept
        assert not shared, (pid, shared)
        assert not any(link.endswith('.lock') for link in descriptors(pid).values())


def test_an_agent_that_is_out_of_descriptors_is_dead_before_another_serves(lab, engine):
    """It cannot take a message with descriptors, hangs up on the mounter, and would read on from its mounts."""
    engine.mount(SOURCE, POINT)
    engine.mount('//t1/share', '/mnt/second')
    wait_for_pair(lab, engine)
    old = engine.active_agent()
    activations = engine.log_text().count(' I active, generation')
    sits = lab.popen_in('client', ['sh', '-c', 'cd /mnt/second && echo in && read line'], stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE)
    try:
        sits.stdout.readline()
        used = {int(fd) for fd in os.listdir(f'/proc/{old}/fd')}
        least = next(fd for fd in itertools.count() if fd not in used)
        subprocess.run(['prlimit', f'--pid={old}', f'--nofile={least}'], check=True)
        # The mounter tells every agent of it, with the mount's descriptors.
        lab.run_in('client', ['umount', '-l', '/mnt/second'])
        engine.forget('/mnt/second')
        lab.wait_until(lambda: engine.log_text().count(' I active, generation') > activations, 20,
                       'another agent is active')
        assert old not in engine.pids('dfs-node-agent'), 'two agents serve one mount'
        lab.run_in('client', ['ls', POINT + '/single'])
    finally:
        sits.communicate()


def test_it_ends_with_the_last_mount(lab, engine):
    engine.mount(SOURCE, POINT)
    engine.mount('//t1/share', '/mnt/second')
    [keeper] = engine.pids('dfs-keeper')  # One, however many mounts there are.
    engine.unmount(POINT)
    engine.unmount('/mnt/second')
    lab.wait_until(lambda: not lab.client_processes(), 60, 'everything has ended by itself')
    with open(lab.path('client', f'{SOCKET_DIR}/dfs-keeper.log')) as file:
        assert 'nothing is mounted' in file.read()
    # And it is there again for the next mount.
    engine.mount(SOURCE, POINT)
    [again] = lab.wait_until(lambda: engine.pids('dfs-keeper'), 10, 'a keeper')
    assert again != keeper


def test_the_keeper_dies_itself(lab, engine):
    """Nothing happens to the mount; the next `dfsctl mount` starts another."""
    engine.mount(SOURCE, POINT)
    [keeper] = lab.wait_until(lambda: engine.pids('dfs-keeper'), 10, 'a keeper')
    os.kill(keeper, signal.SIGKILL)
    lab.wait_until(lambda: not engine.pids('dfs-keeper'), 10, 'it is dead')
    os.listdir(lab.path('client', POINT))
    engine.mount('//t1/share', '/mnt/second')
    lab.wait_until(lambda: engine.pids('dfs-keeper'), 10, 'a keeper')


def listed(engine):
    return json.loads(engine.dfsctl('mounts', '--json').stdout)['mounts']


def mounted_at(lab, point):
    return [mount for mount in lab.client_mounts() if mount[0] == point]


def test_a_mount_that_is_still_used_can_be_made_anew(lab, engine):
    """A process sits in it: it is detached, and the same again is a mount of its own."""
    engine.mount(SOURCE, POINT)
    sits = lab.popen_in('client', ['sh', '-c', f'cd {POINT} && echo in && read line'], stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE)
    try:
        assert sits.stdout.readline().strip() in ('in', b'in')
        engine.unmount(POINT)
        assert [mount['detached'] for mount in listed(engine)] == [True]
        engine.mount(SOURCE, POINT)
        assert mounted_at(lab, POINT)
        assert sorted(mount['detached'] for mount in listed(engine)) == [False, True]
        lab.run_in('client', ['ls', POINT + '/single'])
    finally:
        sits.communicate()
    engine.unmount(POINT)


@pytest.mark.parametrize('is_there_anew', [False, True])
def test_what_is_detached_can_be_forced_away(lab, engine, is_there_anew):
    """A process in it waits for a frozen server: it gets an error. What is mounted there since stays as it is."""
    engine.mount('//t1/share', POINT)
    waits = lab.popen_in('client', ['sh', '-c', f'cd {POINT} && echo in && read line; cat who; echo ended'],
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert waits.stdout.readline() == 'in\n'
        lab.run_in('client', ['umount', '-l', POINT])  # By somebody else.
        lab.fail('stop', 't1')
        waits.stdin.write('\n')
        waits.stdin.flush()
        lab.wait_until(lambda: any(int(mount['requests_in_flight']) for mount in listed(engine)), 10, 'it waits')
        words = ['--force']
        if is_there_anew:
            engine.mount('//t2/share', POINT)
            words = ['--detached']
        else:
            run = engine.dfsctl('unmount', POINT, check=False)
            assert run.returncode == 12 and 'still used' in run.stderr and '--force' in run.stderr, run
            assert len(run.stderr.splitlines()) == 1
        engine.dfsctl('unmount', POINT, *words)
        said = waits.communicate(timeout=10)[0]
        assert 'ended' in said and ('abort' in said or 'not connected' in said), said
        lab.wait_until(lambda: not any(mount['detached'] for mount in listed(engine)), 10, 'it has gone')
        for word in words:
            run = engine.dfsctl('unmount', POINT, '--detached', check=False)
            assert run.returncode == 12 and POINT in run.stderr, (word, run)
        if is_there_anew:
            assert lab.run_in('client', ['cat', f'{POINT}/who']).stdout == 't2\n'
            engine.unmount(POINT)
        engine.forget(POINT)
    finally:
        waits.kill()
        waits.communicate()


def test_unmounted_while_no_mounter_ran_it_is_mounted_anew(lab, engine):
    for by in (['umount', '-l', POINT], None):
        engine.mount(SOURCE, POINT)
        sits = lab.popen_in('client', ['sh', '-c', f'cd {POINT} && echo in && read line'], stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE)
        try:
            sits.stdout.readline()
            for pid in engine.pids('dfs-keeper') + engine.pids('dfs-mounter'):
                os.kill(pid, signal.SIGKILL)
            lab.wait_until(lambda: not engine.pids('dfs-mounter'), 5, 'no mounter')
            if by:
                lab.run_in('client', by)
                engine.forget(POINT)
            else:
                engine.unmount(POINT)
            assert not mounted_at(lab, POINT)
            engine.mount(SOURCE, POINT)
            assert mounted_at(lab, POINT)
            lab.run_in('client', ['ls', POINT + '/single'])
        finally:
            sits.communicate()
        engine.unmount(POINT)


def test_a_mount_whose_programs_all_died_is_listed_and_can_be_removed(lab, engine):
    engine.mount(SOURCE, POINT)
    for pid in engine.pids('dfs-keeper') + engine.all_pids():
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    lab.wait_until(lambda: not engine.all_pids(), 10, 'all are dead')
    assert mounted_at(lab, POINT)
    [mount] = listed(engine)
    assert mount['dead'] and mount['mount_point'] == POINT and mount['source'].lower() == SOURCE
    assert 'dead' in engine.dfsctl('mounts').stdout
    run = engine.dfsctl('mount', SOURCE, POINT, '--credentials', engine.credentials(), '--state-dir', engine.state_dir,
                        check=False)
    assert run.returncode == 12 and f'run dfsctl unmount {POINT}' in run.stderr, run
    engine.unmount(POINT)
    assert not mounted_at(lab, POINT)
    assert engine.dfsctl('mounts', check=False).returncode == 13  # Nothing runs.
    engine.mount(SOURCE, POINT)
    lab.run_in('client', ['ls', POINT + '/single'])
    engine.unmount(POINT)
