#!/usr/bin/python3
"""dfs-mounter, the only privileged program, stays under 1,000 lines of code and links little.

  check_mounter_size.py               counts the lines
  check_mounter_size.py PROGRAM       looks at what the program links

Counted: node-agent/mounter/ without tests (x_test.cc, test_x.cc), without blank lines and comments.
"""

import re
import subprocess
import sys

import repository

LIMIT = 1000
FOLDER = 'node-agent/mounter'
NOT_CODE = re.compile(r'(_test|_fuzz|_bench)\.cc$|/test_[a-z_]*\.(h|cc)$')
# Shared libraries that a program without SMB, gRPC and libfuse has no use for.
TOO_MUCH = re.compile(r'lib(fuse3|grpc|protobuf|ssl|crypto|gssapi|krb5|cares|prometheus)')
COMMENT_OR_STRING = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"', re.DOTALL)


def code_lines(text):
    def blank(match):
        kept = match.group(0)
        return kept if kept.startswith('"') else '\n' * kept.count('\n')

    return sum(1 for line in COMMENT_OR_STRING.sub(blank, text).splitlines() if line.strip())


def check():
    paths = [path for path in repository.files(f'{FOLDER}/*.h', f'{FOLDER}/*.cc')
             if not NOT_CODE.search(path)]
    sizes = {path: code_lines(repository.read(path)) for path in paths}
    for path, lines in sizes.items():
        print(f'{lines:6} {path}')
    total = sum(sizes.values())
    print(f'{total:6} of at most {LIMIT - 1}')
    findings = [] if total < LIMIT else [f'{FOLDER} has {total} lines of code']
    if 'main.cc' not in {path.rsplit('/', 1)[-1] for path in paths}:
        findings.append(f'{FOLDER}/main.cc is missing: did the program move away from this check?')
    return repository.report(findings, len(paths))


def check_links(program):
    run = subprocess.run(['ldd', program], capture_output=True, text=True, check=True)
    libraries = [line.split()[0] for line in run.stdout.splitlines()]
    return repository.report([f'{program} links {library}' for library in libraries
                              if TOO_MUCH.match(library)], len(libraries))


PLANTED = [
    ('int a;\n\n// Comment.\nint b;  // Another.\n', 2),
    ('/* one\n two */\nint a;\n', 1),
    ('const char* url = "smb://x";\nint b;\n', 2),
    ('const char* s = "/*";\nint a;\nconst char* t = "*/";\n', 3),
    ('x;\n' * LIMIT, LIMIT),
]


def self_test():
    wrong = [f'{text[:40]!r}: counted {code_lines(text)}, expected {lines}'
             for text, lines in PLANTED if code_lines(text) != lines]
    return repository.report(wrong, len(PLANTED))


if __name__ == '__main__':
    if len(sys.argv) == 2 and not sys.argv[1].startswith('--'):
        sys.exit(check_links(sys.argv[1]))
    repository.main(check, self_test)
