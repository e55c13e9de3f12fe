"""Writer processes on the client (writer.py), and what they saw and were told."""

import json
import os
import subprocess
import threading
import time


class Writers:
    """`with Writers(lab, '/mnt/dfs', ['blocks', 'append', 'append']) as writers:` one process for each.

    Instants are of time.monotonic().
    """

    def __init__(self, lab, folder, modes):
        self._lab = lab
        self._folder = folder
        self._modes = modes
        self._processes = []
        self._threads = []
        self._operations = []
        self._states = {}

    def __enter__(self):
        program = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'writer.py')
        for number, mode in enumerate(self._modes):
            process = self._lab.popen_in(
                'client', ['/usr/bin/python3', '-B', program, mode, self._folder],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            self._processes.append(process)
            self._operations.append([])
            thread = threading.Thread(target=self._follow, args=(number, process), daemon=True)
            thread.start()
            self._threads.append(thread)
        return self

    def _follow(self, number, process):
        for line in process.stdout:
            if line.startswith('state '):
                self._states[number] = json.loads(line[6:])
                continue
            try:
                begin, end, outcome, what = line.rstrip('\n').split(' ', 3)
                self._operations[number].append((float(begin), float(end), outcome, what))
            except ValueError:
                now = time.monotonic()
                self._operations[number].append((now, now, 'error', line.strip()))

    def __exit__(self, *_):
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait(timeout=20)
        for thread in self._threads:
            thread.join(timeout=5)
        for process in self._processes:
            process.stdin.close()
            process.stdout.close()

    def longest_stall(self, since, until=None):
        """How long an operation that was under way at that instant, or began later, kept its writer."""
        until = time.monotonic() if until is None else until
        longest = 0.0
        for operations in self._operations:
            for begin, end, _, _ in reversed(list(operations)):
                if end < since:
                    # None has ended since: one is still under way.
                    if operations[-1][1] < since:
                        longest = max(longest, until - since)
                    break
                if begin <= until:
                    longest = max(longest, min(end, until) - max(begin, since))
        return longest

    def problems(self):
        """Everything that was not as it must be."""
        return [f'{mode}: {what}' for mode, operations in zip(self._modes, self._operations)
                for _, _, outcome, what in list(operations) if outcome != 'ok']

    def count(self, since=0.0):
        return sum(begin >= since for operations in self._operations for begin, _, _, _ in list(operations))

    def all_got_on(self, since):
        return all(any(begin >= since for begin, _, _, _ in list(operations)) for operations in self._operations)

    def last(self, word):
        """The number behind the last `word` that a writer said; 0: none yet."""
        return max([int(what.split()[-1]) for operations in self._operations
                    for _, _, outcome, what in list(operations)[-64:] if outcome == 'ok' and what.startswith(word)],
                   default=0)

    def under_way(self):
        """What each writer did last, and how long ago, in seconds: for messages."""
        now = time.monotonic()
        return [f'{mode}: {operations[-1][3]}, {now - operations[-1][1]:.1f}' if operations else f'{mode}: nothing'
                for mode, operations in zip(self._modes, self._operations)]

    def end(self, timeout=60):
        """Lets them finish what they are at. Returns what each was told: (mode, state)."""
        for process in self._processes:
            process.stdin.close()
        for process in self._processes:
            process.wait(timeout=timeout)
        for thread in self._threads:
            thread.join(timeout=5)
        return [(mode, self._states.get(number)) for number, mode in enumerate(self._modes)]
