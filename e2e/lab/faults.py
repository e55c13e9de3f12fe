"""What can happen to a server. Each mode of `fail`, and `heal`, which ends them all."""

import re
import time

SMB = 'tcp dport 445'
SMB_REPLY = 'tcp sport 445'
TABLE = 'dfscsi_fault'

# Rules of the nft modes: (of packets to the server, of packets from it).
NFT = {
    'reset': (f'{SMB} reject with tcp reset', f'{SMB_REPLY} tcp flags & rst == 0 drop'),
    'drop': (f'{SMB} drop', f'{SMB_REPLY} drop'),
    'half': (None, f'{SMB_REPLY} drop'),  # Requests arrive, replies are lost.
    'blackhole': (f'{SMB} meta length > 576 drop', f'{SMB_REPLY} meta length > 576 drop'),
}
MODES = {
    'kill': 'SIGKILL to every smbd of the host: connections are reset, then refused',
    'restart': 'smbd ends gracefully (FIN) and is started again at once',
    'reset': 'every packet is answered with a TCP reset',
    'drop': 'no packet of port 445 passes, in either direction',
    'half': 'requests arrive, replies are lost',
    'stop': 'SIGSTOP to every smbd: TCP acknowledges, SMB never answers',
    'link': 'the cable is out: nothing of the host answers',
    'loss': 'each packet is lost with N percent probability (loss:20)',
    'blackhole': 'packets over 576 bytes vanish (a path MTU black hole)',
    'close-share': 'smbd closes every tree of share "share"; it may be connected again',
    'unshare': 'share "share" is gone until heal',
}


def nft_text(mode, percent=None):
    if mode == 'loss':
        chance = f'numgen random mod 100 < {percent} drop'
        to_server, from_server = f'{SMB} {chance}', f'{SMB_REPLY} {chance}'
    else:
        to_server, from_server = NFT[mode]
    chains = ''
    for hook, rule in (('input', to_server), ('output', from_server)):
        if rule:
            chains += f'chain {hook} {{ type filter hook {hook} priority 0; {rule}; }}; '
    # Idempotent: the table is made, removed and made again in one transaction.
    return f'table inet {TABLE} {{ }}\ndelete table inet {TABLE}\ntable inet {TABLE} {{ {chains} }}\n'


def fail(lab, mode, host):
    mode, _, argument = mode.partition(':')
    if mode not in MODES:
        raise ValueError(f'no fault "{mode}"; there are: {" ".join(MODES)}')
    if mode in ('close-share', 'unshare'):
        share = argument or 'share'
        if mode == 'unshare':
            lab.configure(host, unshare=[share])
        else:
            lab.smbcontrol(host, 'smbd', 'close-share', share)
        return
    if argument and mode != 'loss':
        raise ValueError(f'fault "{mode}" takes no argument')
    if mode == 'kill':
        lab.signal_servers(host, 'KILL')
        lab.wait_until(lambda: not lab.answers(host), 5, f'{host} refuses')
        # A child of smbd may take a while to go: heal starts a server only where there is none.
        lab.wait_until(lambda: not lab.server_pids(host), 30, f'no process of {host} is left')
    elif mode == 'restart':
        lab.stop_server(host)
        lab.start_server(host)
    elif mode == 'stop':
        lab.signal_servers(host, 'STOP')
    elif mode == 'link':
        lab.run_in('switch', ['ip', 'link', 'set', f'v-{host}', 'down'])
    else:
        if mode == 'loss' and not re.fullmatch(r'[1-9][0-9]?', argument):
            raise ValueError('loss wants a percentage below 100: loss:20')
        lab.run_in(host, ['nft', '-f', '-'], input=nft_text(mode, argument))


def heal(lab, host):
    lab.run_in('switch', ['ip', 'link', 'set', f'v-{host}', 'up'])
    lab.run_in(host, ['nft', '-f', '-'],
               input=f'table inet {TABLE} {{ }}\ndelete table inet {TABLE}\n')
    lab.signal_servers(host, 'CONT')
    lab.configure(host, share=True)
    if not lab.server_pids(host):
        lab.start_server(host)
    lab.wait_until(lambda: lab.answers(host), 10, f'{host} answers')


def wait_until(condition, seconds, what):
    """The one way to wait: polls until the condition holds, or raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > deadline:
            raise TimeoutError(f'not within {seconds} s: {what}')
        time.sleep(0.02)
