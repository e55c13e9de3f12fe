"""One case of posix_table.py."""

import dataclasses


# Why a row differs. Those of `smb` stay so.
KINDS = {
    'smb': 'SMB does not have it',
    'later': 'Not there yet',
    'defect': 'Wrong, and known',
}


@dataclasses.dataclass
class Row:
    name: str
    code: str
    local: object        # The outcome on a local disk.
    mount: object = None  # The outcome on the mount; None: the same.
    why: str = ''        # Why it differs.
    kind: str = 'smb'    # One of KINDS.


def smb(mount, why):
    return {'mount': mount, 'why': why}


def later(mount, why):
    return {'mount': mount, 'why': why, 'kind': 'later'}


def defect(mount, why):
    return {'mount': mount, 'why': why, 'kind': 'defect'}
