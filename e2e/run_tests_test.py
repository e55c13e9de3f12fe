"""The test runner itself: what it counts, and that nothing which did not run can look like a pass."""

import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import pytest

import run_tests
from run_tests import CannotStart, Counts, Stage

GTEST = '''<testsuites><testsuite name="A">
<testcase name="Good" status="run" result="completed" classname="A"/>
<testcase name="Off" status="notrun" result="suppressed" classname="A"/>
<testcase name="Skipped" status="run" result="skipped" classname="A"><skipped message="x"/></testcase>
{more}</testsuite></testsuites>'''
BAD = '<testcase name="Bad" status="run" result="completed" classname="A"><failure message="x"/></testcase>'


def ctest_case(status, inner=''):
    return ElementTree.fromstring(f'<testcase name="a_test" status="{status}">{inner}</testcase>')


@pytest.mark.parametrize('status,inner,gtest,want', [
    ('run', '', None, (1, 0, 0)),                                     # No GoogleTest: one case.
    ('run', '', GTEST.format(more=''), (1, 0, 1)),                    # Its cases, not the program.
    ('fail', '<failure/>', GTEST.format(more=BAD), (1, 1, 1)),
    ('fail', '<failure/>', GTEST.format(more=''), (1, 1, 1)),         # A leak at its end.
    ('fail', '<failure/>', None, (0, 1, 0)),                          # A crash.
    ('fail', '<failure/>', '<testsuites><testsu', (0, 1, 0)),         # A crash while it wrote.
    ('notrun', '<skipped message="Unable to find executable"/>', None, (0, 1, 0)),
    ('notrun', '<skipped message="SKIP_RETURN_CODE=77"/>', None, (0, 0, 1)),
    ('disabled', '', None, (0, 0, 0)),
])
def test_cases_of_one_ctest_test(tmp_path, status, inner, gtest, want):
    report = tmp_path / 'a_test.xml'
    if gtest is not None:
        report.write_text(gtest)
    counts = run_tests.ctest_cases(ctest_case(status, inner), str(report))
    assert (counts.passed, counts.failed, counts.skipped) == want


def passes(run, options):
    return Counts(passed=3)


def fails(run, options):
    counts = Counts(passed=1)
    counts.fail('a case')
    return counts


def runs_nothing(run, options):
    return Counts(skipped=2)


def cannot_start(run, options):
    raise CannotStart('no machine for it')


def breaks(run, options):
    run.command(['false'])


def hangs(run, options):
    run.command(['sleep', '60'])


def is_missing(run, options):
    run.command(['/nowhere/at/all'])


@pytest.mark.parametrize('stages,ci,last_line,code', [
    ([('a', passes)], True, '3 passed, 0 failed', 0),
    ([('a', fails), ('b', passes)], True, '4 passed, 1 failed', 1),           # Goes on after a failure.
    ([('a', runs_nothing)], True, '0 passed, 1 failed, 2 skipped', 1),
    ([('a', cannot_start), ('b', passes)], True, '3 passed, 1 failed', 1),
    ([('a', cannot_start), ('b', passes)], False, '3 passed, 0 failed, 1 skipped', 0),
    ([('a', breaks), ('b', passes, ('a',))], True, '0 passed, 2 failed', 1),  # What needs it has failed.
    ([('a', hangs), ('b', passes)], True, '3 passed, 1 failed', 1),
    ([('a', is_missing)], True, '0 passed, 1 failed', 1),
])
def test_stages(monkeypatch, capsys, tmp_path, stages, ci, last_line, code):
    monkeypatch.setattr(run_tests, 'LOGS', str(tmp_path / 'logs'))
    monkeypatch.setattr(run_tests, 'IN_CI', ci)
    monkeypatch.setattr(run_tests, 'STAGES', [
        Stage(name, 0.02, run, ('ci',), *needs) for name, run, *needs in stages])
    monkeypatch.setattr(sys, 'argv', ['run_tests.py'])
    assert run_tests.main() == code
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == last_line
    assert sum(' passed, ' in line for line in lines) == 1


def test_setup_that_failed_is_a_failure(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(run_tests, 'LOGS', str(tmp_path / 'logs'))
    monkeypatch.setattr(run_tests, 'STAGES', [Stage('a', 1, passes, ('ci',))])
    monkeypatch.setattr(sys, 'argv', ['run_tests.py', '--setup-status=100'])
    assert run_tests.main() == 1
    assert capsys.readouterr().out.splitlines()[-1] == '3 passed, 1 failed'


def test_a_failed_pytest_is_counted(monkeypatch, tmp_path):
    monkeypatch.setattr(run_tests, 'LOGS', str(tmp_path))
    suite = tmp_path / 'suite'
    suite.mkdir()
    (suite / 'test_x.py').write_text('import pytest\ndef test_good(): pass\ndef test_bad(): assert 0\n'
                                     '@pytest.mark.skip\ndef test_off(): pass\n')
    run = run_tests.Run('x', run_tests.time.monotonic() + 60)
    counts = run_tests.run_pytest(run, [str(suite)])
    assert (counts.passed, counts.failed, counts.skipped) == (1, 1, 1)
    (suite / 'test_x.py').write_text('import nowhere_at_all\n')
    assert run_tests.run_pytest(run, [str(suite)]).failed == 1


def test_suites_of_the_command_line_exist():
    run = subprocess.run([sys.executable, run_tests.__file__, 'nonsense'], capture_output=True, text=True)
    assert run.returncode == 2
    for suite in ('unit', 'e2e', 'death', 'fuzz', 'asan', 'tsan', 'lint', 'long', 'coverage', 'simulation',
                  'asan-e2e', 'cycles', 'bench'):
        assert f"'{suite}'" in run.stderr


@pytest.mark.parametrize('suite,want', [
    ('ci', ['build', 'a']), ('a', ['build', 'a']), ('long', ['other build', 'b c', 'd']),
    ('b-c', ['build', 'other build', 'b c']), ('d', ['d']), ('other-build', ['build', 'other build']),
])
def test_a_stage_alone_runs_after_what_it_needs(monkeypatch, suite, want):
    monkeypatch.setattr(run_tests, 'STAGES', [
        Stage('build', 1, passes, ('ci', 'a'), has_cases=False), Stage('a', 1, passes, ('ci', 'a'), ('build',)),
        Stage('other build', 1, passes, ('long',), ('build',)),
        Stage('b c', 1, passes, ('long',), ('other build',)), Stage('d', 1, passes, ('long',))])
    assert [stage.name for stage in run_tests.choose(suite)] == want


def test_every_stage_comes_after_what_it_needs():
    """And suite long holds all that the hours are for."""
    seen = set()
    for stage in run_tests.STAGES:
        assert set(stage.needs) <= seen, stage.name
        seen.add(stage.name)
    assert {'lint', 'coverage', 'fuzz', 'asan e2e', 'death', 'cycles', 'simulation', 'bench'} <= {
        stage.name for stage in run_tests.choose('long')}


def test_a_program_that_crashes_is_counted(monkeypatch, tmp_path):
    monkeypatch.setattr(run_tests, 'LOGS', str(tmp_path))
    run = run_tests.Run('x', run_tests.time.monotonic() + 60)
    program = tmp_path / 'program'
    program.write_text('#!/bin/sh\ncat > ${GTEST_OUTPUT#xml:} <<EOF\n' + GTEST.format(more='') + '\nEOF\n')
    program.chmod(0o755)
    counts = run_tests.run_gtest(run, str(program), {})
    assert (counts.passed, counts.failed, counts.skipped) == (1, 0, 1)
    program.write_text('#!/bin/sh\nkill -9 $$\n')
    (tmp_path / 'program.xml').unlink()
    assert run_tests.run_gtest(run, str(program), {}).failed == 1
