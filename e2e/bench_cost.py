"""What the request arena and its journal cost: `bench.py cost`.

The same small requests through two agents, of the same build but for the arena: ours, and one that
is linked with node-agent/testing/null_request_arena.cc, which keeps nothing. Other programs can be
compared the same way, on any two folders of programs: `bench_cost.py FOLDER FOLDER`.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile

E2E = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, E2E)
sys.dont_write_bytecode = True
from lab import Engine, Lab, LabError  # noqa: E402  pylint: disable=wrong-import-position

ROOT = os.path.dirname(E2E)
BIN = os.environ.get('DFSCSI_BIN_DIR', os.path.join(ROOT, 'build', 'bin'))
NULL_AGENT = os.path.join(ROOT, 'build', 'release', 'tests', 'dfs-node-agent-null-arena')
RUNS = int(os.environ.get('BENCH_COST_RUNS', '7'))
REQUESTS = int(os.environ.get('BENCH_COST_REQUESTS', '200000'))
JOBS = 4
POINT = '/mnt/bench'
FOLDER = 'bench-cost'

# A round: READ, WRITE (4 KiB, past the pages), GETATTR of the open file, LOOKUP.
# Prints the seconds of each kind.
ROUNDS = """
import mmap, os, sys, time
folder, rounds = sys.argv[1], int(sys.argv[2])
fd = os.open(f'{folder}/{sys.argv[3]}', os.O_RDWR | os.O_DIRECT)
page = mmap.mmap(-1, 4096)
page.write(b'x' * 4096)
spent = [0.0] * 4
for number in range(rounds):
    at = number % 256 * 4096
    marks = [time.perf_counter()]
    os.preadv(fd, [page], at)
    marks.append(time.perf_counter())
    os.pwritev(fd, [page], at)
    marks.append(time.perf_counter())
    os.fstat(fd)
    marks.append(time.perf_counter())
    os.stat(f'{folder}/looked-at')
    marks.append(time.perf_counter())
    for kind in range(4):
        spent[kind] += marks[kind + 1] - marks[kind]
print(*spent)
"""
KINDS = ('READ', 'WRITE', 'GETATTR', 'LOOKUP')


def null_arena_programs(folder):
    """The programs of the build, with the other agent."""
    for name in os.listdir(BIN):
        shutil.copy(os.path.join(BIN, name), folder)
    shutil.copy(NULL_AGENT, os.path.join(folder, 'dfs-node-agent'))
    return folder


def cpu_ticks(pid):
    with open(f'/proc/{pid}/stat') as file:
        return sum(map(int, file.read().rsplit(')', 1)[1].split()[11:13]))


def measure(lab, programs, options='rw,actimeo=0', requests=REQUESTS):
    """(CPU seconds of the agent per 200,000 requests, {kind: operations per second of one job})."""
    folder = lab.data('t1', f'share/{FOLDER}')
    shutil.rmtree(folder, ignore_errors=True)
    os.mkdir(folder)
    os.chmod(folder, 0o777)
    for name in [*map(str, range(JOBS)), 'looked-at']:
        with open(f'{folder}/{name}', 'wb') as file:
            file.write(bytes(1 << 20))
        os.chmod(f'{folder}/{name}', 0o666)
    rounds = requests // (len(KINDS) * JOBS)
    engine = Engine(lab, programs)
    engine.mount('//t1/share', POINT, options)
    try:
        agent = engine.active_agent()
        if os.path.dirname(os.readlink(f'/proc/{agent}/exe')) != os.path.realpath(programs):
            raise LabError(f'another agent runs than that of {programs}')
        before, asked = cpu_ticks(agent), engine.counter('fuse_requests_total')
        jobs = [lab.popen_in('client', ['/usr/bin/python3', '-c', ROUNDS, f'{POINT}/{FOLDER}', str(rounds), str(job)],
                             stdout=subprocess.PIPE, text=True) for job in range(JOBS)]
        printed = [job.communicate(timeout=600)[0] for job in jobs]
        if any(job.returncode for job in jobs):
            raise LabError('a job of bench_cost.py failed')
        ticks = cpu_ticks(agent) - before
        asked = engine.counter('fuse_requests_total') - asked
    finally:
        engine.stop()
    if asked < 0.9 * requests:
        raise LabError(f'{asked:.0f} requests reached the agent, of {requests}')
    spent = [list(map(float, line.split())) for line in printed]
    rates = {kind: rounds * JOBS / sum(one[i] for one in spent) for i, kind in enumerate(KINDS)}
    return ticks / os.sysconf('SC_CLK_TCK') / asked * 200000, rates


def compare(lab, folders, runs, options='rw,actimeo=0'):
    """[(CPU seconds, rates)] of each folder's programs, in alternating runs."""
    found = [[] for _ in folders]
    for run in range(runs):
        for index in range(len(folders)):  # Each is first as often as the others.
            which = (index + run) % len(folders)
            found[which].append(measure(lab, folders[which], options))
    return found


def spread(values, digits=2):
    return f'{statistics.median(values):.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})'


def print_table(names, found):
    print('| | ' + ' | '.join(names) + ' |\n|---' + '|---' * len(names) + '|')
    print('| CPU s of the agent per 200,000 requests | '
          + ' | '.join(spread([cpu for cpu, _ in runs]) for runs in found) + ' |')
    for kind in KINDS:
        print(f'| {kind}, 1/s of one of {JOBS} jobs | '
              + ' | '.join(spread([rates[kind] for _, rates in runs], 0) for runs in found) + ' |')


def ratio(found):
    """Of the medians of CPU time: the first's over the second's."""
    first, second = (statistics.median(cpu for cpu, _ in runs) for runs in found)
    return first / second


def bench_cost(lab):
    """[(what, ratio, 'most', goal)], its table printed."""
    if not os.access(NULL_AGENT, os.X_OK):
        raise LabError(f'{NULL_AGENT} is missing: make build')
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        found = compare(lab, [BIN, null_arena_programs(folder)], RUNS)
    print_table(['ours', 'null arena'], found)
    return [('CPU of the agent against a null arena', ratio(found), 'most', 1.05)]


def main():
    if len(sys.argv) != 3:
        print(__doc__)
        return 2
    with Lab(big_mib=8, big_targets=('t1',)) as lab:
        found = compare(lab, [os.path.abspath(folder) for folder in sys.argv[1:]], RUNS,
                        os.environ.get('BENCH_COST_OPTIONS', 'rw,actimeo=0'))
    print_table(sys.argv[1:], found)
    print(f'\nCPU, first against second: {ratio(found):.3f}×')
    return 0


if __name__ == '__main__':
    sys.exit(main())
