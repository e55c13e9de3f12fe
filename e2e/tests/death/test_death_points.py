"""The agent dies at every named instant (node-agent/base/death_points.h), under writers that know every result."""

import os
import random
import subprocess
import time

import pytest

from keeper import Keeper
from lab import Application, Writers
from lab.control import SLACK
from writing import MOUNT, PATIENCE, check_disk, check_records, empty, hidden, percentile

LAB = {'big_mib': 0}
# Each instant so often; CI: once.
ROUNDS = 3 if int(os.environ.get('DFSCSI_KILLS', '500')) >= 500 else 1
MODES = ['blocks', 'direct', 'append', 'append', 'names', 'opened', 'locks', 'locks', 'locks', 'records']
# Instants of an agent that takes over what another left: where that one must have died.
BEFORE = {
    'adopted_answer_sent': 'answer_recorded',
    'adopted_request_run': 'request_filled',
    'probe_begun': 'change_marked',
    'probe_ended': 'change_marked',
}
# Seldom passed: the first time is the time.
RARE = ('locks_retaken', 'adoption_begun', *BEFORE)


def instants():
    program = os.path.join(os.path.dirname(__file__), '..', '..', '..', 'build', 'bin', 'dfs-node-agent')
    program = os.path.join(os.environ['DFSCSI_BIN_DIR'], 'dfs-node-agent') if 'DFSCSI_BIN_DIR' in os.environ else program
    return subprocess.run([program, '--die_at=list'], capture_output=True, text=True, check=True).stdout.split()


@pytest.fixture(autouse=True)
def empty_share(lab):
    yield
    empty(lab)


def command_line(pid):
    """'' of one that is dead or about to be: its sockets go after its memory."""
    try:
        with open(f'/proc/{pid}/cmdline') as file:
            return file.read()
    except OSError:
        return ''


def is_armed(pid):
    return '--die_at=' in command_line(pid)


class Deaths:
    """Agents that die where they are told to."""

    def __init__(self, lab, engine, keeper, writers):
        self._lab, self._engine, self._keeper, self._writers = lab, engine, keeper, writers
        self.fired = {}

    def _count(self, line):
        return self._keeper.log().count(line)

    def _replace_standby(self, flags):
        """`flags`: one entry for each agent that is started next."""
        def active_one_of_two():
            active = self._engine.active_agent()
            # Not the one that has just died, or its successor would be taken for a standby.
            return active and command_line(active) and len(self._engine.pids('dfs-node-agent')) >= 2 and active

        def only_the_armed_one_stands_by():
            others = set(self._engine.pids('dfs-node-agent')) - {active}
            return len(others) == 1 and flags[0][0] in command_line(min(others)) and self._count('standby: ') > standing_by

        active = self._lab.wait_until(active_one_of_two, 20, 'an active agent and a standby')
        standing_by = self._keeper.replace_standbys(active, flags).count('standby: ')
        self._lab.wait_until(only_the_armed_one_stands_by, 20, 'the armed standby')

    def run(self, name, count):
        """The active agent is killed; its successor (or, see BEFORE, the next one) dies at that instant."""
        chain = [(BEFORE[name], 1), (name, count)] if name in BEFORE else [(name, count)]
        flags = [(f'--die_at={word}:{number}',) for word, number in chain]
        # The first may die before the second stands by; then either of the next two takes over.
        self._replace_standby(flags + flags[1:])
        before = {word: self._count(f'dies at {word}\n') for word, _ in chain}
        self._engine.kill_active_agent()
        for word, _ in chain:
            try:
                self._lab.wait_until(lambda line=f'dies at {word}\n', old=before[word]: self._count(line) > old, 20, word)
            except TimeoutError:
                pytest.fail(f'no agent has come by {word}; the writers: {self._writers.problems()[:5]}, {self._writers.under_way()}, '
                            f'{[(pid, is_armed(pid)) for pid in self._engine.pids("dfs-node-agent")]}, active {self._engine.active_agent()}, '
                            f'{self._keeper.log()[-1500:]}')
            self.fired[word] = self.fired.get(word, 0) + 1
        # They have said so, and are about to be gone.
        self._keeper.flags_of_next.clear()
        self._lab.wait_until(self._end_armed, 20, 'the armed ones are gone')

    def _end_armed(self):
        armed = [pid for pid in self._engine.pids('dfs-node-agent') if is_armed(pid)]
        for pid in armed:
            try:
                os.kill(pid, 9)
            except ProcessLookupError:
                pass
        return not armed


def test_every_named_instant(lab, engine):
    names = instants()
    assert len(names) > 30 and len(set(names)) == len(names)
    engine.mount('//t1/bench', options='rw,write_behind,file_mode=0644,dir_mode=0755')
    rng, stalls = random.Random(1), {}
    with Keeper(lab, engine) as keeper, Application(lab) as app, Writers(lab, MOUNT, MODES) as writers:
        # Locked all the time.
        app.do(f"exec('import fcntl', globals()) or kept.__setitem__('f', os.open('{MOUNT}/held', os.O_CREAT | os.O_RDWR))")
        app.do("fcntl.lockf(kept['f'], fcntl.LOCK_EX)")
        deaths = Deaths(lab, engine, keeper, writers)
        lab.wait_until(lambda: writers.all_got_on(0.0), 30, 'every writer writes')
        for _ in range(ROUNDS):
            for name in rng.sample(names, len(names)):
                at = time.monotonic()
                deaths.run(name, 1 if name in RARE else rng.randrange(1, 4))
                lab.wait_until(lambda at=at: writers.all_got_on(at), 30, f'every writer goes on after {name}')
                stalls.setdefault(name, []).append(writers.longest_stall(at))
                assert not writers.problems(), (name, writers.problems()[:5])
                assert not (wrong := check_records(lab, writers.last('synced'))), (name, wrong)
        states = writers.end(PATIENCE)
        assert app.do("os.pwrite(kept['f'], b'held', 0)") == 4
    worst = max(stalls, key=lambda name: max(stalls[name]))
    every = [stall for seen in stalls.values() for stall in seen]
    print(f'\n{len(names)} instants, {ROUNDS} times each: {writers.count()} operations of writers; stall p50 '
          f'{percentile(every, 0.5):.3f} s, p99 {percentile(every, 0.99):.3f} s, longest {max(every):.3f} s ({worst})')
    assert set(names) <= set(deaths.fired), set(names) - set(deaths.fired)
    assert not writers.problems(), writers.problems()[:5]
    assert not (wrong := check_disk(lab, states)), wrong[:5]
    lab.wait_until(lambda: not hidden(lab), 20, 'hidden files go')


def test_an_instant_that_does_not_exist_is_refused(lab, engine):
    run = lab.run_in('client', [engine.program('dfs-node-agent'), '--socket_dir=/run/none', '--die_at=never'], check=False)
    assert run.returncode == 2 and 'no such instant' in run.stderr
