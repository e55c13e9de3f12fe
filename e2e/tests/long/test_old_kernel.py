"""Under Debian 12's own kernel (6.1), in an emulated guest (lab/guest.py): what waits for frozen servers can be ended,
and agents die under writers and readers. Without bounds of time: emulation is slow."""

import os
import re

import pytest

from lab.guest import PACKAGES, Guest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
KILLS = int(os.environ.get('DFSCSI_GUEST_KILLS', '50'))
# Nobody's bound is to be missed by a machine that is twenty times slower and was given 12 s for 1 s.
SLACK = 120
SCRIPT = '''
cd {root} || exit 1
export DFSCSI_BOUND_SLACK={slack} DFSCSI_KILLS={kills} DFSCSI_OUTAGE=8 DFSCSI_BIN_DIR={bin}
uname -r
/usr/bin/python3 -m pytest -c e2e/tests/pytest.ini --rootdir e2e/tests -q --tb=short {tests} 2>&1
'''


@pytest.fixture(scope='module', name='guest')
def make_guest():
    lacks = Guest.missing()
    if lacks and os.environ.get('CI') == 'true':
        pytest.fail(f'no {", ".join(lacks)}')
    if lacks:
        pytest.skip(f'no {", ".join(lacks)}: apt-get install {PACKAGES}')
    return Guest(os.path.join(ROOT, 'build', 'guest'))


@pytest.mark.parametrize('tests', [
    'e2e/tests/test_killable.py',
    'e2e/tests/death/test_takeover.py -k "kill_under or mounter_dies"',
    'e2e/tests/death/test_death_writers.py -k kill_under',
], ids=['killable', 'readers', 'writers'])
def test_on_the_older_kernel(guest, tests):
    bin_dir = os.environ.get('DFSCSI_BIN_DIR', os.path.join(ROOT, 'build', 'bin'))
    code, text = guest.run(SCRIPT.format(root=ROOT, slack=SLACK, kills=KILLS, bin=bin_dir, tests=tests), seconds=5400)
    print(text)
    assert re.search(r'^6\.1\.', text, re.MULTILINE), text
    assert code == 0 and re.search(r'\d+ passed', text) and 'skipped' not in text, text
