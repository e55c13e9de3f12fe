#!/usr/bin/python3
"""Each decoder's corpus alone reaches at least 90 % of the decoder's lines. Part of `make test SUITE=long`.

A decoder is what x_fuzz.cc includes of its own folder: y.h stands for y.h and y.cc.
"""

import json
import os
import re
import shutil
import subprocess
import sys

import repository

LIMIT_PERCENT = 90
TREE = 'build/coverage'
INCLUDE = re.compile(r'^#include "(node-agent/[^"]+)\.h"', re.MULTILINE)


def run(*argv, env=None):
    return subprocess.run(argv, cwd=repository.ROOT, check=True, capture_output=True, text=True,
                          env={**os.environ, **(env or {})}).stdout


def decoder_files(source):
    """The files that the fuzz target `source` is about."""
    folder = os.path.dirname(source)
    stems = [stem for stem in INCLUDE.findall(repository.read(source))
             if os.path.dirname(stem) == folder]
    return sorted(stem + end for stem in stems for end in ('.h', '.cc')
                  if os.path.exists(os.path.join(repository.ROOT, stem + end)))


def measure(name, corpus, files):
    """(lines covered, lines) of `files` after the corpus has run once."""
    profile = f'{TREE}/{name}.profraw'
    program = f'{TREE}/fuzz/{name}'
    run(program, corpus, env={'LLVM_PROFILE_FILE': profile})
    run('llvm-profdata-19', 'merge', '-sparse', profile, '-o', profile + '.merged')
    report = json.loads(run('llvm-cov-19', 'export', '-summary-only', '-instr-profile',
                            profile + '.merged', program, *files))
    lines = report['data'][0]['totals']['lines']
    return lines['covered'], lines['count']


def main():
    launcher = [] if shutil.which('ccache') else ['-DCMAKE_CXX_COMPILER_LAUNCHER=']
    subprocess.run(['cmake', '--preset', 'coverage', '-Wno-dev', *launcher], cwd=repository.ROOT,
                   check=True, stdout=subprocess.DEVNULL)
    with open(os.path.join(repository.ROOT, TREE, 'fuzz_targets.txt')) as file:
        targets = [line.split() for line in file if line.strip()]
    subprocess.run(['cmake', '--build', '--preset', 'coverage', '--target', *[n for n, _ in targets]],
                   cwd=repository.ROOT, check=True, stdout=subprocess.DEVNULL)
    by_corpus = {os.path.relpath(corpus, repository.ROOT): name for name, corpus in targets}
    findings, checked = [], 0
    for source in repository.files('*_fuzz.cc'):
        corpus = source[:-len('.cc')] + '_corpus'
        files = decoder_files(source)
        if corpus not in by_corpus or not files:
            findings.append(f'{source}: no target with {corpus}, or it includes nothing of its folder')
            continue
        covered, count = measure(by_corpus[corpus], corpus, files)
        percent = 100 * covered / count if count else 0
        print(f'{percent:5.1f} % of {count:5} lines  {source}')
        checked += 1
        if percent < LIMIT_PERCENT:
            findings.append(f'{source}: its corpus covers {percent:.1f} % of {" ".join(files)}')
    return repository.report(findings, checked)


if __name__ == '__main__':
    sys.exit(main())
