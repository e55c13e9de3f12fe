"""The same server comes back, under writers with locks: 0 errors, 0 loss."""

import os
import time

import pytest

from lab import Application, Control, Writers

LAB = {'big_mib': 0}
MOUNT = '/mnt/own'
MODES = ['blocks', 'direct', 'append', 'append', 'locks', 'locks', 'names']
# In suite long, 10 and 20 s: long/test_own_server_full.py.
DOWN, SILENT = 4, 6


def away(lab, how, seconds):
    """t1 is not there for so long, and is back when this returns."""
    lab.fail(how, 't1')
    end = time.monotonic() + seconds
    lab.wait_until(lambda: time.monotonic() >= end, seconds + 5, 'it is away')
    lab.heal('t1')


def check_disk(folder, states):
    with open(f'{folder}/number', 'rb') as file:
        number = int(file.read())
    assert number == sum(state['added'] for mode, state in states if mode == 'locks')
    with open(f'{folder}/log', encoding='ascii') as file:
        lines = file.read().splitlines()
    for mode, state in states:
        if mode == 'append':
            mine = [line for line in lines if line.startswith(f"{state['pid']} ")]
            assert mine == [f"{state['pid']} {i}".ljust(63, '.') for i in range(state['lines'])]
        elif mode in ('blocks', 'direct'):
            with open(f'{folder}/{mode}', 'rb') as file:
                for block, token in state.items():
                    file.seek(int(block) * 4096)
                    assert file.read(4096) == token.encode() * (4096 // len(token)), f'{mode}: block {block}'


def check_own_server(lab, engine, how, seconds, options):
    """The oracle of this file and of its long form."""
    folder = f'{how}-{len(options)}'
    os.mkdir(lab.data('t1', f'bench/{folder}'))
    os.chmod(lab.data('t1', f'bench/{folder}'), 0o777)
    engine.mount('//t1/bench', MOUNT, options='rw' + options)
    with Control() as control, Writers(lab, f'{MOUNT}/{folder}', MODES) as writers:
        lab.wait_until(lambda: writers.all_got_on(0), 30, 'all write')
        began = time.monotonic()
        away(lab, how, seconds)
        back = time.monotonic()
        lab.wait_until(lambda: writers.all_got_on(back), 60, 'all go on')
        stall = writers.longest_stall(began)
        states = writers.end()
        assert writers.problems() == []
        assert stall <= control.allowed(seconds + 10, began)
    check_disk(lab.data('t1', f'bench/{folder}'), states)
    assert engine.counter('unknown_changes_total') == 0 and engine.counter('lost_locks_total') == 0
    engine.unmount(MOUNT)
    engine.check_idle()


@pytest.mark.parametrize('options', ['', ',durable'])
@pytest.mark.parametrize('how, seconds', [('kill', DOWN), ('restart', 0), ('stop', SILENT), ('drop', SILENT), ('reset', DOWN)])
def test_writers_with_locks_lose_nothing_when_their_server_comes_back(lab, engine, how, seconds, options):
    check_own_server(lab, engine, how, seconds, options)


@pytest.fixture(name='name')
def name_of_the_file(request):
    """Another one for each test: what a test that fails has left open keeps the next ones waiting for it."""
    return request.node.name


@pytest.fixture(name='app')
def application(lab, engine, name):
    """Of a file that was made through the server: Samba lets others go, their birthdays being finer than its own."""
    engine.mount('//t1/bench', MOUNT, options='rw,durable')
    with Application(lab) as made:
        made.keep('file', f"os.open('{MOUNT}/{name}', os.O_RDWR | os.O_CREAT | os.O_TRUNC)")
        assert made.do("os.pwrite(kept['file'], b'a123456789', 0)") == 10
        yield made
    engine.unmount(MOUNT)
    engine.check_idle()


def content(lab, name):
    with open(lab.data('t1', f'bench/{name}'), 'rb') as file:
        return file.read()


def test_d14_a_handle_that_writes_is_taken_up_by_the_next_connection(lab, engine, app, name):
    """The server does not see the old connection's end: the log-on names its session, and leaves the handle."""
    lab.fail('reset', 't1')
    app.start("os.pwrite(kept['file'], b'b', 1)")
    # Its answer, or the connection before it was sent.
    lab.wait_until(lambda: engine.counter('target_failures_total') >= 1, 20, 'its server is lost')
    lab.heal('t1')
    assert app.result(60) == 1
    assert content(lab, name) == b'ab23456789'
    assert engine.counter('durable_reconnects_total') == 1
    assert app.do("os.pread(kept['file'], 3, 0)") == b'ab2'


def test_d14_the_next_agent_takes_up_what_the_dead_one_had(lab, engine, app, name):
    engine.kill_active_agent()
    assert app.do("os.pwrite(kept['file'], b'b', 1)", 60) == 1
    assert content(lab, name) == b'ab23456789'
    assert engine.counter('durable_reconnects_total') == 1


def test_d15_a_handle_that_the_server_has_let_go_of_is_opened_by_its_path(lab, engine, app, name):
    lab.fail('kill', 't1')
    lab.heal('t1')
    assert app.do("os.pwrite(kept['file'], b'b', 1)", 60) == 1
    assert content(lab, name) == b'ab23456789'
    assert engine.counter('durable_reconnects_total') == 0
    assert engine.counter('handle_rebinds_total') >= 1
