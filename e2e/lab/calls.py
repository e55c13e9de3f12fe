"""System calls made by processes on the client, one each: what becomes of them when nobody answers."""

import os
import queue
import subprocess
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PROGRAM = os.path.join(ROOT, 'build', 'release', 'tests', 'blocked-io')


class Call:
    """One process of node-agent/testing/blocked_io.cc. Made ready; begin() lets it make its call."""

    def __init__(self, lab, operation, path, offset=0):
        self.operation = operation
        self._lab = lab
        self._lines = queue.Queue()
        self.process = lab.popen_in('client', [PROGRAM, operation, path, str(offset)],
                                    stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                    stderr=subprocess.STDOUT, text=True)
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()
        line = self._lines.get(timeout=20)
        if line != 'ready':
            self.end()
            raise RuntimeError(f'{operation} {path}: {line}')

    def _follow(self):
        for line in self.process.stdout:
            self._lines.put(line.strip())
        self._lines.put('gone')

    def begin(self):
        self.process.stdin.write('go\n')
        self.process.stdin.flush()
        line = self._lines.get(timeout=20)
        assert line == 'begin', line

    def outcome(self, timeout):
        """'ok NUMBER', 'error NAME' or 'gone' (the process ended); None if nothing of it by then."""
        try:
            return self._lines.get(timeout=timeout)
        except queue.Empty:
            return None

    def is_blocked(self):
        """Whether it sleeps in the call and has not been told anything."""
        try:
            with open(f'/proc/{self.process.pid}/stat') as file:
                state = file.read().rsplit(')', 1)[1].split()[0]
        except OSError:
            return False
        return state in 'SD' and self._lines.empty()

    def kill(self, signal, timeout):
        """Sends it; the seconds until the process was gone, None: not within `timeout`."""
        start = time.monotonic()
        self.process.send_signal(signal)
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None
        return time.monotonic() - start

    def end(self):
        """Ends it, whatever it does."""
        self.process.kill()
        self.process.wait(timeout=30)
        self._thread.join(timeout=5)
        self.process.stdin.close()
        self.process.stdout.close()
