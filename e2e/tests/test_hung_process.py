"""One process of a server hangs, not the server. Samba has one for each client, and hands new connections to the
process that serves others of the same client (ClientGuid): only as another client is one served."""

import os
import re
import signal
import time

import pytest

from lab import Control

LAB = {'big_mib': 1}
# What one gives a silent server before one goes another way, and the way.
MOUNT_BOUND, READ_BOUND = 6.0, 3.0


@pytest.fixture(name='hang')
def stop_processes(lab):
    """hang(host): the processes that have a connection stop."""
    hung = []

    def stop(host):
        listed = lab.run_in(host, ['ss', '-tnpH', 'state', 'established']).stdout
        hung.extend(int(pid) for pid in set(re.findall(r'pid=(\d+)', listed)))
        assert hung and set(hung) < set(lab.server_pids(host)), (hung, listed)
        for pid in hung:
            os.kill(pid, signal.SIGSTOP)
    yield stop
    for pid in hung:
        os.kill(pid, signal.SIGCONT)


def who(lab, point):
    return lab.run_in('client', ['dd', f'if={point}/who', 'iflag=direct', 'status=none'], timeout=60).stdout.strip()


def test_mount_again_after_the_process_of_its_idle_session_hung(lab, engine, hang):
    engine.mount('//root1/dfs')
    engine.mount('//t1/share', '/mnt/t')
    assert who(lab, '/mnt/t') == 't1'
    engine.unmount('/mnt/t')
    with Control() as control:
        hang('t1')
        began = time.monotonic()
        engine.mount('//t1/share', '/mnt/t')
        assert who(lab, '/mnt/t') == 't1'
        assert time.monotonic() - began <= control.allowed(MOUNT_BOUND, began)
    engine.unmount('/mnt/t')


def test_reading_goes_on_when_the_process_of_the_only_target_hangs(lab, engine, hang):
    engine.mount('//root1/dfs')
    assert who(lab, '/mnt/dfs/single') == 't1'
    with Control() as control:
        hang('t1')
        began = time.monotonic()
        assert who(lab, '/mnt/dfs/single') == 't1'
        assert time.monotonic() - began <= control.allowed(READ_BOUND, began)
    assert engine.counter('failovers_total') == 0
