"""What the death tests share: the folder that writers write in, and what must lie on its server's disk then."""

import hashlib
import os
import shutil

MOUNT = '/mnt/dfs'
PATIENCE = 120


def on_server(lab, path='', host='t1'):
    return lab.data(host, f'bench/{path}')


def content(lab, path, host='t1'):
    with open(on_server(lab, path, host), 'rb') as file:
        return file.read()


def empty(lab, hosts=('t1', 't2')):
    for host in hosts:
        for name in os.listdir(on_server(lab, host=host)):
            if name != 'copy' and os.path.isfile(on_server(lab, name, host)):
                os.unlink(on_server(lab, name, host))
            elif name.startswith('pair'):
                shutil.rmtree(on_server(lab, name, host))


def record(number):
    """As lab/writer.py writes them."""
    return f'record {number}'.ljust(63, '.').encode() + b'\n'


def check_records(lab, count):
    """What an fsync has acknowledged is on the server's disk, now."""
    found = content(lab, 'records') if count else b''
    wanted = b''.join(map(record, range(count)))
    return [] if found[:len(wanted)] == wanted else [f'records: {count} were synced; {len(found) // 64} are there']


def check_pair(lab, state):
    """Every file of the pair has the name that it was given last, and holds what was written to it; none is left over."""
    folder = on_server(lab, state['folder'])
    found = {name: hashlib.md5(content(lab, f'{state["folder"]}/{name}')).hexdigest()
             for name in os.listdir(folder) if not name.startswith('.dfscsi')}
    return [f'{state["folder"]}/{name}: {found.get(name)} instead of {state["files"].get(name)}'
            for name in sorted(found.keys() | state['files'].keys()) if found.get(name) != state['files'].get(name)]


def check_disk(lab, states):
    """Every acknowledged change is on the server's disk, and nothing twice."""
    wrong = []
    log = content(lab, 'log').decode().splitlines() if any(mode == 'append' for mode, _ in states) else []
    for mode, state in states:
        if state is None:
            wrong.append(f'{mode} did not end')
        elif mode in ('blocks', 'direct'):
            disk = content(lab, mode)
            wrong += [f'{mode}: block {block}' for block, token in state.items()
                      if disk[int(block) * 4096:(int(block) + 1) * 4096] != token.encode() * (4096 // len(token))]
        elif mode == 'append':
            mine = [line for line in log if line.startswith(f'{state["pid"]} ')]
            if mine != [f'{state["pid"]} {i}'.ljust(63, '.') for i in range(state['lines'])]:
                wrong.append(f'append: {len(mine)} lines of {state["lines"]}, or out of order')
        elif mode == 'records':
            wrong += check_records(lab, state['synced'])
        elif mode == 'pairs':
            wrong += check_pair(lab, state)
    appended = sum(state['lines'] for mode, state in states if mode == 'append' and state)
    if len(log) != appended:
        wrong.append(f'log: {len(log)} lines, {appended} were acknowledged')
    added = sum(state['added'] for mode, state in states if mode == 'locks' and state)
    if added and int(content(lab, 'number')) != added:
        wrong.append(f'number: {int(content(lab, "number"))}, {added} were added')
    return wrong


def hidden(lab, host='t1'):
    """Names of files that were removed while they were open, and are still there."""
    return [name for _, _, names in os.walk(on_server(lab, host=host)) for name in names
            if name.startswith('.dfscsi')]


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def wait_for_other(lab, engine, pid):
    lab.wait_until(lambda: engine.active_agent() not in (None, pid), 10, 'another agent is active')
