#!/usr/bin/python3
"""Every C++ and proto file is as clang-format-19 would write it. To repair: make lint says how."""

import subprocess

import repository

FORMAT = 'clang-format-19'


def check():
    paths = repository.files('*.h', '*.cc', '*.proto')
    findings = []
    for start in range(0, len(paths), 100):
        run = subprocess.run([FORMAT, '--dry-run', '-Werror', *paths[start:start + 100]],
                             cwd=repository.ROOT, capture_output=True, text=True)
        bad = sorted({line.split(':', 1)[0] for line in run.stderr.splitlines()
                      if 'code should be clang-formatted' in line})
        findings += [f'{FORMAT} -i {path}' for path in bad]
        if run.returncode and not bad:
            findings.append(run.stderr.strip())
    return repository.report(findings, len(paths))


def self_test():
    findings = []
    for text, good in (('int a;\n', True), ('int   a ;\n', False)):
        run = subprocess.run([FORMAT, '--dry-run', '-Werror', '--assume-filename=a.cc'], input=text,
                             cwd=repository.ROOT, capture_output=True, text=True)
        if (run.returncode == 0) != good:
            findings.append(f'{text!r}: exit code {run.returncode}')
    return repository.report(findings, 2)


if __name__ == '__main__':
    repository.main(check, self_test)
