"""What takes minutes of catalogue C and E: outages, flapping, a refresh that fails for long."""

import time

import pytest

from lab import Trial
from test_failover import POINT, ROOT, outage

LAB = {'big_mib': 16}


@pytest.fixture(name='mounted')
def mount_of_the_namespace(lab, engine):
    engine.mount(ROOT)
    yield engine
    lab.heal_all()
    engine.check_idle()


def test_c12_outage_of_a_minute(lab, mounted):
    outage(lab, mounted, 60)


def test_c14_flapping_for_two_minutes(lab, mounted):
    """t1 goes and comes every 3 s: it is left once, and nothing grows."""
    with Trial(lab, mounted, f'{POINT}/three', watch='t1') as trial:
        trial.fail('kill', 't1')
        trial.wait_for('t2')
        inodes = mounted.counter('inodes')
        down, end = True, time.monotonic() + 120
        while time.monotonic() < end:
            lab.heal('t1') if down else lab.fail('kill', 't1')
            down, turn = not down, time.monotonic() + 3
            lab.wait_until(lambda turn=turn: time.monotonic() >= turn, 10, 'the next turn')
        trial.run_on(60).check(0.5, serves='t2', failovers=1)
        assert mounted.counter('inodes') <= inodes + 2
        assert len(lab.sessions('t2')) == 1
    trial.connects_within_rate()


def test_e07_refresh_fails_for_long(lab, engine):
    """The root is asked again at a distance, and its answer is taken once it is back."""
    engine.mount(ROOT, options='referral_ttl_min=1s,referral_ttl_max=2s')
    expires = lambda: next(referral['expires_in_seconds'] for referral in engine.listed('referrals')
                           if referral['prefix'] == f'{ROOT}/three')
    with Trial(lab, engine, f'{POINT}/three', watch='root1') as trial:
        trial.fail('kill', 'root1')
        lab.wait_until(lambda: expires() < -60, 90, 'the referral is long stale')
        trial.run_on().check(0.5, serves='t1', failovers=0)
        lab.heal('root1')
        lab.wait_until(lambda: expires() > 0, 60, 'the referral is fresh')
    assert 2 <= trial.connects_within_rate() <= 200
    engine.check_idle()
