"""Reader processes on the client, and what they saw between two instants."""

import collections
import os
import subprocess
import threading
import time

MODES = ('open', 'fresh', 'held', 'cached', 'list')
Operation = collections.namedtuple('Operation', 'begin end outcome what')
Seen = collections.namedtuple('Seen', 'operations longest_stall stalls errors wrong served_by')


class Readers:
    """`with Readers(lab, '/mnt/dfs/two') as readers:` one process per mode (reader.py).

    Instants are of time.monotonic().
    """

    def __init__(self, lab, folder, modes=('open', 'fresh', 'held'), reference_host='t1',
                 reference='share/big.bin', pause=0.01):
        self._lab = lab
        self._folder = folder
        self._modes = modes
        self._pause = pause
        self._reference = (lab.data(reference_host, reference)
                           if set(modes) & {'fresh', 'held', 'cached'} else '-')
        self._processes = {}
        self._operations = {mode: [] for mode in modes}
        self._started = {}
        self._threads = []

    def __enter__(self):
        program = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'reader.py')
        for mode in self._modes:
            self._started[mode] = time.monotonic()
            process = self._lab.popen_in(
                'client', ['/usr/bin/python3', '-B', program, mode, self._folder, self._reference,
                           str(self._pause)],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
            self._processes[mode] = process
            thread = threading.Thread(target=self._follow, args=(mode, process), daemon=True)
            thread.start()
            self._threads.append(thread)
        try:
            self._lab.wait_until(lambda: all(self._operations.values()), 20, 'every reader reads')
        except TimeoutError:
            self.__exit__()
            raise
        return self

    def _follow(self, mode, process):
        for line in process.stdout:
            if not line.endswith('\n'):
                break  # Killed while it wrote.
            begin, end, outcome, what = line.rstrip('\n').split(' ', 3)
            self._operations[mode].append(Operation(float(begin), float(end), outcome, what))

    def __exit__(self, *_):
        for process in self._processes.values():
            process.kill()
        for process in self._processes.values():
            process.wait(timeout=20)
        for thread in self._threads:
            thread.join(timeout=5)
        for process in self._processes.values():
            process.stdout.close()

    def pids(self):
        return {mode: process.pid for mode, process in self._processes.items()}

    def alive(self):
        return all(process.poll() is None for process in self._processes.values())

    def seen(self, since, until=None):
        """What all readers saw in that time. A stall: how long an operation, which ended well or not
        at all yet, kept its reader from the next success."""
        until = time.monotonic() if until is None else until
        count, stalls, errors, wrong = 0, {}, [], []
        for mode in self._modes:
            last_success, longest = None, 0.0
            for one in list(self._operations[mode]):
                if one.end < since:
                    last_success = one.end if one.outcome == 'ok' else last_success
                    continue
                if one.begin > until:
                    break
                count += 1
                if one.outcome == 'ok':
                    # Behind an error, the wait goes back to the success before it.
                    start = one.begin if last_success is None else min(
                        one.begin, last_success + self._pause)
                    longest = max(longest, min(one.end, until) - max(start, since))
                    last_success = one.end
                elif one.outcome == 'error':
                    errors.append(f'{mode}: {one.what}')
                else:
                    wrong.append(f'{mode}: {one.what}')
            start = last_success if last_success is not None else self._started[mode]
            if start < until:
                longest = max(longest, until - max(start + self._pause, since))
            stalls[mode] = max(0.0, longest)
        return Seen(count, max(stalls.values(), default=0.0), stalls, errors, wrong, self.served_by(until))

    def counts(self, since):
        """How many operations that began after that instant have succeeded, by mode."""
        return {mode: sum(one.begin >= since and one.outcome == 'ok' for one in list(self._operations[mode]))
                for mode in self._modes}

    def served_by(self, at=None):
        """The target that the latest `open` before that instant read from; None if unknown."""
        for one in reversed(list(self._operations.get('open', []))):
            if one.outcome == 'ok' and (at is None or one.end <= at):
                return one.what
        return None
