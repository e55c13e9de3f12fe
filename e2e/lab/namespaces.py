#!/usr/bin/python3
"""Holds the namespaces of one lab for as long as it lives. Started by lab.py, not by hand.

  watcher             in the machine's namespaces; waits for its owner's death or SIGTERM, then cleans up
  └─ switch           pid 1 of a PID namespace; its network holds the bridge and a name server, its
     │                mounts a tmpfs for all
     ├─ root1, t1 …   each pid 1 of a PID namespace of its own, with own network, mounts and /etc
     └─ client        own network, mounts, /etc and /mnt; its processes keep the machine's pids

Nothing has a name in the machine's namespaces: when the switch dies, the kernel takes servers, networks
and mounts away with it. The switch dies with the watcher, however the watcher died.
"""

import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time

CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWNET = 0x00020000, 0x20000000, 0x40000000
MS_REC, MS_SLAVE, MS_BIND, MS_NOSUID, MS_NODEV = 0x4000, 1 << 19, 0x1000, 2, 4
PR_SET_PDEATHSIG = 1
libc = ctypes.CDLL(None, use_errno=True)

# Accounts behind the SMB users. They exist in the lab's own /etc only.
USERS = {'dfsuser': (20001, 'dfspass'), 'dfsuser2': (20002, 'dfspass2')}
OWN_ETC = ('passwd', 'group', 'hosts', 'resolv.conf', 'nsswitch.conf', 'fstab', 'mtab')
FOLDER_PREFIX = 'dfs-csi-lab-'  # Each lab has a folder of its own in /run.
MARK = 'DFSCSI_LAB'  # In the environment of every process that is started for a lab.


def call(name, *arguments):
    if getattr(libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f'{name}: {os.strerror(number)}')


def mount(source, target, kind=None, flags=0, options=None):
    call('mount', source.encode(), target.encode(), kind.encode() if kind else None,
         ctypes.c_ulong(flags), options.encode() if options else None)


def machine_pid():
    """The caller's pid as the machine sees it: /proc is still the machine's."""
    return int(os.readlink('/proc/self'))


def start_time(pid):
    """When the process started, in ticks since boot; None if there is none. A pid may come again."""
    try:
        with open(f'/proc/{pid}/stat') as file:
            fields = file.read().rsplit(')', 1)[1].split()
    except OSError:
        return None
    return None if fields[0] in 'ZX' else int(fields[19])


def processes_in(mount_namespace, name):
    """Processes of the machine in that mount namespace of that lab.

    A number of a namespace may come again: a process is the lab's if it sees the lab's folder or carries
    its mark. (Programs that start their children with an environment of their own leave the mark out.)
    The namespace's holder is not one of them: it lives in the switch's PID namespace.
    """
    found = []
    mark = f'{MARK}={name}'.encode()
    own_pids = os.readlink('/proc/self/ns/pid')
    for entry in os.listdir('/proc'):
        if not entry.isdigit():
            continue
        try:
            if (os.readlink(f'/proc/{entry}/ns/mnt') != mount_namespace
                    or os.readlink(f'/proc/{entry}/ns/pid') != own_pids):
                continue
            if os.path.isdir(f'/proc/{entry}/root/run/{FOLDER_PREFIX}{name}'):
                found.append(int(entry))
                continue
            with open(f'/proc/{entry}/environ', 'rb') as file:
                if mark in file.read().split(b'\0'):
                    found.append(int(entry))
        except OSError:
            continue
    return found


def kill_processes_in(mount_namespace, name):
    """Ends them, also those that are started meanwhile. Returns those that would not die."""
    if not mount_namespace:
        return []
    deadline = time.monotonic() + 10
    while True:
        left = processes_in(mount_namespace, name)
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.02)


def abort_mounts(holder):
    """Ends the FUSE connections of a mount namespace: one whose programs were killed lives on, with all who wait for it,
    while a thread of theirs waits in the kernel for a page of it."""
    try:
        with open(f'/proc/{holder}/mountinfo') as file:
            points = [line.split()[4] for line in file if ' - fuse' in line]
    except OSError:
        return
    for point in reversed(points):
        point = point.encode().decode('unicode_escape').encode('latin-1')
        try:
            subprocess.run(['nsenter', '-t', str(holder), '-m', 'umount', '-f', '-l', point], timeout=10,
                           stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        except subprocess.TimeoutExpired:
            continue


def ip_batch(lines):
    subprocess.run(['ip', '-batch', '-'], input='\n'.join(lines) + '\n', text=True, check=True)


def build_etc(folder, addresses, suffix, name_server):
    """A folder to be bound over /etc: own accounts and names, symlinks to the machine's other files.

    All of /etc and not single files: a file bound over /etc/passwd falls away, in every mount
    namespace, as soon as a package installation renames a new /etc/passwd into place.
    """
    os.makedirs(folder + '/etc')
    machine = folder + '/machine-etc'
    os.makedirs(machine)
    mount('/etc', machine, flags=MS_BIND | MS_REC)
    for entry in os.listdir('/etc'):
        if entry not in OWN_ETC:
            os.symlink(f'{machine}/{entry}', f'{folder}/etc/{entry}')
    accounts = {name: '' for name in ('passwd', 'group')}
    for name in accounts:
        with open(f'/etc/{name}') as file:
            accounts[name] = ''.join(line for line in file if line.split(':')[0] not in USERS)
    for user, (uid, _) in USERS.items():
        accounts['passwd'] += f'{user}:x:{uid}:{uid}::/nonexistent:/usr/sbin/nologin\n'
        accounts['group'] += f'{user}:x:{uid}:\n'
    hosts = '127.0.0.1 localhost\n::1 localhost\n' + ''.join(
        f'{address} {host}{suffix} {host}\n' for host, address in addresses.items())
    files = {**accounts, 'hosts': hosts,
             'resolv.conf': f'nameserver {name_server}\noptions timeout:1 attempts:1\n',
             'nsswitch.conf': 'passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n'
                              'services: files\nprotocols: files\n', 'fstab': ''}
    for name, text in files.items():
        with open(f'{folder}/etc/{name}', 'w') as file:
            file.write(text)
    os.symlink('/proc/self/mounts', f'{folder}/etc/mtab')


def let_go_of_terminal():
    null = os.open('/dev/null', os.O_RDWR)
    for fd in range(3):
        os.dup2(null, fd)


def hold(name):
    """Becomes a process that does nothing, reaps its children and holds its namespaces."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    let_go_of_terminal()
    os.execv('/bin/sleep', [name, 'infinity'])


def start_name_server(address, names):
    """A child of the switch: the kernel ends it with the switch's PID namespace."""
    with open(names, 'w'):
        pass
    if os.fork() == 0:
        let_go_of_terminal()
        program = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'name_server.py')
        os.execv('/usr/bin/python3', ['python3', '-BIS', program, address, names])


def make_client_folders(folder):
    """/mnt and /run of its own: the sockets of the programs under test belong to one lab."""
    mount('dfs-csi-lab', '/mnt', 'tmpfs', options='mode=755,size=1g')
    kept = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    mount('dfs-csi-lab', '/run', 'tmpfs', options='mode=755,size=64m')
    os.makedirs(folder)
    mount(f'/proc/self/fd/{kept}', folder, flags=MS_BIND | MS_REC)
    os.close(kept)
    os.mkdir('/run/lock')


def start_host(config, host, folder):
    """Forks the holder of one host.

    Returns its pid here, its pid of the machine, its mount namespace, the pipe that lets it go on once
    its cable is there, and the pipe on which it says that it is ready.
    """
    is_client = host == 'client'
    report_read, report_write = os.pipe()
    go_read, go_write = os.pipe()
    child = os.fork()
    if child == 0:
        call('unshare', CLONE_NEWNET | CLONE_NEWNS | (0 if is_client else CLONE_NEWPID))
        pid = 0 if is_client else os.fork()
        if pid == 0:
            os.close(report_read)
            os.close(go_write)
            build_etc(f'{folder}/{host}', config['addresses'], config['suffix'], config['gateway'])
            mount(f'{folder}/{host}/etc', '/etc', flags=MS_BIND)
            if is_client:
                make_client_folders(folder)
            os.write(report_write, json.dumps(
                {'machine': machine_pid(), 'mnt': os.readlink('/proc/self/ns/mnt')}).encode())
            os.read(go_read, 1)
            address = config['addresses'][host]
            ip_batch(['link set lo up', f'addr add {address}/24 dev eth0',
                      f'addr add {config["addresses6"][host]}/64 dev eth0 nodad',
                      'link set eth0 up', f'route add default via {config["gateway"]}'])
            os.write(report_write, b'ready')
            hold(f'dfs-csi-lab-{config["name"]}-{host}')
        os.write(report_write, json.dumps({'here': pid}).encode())
        os._exit(0)
    os.close(report_write)
    os.close(go_read)
    answers, text = {}, b''
    wanted = {'machine', 'mnt'} if is_client else {'machine', 'mnt', 'here'}
    while wanted - set(answers):
        more = os.read(report_read, 4096)
        if not more:
            raise RuntimeError(f'the holder of {host} died')
        text += more
        for part in text.replace(b'}{', b'}\n{').split(b'\n'):
            try:
                answers.update(json.loads(part))
            except ValueError:
                pass
    if not is_client:
        os.waitpid(child, 0)
    return answers.get('here', child), answers['machine'], answers['mnt'], go_write, report_read


def run_switch(config, report):
    """pid 1 of the lab: makes everything, reports the holders, waits for ever."""
    folder = config['folder']
    call('unshare', CLONE_NEWNS | CLONE_NEWNET)
    # Slave: what the machine unmounts must not stay pinned here.
    mount('none', '/', flags=MS_REC | MS_SLAVE)
    mount('dfs-csi-lab', f'{folder}/fs', 'tmpfs', MS_NOSUID | MS_NODEV,
          f'mode=755,size={config["tmpfs_size"]}')
    ip_batch(['link set lo up', 'link add br0 type bridge', 'link set br0 up',
              f'addr add {config["gateway"]}/24 dev br0'])
    holders, pipes, veths = {}, [], []
    for host in config['addresses']:
        here, machine, mnt, go, ready = start_host(config, host, f'{folder}/fs')
        holders[host] = {'pid': machine, 'start': start_time(machine), 'mnt': mnt}
        veths += [f'link add v-{host} type veth peer name eth0 netns {here}',
                  f'link set v-{host} master br0 up']
        pipes.append((host, go, ready))
    ip_batch(veths)
    start_name_server(config['gateway'], f'{folder}/fs/names')
    for _, go, _ in pipes:
        os.write(go, b'g')
    for host, go, ready in pipes:
        if os.read(ready, 16) != b'ready':
            raise RuntimeError(f'{host} could not set up its network')
        os.close(go)
        os.close(ready)
    holders['switch'] = {'pid': machine_pid(), 'start': start_time(machine_pid()),
                         'mnt': os.readlink('/proc/self/ns/mnt')}
    os.write(report, (json.dumps(holders) + '\n').encode())
    os.close(report)
    hold(f'dfs-csi-lab-{config["name"]}-switch')


def watch(config, switch, report_read):
    """Waits for SIGTERM, the owner's death or the switch's, then removes every trace."""
    stop_read, stop_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: os.write(stop_write, b's'))
    poll = select.poll()
    poll.register(stop_read, select.POLLIN)
    switch_fd = os.pidfd_open(switch)
    poll.register(switch_fd, select.POLLIN)
    owner = config['owner']
    if owner:
        try:
            owner_fd = os.pidfd_open(owner['pid'])
            if start_time(owner['pid']) != owner['start']:
                raise ProcessLookupError
            poll.register(owner_fd, select.POLLIN)
        except ProcessLookupError:
            os.write(stop_write, b's')
    state_path = f'{config["folder"]}/state.json'
    with os.fdopen(report_read) as report:
        line = report.readline()
    client_mnt = None
    if line:
        holders = json.loads(line)
        client_mnt = holders['client']['mnt']
        state = {**config, 'holders': holders,
                 'watcher': {'pid': os.getpid(), 'start': start_time(os.getpid())}}
        with open(state_path + '.new', 'w') as file:
            json.dump(state, file)
        os.rename(state_path + '.new', state_path)
        print(json.dumps(state), flush=True)
        let_go_of_terminal()
        poll.poll()
    if line:
        abort_mounts(holders['client']['pid'])
    kill_processes_in(client_mnt, config['name'])
    os.kill(switch, signal.SIGKILL)
    os.waitpid(switch, 0)
    for path in (state_path, state_path + '.new'):
        if os.path.exists(path):
            os.unlink(path)
    for path in (f'{config["folder"]}/fs', config['folder']):
        if os.path.isdir(path):
            os.rmdir(path)
    return 0 if line else 1


def main():
    config = json.loads(sys.argv[1])
    os.makedirs(f'{config["folder"]}/fs')
    # The lab can be found, and reaped, from here on.
    with open(f'{config["folder"]}/state.json', 'w') as file:
        json.dump({**config, 'holders': {}, 'watcher': {'pid': os.getpid(),
                                                        'start': start_time(os.getpid())}}, file)
    report_read, report_write = os.pipe()
    call('unshare', CLONE_NEWPID)
    watcher = os.getpid()
    switch = os.fork()
    if switch == 0:
        os.close(report_read)
        call('prctl', PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if start_time(watcher) is None:
            os._exit(1)
        try:
            run_switch(config, report_write)
        except BaseException as error:  # pylint: disable=broad-except
            print(f'lab {config["name"]}: {error!r}', file=sys.stderr, flush=True)
        os._exit(1)
    os.close(report_write)
    return watch(config, switch, report_read)


if __name__ == '__main__':
    sys.exit(main())
