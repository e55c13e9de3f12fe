"""What the DaemonSets do for the programs: whoever dies is started again."""

import os
import subprocess
import threading
import time

SOCKET_DIR = '/run/dfs-csi-local'


class Keeper:
    """`with Keeper(lab, engine, agents=2):` keeps that many agents running on the lab's client."""

    def __init__(self, lab, engine, agents=2, flags=()):
        self._flags = flags
        # Further flags of the agents that are started next, one entry for each.
        self.flags_of_next = []
        self._lab = lab
        self._engine = engine
        self._wanted = agents
        self._stop = threading.Event()
        self._processes = []
        self._lock = threading.Lock()
        self._starting = threading.Lock()
        self._thread = threading.Thread(target=self._keep, daemon=True)

    def start_agent(self):
        log = open(self._lab.path('client', f'{SOCKET_DIR}/keeper.log'), 'a')
        more = self.flags_of_next.pop(0) if self.flags_of_next else ()
        with log:
            process = self._lab.popen_in(
                'client', [self._engine.program('dfs-node-agent'), f'--socket_dir={SOCKET_DIR}', *self._flags, *more],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        with self._lock:
            self._processes.append(process)
        return process

    def start_mounter(self):
        log = open(self._lab.path('client', f'{SOCKET_DIR}/keeper.log'), 'a')
        with log:
            process = self._lab.popen_in(
                'client', [self._engine.program('dfs-mounter'), f'--socket-dir={SOCKET_DIR}'],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        with self._lock:
            self._processes.append(process)
        return process

    def _keep(self):
        while not self._stop.wait(0.02):
            with self._starting:
                if len(self.agents()) < self._wanted:
                    self.start_agent()

    def agents(self):
        """Pids of those that run, and of those that have just been started and have not their name yet."""
        with self._lock:
            started = {process.pid for process in self._processes if process.poll() is None}
        return started - set(self._engine.pids('dfs-mounter')) | set(self._engine.pids('dfs-node-agent'))

    def replace_standbys(self, active, flags_of_next):
        """SIGKILL to all but the active one; whoever is started next has these flags, one entry for each.

        Returns the log as it is when they are dead, and the next is not started yet.
        """
        with self._starting:
            self.flags_of_next[:] = flags_of_next
            others = self.agents() - {active}
            for pid in others:
                try:
                    os.kill(pid, 9)
                except ProcessLookupError:
                    pass
            self._lab.wait_until(lambda: not others & self.agents(), 20, 'the former standbys are gone')
            return self.log()

    def log(self):
        path = self._lab.path('client', f'{SOCKET_DIR}/keeper.log')
        if not os.path.exists(path):
            return ''
        with open(path, errors='replace') as file:
            return file.read()

    def __enter__(self):
        self._engine.end_keeper()  # Of the local mode: this is another keeper's place.
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()

    def reap(self):
        deadline = time.monotonic() + 10
        for process in self._processes:
            process.wait(timeout=max(0.1, deadline - time.monotonic()))
