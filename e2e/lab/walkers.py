"""Walker processes on the client (walker.py), and the longest that each of their rounds took."""

import os
import subprocess
import threading
import time

PROGRAM = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'walker.py')


class Walkers:
    """`with Walkers(lab, {'ls /': ('ls', '/mnt/dfs')}) as walkers:` one process per name."""

    def __init__(self, lab, actions, pause=0.02):
        self._lab = lab
        self._actions = actions
        self._pause = pause
        self._rounds = {name: [] for name in actions}  # (begin, end, outcome)
        self._processes = []
        self._threads = []

    def __enter__(self):
        for name, (action, path) in self._actions.items():
            process = self._lab.popen_in(
                'client', ['/usr/bin/python3', '-B', PROGRAM, action, path, str(self._pause)],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
            thread = threading.Thread(target=self._follow, args=(name, process), daemon=True)
            thread.start()
            self._processes.append(process)
            self._threads.append(thread)
        try:
            self._lab.wait_until(lambda: all(self._rounds.values()), 30, 'every walker walks')
        except TimeoutError:
            self.__exit__()
            raise
        return self

    def _follow(self, name, process):
        for line in process.stdout:
            fields = line.split(None, 2)
            if line.endswith('\n') and len(fields) == 3:  # Else it was killed while it wrote.
                self._rounds[name].append((float(fields[0]), float(fields[1]), fields[2].strip()))

    def __exit__(self, *_):
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait(timeout=30)
        for thread in self._threads:
            thread.join(timeout=5)
        for process in self._processes:
            process.stdout.close()

    def rounds(self, name, since=0.0):
        """How many were completed since then."""
        return sum(end >= since for _, end, _ in list(self._rounds[name]))

    def seen(self, since):
        """{name: (rounds, longest round in seconds, set of errors)} of what happened since then. A round that
        has not ended yet counts as long as it has lasted."""
        now, found = time.monotonic(), {}
        for name, rounds in self._rounds.items():
            rounds = list(rounds)
            here = [(begin, end, outcome) for begin, end, outcome in rounds if end >= since]
            longest = max((end - max(begin, since) for begin, end, _ in here), default=0.0)
            last = rounds[-1][1] + self._pause if rounds else since
            errors = {outcome for _, _, outcome in here if outcome != 'ok'}
            found[name] = (len(here), max(longest, now - max(last, since)), errors)
        return found
