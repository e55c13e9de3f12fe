"""A password that is like no other: where it may lie while a mount lives, and that it lies nowhere else."""

import itertools
import os
import re
import secrets
import signal
import subprocess

import pytest

LAB = {'big_mib': 0}
POINT = '/mnt/dfs'
SOURCE = '//root1/dfs'
PAGE = os.sysconf('SC_PAGE_SIZE')
SOCKET_DIR = '/run/dfs-csi-local'
# A short one lies within a std::string itself, a long one on the heap: both are copied by other ways.
PASSWORDS = {'short': lambda: 'cN' + secrets.token_hex(5), 'long': lambda: 'Canary-' + secrets.token_hex(24)}
OURS = ('dfs-node-agent', 'dfs-mounter', 'dfs-notifier', 'dfs-keeper')


@pytest.fixture(name='password', params=sorted(PASSWORDS))
def make_password(lab, request):
    """Of dfsuser, on every server, for this test."""
    password = PASSWORDS[request.param]()
    servers = ('root1', 'root2', 't1', 't2', 't3')
    for host in servers:
        lab.set_password(host, 'dfsuser', password)
    yield password
    for host in servers:
        lab.set_password(host, 'dfsuser', 'dfspass')


def spellings(password):
    return [password.encode(), password.encode('utf-16-le')]


def mappings(pid):
    """(first address, end, name, flags) of what of that process can be read."""
    found, current = [], None
    with open(f'/proc/{pid}/smaps') as file:
        for line in file:
            match = re.match(r'([0-9a-f]+)-([0-9a-f]+) (r...) \S+ \S+ \S+ *(.*)', line)
            if match:
                current = (int(match.group(1), 16), int(match.group(2), 16), match.group(4).strip())
            elif re.match(r'[0-9a-f]+-[0-9a-f]+ ', line):
                current = None
            elif line.startswith('VmFlags:') and current:
                found.append((*current, line.split()[1:]))
    return found


def present(pagemap, begin, end):
    """[(first address, end)] of the pages between that the process has in its page tables."""
    pages = os.pread(pagemap.fileno(), (end - begin) // PAGE * 8, begin // PAGE * 8)
    runs, at = [], begin
    for is_there, entries in itertools.groupby(memoryview(pages).cast('Q'), lambda entry: entry >> 62 != 0):
        size = PAGE * len(list(entries))
        if is_there:
            runs.append((at, at + size))
        at += size
    return runs


def places(pid, password):
    """[(mapping, its flags)] of that process's memory that hold the password."""
    hits = []
    with open(f'/proc/{pid}/mem', 'rb', buffering=0) as memory, \
            open(f'/proc/{pid}/pagemap', 'rb', buffering=0) as pagemap:
        for begin, end, name, flags in mappings(pid):
            if name in ('[vvar]', '[vsyscall]') or 'io' in flags:
                continue
            for first, last in present(pagemap, begin, end):
                content = os.pread(memory.fileno(), last - first, first)
                if any(spelling in content for spelling in spellings(password)):
                    hits.append((f'{first:x} {name}', flags))
    return hits


def unsafe_places(engine, password):
    """Where it may not lie: outside memory that is left out of core files. dfs-auth is not looked into: it
    is the libraries' (and has no core file, no ptrace, and wipes what it frees)."""
    return [(program, pid, name) for program in OURS for pid in engine.pids(program)
            for name, flags in places(pid, password) if 'dd' not in flags]


def safe_places(engine, program, password):
    return [name for pid in engine.pids(program) for name, flags in places(pid, password) if 'dd' in flags]


def test_memory_of_the_programs(lab, engine, password):
    engine.mount(SOURCE, POINT, password=password)
    os.listdir(lab.path('client', POINT + '/two'))  # A second server has been logged on to.
    assert len(engine.pids('dfs-node-agent')) == 2
    # The search finds it where it must be: the vault, which every program but the notifier maps.
    assert any('dfs-vault' in name for name in safe_places(engine, 'dfs-node-agent', password))
    assert any('dfs-vault' in name for name in safe_places(engine, 'dfs-mounter', password))
    assert not unsafe_places(engine, password)
    # An agent that has taken over has it from the vault.
    pid = engine.kill_active_agent()
    lab.wait_until(lambda: engine.active_agent() not in (None, pid), 10, 'another agent is active')
    os.listdir(lab.path('client', POINT + '/three'))
    assert not unsafe_places(engine, password)
    # Nothing is left of it after the unmount.
    engine.unmount(POINT)
    agents = engine.pids('dfs-node-agent')
    assert agents
    lab.wait_until(lambda: not any(places(pid, password) for program in OURS for pid in engine.pids(program)),
                   5, 'the password is forgotten')


def test_while_a_mount_is_being_made(lab, engine, password):
    """The server does not answer yet: the password is on its way, in dfsctl and in the agent."""
    engine.mount('//t2/share', '/mnt/other', password=password)
    os.makedirs(lab.path('client', POINT), exist_ok=True)
    lab.fail('stop', 't1')
    arguments = [engine.program('dfsctl'), 'mount', '//t1/share', POINT, '--credentials',
                 engine.credentials('dfsuser', password), '--state-dir', engine.state_dir]
    process = lab.popen_in('client', arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        before = lab.connections('t1')
        lab.wait_until(lambda: lab.connections('t1') != before or process.poll() is not None, 10,
                       'the agent asks the server')
        assert not [name for name, flags in places(process.pid, password) if 'dd' not in flags]
        assert not unsafe_places(engine, password)
        assert process.poll() is None  # It was looked at while it waited.
        visible_nowhere(lab, engine, password)
    finally:
        lab.heal('t1')
    output = process.communicate(timeout=30)[0]
    assert process.returncode == 0 and password not in output, output
    engine.dfsctl('unmount', POINT)


def visible_nowhere(lab, engine, password):
    """In no argument, environment or file of the programs, and not in mountinfo."""
    needles = spellings(password)
    looked = 0
    for pid in lab.client_processes():
        for name in ('cmdline', 'environ', 'comm', 'mountinfo'):
            try:
                with open(f'/proc/{pid}/{name}', 'rb') as file:
                    content = file.read()
            except OSError:
                continue
            looked += 1
            assert not any(needle in content for needle in needles), (pid, name)
    assert looked
    for folder in (SOCKET_DIR, engine.state_dir):
        for parent, _, names in os.walk(lab.path('client', folder)):
            for name in names:
                path = os.path.join(parent, name)
                if os.path.isfile(path):
                    with open(path, 'rb') as file:
                        content = file.read()
                    assert not any(needle in content for needle in needles), path


def test_what_the_programs_say(lab, engine, password):
    engine.mount(SOURCE, POINT, password=password)
    os.listdir(lab.path('client', POINT + '/two'))
    said = ''
    for command in (['mounts'], ['mounts', '--json'], ['referrals'], ['referrals', SOURCE + '/two'],
                    ['referrals', '--json'], ['targets'], ['targets', '--json'], ['metrics'], ['version'],
                    ['mount', SOURCE, POINT, '--credentials', engine.credentials('dfsuser', password)],
                    # Refused, in several ways.
                    ['mount', '//t1/share', POINT, '--credentials', engine.credentials('dfsuser', password)],
                    ['mount', '//t1/none', '/mnt', '--credentials', engine.credentials('dfsuser', password)],
                    ['mount', '//t1/share', '/mnt', '-o', f'password={password},username=dfsuser'],
                    ['mount', '//t1/share', '/mnt', '-o', f'username=dfsuser,pasword={password}']):
        run = engine.dfsctl(*command, check=False)
        said += run.stdout + run.stderr
    assert 'dfscsi' in said or 'dfs_' in said  # Metrics are among it.
    assert password not in said
    # A refused log-on, with the password of another.
    lab.set_password('t3', 'dfsuser', 'other')
    os.makedirs(lab.path('client', '/mnt/refused'), exist_ok=True)
    run = engine.mount('//t3/share', '/mnt/refused', password=password, check=False)
    assert run.returncode == 3 and password not in run.stdout + run.stderr
    visible_nowhere(lab, engine, password)
    log = lab.path('client', f'{SOCKET_DIR}/dfs-node-agent.log')
    assert os.path.getsize(log) > 0


def blocks_signals(pid):
    with open(f'/proc/{pid}/status') as file:
        return int(re.search(r'SigBlk:\s*([0-9a-f]+)', file.read()).group(1), 16) != 0


def is_keeper(pid):
    with open(f'/proc/{pid}/comm') as file:
        return file.read().strip() == 'dfs-keeper'


def dumps_core(lab, command, started):
    """Whether it leaves a core file behind when it is aborted."""
    process = lab.popen_in('client', ['/usr/bin/prlimit', '--core=unlimited', *command],
                           stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                           cwd='/')
    try:
        lab.wait_until(lambda: started(process.pid), 10, f'{command[0]} has started')
        os.kill(process.pid, signal.SIGABRT)
        ended = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    finally:
        process.kill()
        process.wait(timeout=10)
    assert ended.si_code in (os.CLD_DUMPED, os.CLD_KILLED) and ended.si_status == signal.SIGABRT, ended
    return ended.si_code == os.CLD_DUMPED


@pytest.mark.parametrize('name,arguments,started', [
    ('dfs-node-agent', ['--socket_dir=/run/none'], blocks_signals),
    ('dfs-mounter', ['--socket-dir=/run/core-test'], blocks_signals),
    ('dfsctl', ['keep', '--socket-dir=/run'], is_keeper)])
def test_no_core_file(lab, engine, name, arguments, started):
    def sleeps(pid):
        with open(f'/proc/{pid}/comm') as file:
            return file.read().strip() == 'sleep'
    pattern = open('/proc/sys/kernel/core_pattern').read().strip()
    if not dumps_core(lab, ['/usr/bin/sleep', '60'], sleeps):
        pytest.skip(f'this machine writes no core file at all (core_pattern {pattern!r})')
    assert not dumps_core(lab, [engine.program(name), *arguments], started)


def test_limits_of_dfs_auth(lab, engine):
    """What is not looked into: it says no to core files."""
    engine.mount(SOURCE, POINT)
    for pid in engine.pids('dfs-auth'):
        with open(f'/proc/{pid}/limits') as file:
            assert re.search(r'Max core file size\s+0\s+0', file.read())
    assert engine.pids('dfs-auth')
