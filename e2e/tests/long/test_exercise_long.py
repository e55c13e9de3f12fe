"""test_exercise.py at length: a million operations, and minutes with servers and agents dying."""

import os
import random

import pytest

from death.keeper import Keeper
from lab import Exercise
from test_exercise import FILE, LAB, MOUNT, TREE, kill_agents, mount_for_writing, pause  # noqa: F401  pylint: disable=unused-import

MILLION = int(os.environ.get('DFSCSI_EXERCISE_LONG', '1000000'))
MINUTES = float(os.environ.get('DFSCSI_EXERCISE_MINUTES', '2'))
HOURS = 3600
# A tree that is small enough to be compared as a whole again and again.
SMALL = ('--directories=64', '--check-every=1000')
KINDS = pytest.mark.parametrize('options', [(*FILE, '--size-max=1048576'), (*TREE, *SMALL)], ids=['file', 'tree'])


@KINDS
def test_a_million_operations(lab, mounted, options):
    with Exercise(lab, MOUNT, *options, operations=MILLION, shrink=600) as run:
        code, text = run.result(3 * HOURS)
    assert code == 0, text


@KINDS
@pytest.mark.parametrize('fault', ['agent', 'kill', 'restart', 'reset', 'stop', 'link'])
def test_minutes_of_faults(lab, mounted, options, fault):
    """Every 300 ms for the agent; a server is away for up to 3 s, then back for as long."""
    with Exercise(lab, MOUNT, *options, operations=10 ** 9, seconds=int(MINUTES * 60)) as run:
        if fault == 'agent':
            with Keeper(lab, mounted):
                kill_agents(lab, mounted, run)
        while run.is_running():
            lab.fail(fault, 't1')
            pause(lab, random.uniform(0.5, 3), run)
            lab.heal('t1')
            pause(lab, random.uniform(0.5, 3), run)
        code, text = run.result(MINUTES * 60 + 300)
    assert code == 0, text
