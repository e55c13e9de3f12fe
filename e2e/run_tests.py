#!/usr/bin/python3
"""Runs the test stages of CI one after the other, and goes on after a failed one.

  run_tests.py [SUITE]     without SUITE: everything that CI runs
                           unit e2e death fuzz asan tsan lint: a part of it, or one stage
                           long: what takes hours; its stages alone: lint coverage simulation fuzz
                           asan-e2e death cycles bench

Prints a table of stages, then exactly one line "N passed, N failed[, N skipped]" that sums the test
cases of all stages. The exit code is 0 only if nothing failed. A stage that ran no test at all has
failed; so has, in CI (CI=true), a stage that could not start. Logs: build/test-logs/.
"""

import argparse
import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from concurrent.futures import ThreadPoolExecutor

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUILD = os.path.join(ROOT, 'build')
LOGS = os.path.join(BUILD, 'test-logs')
JOBS = os.cpu_count() or 2
IN_CI = os.environ.get('CI') == 'true'
# A stage that takes this many times its budget is stuck and is ended.
HARD_LIMIT = 2.5
FUZZ_SECONDS = 15
FUZZ_SECONDS_LONG = 60
SIMULATION_SEEDS = 5000
# What runs with the sanitized programs: every way through the engine, without tests of its speed and of
# what its memory holds.
ASAN_E2E = ('test_resolution.py', 'test_direct.py', 'test_bad_input.py', 'test_keeper.py')
# Folders whose tests run under ThreadSanitizer: those that share state between threads, without gRPC
# (whose uninstrumented library gives a thousand false reports).
TSAN_FOLDERS = ('runtime', 'state', 'smb', 'dfs')


class CannotStart(Exception):
    """The stage needs something that this machine does not have."""


class StageTimeout(Exception):
    """The stage was ended at its hard limit."""


@dataclasses.dataclass
class Counts:
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    failures: list = dataclasses.field(default_factory=list)

    def __iadd__(self, other):
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped
        self.failures += other.failures
        return self

    def ran(self):
        return self.passed + self.failed

    def fail(self, what):
        self.failed += 1
        self.failures.append(what)


class Run:
    """One running stage: its log and its deadline."""

    def __init__(self, name, deadline):
        self.name = name
        self.deadline = deadline
        self.log_path = os.path.join(LOGS, re.sub(r'\W+', '-', name) + '.log')
        self.log = open(self.log_path, 'w')

    def command(self, argv, env=None, check=True, log=None):
        """Runs argv, its output in the log. Returns its exit code; check: an error raises."""
        log = log or self.log
        log.write('$ ' + ' '.join(argv) + '\n')
        log.flush()
        process = subprocess.Popen(
            argv, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})}, start_new_session=True)
        try:
            code = process.wait(timeout=max(1, self.deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            # First the chance to clean up (pytest ends its labs), then the whole session.
            for number, patience in ((signal.SIGINT, 20), (signal.SIGKILL, 10)):
                try:
                    os.killpg(process.pid, number)
                    process.wait(timeout=patience)
                except (ProcessLookupError, subprocess.TimeoutExpired):
                    pass
            raise StageTimeout(f'{os.path.basename(argv[0])} was still running at the hard limit')
        if check and code != 0:
            raise subprocess.CalledProcessError(code, argv)
        return code


def require_root():
    if os.geteuid() != 0:
        raise CannotStart('needs root (network namespaces, mounts)')
    if not os.path.exists('/dev/fuse'):
        raise CannotStart('no /dev/fuse')


def configure_and_build(run, preset, targets=('all',)):
    extra = [] if shutil.which('ccache') else ['-DCMAKE_CXX_COMPILER_LAUNCHER=']
    run.command(['cmake', '--preset', preset, '-Wno-dev', *extra])
    run.command(['cmake', '--build', '--preset', preset, '-j', str(JOBS), '--target', *targets])
    return Counts()


def gtest_cases(path):
    """The cases of one GoogleTest XML report."""
    counts = Counts()
    for case in ElementTree.parse(path).getroot().iter('testcase'):
        if case.get('status') == 'notrun':
            continue
        name = f"{case.get('classname')}.{case.get('name')}"
        if case.find('failure') is not None:
            counts.fail(name)
        elif case.get('result') == 'skipped':
            counts.skipped += 1
        else:
            counts.passed += 1
    return counts


def run_ctest(run, tree, arguments=(), env=None, serial=False):
    """Runs CTest in `tree` and counts the cases inside its GoogleTest programs."""
    counts = Counts()
    with tempfile.TemporaryDirectory(prefix='dfscsi-ctest-') as reports:
        junit = os.path.join(reports, 'ctest.xml')
        gtest = os.path.join(reports, 'gtest')
        code = run.command(
            ['ctest', '--test-dir', tree, '--output-on-failure', '--no-tests=error', '-j',
             '1' if serial else str(JOBS), '--output-junit', junit, *arguments],
            env={'GTEST_OUTPUT': f'xml:{gtest}/', 'GTEST_COLOR': 'no', **(env or {})}, check=False)
        if os.path.exists(junit):
            for test in ElementTree.parse(junit).getroot().iter('testcase'):
                counts += ctest_cases(test, os.path.join(gtest, test.get('name') + '.xml'))
    if code != 0 and counts.failed == 0:
        counts.fail('ctest ended with exit code %d' % code)
    return counts


def ctest_cases(test, report):
    """The cases of one CTest test; one without a GoogleTest report is one case."""
    name, status = test.get('name'), test.get('status')
    inner = Counts()
    if os.path.exists(report):
        try:
            inner = gtest_cases(report)
        except ElementTree.ParseError:  # It died while it wrote.
            inner = Counts()
    if status == 'run':
        if inner.ran() + inner.skipped == 0:
            inner.passed = 1
    elif status == 'fail':
        if inner.failed == 0:  # It crashed, leaked, or ran into its time limit.
            inner.fail(name)
    elif status != 'disabled':
        reason = test.find('skipped')
        if reason is not None and reason.get('message', '').startswith('SKIP_'):
            inner.skipped += 1
        else:
            inner.fail(f'{name} could not run')
    return inner


def run_gtest(run, program, env):
    """One GoogleTest program, without CTest's time limit."""
    counts = Counts()
    report = os.path.join(LOGS, os.path.basename(program) + '.xml')
    code = run.command([program], env={'GTEST_OUTPUT': f'xml:{report}', 'GTEST_COLOR': 'no', **env},
                       check=False)
    if os.path.exists(report):
        counts += gtest_cases(report)
    if code != 0 and counts.failed == 0:
        counts.fail(f'{os.path.basename(program)} ended with exit code {code}')
    return counts


def run_pytest(run, paths, env=None):
    counts = Counts()
    report = os.path.join(LOGS, run.name + '.xml')
    if os.path.exists(report):
        os.unlink(report)
    code = run.command(
        ['/usr/bin/python3', '-m', 'pytest', '-c', 'e2e/tests/pytest.ini', '--rootdir', 'e2e/tests',
         '--junitxml', report, *paths], env=env, check=False)
    if os.path.exists(report):
        for case in ElementTree.parse(report).getroot().iter('testcase'):
            name = f"{case.get('classname')}.{case.get('name')}"
            if case.find('failure') is not None or case.find('error') is not None:
                counts.fail(name)
            elif case.find('skipped') is not None:
                counts.skipped += 1
            else:
                counts.passed += 1
    if code != 0 and counts.failed == 0:
        counts.fail(f'pytest ended with exit code {code}')
    return counts


def stage_release(run, options):
    return configure_and_build(run, 'release')


def stage_unit(run, options):
    return run_ctest(run, 'build/release', ['-LE', '^(death|e2e|long|simulation)$'])


def stage_asan_build(run, options):
    return configure_and_build(run, 'asan')


SANITIZER_ENV = {
    'ASAN_OPTIONS': 'detect_leaks=1:abort_on_error=0:detect_stack_use_after_return=1',
    'UBSAN_OPTIONS': 'print_stacktrace=1:halt_on_error=1',
    'TSAN_OPTIONS': 'halt_on_error=0:second_deadlock_stack=1',
    'ASAN_SYMBOLIZER_PATH': '/usr/lib/llvm-19/bin/llvm-symbolizer',
}


def stage_asan(run, options):
    # Fewer seeds of the engine's simulation: each takes ten times as long.
    return run_ctest(run, 'build/asan', ['-LE', '^(death|e2e|long|simulation)$'],
                     {**SANITIZER_ENV, 'DFSCSI_SIM_SEEDS': '60'})


def stage_tsan(run, options):
    folders = [f for f in TSAN_FOLDERS
               if os.path.exists(os.path.join(ROOT, 'node-agent', f, 'CMakeLists.txt'))]
    if not folders:
        raise subprocess.CalledProcessError(1, ['no folder to test'])
    configure_and_build(run, 'tsan', [f'node-agent/{f}/all' for f in folders])
    counts = Counts()
    for folder in folders:
        counts += run_ctest(run, f'build/tsan/node-agent/{folder}', ['-LE', '^(death|e2e|long|simulation)$'],
                            SANITIZER_ENV)
    return counts


def fuzz_targets():
    """(name, corpus folder) of each libFuzzer program of the asan build."""
    path = os.path.join(BUILD, 'asan', 'fuzz_targets.txt')
    with open(path) as file:
        return [line.split() for line in file if line.strip()]


def fuzz_sources():
    """Every x_fuzz.cc; its corpus lies beside it in x_fuzz_corpus/."""
    tracked = subprocess.run(['git', 'ls-files', '--cached', '--others', '--exclude-standard',
                              '*_fuzz.cc'], cwd=ROOT, capture_output=True, text=True, check=True)
    return tracked.stdout.split()


def fuzz_one(run, name, corpus, seconds):
    """Fuzzes one decoder; returns why it failed, or None."""
    if not os.path.isdir(corpus) or not os.listdir(corpus):
        return f'{name}: no corpus in {os.path.relpath(corpus, ROOT)}'
    artifacts = os.path.join(BUILD, 'fuzz-artifacts', name)
    os.makedirs(artifacts, exist_ok=True)
    log_path = os.path.join(LOGS, f'fuzz-{name}.log')
    with open(log_path, 'w') as log, tempfile.TemporaryDirectory(prefix='dfscsi-fuzz-') as found:
        # What the fuzzer finds goes into the first folder; the repository's corpus is only read.
        code = run.command(
            [os.path.join(BUILD, 'asan', 'fuzz', name), found, corpus, f'-max_total_time={seconds}',
             '-timeout=10', '-rss_limit_mb=2048', '-print_final_stats=1',
             f'-artifact_prefix={artifacts}/'],
            env=SANITIZER_ENV, check=False, log=log)
    with open(log_path, errors='replace') as log:
        text = log.read()
    units = re.search(r'stat::number_of_executed_units:\s*(\d+)', text)
    if code != 0:
        return f'{name}: exit code {code}, input kept in {os.path.relpath(artifacts, ROOT)}'
    if units is None or int(units.group(1)) <= len(os.listdir(corpus)):
        return f'{name}: ran no inputs beyond its corpus'
    return None


def stage_fuzz(run, options):
    targets = fuzz_targets()
    counts = Counts()
    corpora = {os.path.relpath(corpus, ROOT) for _, corpus in targets}
    for source in fuzz_sources():
        if source[:-len('.cc')] + '_corpus' not in corpora:
            counts.fail(f'{source}: no dfscsi_fuzz target with its corpus beside it')
    seconds = FUZZ_SECONDS_LONG if options.suite == 'long' else FUZZ_SECONDS
    with ThreadPoolExecutor(JOBS) as pool:
        for failure in pool.map(lambda t: fuzz_one(run, t[0], t[1], seconds), targets):
            if failure:
                counts.fail(failure)
            else:
                counts.passed += 1
    return counts


def has_label(tree, label):
    listing = subprocess.run(['ctest', '--test-dir', tree, '-L', f'^{label}$', '--show-only=json-v1'],
                             cwd=ROOT, capture_output=True, text=True, check=True)
    return bool(json.loads(listing.stdout).get('tests'))


def ctest_and_pytest(run, label):
    """The CTest tests with that label and the pytest folder of that name; one of them must exist."""
    require_root()
    counts = Counts()
    if has_label('build/release', label):
        counts += run_ctest(run, 'build/release', ['-L', f'^{label}$'], serial=True)
    if os.path.isdir(os.path.join(ROOT, 'e2e', 'tests', label)):
        counts += run_pytest(run, [f'e2e/tests/{label}'])
    return counts


def stage_e2e(run, options):
    require_root()
    counts = run_ctest(run, 'build/release', ['-L', '^e2e$'], serial=True)
    counts += run_pytest(run, ['e2e/tests', '--ignore=e2e/tests/death', '--ignore=e2e/tests/long'])
    return counts


def stage_death(run, options):
    if options.suite == 'ci':
        # The short form; `make test SUITE=death` runs 500 kills and an outage of 120 s.
        os.environ.setdefault('DFSCSI_KILLS', '100')
        os.environ.setdefault('DFSCSI_OUTAGE', '20')
    return ctest_and_pytest(run, 'death')


def stage_cycles(run, options):
    """e2e/tests/long/: mounting, opening and killing thousands of times, a million operations against a model."""
    return ctest_and_pytest(run, 'long')


def stage_simulation(run, options):
    return run_gtest(run, 'build/release/tests/engine_simulation_test',
                     {'DFSCSI_SIM_SEEDS': os.environ.get('DFSCSI_SIM_SEEDS', str(SIMULATION_SEEDS))})


def stage_asan_e2e(run, options):
    """e2e tests with the programs of the asan build; what a sanitizer writes into their logs fails the
    test (lab/engine.py)."""
    require_root()
    # Programs that hide their memory cannot be searched for leaks; the unit tests are.
    return run_pytest(run, [f'e2e/tests/{name}' for name in ASAN_E2E], {
        **SANITIZER_ENV, 'DFSCSI_BIN_DIR': os.path.join(BUILD, 'asan', 'bin'),
        'ASAN_OPTIONS': 'detect_leaks=0:abort_on_error=0:detect_stack_use_after_return=1'})


def stage_bench(run, options):
    require_root()
    run.command(['/usr/bin/python3', 'e2e/bench.py'])
    return Counts(passed=1)


def stage_coverage(run, options):
    run.command(['/usr/bin/python3', 'cmake/corpus_coverage.py'])
    return Counts(passed=1)


def stage_lint(run, options):
    configure_and_build(run, 'release')  # For the generated headers and compile_commands.json.
    counts = Counts()
    code = run.command(['/usr/bin/python3', 'cmake/clang_tidy.py'], check=False)
    if code:
        counts.fail(f'clang-tidy: see {os.path.relpath(run.log_path, ROOT)}')
    else:
        counts.passed += 1
    return counts


@dataclasses.dataclass
class Stage:
    name: str
    budget_minutes: float
    run: object
    suites: tuple
    needs: tuple = ()
    has_cases: bool = True  # False: a build, which counts only when it fails.
    long_minutes: float = None  # The budget in suite long; None: the same.

    def word(self):
        """Its name on the command line."""
        return self.name.replace(' ', '-')


# In the order in which they run. The budgets are what each may take on a machine with two cores.
STAGES = [
    Stage('release build', 12, stage_release, ('ci', 'unit', 'e2e', 'death', 'long'),
          has_cases=False),
    Stage('unit', 3, stage_unit, ('ci', 'unit'), ('release build',)),
    Stage('e2e', 15, stage_e2e, ('ci', 'e2e'), ('release build',)),
    Stage('death', 4, stage_death, ('ci', 'death', 'long'), ('release build',), long_minutes=30),
    Stage('asan build', 10, stage_asan_build, ('ci', 'asan', 'fuzz', 'long'), has_cases=False),
    Stage('asan', 4, stage_asan, ('ci', 'asan'), ('asan build',)),
    Stage('fuzz', 5, stage_fuzz, ('ci', 'fuzz', 'long'), ('asan build',), long_minutes=20),
    Stage('tsan', 8, stage_tsan, ('ci', 'tsan')),
    Stage('asan e2e', 20, stage_asan_e2e, ('long',), ('asan build',)),
    Stage('coverage', 15, stage_coverage, ('long',)),
    Stage('lint', 45, stage_lint, ('lint', 'long')),
    Stage('simulation', 30, stage_simulation, ('long',), ('release build',)),
    Stage('cycles', 200, stage_cycles, ('long',), ('release build',)),
    Stage('bench', 60, stage_bench, ('long',), ('release build',)),
]


def choose(suite):
    """The stages of a suite; or one stage, after those that it needs."""
    chosen = [stage for stage in STAGES if suite in stage.suites]
    if chosen:
        return chosen
    names = {stage.name for stage in STAGES if stage.word() == suite}
    for stage in reversed(STAGES):
        if stage.name in names:
            names.update(stage.needs)
    return [stage for stage in STAGES if stage.name in names]


@dataclasses.dataclass
class Result:
    stage: str
    seconds: float
    budget_minutes: float
    counts: Counts
    note: str = ''


def print_tail(path, lines=120):
    with open(path, errors='replace') as log:
        tail = log.read().splitlines()[-lines:]
    print(f'--- last {len(tail)} lines of {os.path.relpath(path, ROOT)}')
    print('\n'.join(tail))
    print('---', flush=True)


def run_stage(stage, options, broken):
    at_length = options.suite in ('long', 'death')
    budget = (stage.long_minutes if at_length else None) or stage.budget_minutes
    print(f'== {stage.name} (budget {budget:g} min)', flush=True)
    start = time.monotonic()
    result = Result(stage.name, 0, budget, Counts())
    missing = [need for need in stage.needs if need in broken]
    run = Run(stage.name, start + budget * 60 * HARD_LIMIT)
    try:
        if missing:
            result.counts.fail(f'{stage.name}: {missing[0]} failed')
            result.note = 'not run'
        else:
            result.counts = stage.run(run, options)
            if stage.has_cases and result.counts.ran() == 0:
                result.counts.fail(f'{stage.name}: ran no test')
    except CannotStart as reason:
        if IN_CI:
            result.counts.fail(f'{stage.name}: could not start: {reason}')
        else:
            result.counts.skipped += 1
        result.note = f'skipped: {reason}'
    except subprocess.CalledProcessError as error:
        result.counts.fail(f'{stage.name}: {" ".join(error.cmd[:4])} failed ({error.returncode})')
    except (StageTimeout, OSError, ElementTree.ParseError) as error:
        result.counts.fail(f'{stage.name}: {error}')
    finally:
        run.log.close()
    result.seconds = time.monotonic() - start
    if result.counts.failed and not missing:
        print_tail(run.log_path)
    return result


def print_table(results):
    print(f'\n{"stage":<15}{"minutes":>8}{"budget":>8}{"passed":>8}{"failed":>8}{"skipped":>8}  result')
    for r in results:
        verdict = 'FAILED' if r.counts.failed else r.note or 'ok'
        if r.seconds > r.budget_minutes * 60:
            verdict += ' (over budget)'
        print(f'{r.stage:<15}{r.seconds / 60:>8.1f}{r.budget_minutes:>8g}{r.counts.passed:>8}'
              f'{r.counts.failed:>8}{r.counts.skipped:>8}  {verdict}')
    print(f'{"all":<15}{sum(r.seconds for r in results) / 60:>8.1f}')


def main():
    suites = sorted({suite for stage in STAGES for suite in (*stage.suites, stage.word())} - {'ci'})
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('suite', nargs='?', default='ci', choices=['ci', *suites])
    parser.add_argument('--setup-status', type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument('--setup-seconds', type=float, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()

    shutil.rmtree(LOGS, ignore_errors=True)
    os.makedirs(LOGS)
    setup = Result('setup', options.setup_seconds, 4, Counts())
    if options.setup_status:
        setup.counts.fail('setup: cmake/setup_debian.sh failed')
    results = [setup]
    broken = set()
    for stage in choose(options.suite):
        results.append(run_stage(stage, options, broken))
        if results[-1].counts.failed:
            broken.add(stage.name)

    total = Counts()
    for result in results:
        total += result.counts
    for failure in total.failures:
        print(f'FAILED {failure}')
    print_table(results)
    print(f'{total.passed} passed, {total.failed} failed'
          + (f', {total.skipped} skipped' if total.skipped else ''), flush=True)
    return 1 if total.failed else 0


if __name__ == '__main__':
    sys.exit(main())
