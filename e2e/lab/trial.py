"""Readers of one link while something is done to its servers, and what they must have seen."""

import os
import time

from .readers import Readers

SLACK = 5  # A loaded machine may take this much longer than the bound that a quiet one holds.
CONTROL = '/mnt/control'
CONNECTS_PER_SECOND = 10


class Trial:
    """`with Trial(lab, engine, '/mnt/dfs/two', watch='t1') as trial:`, then a fault, then check().

    Beside the readers of the link a control reader reads a file of the client's own memory: what
    stops that one is the machine, not a server. `watch`: the server whose traffic is recorded; its
    `seen` may be asked after the trial.
    """

    def __init__(self, lab, engine, folder, modes=('open', 'fresh', 'held'), watch=None, point='/mnt/dfs'):
        self._lab = lab
        self._engine = engine
        self._point = point
        self._readers = Readers(lab, folder, modes)
        os.makedirs(lab.path('client', CONTROL), exist_ok=True)
        with open(lab.path('client', CONTROL + '/who'), 'w') as file:
            file.write('t1\n')
        self._control = Readers(lab, CONTROL, ('open',))
        self.seen = lab.capture(watch) if watch else None
        self.since = None

    def __enter__(self):
        self._readers.__enter__()
        self._control.__enter__()
        if self.seen:
            self.seen.__enter__()
        self.failovers_before = self.failovers()
        self.since = time.monotonic()
        return self

    def __exit__(self, *_):
        self._readers.__exit__()
        self._control.__exit__()
        if self.seen:
            self.seen.__exit__()

    def pids(self):
        return self._readers.pids()

    def begin(self):
        """What was seen until now does not count any more."""
        self.failovers_before = self.failovers()
        self.since = time.monotonic()

    def fail(self, mode, host):
        self.begin()
        self._lab.fail(mode, host)

    def failovers(self):
        return self._engine.counter('failovers_total', mount=self._point)

    def served_by(self):
        return self._readers.served_by()

    def wait_for(self, target, seconds=40):
        """Until that target serves and every reader has gone on; then some operations more."""
        self._lab.wait_until(lambda: self._readers.served_by() == target, seconds,
                             f'{target} serves (now: {self._readers.served_by()})')
        return self.run_on()

    def run_on(self, operations=30, seconds=40):
        """Until every reader has ended that many operations more."""
        at = time.monotonic()
        self._lab.wait_until(
            lambda: all(count >= operations for count in self._readers.counts(at).values()), seconds,
            'every reader goes on')
        return self

    def check(self, bound, serves, failovers=None):
        """No error, no wrong byte, no stall over the bound, and this target serves."""
        seen = self._readers.seen(self.since)
        control = self._control.seen(self.since).longest_stall
        allowed = max(SLACK * bound, bound + control)
        print(f'longest stall {seen.longest_stall:.2f} s (bound {bound}, control {control:.2f}), '
              f'{seen.operations} operations, {seen.served_by} serves')
        assert not seen.errors and not seen.wrong, (seen.errors[:5], seen.wrong[:5])
        assert seen.longest_stall <= allowed, f'{seen.stalls}: more than {allowed:.2f} s'
        assert seen.served_by == serves
        if failovers is not None:
            assert self.failovers() - self.failovers_before == failovers
        return seen

    def check_took(self, seconds, bound):
        """What an application measured since begin() was within the bound, but for the machine's share."""
        control = self._control.seen(self.since).longest_stall
        assert seconds <= max(SLACK * bound, bound + control), f'{seconds:.2f} s; bound {bound} s'

    def errors(self):
        seen = self._readers.seen(self.since)
        return seen.errors + seen.wrong

    def connects_within_rate(self):
        """After the trial: not more than 10 connections were tried in any second."""
        times = self.seen.attempts(self._lab.address('client'))
        most = max((sum(at <= other < at + 1 for other in times) for at in times), default=0)
        assert most <= CONNECTS_PER_SECOND, f'{most} connections tried within a second'
        return len(times)
