"""What the repository checks share: the list of files, and how a finding is reported."""

import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def files(*patterns):
    """Paths from the root of what is, or is about to be, under version control."""
    listing = subprocess.run(
        ['git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard', '--', *patterns],
        cwd=ROOT, capture_output=True, text=True, check=True)
    return sorted(path for path in set(listing.stdout.split('\0'))
                  if path and os.path.isfile(os.path.join(ROOT, path)))


def read(path):
    with open(os.path.join(ROOT, path), encoding='utf-8') as file:
        return file.read()


def report(findings, checked):
    """Prints the findings and returns the exit code. A check that looked at nothing has failed."""
    for finding in findings:
        print(finding)
    if not checked:
        print('nothing to check: is this the right folder?')
        return 1
    print(f'{checked} checked, {len(findings)} findings')
    return 1 if findings else 0


def main(check, self_test):
    """`--self-test` plants violations and expects each to be found."""
    sys.exit(self_test() if sys.argv[1:] == ['--self-test'] else check())
