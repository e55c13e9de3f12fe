"""What the servers hold: the same tree on each target, and DFS links of every kind in the roots."""

import hashlib
import os
import subprocess

OWNER = 20001
# Files of all targets have the same time: a client compares size and time to tell copies apart.
SEED_TIME = 1_700_000_000
TARGETS = ('t1', 't2', 't3')
ROOTS = ('root1', 'root2')

# Links of each root: name -> targets, each HOST/SHARE[/PATH]. {s} is the suffix of host names. The
# separator is '/': with '\' a component of Samba's own symlink text may exceed 255 bytes.
LINKS = {
    'root1': {
        'single': ['t1{s}/share'],
        'two': ['t1{s}/share', 't2{s}/share'],
        'three': ['t1{s}/share', 't2{s}/share', 't3{s}/share'],
        'below': ['t1{s}/share/sub/deep'],              # A path below a share.
        'elsewhere': ['t1{s}/share', 't2{s}/bench/copy'],  # The second copy has another prefix.
        'nested': ['root2{s}/dfs'],                     # Another root.
        'nestlink': ['root2{s}/dfs/inner'],             # A link of another root.
        'dangling': ['nosuchhost{s}/share'],            # The name does not resolve.
        'noshare': ['t1{s}/nosuchshare'],               # The host answers, the share does not exist.
        'halfdead': ['nosuchhost{s}/share', 't2{s}/share'],
        'missingpath': ['t1{s}/share/only-t2', 't2{s}/share/only-t2'],  # Exists on the second only.
        'loop': ['root1{s}/dfs/loop'],                  # Itself.
        'pingpong': ['root2{s}/dfs/pingpong'],          # A link that leads back.
        'upwards': ['root1{s}/dfs'],                    # Its own root.
        'plain-dir/deeplink': ['t3{s}/share'],
        'a/b/c/link': ['t1{s}/share', 't2{s}/share'],   # Three levels deep.
        'ünïcødé-链接': ['t1{s}/share', 't2{s}/share'],
        'emoji-😀': ['t2{s}/share'],
        'bench': ['t1{s}/bench', 't2{s}/bench'],
        'chain1': ['root2{s}/dfs/chain2'],              # Four links until a share.
    },
    'root2': {
        'inner': ['t2{s}/share', 't3{s}/share'],
        'pingpong': ['root1{s}/dfs/pingpong'],
        'chain2': ['root1{s}/dfs/chain3'],
        'again': ['root1{s}/dfs/two'],
    },
}
LINKS['root1']['chain3'] = ['root2{s}/dfs/inner']
# Samba writes no such link itself; an administrator may.
BROKEN_LINKS = {'empty': 'msdfs:', 'broken': 'msdfs:no-separator'}

UNICODE_NAMES = ('grüße.txt', '文件.txt', 'naïve café.txt', 'emoji-😀.txt', 'ελληνικά.txt', 'İıß.txt')


def link_text(targets, suffix):
    return 'msdfs:' + ','.join(target.format(s=suffix) for target in targets)


def make_link(path, text):
    """An msdfs link is a symlink whose text is 'msdfs:HOST/SHARE[/PATH][,HOST/SHARE...]'."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    temporary = path + '.new'
    os.symlink(text, temporary)
    os.rename(temporary, path)


def big_file(path, size_bytes):
    """Reproducible, incompressible bytes. Returns their SHA-256."""
    with open(path, 'wb') as file:
        cipher = subprocess.Popen(
            ['openssl', 'enc', '-aes-128-ctr', '-K', '0' * 31 + '1', '-iv', '0' * 32, '-in', '/dev/zero'],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        digest, left = hashlib.sha256(), size_bytes
        while left:
            block = cipher.stdout.read(min(left, 1 << 20))
            if not block:
                raise RuntimeError('openssl ended early')
            file.write(block)
            digest.update(block)
            left -= len(block)
        cipher.kill()
        cipher.wait()
        cipher.stdout.close()
    return digest.hexdigest()


def write(path, text):
    with open(path, 'w') as file:
        file.write(text)


def seed_target(folder, target, big_source):
    """`folder`/share and `folder`/bench of one target."""
    share = f'{folder}/share'
    for name in ('sub/deep', 'many', 'empty-dir'):
        os.makedirs(f'{share}/{name}')
    os.makedirs(f'{folder}/bench/copy/sub')
    for copy in (share, f'{folder}/bench/copy'):
        write(f'{copy}/hello.txt', 'the same on every target\n')
        write(f'{copy}/who', target + '\n')         # Differs in content alone: size and time are the same.
        write(f'{copy}/whoami.txt', target + '\n')
    write(f'{share}/sub/deep/leaf.txt', 'below a share\n')
    write(f'{share}/empty.txt', '')
    write(f'{share}/differs.txt', 'x' * (100 + int(target[1:])))
    os.makedirs(f'{share}/only-{target}')
    write(f'{share}/only-{target}/file.txt', target + '\n')
    write(f'{share}/only-{target}.txt', target + '\n')
    for name in UNICODE_NAMES:
        write(f'{share}/{name}', name + '\n')
    write(f'{share}/{"n" * 251}.txt', 'a name of 255 characters\n')
    for number in range(200):
        write(f'{share}/many/f{number:04}', '')
    with open(f'{share}/sparse.bin', 'wb') as file:
        file.write(b'head')
        file.seek(4 << 20)
        file.write(b'middle')
        file.truncate(16 << 20)
    os.symlink('hello.txt', f'{share}/symlink-to-file')
    os.symlink('sub', f'{share}/symlink-to-dir')
    os.symlink('nowhere', f'{share}/symlink-dangling')
    if big_source:
        subprocess.run(['cp', big_source, f'{share}/big.bin'], check=True)


def settle(folder):
    """Owner, mode and times as every target has them."""
    for top, folders, files in os.walk(folder, topdown=False):
        for name in files + folders:
            path = f'{top}/{name}'
            os.chown(path, OWNER, OWNER, follow_symlinks=False)
            if not os.path.islink(path):
                os.chmod(path, 0o777 if name in folders else 0o666)
            os.utime(path, (SEED_TIME, SEED_TIME), follow_symlinks=False)
    os.chown(folder, OWNER, OWNER)
    os.chmod(folder, 0o777)


def seed_root(folder, root, suffix):
    os.makedirs(f'{folder}/plain-dir')
    os.chmod(folder, 0o777)
    os.chmod(f'{folder}/plain-dir', 0o777)
    write(f'{folder}/readme.txt', f'a file in {root} itself\n')
    for name, targets in LINKS[root].items():
        make_link(f'{folder}/{name}', link_text(targets, suffix))
    for name, text in BROKEN_LINKS.items():
        os.symlink(text, f'{folder}/{name}')


def tree(folder, directories, files):
    """`directories` folders with `files` small files each."""
    for d in range(directories):
        os.makedirs(f'{folder}/d{d:03}')
        for f in range(files):
            write(f'{folder}/d{d:03}/f{f:04}.txt', f'{d} {f}\n')


def entries(folder, count):
    """One folder with `count` empty files."""
    os.makedirs(folder)
    at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    for number in range(count):
        os.close(os.open(f'entry-{number:06}', os.O_WRONLY | os.O_CREAT, 0o666, dir_fd=at))
    os.close(at)
