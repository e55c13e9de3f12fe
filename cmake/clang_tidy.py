#!/usr/bin/python3
"""clang-tidy (.clang-tidy) over every C++ source of the release build. Part of `make lint`.

  clang_tidy.py [PATH...]   only those sources

A source that had no findings is not looked at again until it, a header that it includes, its compile
command or the settings change: build/lint/ holds an empty file for each clean one, named after a hash of
all that. What a source includes is what ninja remembers of compiling it: build first (`make lint` does).
"""

import functools
import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import repository

TIDY = 'clang-tidy-19'
TREE = 'build/release'
STAMPS = os.path.join(repository.ROOT, 'build', 'lint')
KEPT_DAYS = 30


def checks(path):
    # A test may be slow, and looks at objects that were moved from to see that they are empty; its coroutines
    # end before the function that holds what they refer to.
    if not re.search(r'(_test|_bench|/test_[a-z_]+)\.cc$', path):
        return []
    return ['--checks=-performance-*,-bugprone-use-after-move,'
            '-cppcoreguidelines-avoid-reference-coroutine-parameters,'
            '-cppcoreguidelines-avoid-capturing-lambda-coroutines']


def tidy(path):
    run = subprocess.run([TIDY, '-p', TREE, '--quiet', '--warnings-as-errors=*', *checks(path), path],
                         cwd=repository.ROOT, capture_output=True, text=True)
    return run.returncode, run.stdout + (run.stderr if run.returncode else '')


@functools.lru_cache(maxsize=None)
def fingerprint(path):
    """Of a file: its content, or, of what is not ours, its size and time."""
    try:
        if os.path.commonpath([path, repository.ROOT]) != repository.ROOT:
            status = os.stat(path)
            return f'{status.st_size} {status.st_mtime_ns}'
        with open(path, 'rb') as file:
            return hashlib.sha256(file.read()).hexdigest()
    except OSError:
        return 'missing'


def read_dependencies(text, folder):
    """{object: [path]} of `ninja -t deps`."""
    found, current = {}, None
    for line in text.splitlines():
        if line.startswith(' '):
            found[current].append(os.path.normpath(os.path.join(folder, line.strip())))
        elif ': #deps' in line:
            current = line.split(': #deps')[0]
            found[current] = []
    return found


def output_of(command):
    words = shlex.split(command)
    return words[words.index('-o') + 1]


def key_of(path, command, dependencies, settings):
    """What a clean result depends on; None: not known."""
    if not dependencies:
        return None
    parts = [settings, path, command, *checks(path),
             *(f'{name} {fingerprint(name)}' for name in sorted(set(dependencies)))]
    return hashlib.sha256('\n'.join(parts).encode()).hexdigest()


def sources():
    """{path: key} of what the release build compiles."""
    tree = os.path.join(repository.ROOT, TREE)
    deps = read_dependencies(subprocess.run(['ninja', '-C', tree, '-t', 'deps'], capture_output=True,
                                            text=True, check=True).stdout, tree)
    settings = repository.read('.clang-tidy') + subprocess.run(
        [TIDY, '--version'], capture_output=True, text=True, check=True).stdout
    with open(os.path.join(tree, 'compile_commands.json')) as file:
        commands = json.load(file)
    found = {}
    for entry in commands:
        path = os.path.relpath(os.path.join(entry['directory'], entry['file']), repository.ROOT)
        found[path] = key_of(path, entry['command'], deps.get(output_of(entry['command'])), settings)
    return found


def forget_old_stamps():
    for name in os.listdir(STAMPS):
        stamp = os.path.join(STAMPS, name)
        if time.time() - os.stat(stamp).st_mtime > KEPT_DAYS * 86400:
            os.unlink(stamp)


def main():
    os.makedirs(STAMPS, exist_ok=True)
    keys = sources()
    paths = sorted(set(keys) & set(sys.argv[1:] or repository.files('*.cc')))

    def look(path):
        stamp = os.path.join(STAMPS, keys[path]) if keys[path] else None
        if stamp and os.path.exists(stamp):
            os.utime(stamp)
            return path, 0, '', True
        code, output = tidy(path)
        if stamp and code == 0:
            with open(stamp, 'w'):
                pass
        return path, code, output, False

    findings, known = [], 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for path, code, output, clean_before in pool.map(look, paths):
            known += clean_before
            if code:
                print(output, flush=True)
                findings.append(f'{path}: clang-tidy has findings')
    forget_old_stamps()
    print(f'{known} of {len(paths)} were clean before and have not changed')
    return repository.report(findings, len(paths))


PLANTED = 'a.o: #deps 2, deps mtime 1 (VALID)\n    ../../a.cc\n    /usr/include/b.h\n\nc.o: #deps 0, deps mtime 1 (STALE)\n'


def self_test():
    """A change of whatever a result depends on changes its key."""
    wrong = []
    want = {'a.o': [os.path.join(repository.ROOT, 'a.cc'), '/usr/include/b.h'], 'c.o': []}
    if read_dependencies(PLANTED, os.path.join(repository.ROOT, TREE)) != want:
        wrong.append('ninja -t deps is read wrongly')
    here = [os.path.abspath(__file__)]
    same = key_of('a.cc', 'cc', here, 's')
    keys = {same, key_of('b.cc', 'cc', here, 's'), key_of('a.cc', 'cc -O', here, 's'),
            key_of('a.cc', 'cc', here, 't'), key_of('a_test.cc', 'cc', here, 's'),
            key_of('a.cc', 'cc', here + [os.path.abspath(repository.__file__)], 's')}
    if len(keys) != 6 or key_of('a.cc', 'cc', here * 2, 's') != same:
        wrong.append('a key misses something, or depends on what does not matter')
    if output_of('clang++ -DA=\\"0.1\\" -O2 -o a/b.cc.o -c /x/b.cc') != 'a/b.cc.o':
        wrong.append('the output of a command is read wrongly')
    if key_of('a.cc', 'cc', [], 's') is not None:
        wrong.append('a source whose headers are unknown has a key')
    return repository.report(wrong, 4)


if __name__ == '__main__':
    sys.exit(self_test() if sys.argv[1:] == ['--self-test'] else main())
