"""test_programs.py at length: thousands of files, each program once plain, once while its server dies again and
again, once while the agent is killed every third of a second."""

import os

import pytest

import test_programs
from test_programs import (LAB, MOUNT, PROGRAMS, Program, mount_for_writing, trouble,  # noqa: F401  pylint: disable=unused-import
                           test_sqlite_while_something_dies)

FILES = {'git': 3000, 'tar': 3000, 'rsync': 3000,
         'packages': int(os.environ.get('DFSCSI_PROGRAM_PACKAGE_FILES', '20000'))}
test_programs.TRANSACTIONS, test_programs.PATIENCE = 3000, 3600


@pytest.mark.parametrize('kind', ['plain', 'server', 'agent'])
@pytest.mark.parametrize('program', PROGRAMS)
def test_program_at_length(lab, mounted, program, kind):
    with Program(lab, 'user_programs.py', '--files', str(FILES[program]), program, MOUNT) as run:
        faults = 0 if kind == 'plain' else trouble(lab, mounted, kind, run)
        run.check(3600)
    assert kind == 'plain' or faults >= 3
