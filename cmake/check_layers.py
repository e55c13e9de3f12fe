#!/usr/bin/python3
"""Includes point one way: base, runtime, state < smb < dfs < vfs < fuse < agent.

Also: Asio is seen only by runtime/, libfuse only by fuse/ (and testing/), GSSAPI only by smb/auth/. The linker says the
same for functions (a folder's tests link its DEPS only); this check says it for headers.
"""

import re

import repository

# Folder of node-agent/: the folders that it may include, besides itself.
BELOW_SMB = {'base', 'runtime', 'state'}
SMB = BELOW_SMB | {'smb', 'smb/wire'}
MAY_INCLUDE = {
    'base': set(),
    'runtime': {'base'},
    'state': {'base'},  # The mounter links it, so it must not bring the event loop along.
    'smb/wire': {'base'},
    'smb': BELOW_SMB | {'smb/wire'},
    'smb/auth': SMB,  # Implements smb's Authenticator; only programs know that it is this one.
    'dfs': SMB,
    'vfs': SMB | {'dfs'},
    'fuse': SMB | {'dfs', 'vfs'},
    'agent': SMB | {'smb/auth', 'dfs', 'vfs', 'fuse'},
    'mounter': {'base', 'state'},
    'notifier': {'base', 'state'},
    # agent: failure.h, for exit codes. That it is nothing else, the linker sees.
    'dfsctl': SMB | {'smb/auth', 'dfs', 'agent'},
}
# Included by tests only; sees every layer.
TESTING = 'testing'

# What may be included only in one folder: pattern of the include, folders, name.
ONLY_IN = [
    (re.compile(r'^asio(/|\.hpp)'), {'runtime'}, 'Asio'),
    (re.compile(r'^(fuse3/.*|fuse\.h|fuse_lowlevel\.h|fuse_opt\.h|fuse_common\.h)$'), {'fuse', 'testing'}, 'libfuse'),
    (re.compile(r'^gssapi(/|\.h)'), {'smb/auth'}, 'GSSAPI'),
]
INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', re.MULTILINE)
FOR_TESTS = re.compile(r'(_test|_fuzz|_bench)\.cc$|_test_[a-z_]*\.h$')


def folder_of(path):
    """The layer of a path below node-agent/ ('smb/wire', 'dfs', ...), or None outside it."""
    parts = path.split('/')
    if parts[0] != 'node-agent' or len(parts) < 3:
        return None
    nested = '/'.join(parts[1:3])
    return nested if nested in MAY_INCLUDE else parts[1]


def findings_in(path, text):
    """Every include of `text` that the file `path` may not have."""
    folder = folder_of(path)
    if folder is None:
        return []
    if folder != TESTING and folder not in MAY_INCLUDE:
        return [f'{path}: node-agent/{folder} is no layer; add it to cmake/check_layers.py']
    found = []
    for match in INCLUDE.finditer(text):
        included = match.group(1)
        line = text.count('\n', 0, match.start(1)) + 1
        for pattern, folders, name in ONLY_IN:
            if pattern.match(included) and folder not in folders:
                found.append(f'{path}:{line}: {name} belongs to {", ".join(sorted(folders))}/ only')
        target = folder_of(included)
        if included.startswith('driver/'):
            found.append(f'{path}:{line}: the agent does not know the driver ({included})')
        if target is None or target == folder or folder == TESTING:
            continue
        if target == TESTING:
            if not FOR_TESTS.search(path):
                found.append(f'{path}:{line}: only tests include {included}')
        elif target not in MAY_INCLUDE[folder]:
            found.append(f'{path}:{line}: {folder} may not include {included}')
    return found


def check():
    findings, checked = [], 0
    for path in repository.files('node-agent/*.h', 'node-agent/*.cc', 'node-agent/*.c'):
        findings += findings_in(path, repository.read(path))
        checked += 1
    return repository.report(findings, checked)


PLANTED = [
    # (path, include, is a violation)
    ('node-agent/smb/connection.cc', '#include "node-agent/dfs/resolver.h"', True),
    ('node-agent/smb/connection.cc', '#include "node-agent/runtime/task.h"', False),
    ('node-agent/base/secret.h', '#include "node-agent/runtime/task.h"', True),
    ('node-agent/state/arena.h', '#include "node-agent/runtime/task.h"', True),
    ('node-agent/mounter/main.cc', '#include "node-agent/smb/connection.h"', True),
    ('node-agent/mounter/main.cc', '#include "node-agent/state/arena.h"', False),
    ('node-agent/dfs/resolver.cc', '#  include <asio/awaitable.hpp>', True),
    ('node-agent/dfs/resolver.cc', '#include <asio.hpp>', True),
    ('node-agent/runtime/real_loop.cc', '#include "asio/io_context.hpp"', False),
    ('node-agent/vfs/inode.cc', '#include <fuse_lowlevel.h>', True),
    ('node-agent/vfs/inode.cc', '#include <fuse3/fuse.h>', True),
    ('node-agent/mounter/init.cc', '#include <linux/fuse.h>', False),
    ('node-agent/fuse/session.cc', '#include <fuse_lowlevel.h>', False),
    ('node-agent/smb/session.cc', '#include <gssapi/gssapi.h>', True),
    ('node-agent/smb/wire/header.h', '#include "node-agent/smb/connection.h"', True),
    ('node-agent/dfs/client.cc', '#include "node-agent/smb/auth/gss_authenticator.h"', True),
    ('node-agent/dfs/resolver.cc', '#include "node-agent/testing/fault_point.h"', True),
    ('node-agent/dfs/resolver_test.cc', '#include "node-agent/testing/fault_point.h"', False),
    ('node-agent/fuse/session.cc', '#include "driver/node.h"', True),
    ('node-agent/common/strings.h', '', True),
]


def self_test():
    wrong = [f'{path} with {include!r}: expected {"a" if bad else "no"} finding'
             for path, include, bad in PLANTED if bool(findings_in(path, include + '\n')) != bad]
    return repository.report(wrong, len(PLANTED))


if __name__ == '__main__':
    repository.main(check, self_test)
