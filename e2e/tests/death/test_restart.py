"""How soon the next agent answers where much is known: 100,000 names, and 1,000 open files."""

import os
import signal
import time

from keeper import Keeper
from lab import Application, Control
from writing import percentile

LAB = {'big_mib': 0}
MOUNT = '/mnt/dfs'
DIRECTORIES, FILES, OPEN = 100, 1000, 1000
BOUND = 0.5
ROUNDS = 3


def test_restart_with_much_known(lab, engine):
    """From kill -9 until a read of an open file is answered, by a standby and by an agent that is started then."""
    lab.make_tree('much', DIRECTORIES, FILES, targets=('t1',))
    engine.mount('//t1/share', options='rw,actimeo=600')
    listed = lab.run_in('client', ['ls', '-lR', f'{MOUNT}/much'], timeout=300).stdout.count('\n-r')
    assert listed == DIRECTORIES * FILES
    names = []
    for directory in sorted(os.listdir(lab.data('t1', 'share/much')))[:10]:
        for name in sorted(os.listdir(lab.data('t1', f'share/much/{directory}')))[:OPEN // 10]:
            names.append(f'{directory}/{name}')
    assert len(names) == OPEN
    took = {1: [], 2: []}
    with Application(lab) as app, Control() as control:
        app.keep('files', f"[os.open('{MOUNT}/much/' + name, os.O_RDONLY | os.O_DIRECT) for name in {names!r}]", timeout=120)
        known = engine.counter('inodes')
        assert known > DIRECTORIES * FILES, known
        expected = app.do("[os.read(fd, 64) for fd in kept['files'][-3:]]")
        begin = time.monotonic()
        for agents in took:
            with Keeper(lab, engine, agents=agents) as keeper:
                for _ in range(ROUNDS):
                    lab.wait_until(engine.active_agent, 20, 'an agent is active')
                    if agents == 1:  # Nobody stands by.
                        for pid in engine.pids('dfs-node-agent'):
                            if pid != engine.active_agent():
                                os.kill(pid, signal.SIGKILL)
                    lab.wait_until(lambda wanted=agents: len(engine.pids('dfs-node-agent')) == wanted, 20, 'so many agents')
                    standing_by = keeper.log().count('standby: ')
                    at = time.monotonic()
                    engine.kill_active_agent()
                    assert app.do("os.pread(kept['files'][-1], 64, 0)", timeout=60) == expected[-1]
                    took[agents].append(time.monotonic() - at)
                    lab.wait_until(lambda old=standing_by: keeper.log().count('standby: ') > old, 20, 'the next one is ready')
        assert app.do("[os.pread(fd, 64, 0) for fd in kept['files'][-3:]]") == expected
        assert engine.counter('inodes') == known
        assert engine.counter('open_handles') >= OPEN
        app.do("[os.close(fd) for fd in kept['files']] and None", timeout=60)
    for agents, seconds in took.items():
        print(f'\n{int(known)} inodes, {OPEN} open files: {"a standby" if agents == 2 else "an agent that is started"} '
              f'answers after {percentile(seconds, 0.5) * 1000:.0f} ms ({", ".join(f"{s * 1000:.0f}" for s in seconds)})')
        assert percentile(seconds, 0.5) <= control.allowed(BOUND, begin), seconds
