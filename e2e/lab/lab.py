"""The lab's API: brings real Samba servers up in namespaces, breaks them, and looks at them."""

import fcntl
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor

from . import faults, samba, seed
from .capture import Capture
from .namespaces import (CLONE_NEWNET, FOLDER_PREFIX as PREFIX, MARK, USERS, abort_mounts, kill_processes_in, libc,
                         processes_in, start_time)

RUN = '/run'
# The last part of each host's address. `client` is where the programs under test run.
HOSTS = {'root1': 11, 'root2': 12, 't1': 21, 't2': 22, 't3': 23, 'client': 100}
SUFFIX = '.lab.test'
PASSWORDS = {user: password for user, (_, password) in USERS.items()}
# A proxy share refuses every tree connect: who asks for a referral first gets to the targets.
DFS_SHARES = {'dfs': {'msdfs root': 'yes', 'read only': 'no'},
              'proxy': {'msdfs root': 'yes', 'msdfs proxy': r'\t1{s}\share,\t2{s}\share'}}
TARGET_SHARES = {'share': {'read only': 'no'}, 'bench': {'read only': 'no'}}
SERVER_PROGRAMS = ('smbd', 'samba-dcerpcd', 'rpcd_')

# smb.conf options that make a server *require* one dialect and algorithm.
_SIGN = {'server signing': 'mandatory'}
_SEAL = {'server smb encrypt': 'required'}
_311 = {'server min protocol': 'SMB3_11'}
CRYPTO = {
    '2.1-hmac-sha256': {**_SIGN, 'server min protocol': 'SMB2_10', 'server max protocol': 'SMB2_10'},
    '3.0-cmac': {**_SIGN, 'server min protocol': 'SMB3_00', 'server max protocol': 'SMB3_00'},
    '3.0.2-cmac': {**_SIGN, 'server min protocol': 'SMB3_02', 'server max protocol': 'SMB3_02'},
    '3.0-aes-128-ccm': {**_SEAL, 'server min protocol': 'SMB3_00', 'server max protocol': 'SMB3_00'},
    '3.0.2-aes-128-ccm': {**_SEAL, 'server min protocol': 'SMB3_02', 'server max protocol': 'SMB3_02'},
    '3.1.1-hmac-sha256': {**_SIGN, **_311, 'server smb3 signing algorithms': 'HMAC-SHA256'},
    '3.1.1-cmac': {**_SIGN, **_311, 'server smb3 signing algorithms': 'AES-128-CMAC'},
    '3.1.1-gmac': {**_SIGN, **_311, 'server smb3 signing algorithms': 'AES-128-GMAC'},
    **{f'3.1.1-{cipher.lower()}': {**_SEAL, **_311, 'server smb3 encryption algorithms': cipher}
       for cipher in ('AES-128-CCM', 'AES-128-GCM', 'AES-256-CCM', 'AES-256-GCM')},
    'plain': {'server signing': 'disabled', 'server smb encrypt': 'off', **_311},
}


class LabError(Exception):
    """The lab could not do what was asked."""


def _state_path(name):
    return f'{RUN}/{PREFIX}{name}/state.json'


def _read_state(name):
    try:
        with open(_state_path(name)) as file:
            return json.load(file)
    except (OSError, ValueError):
        return None


def _alive(process):
    return process is not None and start_time(process['pid']) == process['start']


def _names():
    return [entry[len(PREFIX):] for entry in os.listdir(RUN) if entry.startswith(PREFIX)]


def live_labs():
    """Names of the labs whose watcher lives."""
    states = {name: _read_state(name) for name in _names()}
    return sorted(name for name, state in states.items() if state and _alive(state['watcher']))


def reap():
    """Removes what labs left behind whose watcher was killed. Returns their names."""
    reaped = []
    for name in _names():
        state = _read_state(name)
        if state is None or _alive(state['watcher']):
            continue  # Without a state it is not ours, or is being made at this instant.
        for host, holder in state['holders'].items():
            if host == 'client':
                if _alive(holder):
                    abort_mounts(holder['pid'])
                kill_processes_in(holder['mnt'], name)
        switch = state['holders'].get('switch')
        if _alive(switch):
            os.kill(switch['pid'], signal.SIGKILL)
            faults.wait_until(lambda: not _alive(switch), 5, 'the switch is gone')
        shutil.rmtree(f'{RUN}/{PREFIX}{name}', ignore_errors=True)
        reaped.append(name)
    return reaped


class Lab:
    """One lab. Use `with Lab() as lab:`; or Lab().up() … down(); or Lab.attach(name)."""

    def __init__(self, name=None, options=None, big_mib=64, tmpfs='8g', detached=False,
                 suffix=SUFFIX, big_targets=seed.TARGETS):
        """options: host or 'all' -> smb.conf options. detached: outlives this process.

        big_mib: size of share/big.bin on each of big_targets; 0: there is none.
        """
        self.name = name or f'{secrets.token_hex(3)}'
        if not re.fullmatch(r'[a-z0-9][a-z0-9-]{0,30}', self.name):
            raise LabError(f'lab name "{self.name}": small letters, digits and - only')
        self.folder = f'{RUN}/{PREFIX}{self.name}'
        self.suffix = suffix
        self.options = options or {}
        self.big_mib = big_mib
        self.big_targets = big_targets
        self.tmpfs = tmpfs
        self.detached = detached
        self.state = None
        self.big_sha256 = None
        self._watcher = None
        self._passwords = {}
        self._unshared = {}
        self._original_hosts = None
        self._first_mounts = []

    # Coming and going.

    def up(self):
        for program in ('smbd', 'ip', 'nft', 'nsenter', 'openssl'):
            if not shutil.which(program, path=os.environ.get('PATH', '') + ':/usr/sbin:/sbin'):
                raise LabError(f'no program {program}: run make setup')
        if os.geteuid() != 0:
            raise LabError('the lab needs root')
        reap()
        self._start_watcher()
        try:
            self._seed()
            with ThreadPoolExecutor(len(self.servers)) as pool:
                list(pool.map(self._first_start, self.servers))
        except BaseException:
            self.down()
            raise
        return self

    def _start_watcher(self):
        lock = os.open(RUN, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)  # Two labs that start at once take two numbers.
            if os.path.exists(self.folder):
                raise LabError(f'lab {self.name} exists already')
            used = {state['number'] for state in map(_read_state, _names()) if state}
            number = next(n for n in range(120) if n not in used)
            net = f'10.{128 + number}.77'
            config = {
                'name': self.name, 'number': number, 'folder': self.folder, 'suffix': self.suffix,
                'tmpfs_size': self.tmpfs, 'gateway': f'{net}.1', 'big_mib': self.big_mib,
                'addresses': {host: f'{net}.{last}' for host, last in HOSTS.items()},
                'addresses6': {host: f'fd77:{number:x}::{last}' for host, last in HOSTS.items()},
                'owner': None if self.detached else {'pid': os.getpid(),
                                                     'start': start_time(os.getpid())},
            }
            self._watcher = subprocess.Popen(
                ['/usr/bin/python3', '-BIS', os.path.join(os.path.dirname(__file__), 'namespaces.py'),
                 json.dumps(config)],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                start_new_session=True, cwd='/')
            line = self._watcher.stdout.readline()
        finally:
            os.close(lock)
        if not line:
            raise LabError('no namespaces: ' + self._watcher.stderr.read().decode().strip())
        self.state = json.loads(line)

    @classmethod
    def attach(cls, name=None):
        """The running lab of that name; without a name, the only one that runs."""
        if name is None:
            names = live_labs()
            if len(names) != 1:
                raise LabError('no lab is up' if not names else
                               f'several labs are up ({", ".join(names)}): say which')
            name = names[0]
        state = _read_state(name)
        if not state or not _alive(state['watcher']):
            raise LabError(f'no lab {name} is up')
        lab = cls(name, suffix=state['suffix'], big_mib=state['big_mib'], detached=True)
        lab.state = state
        saved = lab._saved()
        lab.options, lab.big_sha256 = saved['options'], saved['big_sha256']
        lab._unshared, lab._passwords = saved['unshared'], saved['passwords']
        lab._first_mounts = saved['first_mounts']
        return lab

    def down(self):
        """Ends every process of the lab and removes every trace. May be called twice."""
        if self.state is None and self._watcher is None:
            return
        watcher = self._watcher.pid if self._watcher else self.state['watcher']['pid']
        try:
            os.kill(watcher, signal.SIGTERM)
        except ProcessLookupError:
            pass
        if self._watcher:
            self._watcher.wait(timeout=30)
            self._watcher.stdout.close()
            self._watcher.stderr.close()
        else:
            faults.wait_until(lambda: not _alive(self.state['watcher']), 30, 'the lab is down')
        self.state = self._watcher = None

    def __enter__(self):
        return self.up()

    def __exit__(self, *_):
        self.down()

    # Hosts and paths.

    @property
    def servers(self):
        return [host for host in HOSTS if host != 'client']

    def address(self, host):
        return self.state['addresses'][host]

    def address6(self, host):
        return self.state['addresses6'][host]

    def path(self, host, path='/'):
        """A path of that host's mounts, as this process may open it."""
        return f'/proc/{self.state["holders"][host]["pid"]}/root{path}'

    def data(self, host, path=''):
        """A server's share as it lies on the server: data('t1', 'share/hello.txt')."""
        return self.path('switch', f'{self.folder}/fs/data/{host}/{path}')

    def log(self, host):
        with open(self.path('switch', f'{self.folder}/fs/{host}/log/smbd.log'), errors='replace') as file:
            return file.read()

    # Running commands.

    def argv(self, host, command):
        """`command` as it must be called from here to run on that host."""
        holder = str(self.state['holders'][host]['pid'])
        spaces = ['-n', '-m'] if host in ('client', 'switch') else ['-n', '-m', '-p']
        return ['nsenter', '-t', holder, *spaces, '--wd=/', '--', *command]

    def environment(self, extra=None):
        path = os.environ.get('PATH', '/usr/bin:/bin') + ':/usr/sbin:/sbin'
        return {**os.environ, 'PATH': path, MARK: self.name, **(extra or {})}

    def run_in(self, host, command, check=True, timeout=30, env=None, **arguments):
        """subprocess.run on that host, output captured as text."""
        run = subprocess.run(self.argv(host, command), timeout=timeout, env=self.environment(env),
                             **{'capture_output': True, 'text': True, **arguments})
        if check and run.returncode != 0:
            raise LabError(f'{host}: {" ".join(command)}: exit code {run.returncode}: '
                           f'{(run.stderr or run.stdout or "").strip()[-2000:]}')
        return run

    def popen_in(self, host, command, env=None, **arguments):
        """subprocess.Popen on that host. On the client its pid is the command's own."""
        return subprocess.Popen(self.argv(host, command), env=self.environment(env), **arguments)

    def client_processes(self):
        """Machine pids of every process that was started on the client and lives."""
        return processes_in(self.state['holders']['client']['mnt'], self.name)

    def end_client_processes(self):
        """SIGKILL to all of them. Returns those that did not die (stuck in the kernel)."""
        return kill_processes_in(self.state['holders']['client']['mnt'], self.name)

    def client_mounts(self):
        """(mount point, type) of what was mounted on the client since it was made."""
        return [mount for mount in self._mounts() if list(mount) not in self._first_mounts]

    def _mounts(self):
        with open(f'/proc/{self.state["holders"]["client"]["pid"]}/mountinfo') as file:
            lines = [line.split() for line in file]
        return [(fields[4].encode().decode('unicode_escape'), fields[fields.index('-') + 1])
                for fields in lines]

    def in_network(self, host, function):
        """Runs function() in a thread whose sockets belong to that host's network."""
        box = {}

        def enter():
            try:
                with open(f'/proc/{self.state["holders"][host]["pid"]}/ns/net') as file:
                    if libc.setns(file.fileno(), CLONE_NEWNET) != 0:
                        raise LabError(f'setns into {host} failed')
                box['result'] = function()
            except BaseException as error:  # pylint: disable=broad-except
                box['error'] = error

        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        if 'error' in box:
            raise box['error']
        return box['result']

    # Servers.

    def _seed(self):
        base = self.path('switch', f'{self.folder}/fs/data')
        os.makedirs(base)
        self._first_mounts = [list(mount) for mount in self._mounts()]
        big = None
        if self.big_mib:
            big = f'{base}/big.bin'
            self.big_sha256 = seed.big_file(big, self.big_mib << 20)
        for target in seed.TARGETS:
            seed.seed_target(f'{base}/{target}', target,
                             big if target in self.big_targets else None)
            for share in TARGET_SHARES:
                seed.settle(f'{base}/{target}/{share}')
        if big:
            os.unlink(big)
        for root in seed.ROOTS:
            seed.seed_root(f'{base}/{root}', root, self.suffix)
        self._save()

    def _first_start(self, host):
        self._write_config(host)
        samba.write_passwords(self.path('switch'), f'{self.folder}/fs/{host}')
        self.start_server(host)

    def _save(self):
        path = self.path('switch', f'{self.folder}/fs/lab.json')
        with open(path, 'w') as file:
            json.dump({'options': self.options, 'big_sha256': self.big_sha256,
                       'first_mounts': self._first_mounts, 'unshared': self._unshared, 'passwords': self._passwords}, file)

    def _saved(self):
        with open(self.path('switch', f'{self.folder}/fs/lab.json')) as file:
            return json.load(file)

    def _write_config(self, host):
        all_shares = DFS_SHARES if host in seed.ROOTS else TARGET_SHARES
        shares = {}
        for name, options in all_shares.items():
            if name not in self._unshared.get(host, []):
                folder = host if host in seed.ROOTS else f'{host}/{name}'
                shares[name] = {'path': f'{self.folder}/fs/data/{folder}',
                                **{key: value.format(s=self.suffix) for key, value in options.items()}}
        options = {**self.options.get('all', {}), **self.options.get(host, {})}
        samba.write_config(self.path('switch'), host, f'{self.folder}/fs/{host}',
                           [f'{self.address(host)}/24', f'{self.address6(host)}/64'], options, shares)

    def configure(self, host, options=None, unshare=None, share=False, restart=None):
        """Changes a server's smb.conf.

        options: [global] options; they replace those of an earlier call (of that host).
        unshare: shares that go; share=True: all are there again.
        restart: None restarts the server where options were given, else it reloads.
        """
        before = (self.options.get(host), self._unshared.get(host, []))
        if options is not None:
            self.options = {**self.options, host: dict(options)}
        if share:
            self._unshared.pop(host, None)
        if unshare:
            self._unshared[host] = sorted({*self._unshared.get(host, []), *unshare})
        if (self.options.get(host), self._unshared.get(host, [])) == before:
            return
        self._save()
        self._write_config(host)
        if not self.server_pids(host):
            return
        if options is not None and restart is not False:
            self.stop_server(host)
            self.start_server(host)
        else:
            self.smbcontrol(host, 'smbd', 'reload-config')
            for name in unshare or []:
                self.smbcontrol(host, 'smbd', 'close-share', name)

    def set_password(self, host, user, password):
        """Changes a user's password on one server, for log-ons from now on."""
        self._passwords = {**self._passwords,
                           host: {**self._passwords.get(host, {}), user: password}}
        self._save()
        samba.write_passwords(self.path('switch'), f'{self.folder}/fs/{host}', self._passwords[host])

    def set_link(self, root, name, targets):
        """Makes or replaces a DFS link; targets: ['t1.lab.test/share', …]; None removes it."""
        path = self.data(root, name)
        if targets is None:
            os.unlink(path)
        else:
            seed.make_link(path, seed.link_text(targets, self.suffix))

    def server_pids(self, host):
        """Machine pids of that host's server processes."""
        holder = self.state['holders'][host]['pid']
        space = os.readlink(f'/proc/{holder}/ns/pid')
        found = []
        for entry in os.listdir('/proc'):
            if entry.isdigit() and int(entry) != holder:
                try:
                    if os.readlink(f'/proc/{entry}/ns/pid') != space:
                        continue
                    with open(f'/proc/{entry}/comm') as file:
                        if not file.read().startswith(SERVER_PROGRAMS):
                            continue
                    if start_time(int(entry)) is not None:
                        found.append(int(entry))
                except OSError:
                    continue
        return sorted(found)

    def signal_servers(self, host, name):
        """A signal to every process of that host's PID namespace at once, so none escapes by fork."""
        self.run_in(host, ['/bin/kill', f'-{name}', '--', '-1'], check=False)

    def start_server(self, host):
        config = f'{self.folder}/fs/{host}/smb.conf'
        pid_file = self.path('switch', f'{self.folder}/fs/{host}/pid/smbd.pid')
        if os.path.exists(pid_file):
            os.unlink(pid_file)
        # Its own session and no terminal: smbd ends with its stdin otherwise.
        self.run_in(host, ['smbd', '-D', '-s', config], stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, capture_output=False,
                    start_new_session=True)
        try:
            faults.wait_until(lambda: self.answers(host), 20, f'{host} answers')
        except TimeoutError as error:
            raise LabError(f'{error}; its log ends: {self.log(host)[-2000:]}') from None

    def stop_server(self, host):
        """Ends smbd gracefully: clients get a FIN."""
        self.signal_servers(host, 'CONT')
        self.signal_servers(host, 'TERM')
        try:
            faults.wait_until(lambda: not self.server_pids(host), 5, f'smbd of {host} ends')
        except TimeoutError:
            self.signal_servers(host, 'KILL')
            faults.wait_until(lambda: not self.server_pids(host), 5, f'smbd of {host} is gone')

    def answers(self, host, timeout=1.0):
        """Whether port 445 accepts a connection from the switch."""
        def connect():
            try:
                socket.create_connection((self.address(host), samba.SMB_PORT), timeout).close()
                return True
            except OSError:
                return False
        return self.in_network('switch', connect)

    def smbcontrol(self, host, *arguments):
        self.run_in(host, ['smbcontrol', '-s', f'{self.folder}/fs/{host}/smb.conf', *arguments])

    # Faults.

    def fail(self, mode, host):
        """Breaks a server; modes: faults.MODES. heal(host) ends it."""
        faults.fail(self, mode, host)

    def heal(self, host):
        faults.heal(self, host)

    def heal_all(self):
        for host in self.servers:
            self.heal(host)

    wait_until = staticmethod(faults.wait_until)

    # What the servers see.

    def smbstatus(self, host):
        """smbstatus --json: sessions, tcons, open_files."""
        run = self.run_in(host, ['smbstatus', '--json', '-s', f'{self.folder}/fs/{host}/smb.conf'])
        return json.loads(run.stdout)

    def sessions(self, host):
        """One dict per session: username, remote_machine, session_dialect, encryption, signing …"""
        return list(self.smbstatus(host).get('sessions', {}).values())

    def trees(self, host):
        return list(self.smbstatus(host).get('tcons', {}).values())

    def opens(self, host):
        """One dict per open of a file: path, and who holds it how."""
        files = self.smbstatus(host).get('open_files', {})
        return [{'file': f'{entry["service_path"]}/{entry["filename"]}', **one}
                for entry in files.values() for one in entry.get('opens', {}).values()]

    def connections(self, host=None):
        """Established SMB connections: peers of one server, or {server: count} of all."""
        if host is None:
            return {server: len(self.connections(server)) for server in self.servers}
        run = self.run_in(host, ['ss', '-Htn', 'state', 'established', '( sport = :445 )'])
        return [line.split()[3] for line in run.stdout.splitlines()]

    def capture(self, host):
        """Records a server's SMB traffic: `with lab.capture('t1') as seen: …`, then ask `seen`."""
        return Capture(self, host)

    # More data.

    def make_tree(self, name='tree', directories=50, files=100, targets=seed.TARGETS, share='share'):
        for target in targets:
            seed.tree(self.data(target, f'{share}/{name}'), directories, files)
            seed.settle(self.data(target, f'{share}/{name}'))

    def make_entries(self, name='wide', count=50_000, targets=seed.TARGETS, share='share'):
        for target in targets:
            seed.entries(self.data(target, f'{share}/{name}'), count)
            seed.settle(self.data(target, f'{share}/{name}'))

    def make_big(self, name, mib, targets=seed.TARGETS, share='share'):
        """A file of reproducible bytes on each target. Returns its SHA-256."""
        digest = None
        for target in targets:
            path = self.data(target, f'{share}/{name}')
            digest = seed.big_file(path, mib << 20)
            os.chown(path, seed.OWNER, seed.OWNER)
            os.chmod(path, 0o666)
            os.utime(path, (seed.SEED_TIME, seed.SEED_TIME))
        return digest

    # The client's names.

    def set_hosts(self, text=None):
        """Replaces the client's /etc/hosts; None: as it was made."""
        path = self.path('client', '/etc/hosts')
        if self._original_hosts is None:
            with open(path) as file:
                self._original_hosts = file.read()
        with open(path, 'w') as file:
            file.write(self._original_hosts if text is None else text)

    def set_names(self, text=''):
        """What the lab's name server knows beside nothing, in the format of /etc/hosts."""
        with open(self.path('switch', f'{self.folder}/fs/names'), 'w') as file:
            file.write(text)

    # A second opinion.

    def smbclient(self, source, command, user='dfsuser', password=None, arguments=(), timeout=30,
                  check=True):
        """Runs smbclient on the client. The password goes by the environment, not by argv."""
        password = PASSWORDS[user] if password is None else password
        return self.run_in('client', ['smbclient', source, '-U', user, '-m', 'SMB3', *arguments,
                                      '-c', command],
                           timeout=timeout, check=check, env={'PASSWD': password})
