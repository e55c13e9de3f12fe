#!/usr/bin/python3
"""Measures on one lab, in alternating runs, and prints Markdown tables for docs/performance.md.

  bench.py [SECTION]...   get        one 2 GiB file: dfsctl get and smbclient, signed and plain
                          (none)     every section

Knobs: BENCH_RUNS (3), BENCH_MIB (2048). Exit code 1 if something could not be measured.
"""

import os
import platform
import resource
import statistics
import subprocess
import sys
import time

E2E = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(E2E)
sys.path.insert(0, E2E)
sys.dont_write_bytecode = True
from lab import Lab, LabError  # noqa: E402  pylint: disable=wrong-import-position
from lab.lab import PASSWORDS  # noqa: E402  pylint: disable=wrong-import-position

RUNS = int(os.environ.get('BENCH_RUNS', '3'))
MIB = int(os.environ.get('BENCH_MIB', '2048'))
BIN = os.path.join(ROOT, 'build', 'bin')


class BenchError(Exception):
    """What was to be measured did not happen."""


def one_line(*command):
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.strip()


def heading(what):
    with open('/proc/cpuinfo') as file:
        model = next((line.split(':', 1)[1].strip() for line in file if line.startswith('model name')), '?')
    print(f'\n### {what}\n\n`make bench`, commit {one_line("git", "rev-parse", "--short=12", "HEAD")}, '
          f'{one_line("smbd", "--version")}, Linux {platform.release()}, {os.cpu_count()} × {model}; '
          f'medians of {RUNS} alternating runs, in brackets least and most; load at start '
          f'{os.getloadavg()[0]:.1f}\n')


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
    return f'{statistics.median(values):.2f} ({min(values):.2f}–{max(values):.2f})'


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
    seconds = {name: [] for name, *_ in columns}
    cpu = {name: [] for name, *_ in columns}
    for _ in range(RUNS):
        for name, make, argument, _ in columns:
            command, env = make('big.bin', argument)
            took, used = timed(lab, command, env)
            seconds[name].append(took)
            cpu[name].append(used)
    heading(f'One file of {MIB} MiB, raw')
    print('| | MiB/s | CPU s/GiB | against smbclient |\n|---|---|---|---|')
    for name, *_ in columns:
        other = 'smbclient' + name[name.index(','):]
        ratio = statistics.median(seconds[other]) / statistics.median(seconds[name])
        print(f'| {name} | {spread([MIB / s for s in seconds[name]])} '
              f'| {spread([c / MIB * 1024 for c in cpu[name]])} | {ratio:.2f}× |')


SECTIONS = {'get': bench_get}


def main():
    sections = sys.argv[1:] or list(SECTIONS)
    if set(sections) - set(SECTIONS):
        print(__doc__)
        return 2
    if not os.access(f'{BIN}/dfsctl', os.X_OK):
        print('bench: build/bin/dfsctl is missing: make build', file=sys.stderr)
        return 1
    failed = False
    with Lab(big_mib=MIB, tmpfs='16g', big_targets=('t1',)) as lab:
        for section in sections:
            try:
                SECTIONS[section](lab)
            except (BenchError, LabError, subprocess.TimeoutExpired) as error:
                print(f'bench: {section}: {error}', file=sys.stderr)
                failed = True
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
