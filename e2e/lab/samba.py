"""One Samba server: its smb.conf, its processes, and what it says about its clients."""

import os

from .namespaces import USERS

SMB_PORT = 445
# Of smb.conf's [global]. A lab or a test may override each.
GLOBAL = {
    'workgroup': 'LAB',
    'server role': 'standalone server',
    'log level': '1',
    'bind interfaces only': 'yes',
    'disable netbios': 'yes',
    'smb ports': str(SMB_PORT),
    'server min protocol': 'SMB2_02',
    'load printers': 'no',
    'printcap name': '/dev/null',
    'disable spoolss': 'yes',
    'map to guest': 'never',
    'host msdfs': 'yes',
    # Durable handles need all three.
    'kernel oplocks': 'no',
    'kernel share modes': 'no',
    'posix locking': 'no',
}


def config_text(host, folder, addresses, options, shares):
    """smb.conf of one server. `shares`: name -> options."""
    values = {
        **GLOBAL,
        'netbios name': host,
        'interfaces': ' '.join(f'{address}' for address in addresses),
        # One folder set per server: a shared lock or private folder corrupts the databases.
        **{name: f'{folder}/{name.split()[0]}' for name in
           ('private dir', 'lock directory', 'state directory', 'cache directory', 'pid directory')},
        'ncalrpc dir': f'{folder}/ncalrpc',
        'log file': f'{folder}/log/smbd.log',
        'passdb backend': f'smbpasswd:{folder}/private/smbpasswd',
        **options,
    }
    lines = ['[global]'] + [f'  {name} = {value}' for name, value in values.items()]
    for share, share_options in shares.items():
        lines += [f'[{share}]'] + [f'  {name} = {value}' for name, value in share_options.items()]
    return '\n'.join(lines) + '\n'


def write_config(root, host, folder, addresses, options, shares):
    """`root`: prefix through which this process sees the server's mounts."""
    for name in ('private', 'lock', 'state', 'cache', 'pid', 'ncalrpc', 'log'):
        os.makedirs(f'{root}{folder}/{name}', exist_ok=True)
    os.chmod(f'{root}{folder}/private', 0o700)
    os.chmod(f'{root}{folder}/ncalrpc', 0o755)
    path = f'{root}{folder}/smb.conf'
    with open(path + '.new', 'w') as file:
        file.write(config_text(host, folder, addresses, options, shares))
    os.rename(path + '.new', path)


def nt_hash(password):
    return _md4(password.encode('utf-16-le')).hex().upper()


def write_passwords(root, folder, passwords=None):
    """The server's accounts. Takes effect at the next log-on."""
    path = f'{root}{folder}/private/smbpasswd'
    lines = ''
    for user, (uid, default) in USERS.items():
        password = (passwords or {}).get(user, default)
        lines += f'{user}:{uid}:{"X" * 32}:{nt_hash(password)}:[U          ]:LCT-65000000:\n'
    with open(path + '.new', 'w', opener=lambda p, f: os.open(p, f, 0o600)) as file:
        file.write(lines)
    os.rename(path + '.new', path)


def _md4(message):
    """RFC 1320. Python's hashlib has MD4 only where OpenSSL's legacy provider is loaded."""
    mask = 0xffffffff
    rotate = lambda x, n: ((x << n) | (x >> (32 - n))) & mask
    length = len(message) * 8
    message += b'\x80' + b'\0' * ((55 - len(message)) % 64) + length.to_bytes(8, 'little')
    state = [0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476]
    rounds = (
        (lambda x, y, z: (x & y) | (~x & z), 0, tuple(range(16)), (3, 7, 11, 19)),
        (lambda x, y, z: (x & y) | (x & z) | (y & z), 0x5a827999,
         (0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15), (3, 5, 9, 13)),
        (lambda x, y, z: x ^ y ^ z, 0x6ed9eba1,
         (0, 8, 4, 12, 2, 10, 6, 14, 1, 9, 5, 13, 3, 11, 7, 15), (3, 9, 11, 15)),
    )
    for start in range(0, len(message), 64):
        words = [int.from_bytes(message[start + i:start + i + 4], 'little') for i in range(0, 64, 4)]
        a, b, c, d = state
        for mix, constant, order, shifts in rounds:
            for step, index in enumerate(order):
                a = rotate((a + mix(b, c, d) + words[index] + constant) & mask, shifts[step % 4])
                a, b, c, d = d, a, b, c
        state = [(old + new) & mask for old, new in zip(state, (a, b, c, d))]
    return b''.join(word.to_bytes(4, 'little') for word in state)
