#!/usr/bin/python3
"""user_programs.py [--files N] [--lie] PROGRAM FOLDER: does in FOLDER what people do there, and compares what then
lies there with a copy on the local disk. PROGRAM:

  git      clone, fsck, a commit, a branch and back, gc, fsck
  tar      unpack, compare, pack again
  rsync    copy with checksums, again (nothing to do), after changes, with --delete
  packages N small files, as a package installer does: written under other names, folders renamed into place,
           read back, removed

Exit code: 0 all as it must be; 1 something differs or a program failed (the last lines say what).
--lie: one byte is changed behind the program's back, which must be found.
"""

import argparse
import hashlib
import os
import random
import shutil
import subprocess
import sys
import tempfile

GIT = {'GIT_CONFIG_GLOBAL': '/dev/null', 'GIT_CONFIG_SYSTEM': '/dev/null', 'GIT_AUTHOR_NAME': 'a', 'GIT_AUTHOR_EMAIL': 'a@b',
       'GIT_COMMITTER_NAME': 'a', 'GIT_COMMITTER_EMAIL': 'a@b', 'GIT_TERMINAL_PROMPT': '0'}


class Wrong(Exception):
    """Something is not as it must be."""


def call(*command, cwd=None):
    done = subprocess.run(command, cwd=cwd, env={**os.environ, **GIT}, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode != 0:
        output = (done.stdout + done.stderr).decode(errors='replace')
        raise Wrong(f'{" ".join(command)}: exit code {done.returncode}\n{output[-2000:]}')
    return done.stdout.decode(errors='replace')


def fill(folder, files, draw):
    """Some big files, many small ones, empty ones, deep folders."""
    for number in range(files):
        path = f'{folder}/{draw.choice("abc")}/{draw.randrange(8)}/file{number}.txt'
        os.makedirs(os.path.dirname(path), exist_ok=True)
        size = 0 if number % 20 == 0 else 300_000 if number % 100 == 50 else draw.randrange(4000)
        with open(path, 'wb') as file:
            file.write(draw.randbytes(size))


def digests(folder, skip=()):
    """{path: digest of the content, or 'folder'}"""
    found = {}
    for parent, folders, files in os.walk(folder, onerror=throw):
        folders[:] = [name for name in folders if name not in skip]
        for name in folders:
            found[os.path.relpath(f'{parent}/{name}', folder)] = 'folder'
        for name in files:
            with open(f'{parent}/{name}', 'rb') as file:
                found[os.path.relpath(f'{parent}/{name}', folder)] = hashlib.sha256(file.read()).hexdigest()
    return found


def throw(error):
    raise error


def must_be_same(folder, local, skip=()):
    here, there = digests(folder, skip), digests(local, skip)
    differing = sorted(path for path in {*here, *there} if here.get(path) != there.get(path))
    if differing:
        raise Wrong(f'{folder} and {local}: {len(differing)} of {len(there)} differ: {differing[:5]}')
    if not there:
        raise Wrong(f'{local} is empty')


def run_git(folder, local, files, draw, lie):
    origin = f'{local}/origin'
    os.mkdir(origin)
    call('git', 'init', '-q', '-b', 'main', cwd=origin)
    for number in range(3):
        fill(f'{origin}/{number}', files // 3 + 1, draw)
        call('git', 'add', '-A', cwd=origin)
        call('git', 'commit', '-q', '-m', f'part {number}', cwd=origin)
    clone = f'{folder}/clone'
    call('git', 'clone', '-q', '--no-local', origin, clone)
    call('git', 'fsck', '--full', '--strict', cwd=clone)
    call('git', 'config', 'core.fileMode', 'false', cwd=clone)  # The mount's modes are its own.
    call('git', 'checkout', '-q', '-b', 'other', 'HEAD~1', cwd=clone)
    call('git', 'checkout', '-q', 'main', cwd=clone)
    with open(f'{clone}/new', 'w') as file:
        file.write('new')
    call('git', 'add', 'new', cwd=clone)
    call('git', 'commit', '-q', '-m', 'one more', cwd=clone)
    call('git', 'gc', '-q', '--prune=now', cwd=clone)
    lie(clone)
    call('git', 'fsck', '--full', '--strict', cwd=clone)
    if call('git', 'status', '--porcelain', cwd=clone):
        raise Wrong('git status: ' + call('git', 'status', '--porcelain', cwd=clone)[:500])
    call('git', 'fetch', '-q', clone, 'main', cwd=origin)
    call('git', 'merge', '-q', '--ff-only', 'FETCH_HEAD', cwd=origin)
    must_be_same(clone, origin, skip=('.git',))


def run_tar(folder, local, files, draw, lie):
    fill(f'{local}/tree', files, draw)
    call('tar', '-cf', f'{local}/first.tar', '-C', local, 'tree')
    call('tar', '-xf', f'{local}/first.tar', '--no-same-owner', '--no-same-permissions', '-C', folder)
    lie(f'{folder}/tree')
    must_be_same(f'{folder}/tree', f'{local}/tree')
    # Modes and owners are those of the mount.
    compared = subprocess.run(['tar', '-df', f'{local}/first.tar', '-C', folder], stdout=subprocess.PIPE, text=True)
    told = [line for line in compared.stdout.splitlines() if not line.endswith(('Mode differs', 'Uid differs', 'Gid differs'))]
    if told:
        raise Wrong(f'tar -d: {told[:5]}')
    call('tar', '-cf', f'{folder}/second.tar', '-C', folder, 'tree')
    os.mkdir(f'{local}/again')
    call('tar', '-xf', f'{folder}/second.tar', '-C', f'{local}/again')
    must_be_same(f'{local}/again/tree', f'{local}/tree')


def run_rsync(folder, local, files, draw, lie):
    fill(f'{local}/tree', files, draw)
    # Modes and owners are those of the mount; times have a resolution of 100 ns.
    rsync = ['rsync', '-rltD', '--checksum', '--itemize-changes', f'{local}/tree/', f'{folder}/copy/']
    call(*rsync)
    again = call(*rsync)
    if again:
        raise Wrong(f'rsync finds something to do again: {again[:500]}')
    paths = sorted(path for path, what in digests(f'{local}/tree').items() if what != 'folder')
    for path in draw.sample(paths, len(paths) // 4):
        if draw.randrange(2):
            os.unlink(f'{local}/tree/{path}')
        else:
            with open(f'{local}/tree/{path}', 'ab') as file:
                file.write(b'more')
    call(*rsync, '--delete')
    lie(f'{folder}/copy')
    must_be_same(f'{folder}/copy', f'{local}/tree')


def run_packages(folder, local, files, draw, lie):
    """A package: a folder of ten files."""
    fill_package = [(f'package{number // 10}', f'{draw.choice("xyz")}/file{number}.js', draw.randbytes(draw.randrange(3000)))
                    for number in range(files)]
    for root in (folder, local):
        for number, (package, name, content) in enumerate(fill_package):
            path = f'{root}/modules/.{package}-tmp/{name}'
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path + '.part', 'wb') as file:
                file.write(content)
            os.rename(path + '.part', path)
            if number % 10 == 9 or number + 1 == len(fill_package):
                os.rename(f'{root}/modules/.{package}-tmp', f'{root}/modules/{package}')
    lie(f'{folder}/modules')
    must_be_same(f'{folder}/modules', f'{local}/modules')
    shutil.rmtree(f'{folder}/modules')
    if os.listdir(folder):
        raise Wrong(f'left in {folder}: {os.listdir(folder)}')


def change_a_byte(folder):
    for parent, _, files in os.walk(folder):
        for name in files:
            path = f'{parent}/{name}'
            if os.path.getsize(path) > 100:
                os.chmod(path, 0o644)
                with open(path, 'r+b') as file:
                    file.seek(60)
                    byte = file.read(1)[0]
                    file.seek(60)
                    file.write(bytes([byte ^ 1]))
                return


PROGRAMS = {'git': run_git, 'tar': run_tar, 'rsync': run_rsync, 'packages': run_packages}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--files', type=int, default=200)
    parser.add_argument('--lie', action='store_true')
    parser.add_argument('program', choices=PROGRAMS)
    parser.add_argument('folder')
    arguments = parser.parse_args()
    folder = f'{arguments.folder}/{arguments.program}-{os.getpid()}'
    os.mkdir(folder)
    with tempfile.TemporaryDirectory() as local:
        try:
            PROGRAMS[arguments.program](folder, local, arguments.files, random.Random(arguments.files),
                                        change_a_byte if arguments.lie else lambda _: None)
        except (Wrong, OSError) as error:
            print(f'{arguments.program}: {error}')
            return 1
    shutil.rmtree(folder)
    return 0


if __name__ == '__main__':
    sys.exit(main())
