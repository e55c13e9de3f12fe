"""The programs under test, on the lab's client: mounts made by dfsctl, and the processes behind them."""

import contextlib
import json
import os
import re
import secrets
import signal
import subprocess

from .lab import LabError, PASSWORDS

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BIN = os.environ.get('DFSCSI_BIN_DIR', os.path.join(ROOT, 'build', 'bin'))
AGENT, MOUNTER, NOTIFIER, AUTH = 'dfs-node-agent', 'dfs-mounter', 'dfs-notifier', 'dfs-auth'
KEEPER = 'dfs-keeper'
SOCKET_DIR = '/run/dfs-csi-local'
PROGRAMS = (KEEPER, AGENT, MOUNTER, NOTIFIER, AUTH)


class Engine:
    """`dfsctl mount` starts mounter, agent, standby and keeper where none run; stop() ends all of them."""

    def __init__(self, lab, bin_dir=BIN):
        self._lab = lab
        self._bin = bin_dir
        self._points = []
        self._forgiven = 0
        # Its own: what one test's agents learn of the namespace must not help the next one's.
        self.state_dir = f'/run/dfs-csi-state-{secrets.token_hex(3)}'
        self._logs_end_at = {path: os.path.getsize(path) for path in self._logs()}

    def program(self, name):
        path = os.path.join(self._bin, name)
        if not os.access(path, os.X_OK):
            raise LabError(f'{path} is missing: make build')
        return path

    def dfsctl(self, *arguments, check=True, timeout=30, **keywords):
        return self._lab.run_in('client', [self.program('dfsctl'), *arguments], check=check,
                                timeout=timeout, **keywords)

    def credentials(self, user='dfsuser', password=None):
        """The path, on the client, of a credentials file that root alone can read."""
        path = f'/run/credentials-{user}'
        with open(self._lab.path('client', path), 'w',
                  opener=lambda p, flags: os.open(p, flags, 0o600)) as file:
            file.write(f'username={user}\npassword={PASSWORDS[user] if password is None else password}\n')
        return path

    def mount(self, source, point='/mnt/dfs', options=None, user='dfsuser', password=None, check=True,
              timeout=25):
        """Makes the mount point and mounts. Returns the mount point, or, with check=False, the run."""
        os.makedirs(self._lab.path('client', point), exist_ok=True)
        run = self.dfsctl('mount', source, point, '--credentials', self.credentials(user, password),
                          '--state-dir', self.state_dir, *(['-o', options] if options else []), check=check, timeout=timeout)
        if run.returncode == 0:
            self._points.append(point)
        return point if check else run

    def unmount(self, point='/mnt/dfs', timeout=10):
        self.dfsctl('unmount', point, timeout=timeout)
        self._points.remove(point)

    @contextlib.contextmanager
    def second_node(self, source, point='/mnt/second', options='rw'):
        """It is mounted there by another mounter and other agents: to servers, and to the first, another machine."""
        sockets = '/run/second-node'
        os.makedirs(self._lab.path('client', point), exist_ok=True)
        self.dfsctl('mount', source, point, '--credentials', self.credentials(), '-o', options, '--socket-dir', sockets,
                    '--state-dir', sockets + '-state')
        yield point
        self._lab.heal_all()
        self.dfsctl('unmount', point, '--socket-dir', sockets)

    def forget(self, point):
        """It was unmounted by somebody else."""
        self._points.remove(point)

    def pids(self, program):
        """Machine pids of that program's processes of this lab."""
        found = []
        for pid in self._lab.client_processes():
            try:
                with open(f'/proc/{pid}/comm') as file:
                    if file.read().strip() == program[:15]:
                        found.append(pid)
            except OSError:
                continue
        return found

    def all_pids(self):
        """Machine pids of all programs."""
        return [pid for program in PROGRAMS for pid in self.pids(program)]

    def active_agent(self):
        """The pid of the agent that listens on agent.sock, or None: only the active one does."""
        holder = self._lab.state['holders']['client']['pid']
        with open(f'/proc/{holder}/net/unix') as file:
            listening = {f'socket:[{fields[6]}]' for fields in map(str.split, file)
                         if len(fields) > 7 and 'agent.sock' in fields[7] and fields[3] == '00010000'}
        for pid in self.pids(AGENT):
            try:
                links = {os.readlink(f'/proc/{pid}/fd/{fd}') for fd in os.listdir(f'/proc/{pid}/fd')}
            except OSError:
                continue
            if links & listening:
                return pid
        return None

    def kill_active_agent(self):
        """SIGKILL to the active agent. Returns its pid."""
        pid = self._lab.wait_until(self.active_agent, 10, 'an agent is active')
        os.kill(pid, signal.SIGKILL)
        return pid

    def _logs(self):
        folder = self._lab.path('client', SOCKET_DIR)
        names = os.listdir(folder) if os.path.isdir(folder) else []
        return [os.path.join(folder, name) for name in names if name.endswith('.log')]

    def sanitizer_reports(self):
        """Lines of the programs' logs, of this object's time, that a sanitizer wrote."""
        return self._lines_of_logs(r'ERROR: \w+Sanitizer|: runtime error: ')

    def _lines_of_logs(self, pattern):
        found = []
        for path in self._logs():
            with open(path, errors='replace') as file:
                file.seek(self._logs_end_at.get(path, 0))
                found += [f'{os.path.basename(path)}: {line.strip()}' for line in file if re.search(pattern, line)]
        return found

    def crashes(self):
        """Lines of the agents' logs, of this object's time, that say that one crashed: its successor hides it."""
        return self._lines_of_logs(r'dfs-node-agent: crashed by signal \d+')

    def forgive_crashes(self):
        """Those so far were the test's own doing."""
        self._forgiven = len(self.crashes())

    def end_keeper(self):
        """From now on nobody starts anew what dies."""
        for pid in self.pids(KEEPER):
            os.kill(pid, signal.SIGTERM)
        self._lab.wait_until(lambda: not self.pids(KEEPER), 10, 'the keeper has ended')

    def metrics(self):
        """{'name{labels}': value} of dfsctl metrics."""
        found = {}
        for line in self.dfsctl('metrics').stdout.splitlines():
            match = re.fullmatch(r'([a-zA-Z_:][^ {]*(?:\{.*\})?) ([^ ]+)(?: \d+)?', line)
            if match and not line.startswith('#'):
                found[match.group(1)] = float(match.group(2))
        return found

    def counter(self, name, **labels):
        """The sum of a metric's values with these labels: counter('failovers_total', mount='/mnt')."""
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        return sum(value for key, value in self.metrics().items()
                   if key.split('{')[0] == 'dfscsi_' + name and all(label in key for label in wanted))

    def listed(self, command, what=None):
        """What a listing command says: listed('referrals'), 'mounts', 'targets', ('targets', 'connections')."""
        return json.loads(self.dfsctl(command, '--json').stdout)[what or command]

    def hint(self, prefix):
        """Host and share of the cached referral's hint; None: there is no such referral."""
        for referral in self.listed('referrals'):
            if referral['prefix'].lower() == prefix.lower():
                return next((t['path'] for t in referral['targets'] if t['hint']), None)
        return None

    def state_of(self, target):
        """up, down, denied or unknown; the worst of all records of a target."""
        states = {listed['state'] for listed in self.listed('targets') if listed['path'] == target}
        return next((s for s in ('denied', 'down', 'unknown', 'up') if s in states), None)

    def log_text(self):
        """What mounter and agents have logged."""
        text = ''
        for program in PROGRAMS:
            path = self._lab.path('client', f'/run/dfs-csi-local/{program}.log')
            if os.path.exists(path):
                with open(path, errors='replace') as file:
                    text += file.read()
        return text

    def check_idle(self):
        """Nothing is open, waiting or broken in the agent once the applications are gone."""
        def idle():
            metrics = self.metrics()
            held = {key: value for key, value in metrics.items() if value and (
                key.startswith(('dfscsi_open_handles', 'dfscsi_fuse_requests_in_flight'))
                or (key.startswith('dfscsi_arena_slots') and 'state="used"' in key))}
            broken.update((key, value) for key, value in metrics.items() if value and key.startswith(
                ('dfscsi_fuse_faults', 'dfscsi_escaped_exceptions')))
            left.clear()
            left.update(held)
            return not held
        left, broken = {}, {}
        try:
            self._lab.wait_until(idle, 5, 'the agent holds nothing')
        except TimeoutError:
            raise LabError(f'the agent still holds {left}') from None
        if broken:
            raise LabError(f'faults of the agent: {broken}')
        if any(password in self.log_text() for password in PASSWORDS.values()):
            raise LabError('a password stands in a log')

    def stop(self):
        """Unmounts what is mounted and ends the programs. Raises if one of them would not end."""
        problems = []
        for point in list(reversed(self._points)):
            try:
                self.unmount(point)
            except (LabError, subprocess.TimeoutExpired) as error:
                problems.append(str(error))
        self._points.clear()
        # The keeper, then agents before their mounter, so that nobody starts anew what is being ended.
        for program in (KEEPER, AGENT, NOTIFIER, AUTH, MOUNTER):
            for pid in self.pids(program):
                try:
                    os.kill(pid, signal.SIGTERM)
                except ProcessLookupError:
                    pass
        try:
            self._lab.wait_until(lambda: not any(map(self.pids, PROGRAMS)), 10, 'the programs end')
        except TimeoutError:
            left = {program: self.pids(program) for program in PROGRAMS if self.pids(program)}
            problems.append(f'these did not end by SIGTERM: {left}')
        problems += self.sanitizer_reports() + self.crashes()[self._forgiven:]
        if problems:
            raise LabError('; '.join(problems))
