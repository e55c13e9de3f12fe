"""What the programs hold: memory, descriptors, arena slots, and sessions and opens on the servers."""

import collections
import os
import threading
import time

# KiB. pss: the gate, without the request arena, which stands beside it. tables: of it, tables of mounts, which
# mounter and agents share. data: what only this process can be to blame for, its anonymous memory and its share
# of the tables; the rest of pss is programs and libraries, and our share of those depends on who else runs them.
Memory = collections.namedtuple('Memory', 'pss data tables arena')


def memory(pid):
    """What a process holds, by what is mapped. None if it is gone."""
    kinds = collections.Counter()
    kind = 'own'
    try:
        with open(f'/proc/{pid}/smaps') as file:
            for line in file:
                first = line.split(None, 1)[0]
                if not first.endswith(':'):  # The head of a mapping.
                    kind = ('arena' if 'memfd:dfs-arena' in line else
                            'tables' if 'memfd:dfs-tables' in line else 'own')
                elif first == 'Pss:':
                    kinds[kind] += int(line.split()[1])
                elif first == 'Anonymous:' and kind == 'own':
                    kinds['anonymous'] += int(line.split()[1])
    except OSError:
        return None
    if not kinds:
        return None
    return Memory(kinds['own'] + kinds['tables'], kinds['anonymous'] + kinds['tables'], kinds['tables'],
                  kinds['arena'])


def descriptors(pid):
    return len(os.listdir(f'/proc/{pid}/fd'))


def zombies(parents):
    """Children of these processes that nobody has waited for."""
    found = []
    for entry in os.listdir('/proc'):
        try:
            with open(f'/proc/{entry}/stat') as file:
                text = file.read()
        except OSError:
            continue
        fields = text.rsplit(')', 1)[1].split()
        if entry.isdigit() and fields[0] == 'Z' and int(fields[1]) in parents:
            found.append(text.split()[1])
    return found


class Peak:
    """`with Peak(pid) as peak:` the most memory that a process held meanwhile."""

    def __init__(self, pid, every=0.05):
        self._pid = pid
        self._every = every
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.held = Memory(0, 0, 0, 0)

    def _sample(self):
        now = memory(self._pid)
        if now is not None:
            self.held = Memory(*map(max, self.held, now))

    def _run(self):
        while not self._stop.wait(self._every):
            self._sample()

    def __enter__(self):
        self._sample()
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()
        self._sample()


class Footprint:
    """One look at everything, as {what: number}."""

    def __init__(self, lab, engine):
        self._lab = lab
        self._engine = engine

    def processes(self):
        """{role: pid}"""
        active = self._engine.active_agent()
        found = {'agent': active}
        for pid in self._engine.pids('dfs-node-agent'):
            if pid != active:
                found['standby'] = pid
        for pid in self._engine.pids('dfs-mounter'):
            found['mounter'] = pid
        return found

    def look(self):
        seen = {}
        for role, pid in self.processes().items():
            seen[f'{role}: KiB'] = memory(pid).data
            seen[f'{role}: fds'] = descriptors(pid)
            seen[f'{role}: threads'] = len(os.listdir(f'/proc/{pid}/task'))
        metrics = self._engine.metrics()
        for size in ('big', 'small'):
            seen[f'arena slots, {size}'] = metrics[f'dfscsi_arena_slots{{size="{size}",state="used"}}']
        seen['reply buffers KiB'] = metrics['dfscsi_reply_buffer_bytes{kind="pool"}'] / 1024
        seen['inodes'] = sum(v for k, v in metrics.items() if k.startswith('dfscsi_inodes'))
        seen['handles'] = sum(v for k, v in metrics.items() if k.startswith('dfscsi_open_handles'))
        seen['processes'] = len(self._engine.all_pids())
        for host in self._lab.servers:
            status = self._lab.smbstatus(host)
            seen[f'{host}: sessions'] = len(status.get('sessions', {}))
            seen[f'{host}: trees'] = len(status.get('tcons', {}))
            seen[f'{host}: opens'] = len(status.get('open_files', {}))
        run = self._lab.path('client', '/run')
        seen['files in /run'] = sum(len(files) for name in sorted(os.listdir(run))
                                    if name.startswith(('dfs-csi-local', 'dfs-csi-state'))
                                    for _, _, files in os.walk(f'{run}/{name}'))
        return seen

    def settled(self, seconds=60):
        """Looks until reply buffers have been given back, and two looks a second apart are the same (memory:
        within 0.2 %)."""
        before, deadline = self.look(), time.monotonic() + seconds
        while True:
            time.sleep(1)
            now = self.look()
            same = all(abs(now.get(name, -1) - value) <= (0.002 * value if 'KiB' in name else 0)
                       for name, value in before.items())
            if (same and now['reply buffers KiB'] == 0) or time.monotonic() > deadline:
                return now
            before = now
