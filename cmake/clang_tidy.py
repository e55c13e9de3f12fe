#!/usr/bin/python3
"""clang-tidy (.clang-tidy) over every C++ source of the release build. Part of `make lint`.

  clang_tidy.py [PATH...]   only those sources
"""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import repository

TIDY = 'clang-tidy-19'
TREE = 'build/release'


def tidy(path):
    # A test may be slow, and looks at objects that were moved from to see that they are empty.
    less = ['--checks=-performance-*,-bugprone-use-after-move'] if path.endswith('_test.cc') else []
    run = subprocess.run([TIDY, '-p', TREE, '--quiet', '--warnings-as-errors=*', *less, path],
                         cwd=repository.ROOT, capture_output=True, text=True)
    return path, run.returncode, run.stdout + (run.stderr if run.returncode else '')


def main():
    with open(os.path.join(repository.ROOT, TREE, 'compile_commands.json')) as file:
        compiled = {os.path.relpath(os.path.join(c['directory'], c['file']), repository.ROOT)
                    for c in json.load(file)}
    paths = sorted(compiled & set(sys.argv[1:] or repository.files('*.cc')))
    findings = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for path, code, output in pool.map(tidy, paths):
            if code:
                print(output)
                findings.append(f'{path}: clang-tidy has findings')
    return repository.report(findings, len(paths))


if __name__ == '__main__':
    sys.exit(main())
