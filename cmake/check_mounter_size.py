#!/usr/bin/python3
"""dfs-mounter, the only privileged program, stays under 1,000 lines of code.

Counted: node-agent/mounter/ without tests (x_test.cc, test_x.cc), without blank lines and comments.
"""

import re

import repository

LIMIT = 1000
FOLDER = 'node-agent/mounter'
NOT_CODE = re.compile(r'(_test|_fuzz|_bench)\.cc$|/test_[a-z_]*\.(h|cc)$')
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
    repository.main(check, self_test)
