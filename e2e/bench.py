#!/usr/bin/python3
"""Measures on one lab, in alternating runs, and prints Markdown tables for docs/performance.md.

  bench.py [SECTION]...   get        one 2 GiB file: dfsctl get and smbclient, signed and plain
                          mount      through a mount: ours, smbclient, smbnetfs, the floor
                          write      writing through a mount: one large file, 2,000 small ones
                          cost       what the request arena and its journal cost
                          failover   the longest stall of readers while a target, or the root, dies
                          (none)     every section

Knobs: BENCH_RUNS (3), BENCH_MIB (2048), BENCH_MOUNT_MIB (1024), BENCH_RANDOM_SECONDS (4). With the
defaults all of it takes under 15 minutes on two cores. A table of ratios says which goal is missed;
exit code 1 only if something could not be measured. What fails in one run is told on stderr and left
out; the medians are those of the other runs.
"""

import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import time

E2E = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(E2E)
sys.path.insert(0, E2E)
sys.dont_write_bytecode = True
import bench_cost  # noqa: E402  pylint: disable=wrong-import-position
from bench_columns import POINT, Ours, Passthrough, Smbnetfs, clear  # noqa: E402  pylint: disable=wrong-import-position
from lab import Engine, Lab, LabError, Readers  # noqa: E402  pylint: disable=wrong-import-position
from lab.lab import PASSWORDS  # noqa: E402  pylint: disable=wrong-import-position

RUNS = int(os.environ.get('BENCH_RUNS', '3'))
MIB = int(os.environ.get('BENCH_MIB', '2048'))
BIN = os.path.join(ROOT, 'build', 'bin')


class BenchError(Exception):
    """What was to be measured did not happen."""


def one_line(*command):
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.strip()


class Attempts:
    """Runs measurements; one that fails is told and counted, and the others go on."""

    EXPECTED = (BenchError, LabError, TimeoutError, OSError, ValueError, subprocess.SubprocessError)

    def __init__(self):
        self.failures = 0

    def run(self, what, function, *arguments):
        try:
            return function(*arguments)
        except self.EXPECTED as error:
            self.failures += 1
            print(f'bench: {what}: {type(error).__name__}: {error}', file=sys.stderr, flush=True)
            return None


ATTEMPTS = Attempts()
LOAD_AT_START = os.getloadavg()[0]


def heading(what, command='make bench'):
    with open('/proc/cpuinfo') as file:
        model = next((line.split(':', 1)[1].strip() for line in file if line.startswith('model name')), '?')
    changed = ' with changes' if one_line('git', 'status', '--porcelain', '--untracked-files=no') else ''
    print(f'\n### {what}\n\n`{command}`, commit {one_line("git", "rev-parse", "--short=12", "HEAD")}{changed}, '
          f'{one_line("smbd", "--version")}, Linux {platform.release().split("-")[0]}, {os.cpu_count()} × {model}; '
          f'medians of {RUNS} alternating runs, in brackets least and most; load at start '
          f'{LOAD_AT_START:.1f}\n', flush=True)


def timed(lab, command, env=None):
    """(seconds, CPU seconds of the command and its children), its output thrown away."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.monotonic()
    process = lab.popen_in('client', command, env=env, stdin=subprocess.DEVNULL,
                           stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    _, errors = process.communicate(timeout=600)
    seconds = time.monotonic() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode != 0:
        raise BenchError(f'{command[0]}: {errors.decode().strip()[-500:]}')
    return seconds, (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime)


def spread(values):
    if not values:
        return 'failed'
    return f'{statistics.median(values):.2f} ({min(values):.2f}–{max(values):.2f})'


def ratio_of(found, first, second):
    """Median of `first` over median of `second`, each (column, metric); None where one was not measured."""
    medians = [statistics.median(found[name].get(key) or [0]) for name, key in (first, second)]
    return medians[0] / medians[1] if all(medians) else None


def print_goals(rows):
    """Rows of (what, ratio, 'least' or 'most', goal). A shortfall is marked, not an error."""
    print('\n| ratio | measured | goal | |\n|---|---|---|---|')
    for what, ratio, kind, goal in rows:
        sign = '≥' if kind == 'least' else '≤'
        if ratio is None:
            print(f'| {what} | not measured | {sign} {goal} | |')
            continue
        met = ratio >= goal if kind == 'least' else ratio <= goal
        print(f'| {what} | {ratio:.2f}× | {sign} {goal} | {"met" if met else "**missed**"} |')


def credentials_file(lab):
    with open(lab.path('client', '/mnt/credentials'), 'w', opener=lambda p, f: os.open(p, f, 0o600)) as file:
        file.write(f'username=dfsuser\npassword={PASSWORDS["dfsuser"]}\n')
    return '/mnt/credentials'


def reads_are_signed(lab, command, env):
    with lab.capture('t1') as seen:
        timed(lab, command, env)
    reads = [request for request in seen.requests() if 'READ' in request.commands]
    if not reads:
        raise BenchError('no READ seen on the wire: is it encrypted?')
    return all(request.signed for request in reads)


def bench_get(lab):
    """The gate of the client: dfsctl get at least as fast as smbclient."""
    credentials = credentials_file(lab)
    password = {'PASSWD': PASSWORDS['dfsuser']}

    def dfsctl(path, options):
        return [f'{BIN}/dfsctl', 'get', f'//t1/share/{path}', '-', '--credentials', credentials,
                '-o', options], None

    def smbclient(path, protection):
        return ['smbclient', '//t1/share', '-U', 'dfsuser', '-m', 'SMB3',
                f'--client-protection={protection}', '-c', f'get {path} /dev/null'], password

    columns = [('dfsctl, signed', dfsctl, 'sign', True), ('smbclient, signed', smbclient, 'sign', True),
               ('dfsctl, plain', dfsctl, 'nosign', False), ('smbclient, plain', smbclient, 'off', False)]
    for name, make, argument, signed in columns:
        command, env = make('hello.txt', argument)
        if reads_are_signed(lab, command, env) != signed:
            raise BenchError(f'{name}: the wire says otherwise')
    found = {name: {'speed': [], 'cpu': []} for name, *_ in columns}
    for _ in range(RUNS):
        for name, make, argument, _ in columns:
            command, env = make('big.bin', argument)
            measured = ATTEMPTS.run(name, timed, lab, command, env)
            if measured is not None:
                found[name]['speed'].append(MIB / measured[0])
                found[name]['cpu'].append(measured[1] / MIB * 1024)
    heading(f'One file of {MIB} MiB, raw')
    print('| | MiB/s | CPU s/GiB |\n|---|---|---|')
    for name, *_ in columns:
        print(f'| {name} | {spread(found[name]["speed"])} | {spread(found[name]["cpu"])} |')
    print_goals([(f'{kind}: dfsctl get against smbclient',
                  ratio_of(found, (f'dfsctl, {kind}', 'speed'), (f'smbclient, {kind}', 'speed')), 'least', 1.0)
                 for kind in ('signed', 'plain')])


# Through a mount: each column mounts a folder that holds the same files.

SEQUENTIAL_MIB = int(os.environ.get('BENCH_MOUNT_MIB', '1024'))
SEQUENTIAL_SECONDS = 10  # Slow columns are not read to the end.
RANDOM_SECONDS = float(os.environ.get('BENCH_RANDOM_SECONDS', '4'))


def fio(lab, folder, *arguments):
    """(bandwidth in MiB/s, IOPS, CPU seconds of fio, GiB read) of one read job."""
    run = lab.run_in('client', ['fio', '--name=j', '--thread', '--group_reporting', '--ioengine=psync',
                                '--readonly', '--output-format=json', f'--filename={folder}/big.bin',
                                f'--size={SEQUENTIAL_MIB}m', *arguments], timeout=300)
    job = json.loads(run.stdout[run.stdout.index('{'):])['jobs'][0]
    if job['error'] or not job['read']['io_bytes']:
        raise BenchError(f'fio {" ".join(arguments)}: error {job["error"]}')
    seconds = job['job_runtime'] / 1000
    cpu = (job['usr_cpu'] + job['sys_cpu']) / 100 * seconds
    return (job['read']['bw_bytes'] / (1 << 20), job['read']['iops'], cpu,
            job['read']['io_bytes'] / (1 << 30))


STAT_LOOP = """
import os, sys, time
paths = [os.path.join(f, n) for f, _, ns in os.walk(sys.argv[1]) for n in ns]
time.sleep(1.5)  # Past the usual attribute time-out.
start = time.monotonic()
for count, path in enumerate(paths, 1):
    os.stat(path)
    if time.monotonic() > start + 4:
        break
print(count / (time.monotonic() - start))
"""


def measure_mount(lab, column, found):
    """One run of one column: every metric, on a mount that is made for each and thus cold."""
    def once(function):
        column.mount(lab)
        try:
            return function(column.folder())
        finally:
            column.unmount(lab)

    def fresh(metric, function):
        value = ATTEMPTS.run(f'{column.name}, {metric}', once, function)
        if value is not None:
            found.setdefault(metric, []).append(value)
        elif lab.client_mounts() or lab.client_processes():
            clear(lab)

    def sequential(metric, *arguments):
        def run(folder):
            before = column.cpu_seconds(lab)
            speed, _, cpu, gib = fio(lab, folder, '--rw=read', '--bs=1m', f'--runtime={SEQUENTIAL_SECONDS}', *arguments)
            served = column.cpu_seconds(lab) - before
            found.setdefault('cpu ' + metric, []).append((served + cpu) / gib)
            found.setdefault('served cpu ' + metric, []).append(served / gib)
            return speed
        fresh(metric, run)

    def random(folder, jobs):
        return fio(lab, folder, '--rw=randread', '--bs=4k', '--direct=1', '--time_based',
                   f'--runtime={RANDOM_SECONDS}', f'--numjobs={jobs}')[1]

    def list_all(folder):
        start = time.monotonic()
        run = lab.run_in('client', ['ls', '-lR', f'{folder}/tree'], timeout=120)
        if run.stdout.count('.txt') != 5000:
            raise BenchError(f'{column.name}: ls -lR shows {run.stdout.count(".txt")} files of 5000')
        return (time.monotonic() - start) * 1000

    sequential('buffered')
    sequential('direct', '--direct=1')
    fresh('random 1', lambda folder: random(folder, 1))
    fresh('random 16', lambda folder: random(folder, 16))
    fresh('stat', lambda folder: float(lab.run_in(
        'client', ['/usr/bin/python3', '-c', STAT_LOOP, f'{folder}/tree'], timeout=120).stdout))
    fresh('ls', list_all)


def smbclient_timed(lab, protection, command):
    return timed(lab, ['smbclient', '//t1/share', '-U', 'dfsuser', '-m', 'SMB3',
                       f'--client-protection={protection}', '-c', command],
                 {'PASSWD': PASSWORDS['dfsuser']})


def measure_smbclient(lab, protection, found):
    measured = ATTEMPTS.run(f'smbclient {protection}', smbclient_timed, lab, protection, 'get big.bin /dev/null')
    if measured is not None:
        found.setdefault('buffered', []).append(MIB / measured[0])
        found.setdefault('cpu buffered', []).append(measured[1] / MIB * 1024)
    measured = ATTEMPTS.run(f'smbclient {protection}, ls', smbclient_timed, lab, protection,
                            'cd tree; recurse; ls')
    if measured is not None:
        found.setdefault('ls', []).append(measured[0] * 1000)


METRICS = (
    ('buffered', 'sequential 1 MiB, buffered, MiB/s'), ('cpu buffered', 'its CPU s/GiB'),
    ('served cpu buffered', '… without the reader'),
    ('direct', 'sequential 1 MiB, O_DIRECT, MiB/s'), ('cpu direct', 'its CPU s/GiB'),
    ('served cpu direct', '… without the reader'),
    ('random 1', 'random 4 KiB, 1 job, IOPS'), ('random 16', 'random 4 KiB, 16 jobs, IOPS'),
    ('stat', 'stat, one thread, 1/s'), ('ls', 'ls -lR of 5,000 in 50, cold, ms'),
)


def bench_mount(lab):
    lab.make_tree('tree', 50, 100, targets=['t1'])
    mounts = [Ours('ours, signed', None), Ours('ours, plain', 'nosign'), Smbnetfs('smbnetfs'),
              Passthrough('pass-through')]
    clients = [('smbclient, signed', 'sign'), ('smbclient, plain', 'off')]
    found = {column.name: {} for column in mounts} | {name: {} for name, _ in clients}
    for _ in range(RUNS):
        for column in mounts:
            measure_mount(lab, column, found[column.name])
        for name, protection in clients:
            measure_smbclient(lab, protection, found[name])
    heading(f'Through a mount, {SEQUENTIAL_MIB} MiB')
    print('pass-through: a local folder through libfuse alone, the floor of a FUSE file system. CPU: of the '
          'reader and of what serves the mount\n')
    names = ['ours, signed', 'smbclient, signed', 'ours, plain', 'smbclient, plain', 'smbnetfs', 'pass-through']
    print('| | ' + ' | '.join(names) + ' |\n|---' + '|---' * len(names) + '|')
    for key, title in METRICS:
        cells = [spread(found[name][key]) if key in found[name] else '' for name in names]
        print(f'| {title} | ' + ' | '.join(cells) + ' |')
    rows = []
    for kind in ('signed', 'plain'):
        ours, peer = f'ours, {kind}', f'smbclient, {kind}'
        rows += [
            (f'{kind}: sequential, buffered, against smbclient',
             ratio_of(found, (ours, 'buffered'), (peer, 'buffered')), 'least', 0.9),
            (f'{kind}: its CPU without the reader, against smbclient',
             ratio_of(found, (ours, 'served cpu buffered'), (peer, 'cpu buffered')), 'most', 1.5),
            (f'{kind}: its CPU with the reader, against smbclient',
             ratio_of(found, (ours, 'cpu buffered'), (peer, 'cpu buffered')), 'most', 1.5),
            (f'{kind}: sequential, O_DIRECT, against smbclient',
             ratio_of(found, (ours, 'direct'), (peer, 'buffered')), 'least', 0.9),
            (f'{kind}: sequential, buffered, against smbnetfs',
             ratio_of(found, (ours, 'buffered'), ('smbnetfs', 'buffered')), 'least', 3),
            (f'{kind}: 16 jobs against one', ratio_of(found, (ours, 'random 16'), (ours, 'random 1')), 'least', 3)]
    print_goals(rows)


# Writing through a mount.

SMALL_FILES = 2000
WRITTEN = 'bench-written'  # A folder of the share.
LARGE_SOURCE = '/mnt/bench-source'

# Says how many it made in a second.
CREATE_LOOP = """
import os, sys, time
start = time.monotonic()
for number in range(int(sys.argv[2])):
    fd = os.open(f'{sys.argv[1]}/{number}', os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    if os.write(fd, b'x' * 1024) != 1024:
        raise SystemExit('short')
    os.close(fd)
print(int(sys.argv[2]) / (time.monotonic() - start))
"""


def empty_written(lab):
    folder = lab.data('t1', f'share/{WRITTEN}')
    shutil.rmtree(folder, ignore_errors=True)
    os.mkdir(folder)
    os.chmod(folder, 0o777)


def check_written(lab, name, size):
    """What is measured is on the server, or was not measured."""
    found = os.stat(lab.data('t1', f'share/{WRITTEN}/{name}')).st_size
    if found != size:
        raise BenchError(f'{name} has {found} bytes of {size} on the server')


def measure_writes(lab, column, found):
    def once(what, function):
        def run():
            empty_written(lab)
            column.mount(lab)
            try:
                return function(f'{column.folder()}/{WRITTEN}')
            finally:
                column.unmount(lab)
        value = ATTEMPTS.run(f'{column.name}, {what}', run)
        if value is None and (lab.client_mounts() or lab.client_processes()):
            clear(lab)
        return value

    def large(folder):
        mib = min(SEQUENTIAL_MIB, column.most_written_mib)
        before = column.cpu_seconds(lab)
        seconds, cpu = timed(lab, ['dd', f'if={LARGE_SOURCE}', f'of={folder}/large', 'bs=1M', 'conv=fsync',
                                   f'count={mib}'])
        served = column.cpu_seconds(lab) - before
        check_written(lab, 'large', mib << 20)
        found.setdefault('write cpu', []).append((cpu + served) / mib * 1024)
        return mib / seconds

    def small(folder):
        speed = float(lab.run_in('client', ['/usr/bin/python3', '-c', CREATE_LOOP, folder, str(SMALL_FILES)],
                                 timeout=300).stdout)
        check_written(lab, str(SMALL_FILES - 1), 1024)
        return speed

    for metric, function in (('write', large), ('create', small)):
        value = once(metric, function)
        if value is not None:
            found.setdefault(metric, []).append(value)


def frames_per_file(lab, column, files=200):
    """SMB frames from the client per file made, in a folder that the mount has already seen."""
    empty_written(lab)
    column.mount(lab)
    try:
        folder = f'{column.folder()}/{WRITTEN}'
        lab.run_in('client', ['ls', '-l', folder])
        with lab.capture('t1') as seen:
            lab.run_in('client', ['/usr/bin/python3', '-c', CREATE_LOOP, folder, str(files)], timeout=120)
        return seen.frames('ECHO') / files
    finally:
        column.unmount(lab)


def bench_write(lab):
    lab.run_in('client', ['dd', 'if=/dev/urandom', f'of={LARGE_SOURCE}', 'bs=1M', f'count={SEQUENTIAL_MIB}'],
               timeout=120)
    mounts = [Ours('ours, signed', 'rw'), Ours('write_behind, signed', 'rw,write_behind'),
              Ours('ours, plain', 'rw,nosign'), Ours('write_behind, plain', 'rw,nosign,write_behind'),
              Smbnetfs('smbnetfs')]
    clients = [('smbclient, signed', 'sign'), ('smbclient, plain', 'off')]
    found = {column.name: {} for column in mounts} | {name: {} for name, _ in clients}
    for column in mounts:
        frames = ATTEMPTS.run(f'{column.name}, frames', frames_per_file, lab, column)
        if frames is not None:
            found[column.name]['frames'] = [frames]
    for _ in range(RUNS):
        for column in mounts:
            measure_writes(lab, column, found[column.name])
        for name, protection in clients:
            empty_written(lab)
            measured = ATTEMPTS.run(name, smbclient_timed, lab, protection,
                                    f'put {LARGE_SOURCE} {WRITTEN}/large')
            if measured is not None:
                check_written(lab, 'large', SEQUENTIAL_MIB << 20)
                found[name].setdefault('write', []).append(SEQUENTIAL_MIB / measured[0])
                found[name].setdefault('write cpu', []).append(measured[1] / SEQUENTIAL_MIB * 1024)
    empty_written(lab)
    os.unlink(lab.path('client', LARGE_SOURCE))
    heading(f'Writing through a mount: {SEQUENTIAL_MIB} MiB, and {SMALL_FILES} files of 1 KiB', 'bench.py write')
    print('`dd bs=1M conv=fsync` beside `put`, of one file in memory. Frames: of requests, counted at the server\n')
    names = ['ours, signed', 'write_behind, signed', 'smbclient, signed', 'ours, plain', 'write_behind, plain',
             'smbclient, plain', 'smbnetfs']
    print('| | ' + ' | '.join(names) + ' |\n|---' + '|---' * len(names) + '|')
    for key, title in (('write', 'sequential 1 MiB, MiB/s'), ('write cpu', 'CPU s/GiB, with the writer'),
                       ('create', 'create, write, close of 1 KiB, files/s'), ('frames', 'frames per file')):
        cells = [spread(found[name][key]) if key in found[name] else '' for name in names]
        print(f'| {title} | ' + ' | '.join(cells) + ' |')
    rows = []
    for kind in ('signed', 'plain'):
        ours = f'ours, {kind}'
        rows += [(f'{kind}: sequential, {name}, against smbclient',
                  ratio_of(found, (f'{name}, {kind}', 'write'), (f'smbclient, {kind}', 'write')), 'least', 0.9)
                 for name in ('ours', 'write_behind')]
        rows += [(f'{kind}: sequential, against smbnetfs',
                  ratio_of(found, (ours, 'write'), ('smbnetfs', 'write')), 'least', 3),
                 (f'{kind}: small files, against smbnetfs',
                  ratio_of(found, (ours, 'create'), ('smbnetfs', 'create')), 'least', 1.5)]
    print_goals(rows)


def cost_of_the_arena(lab):
    heading(f'The request arena and its journal ({bench_cost.RUNS} runs)', 'bench.py cost')
    print_goals(bench_cost.bench_cost(lab))


# The failover table: what readers see while a server dies.

FAULTS = ('kill', 'reset', 'drop', 'stop')
ROOT_SECONDS = 6  # How long the root stays dead: past every time-out of a request.


class OursNamespace(Ours):
    """`link`: which link of the namespace is read."""

    def __init__(self, name, link='two'):
        super().__init__(name, None)
        self._link = link

    def mount(self, lab):
        self._engine = Engine(lab)
        self._engine.mount('//root1/dfs', POINT)

    def folder(self):
        return f'{POINT}/{self._link}'


class SmbnetfsNamespace(Smbnetfs):
    def folder(self):
        return f'{POINT}/root1/dfs/two'

    def start(self, lab):
        super().start(lab)
        conf = lab.path('client', '/run/smbnetfs/.smb/smbnetfs.conf')
        with open(conf) as file:
            text = file.read().replace('host t1', 'host root1')
        lab.run_in('client', ['umount', POINT])
        with open(conf, 'w') as file:
            file.write(text)
        lab.run_in('client', ['smbnetfs', POINT, '-o', 'allow_other'], env={'HOME': '/run/smbnetfs'})


def wait_for(seconds):
    end = time.monotonic() + seconds
    Lab.wait_until(lambda: time.monotonic() > end, seconds + 5, 'time passes')


def stall_of(lab, column, fault):
    """(longest stall of readers with and without an open file, their errors) while a target dies."""
    def die(readers):
        target = readers.served_by()
        lab.fail(fault, target)
        lab.wait_until(lambda: readers.served_by() not in (target, None), 90, 'it goes on')
        moved = time.monotonic()
        wait_for(1)
        lab.wait_until(lambda: all(readers.seen(moved).stalls[m] < 1 for m in ('open', 'held')), 60,
                       'both readers go on')
    return stall_while(lab, column, f'{column.name}, {fault}', die)


def stall_of_root(lab, column, fault):
    """The same, while the root of the namespace dies and every target lives."""
    def die(_):
        lab.fail(fault, 'root1')
        wait_for(ROOT_SECONDS)
    return stall_while(lab, column, f'the root, {fault}', die)


def stall_while(lab, column, what, die):
    column.mount(lab)
    try:
        with Readers(lab, column.folder(), ('open', 'held')) as readers:
            start = time.monotonic()
            try:
                die(readers)
            except TimeoutError:
                pass
            seen = readers.seen(start)
            if seen.wrong:
                raise BenchError(f'{what}: wrong bytes: {seen.wrong[:3]}')
            return seen.longest_stall, len(seen.errors)
    finally:
        lab.heal_all()
        column.unmount(lab)


def measure_failover(lab, others=True):
    """{(row, fault): [(longest stall, errors) of each run]}. others: not our own client alone."""
    rows = [(OursNamespace('ours, signed'), stall_of),
            (OursNamespace('ours, a nested link', 'nested/inner'), stall_of),
            (OursNamespace('ours, the namespace\'s root dies, cached link'), stall_of_root)]
    peer = (SmbnetfsNamespace('smbnetfs'), stall_of)
    found = {}
    for run in range(RUNS):
        for fault in FAULTS:
            for column, measure in rows + ([peer] if others and run == 0 else []):  # It needs minutes.
                runs = found.setdefault((column.name, fault), [])
                measured = ATTEMPTS.run(f'{column.name}, {fault}', measure, lab, column, fault)
                if measured is not None:
                    runs.append(measured)
    return found


def bench_failover(lab):
    found = measure_failover(lab)
    heading('The target of a link dies under readers: longest stall, seconds (of smbnetfs one run)')
    print('| | ' + ' | '.join(FAULTS) + ' |' + '\n|---' + '|---' * len(FAULTS) + '|')
    for name in dict.fromkeys(name for name, _ in found):
        cells = []
        for fault in FAULTS:
            errors = sum(errors for _, errors in found[name, fault])
            cells.append(spread([stall for stall, _ in found[name, fault]])
                         + (f', {errors} errors' if errors else ''))
        print(f'| {name} | ' + ' | '.join(cells) + ' |')


SECTIONS = {'get': bench_get, 'mount': bench_mount, 'write': bench_write, 'cost': cost_of_the_arena,
            'failover': bench_failover}


def main():
    sections = sys.argv[1:] or list(SECTIONS)
    if set(sections) - set(SECTIONS):
        print(__doc__)
        return 2
    if not os.access(f'{BIN}/dfsctl', os.X_OK):
        print('bench: build/bin/dfsctl is missing: make build', file=sys.stderr)
        return 1
    targets = ('t1',) if set(sections) <= {'get', 'mount', 'write', 'cost'} else ('t1', 't2', 't3')
    with Lab(big_mib=MIB, tmpfs='16g', big_targets=targets) as lab:
        for section in sections:
            ATTEMPTS.run(section, SECTIONS[section], lab)
    return 1 if ATTEMPTS.failures else 0


if __name__ == '__main__':
    sys.exit(main())
