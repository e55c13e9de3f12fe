#!/usr/bin/python3
"""No file, folder or type is called manager, helper or util: say what it does (docs/glossary.md)."""

import os
import re

import repository

FORBIDDEN = {'manager', 'managers', 'helper', 'helpers', 'util', 'utils', 'utility', 'utilities'}
TYPE = re.compile(r'^\s*(?:template\s*<[^>]*>\s*)?(?:class|struct|enum(?:\s+class)?|union|concept|using|message|service)\s+'
                  r'(?:ABSL_\w+\s+|\[\[\w+\]\]\s+)?([A-Za-z_]\w*)', re.MULTILINE)
WORD = re.compile(r'[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+')


def words(name):
    return {word.lower() for word in WORD.findall(name)}


def findings_in(path, text):
    found = []
    bad = words(path) & FORBIDDEN
    if bad:
        found.append(f'{path}: "{bad.pop()}" in its name')
    if path.endswith(('.h', '.cc', '.proto', '.py')):
        for match in TYPE.finditer(text):
            bad = words(match.group(1)) & FORBIDDEN
            if bad:
                line = text.count('\n', 0, match.start(1)) + 1
                found.append(f'{path}:{line}: type {match.group(1)} has "{bad.pop()}" in its name')
    return found


def check():
    findings, checked = [], 0
    for path in repository.files('node-agent', 'driver', 'proto', 'e2e', 'cmake', 'docs'):
        text = repository.read(path) if os.path.splitext(path)[1] in ('.h', '.cc', '.proto', '.py') else ''
        findings += findings_in(path, text)
        checked += 1
    return repository.report(findings, checked)


PLANTED = [
    ('node-agent/smb/string_utils.h', '', True),
    ('node-agent/util/a.cc', '', True),
    ('node-agent/smb/session.h', 'class SessionManager {', True),
    ('node-agent/smb/session.h', 'enum class HelperKind { kA };', True),
    ('node-agent/smb/session.h', '// This class manager of things\nclass Session final {', False),
    ('node-agent/smb/utilization.h', 'struct Utilization {', False),
    ('node-agent/smb/session.h', 'template <typename T>\nstruct ListHelper {', True),
    ('proto/agent.proto', 'message MountHelper {', True),
]


def self_test():
    wrong = [f'{path} with {text!r}: expected {"a" if bad else "no"} finding'
             for path, text, bad in PLANTED if bool(findings_in(path, text)) != bad]
    return repository.report(wrong, len(PLANTED))


if __name__ == '__main__':
    repository.main(check, self_test)
