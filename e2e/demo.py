#!/usr/bin/python3
"""Mounts a DFS namespace of real Samba servers and lets them die under checking readers. Root; ~1 min.

Exit code 0 only if no reader saw an error or a wrong byte and every stall stayed within its bound.
"""

import os
import signal
import subprocess
import sys
import time

E2E = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, E2E)
sys.dont_write_bytecode = True
from lab import Engine, Lab, LabError, Readers  # noqa: E402  pylint: disable=wrong-import-position

POINT = '/mnt/dfs'
LINK = 'three'  # Its targets: t1, t2, t3.
MODES = ('open', 'fresh', 'held', 'cached')
# (fault, what it is, the longest stall that a reader may see, in seconds)
FAULTS = (
    ('kill', 'killed (SIGKILL to smbd)', 0.5),
    ('reset', 'resets every connection', 0.5),
    ('stop', 'frozen (SIGSTOP)', 3.0),
    ('drop', 'cut off (packets vanish)', 3.0),
)
AGENT_BOUND = 0.5
SETTLE = 2.0  # Readers go on this long after the new target serves.
GIVE_UP = 30.0


class Table:
    """Prints one row per fault and remembers whether all were good."""

    def __init__(self):
        self.good = True
        print(f'\n{"what dies, while four readers check every byte":<47}{"longest stall":>14}{"bound":>8}'
              f'{"errors":>8}{"wrong":>7}  then serves')

    def row(self, what, seen, bound, moved=True):
        good = not seen.errors and not seen.wrong and seen.longest_stall <= bound and moved
        self.good = self.good and good
        print(f'{what:<47}{seen.longest_stall:>12.2f} s{bound:>6.1f} s{len(seen.errors) or "none":>8}'
              f'{len(seen.wrong) or "none":>7}  {seen.served_by}{"" if good else "   <-- NOT GOOD"}', flush=True)
        for text in sorted(set(seen.errors + seen.wrong))[:3]:
            print(f'    {text}')


def watch(readers, start, moved_on):
    """What the readers saw from `start` until a while after moved_on()."""
    moved = True
    try:
        Lab.wait_until(moved_on, GIVE_UP, 'readers go on')
    except TimeoutError:
        moved = False
    settled = time.monotonic() + SETTLE
    Lab.wait_until(lambda: time.monotonic() >= settled, SETTLE + 5, 'the readers settle')
    return readers.seen(start), moved


def fail_targets(lab, readers, table):
    for fault, what, bound in FAULTS:
        target = readers.served_by()
        start = time.monotonic()
        lab.fail(fault, target)
        seen, moved = watch(readers, start, lambda: readers.served_by() not in (target, None))
        table.row(f'{target} {what}', seen, bound, moved)
        lab.heal(target)


def kill_agent(engine, readers, table):
    start = time.monotonic()
    before = engine.kill_active_agent()
    seen, moved = watch(readers, start, lambda: engine.active_agent() not in (before, None))
    table.row('the engine itself (kill -9 of the active agent)', seen, AGENT_BOUND, moved)


def show(lab, engine):
    def read(path):
        return lab.run_in('client', ['cat', path], timeout=20).stdout.strip()
    names = lab.run_in('client', ['ls', POINT], timeout=20).stdout.split('\n')
    print(f'mounted //root1/dfs at {POINT} (on the lab\'s client)\n  ls: {" ".join(names[:14])} …')
    nested = f'{POINT}/nested/inner'
    print(f'  root1 → root2 → a target: cat {nested}/who says {read(nested + "/who")}')
    print(f'  link "{LINK}" is served by {read(f"{POINT}/{LINK}/who")}')


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with Lab(big_mib=64) as lab:
        print(f'up: two DFS roots (root1, root2), three file servers (t1, t2, t3), smbd '
              f'{lab.run_in("t1", ["smbd", "--version"]).stdout.split()[-1]}, each in a network of its own')
        engine = Engine(lab)
        try:
            engine.mount('//root1/dfs', POINT)
            show(lab, engine)
            with Readers(lab, f'{POINT}/{LINK}', MODES) as readers:
                table = Table()
                fail_targets(lab, readers, table)
                kill_agent(engine, readers, table)
                if not readers.alive():
                    print('a reader died')
                    table.good = False
        finally:
            lab.heal_all()
            engine.stop()
    print('\nall good: no error, no wrong byte, every stall within its bound' if table.good
          else '\nNOT GOOD: see the rows above')
    return 0 if table.good else 1


if __name__ == '__main__':
    try:
        sys.exit(main())
    except (LabError, TimeoutError, subprocess.TimeoutExpired) as problem:
        print(f'demo: {problem}', file=sys.stderr)
        sys.exit(1)
