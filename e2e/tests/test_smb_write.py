"""The SMB layer's changes against real Samba: each is done by smb-write-probe, and compared with what then lies on
the server's disk. (The mount does not write yet: this is the layer below.)"""

import os
import queue
import subprocess
import threading
import time

import pytest

from lab import CRYPTO

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PROBE = os.environ.get('DFSCSI_WRITE_PROBE', f'{ROOT}/build/release/tests/smb-write-probe')
CREDENTIALS = '/run/write-probe-credentials'
PATIENCE = 60


class Probe:
    """One client: `ask` waits for the answer, `begin` does not."""

    def __init__(self, lab, auth):
        if not os.access(PROBE, os.X_OK):
            pytest.fail(f'{PROBE} is missing: make build')
        path = lab.path('client', CREDENTIALS)
        with open(path, 'w', opener=lambda p, f: os.open(p, f, 0o600)) as file:
            file.write('username=dfsuser\npassword=dfspass\n')
        self._process = lab.popen_in('client', [PROBE, auth, CREDENTIALS], stdin=subprocess.PIPE,
                                     stdout=subprocess.PIPE, text=True, bufsize=1)
        self._number = 0
        self._answers = {}
        self._changed = threading.Condition()
        self.breaks = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self._process.stdout:
            word, _, rest = line.rstrip('\n').partition(' ')
            if word == 'break':
                self.breaks.put(rest)
                continue
            with self._changed:
                self._answers[word] = rest
                self._changed.notify_all()
        with self._changed:
            self._answers[None] = 'the probe ended'
            self._changed.notify_all()

    def begin(self, command):
        self._number += 1
        self._process.stdin.write(f'{self._number} {command}\n')
        self._process.stdin.flush()
        return str(self._number)

    def answer(self, word, seconds=PATIENCE):
        with self._changed:
            assert self._changed.wait_for(lambda: word in self._answers or None in self._answers, seconds), word
            assert word in self._answers, 'the probe ended'
            return self._answers[word]

    def answered(self, word):
        with self._changed:
            return word in self._answers

    def ask(self, command):
        return self.answer(self.begin(command))

    def ok(self, command):
        said = self.ask(command)
        assert said == 'ok' or said.startswith('ok '), f'{command}: {said}'
        return said[3:]

    def refused(self, command):
        said = self.ask(command)
        assert said.startswith('error '), f'{command}: {said}'
        return said.split()[1]

    def next_break(self):
        return self.breaks.get(timeout=PATIENCE)

    def end(self):
        self._process.stdin.close()
        try:
            self._process.wait(PATIENCE)
        finally:
            self._process.kill()
            self._process.wait()
            self._reader.join()
            self._process.stdout.close()


@pytest.fixture(name='probes')
def make_probes(lab, program):
    """probes(2): so many clients, connected to t1's share `bench`."""
    made = []

    def make(count=1):
        for _ in range(count):
            made.append(Probe(lab, program('dfs-auth')))
            made[-1].ok('connect t1 bench')
        return made[-count:] if count > 1 else made[-1]
    yield make
    for probe in made:
        probe.end()


@pytest.fixture(name='disk')
def on_disk(lab):
    """disk('name'): the path of that file of `bench` as it lies on the server."""
    return lambda name: lab.data('t1', f'bench/{name}')


def content(path):
    with open(path, 'rb') as file:
        return file.read()


def filled(offset, size):
    return bytes(((offset + i) * 2654435761 % 2**64 >> 24) & 0xFF for i in range(size))


@pytest.mark.parametrize('variant', ['3.1.1-gmac', '3.1.1-aes-128-gcm', '3.0.2-cmac'])
def test_bytes_arrive_in_place(lab, probes, disk, variant):
    lab.configure('t1', CRYPTO[variant])
    probe = probes()
    name = f'data-{variant}'
    probe.ok(f'open a {name}')
    size = (3 << 20) + 12345
    with lab.capture('t1') as seen:
        probe.ok(f'fill a 777 {size}')
        probe.ok('flush a')
    assert content(disk(name)) == bytes(777) + filled(777, size)
    if 'aes' not in variant:  # 13 pieces of 256 KiB; a capture may miss one where segments meet.
        assert sum('WRITE' in request.commands for request in seen.requests()) >= 12
    probe.ok('write a 10 patched')
    probe.ok('close a')
    assert content(disk(name))[8:20] == b'\0\0patched\0\0\0'


def test_sizes_times_attributes(probes, disk):
    probe = probes()
    probe.ok('open a sized')
    probe.ok('write a 0 0123456789')
    probe.ok('eof a 4')
    assert content(disk('sized')) == b'0123'
    probe.ok('eof a 8')
    assert content(disk('sized')) == b'0123\0\0\0\0'
    probe.ok('mtime a 1600000000')
    assert os.stat(disk('sized')).st_mtime == 1600000000
    probe.ok('close a')
    probe.ok('truncate sized 2')
    assert content(disk('sized')) == b'01'
    probe.ok('chmod sized 1')
    assert int(probe.ok('stat sized').split('attributes=')[1], 16) & 1
    assert probe.refused('open b sized how=open access=2') == 'STATUS_ACCESS_DENIED'
    probe.ok('chmod sized 80')
    probe.ok('open b sized how=open access=2')
    probe.ok('close b')


def test_names(probes, disk):
    probe = probes()
    probe.ok('mkdir dir')
    assert os.path.isdir(disk('dir'))
    assert probe.refused('mkdir dir') == 'STATUS_OBJECT_NAME_COLLISION'
    for name in ('one', 'two'):
        probe.ok(f'open {name} {name} how=create')
        probe.ok(f'write {name} 0 {name}')
        probe.ok(f'close {name}')
    assert probe.refused('open again one how=create') == 'STATUS_OBJECT_NAME_COLLISION'
    assert probe.refused('mv one two') == 'STATUS_OBJECT_NAME_COLLISION'
    probe.ok('mv one two replace')
    assert content(disk('two')) == b'one' and not os.path.exists(disk('one'))
    probe.ok('mv two dir/three')
    probe.ok('mv dir/three dir/THREE')  # Case alone.
    assert os.listdir(disk('dir')) == ['THREE']
    probe.ok('mv dir directory')
    assert probe.refused('rmdir directory') == 'STATUS_DIRECTORY_NOT_EMPTY'
    assert probe.refused('rm directory') == 'STATUS_FILE_IS_A_DIRECTORY'
    assert probe.refused('rm nothing') == 'STATUS_OBJECT_NAME_NOT_FOUND'
    probe.ok('ln directory/THREE linked')
    assert os.stat(disk('linked')).st_ino == os.stat(disk('directory/THREE')).st_ino
    probe.ok('rm directory/THREE')
    probe.ok('rmdir directory')
    probe.ok('rm linked')
    assert not os.path.exists(disk('directory')) and not os.path.exists(disk('linked'))


def test_changes_by_path_are_one_frame_each(lab, probes):
    probe = probes()
    probe.ok('open a framed')
    probe.ok('write a 0 0123456789')
    probe.ok('close a')
    probe.ok('open b first')
    probe.ok('close b')
    probe.ok('rm first')  # Learns what the server knows.
    for command in ('mkdir framed-dir', 'truncate framed 3', 'chmod framed 20', 'mv framed framed2', 'rm framed2',
                    'rmdir framed-dir'):
        with lab.capture('t1') as seen:
            probe.ok(command)
        assert seen.frames('ECHO') == 1, f'{command}: {seen.commands()}'


def test_removal_of_what_is_open(probes, disk):
    one, two = probes(2)
    one.ok('open a opened access=1f01ff')
    one.ok('write a 0 text')
    two.ok('rm opened')
    # Samba 4.17 has no POSIX removal: the name goes with the last handle.
    assert os.path.exists(disk('opened'))
    assert two.refused('stat opened') == 'STATUS_DELETE_PENDING'
    one.ok('write a 4 more')
    one.ok('close a')
    assert not os.path.exists(disk('opened'))
    one.ok('open b temporary access=1f01ff delete_on_close')
    one.ok('close b')
    assert not os.path.exists(disk('temporary'))
    one.ok('open c spared access=1f01ff')
    one.ok('disposition c 1')
    one.ok('disposition c 0')
    one.ok('move c spared2')
    one.ok('close c')
    assert os.path.exists(disk('spared2'))


def test_share_modes(probes):
    one, two = probes(2)
    one.ok('open a alone share=1')
    assert two.refused('open a alone') == 'STATUS_SHARING_VIOLATION'
    two.ok('stat alone')
    one.ok('close a')
    two.ok('open a alone')


def test_append_by_offset_is_refused(probes, disk):
    one = probes()
    one.ok('open a log access=100084')  # Append, look, wait; not write.
    # Samba 4.17 knows no append by offset: whoever appends to it must know the end, and lock it (below).
    assert one.refused('append a one') == 'STATUS_INVALID_PARAMETER'
    assert content(disk('log')) == b''

def test_an_appending_handle_writes_at_the_end_under_a_lock(probes, disk):
    # What an append is made of where the server does not append: a lock that no byte of the file has.
    one, two = probes(2)
    where = f'{1 << 63} 1'
    for probe in (one, two):
        probe.ok('open a under_lock how=open_if access=84')  # FILE_APPEND_DATA, FILE_READ_ATTRIBUTES.
    one.ok(f'lock a {where}')
    assert two.refused(f'lock a {where}') == 'STATUS_LOCK_NOT_GRANTED'
    waits = two.begin(f'lock a {where} wait')
    one.ok('write a 0 first')
    assert not two.answered(waits)
    one.ok(f'unlock a {where}')
    assert two.answer(waits).startswith('ok')
    two.ok('write a 5 second')
    assert content(disk('under_lock')) == b'firstsecond'
    # Nobody else is held up by it.
    one.ok('open b under_lock access=3')
    one.ok('write b 0 F')
    assert one.ok('read b 0 5') == 'First'



def test_byte_range_locks(probes):
    one, two = probes(2)
    one.ok('open a locked')
    two.ok('open a locked')
    one.ok('write a 0 0123456789')
    one.ok('lock a 2 4')
    assert two.refused('lock a 5 1') == 'STATUS_LOCK_NOT_GRANTED'
    assert two.refused('write a 0 abc') == 'STATUS_FILE_LOCK_CONFLICT'
    assert two.refused('read a 0 3') == 'STATUS_FILE_LOCK_CONFLICT'
    two.ok('write a 0 ab')
    assert one.refused('unlock a 0 1') == 'STATUS_RANGE_NOT_LOCKED'
    waiting = two.begin('lock a 0 10 wait')
    assert two.ask('read a 0 2') == 'ok ab'  # The connection goes on while the lock waits.
    assert not two.answered(waiting)
    one.ok('unlock a 2 4')
    assert two.answer(waiting) == 'ok'
    assert one.refused('lock a 9 1') == 'STATUS_LOCK_NOT_GRANTED'
    two.ok('close a')
    one.ok('lock a 9 1 shared')


def test_a_lock_given_up_is_not_held(probes):
    one, two = probes(2)
    one.ok('open a given-up')
    two.ok('open a given-up')
    one.ok('lock a 0 1')
    said = two.ask('lock a 0 1 wait within=2')
    assert said.startswith('error - '), said  # Ours: the deadline.
    one.ok('unlock a 0 1')
    # Had the server not heard CANCEL, the waiting lock would have got it now.
    time.sleep(0.5)  # The only way to see that something does not happen.
    one.ok('lock a 0 1')


def test_a_lease_between_two_clients(probes, disk):
    one, two = probes(2)
    assert 'lease=RWH' in one.ok('open a leased lease=7:RWH')
    opening = two.begin('open a leased')
    assert one.next_break() == '7 RWH RH 1'
    assert not two.answered(opening)
    one.ok('write a 0 before')  # Written back while the other one waits.
    one.ok('acknowledge 7 RH')
    assert two.answer(opening).startswith('ok')
    assert two.ask('read a 0 6') == 'ok before'
    two.ok('write a 0 after!')
    assert one.next_break().startswith('7 RH -')
    assert one.ok('lease 7') == '-'
    assert content(disk('leased')) == b'after!'


def test_what_a_kept_handle_keeps_from_another_client(probes):
    """Why nothing stays open after close: docs/adr/0012-no-handles-after-close.md, whose table this walks."""
    keeper, other = probes(2)
    other.ok('mkdir kept')
    for name in ('kept/removed', 'kept/renamed', 'kept/replaced', 'kept/alone'):
        other.ok(f'open z {name}')
        other.ok('close z')
    for key, name in enumerate(('removed', 'renamed', 'replaced', 'alone'), start=5):
        assert 'lease=RH' in keeper.ok(f'open {name} kept/{name} access=120089 lease={key}:RH')
    other.ok('rm kept/removed')
    assert other.refused('open y kept/removed how=create') == 'STATUS_OBJECT_NAME_COLLISION'
    assert other.refused('open y kept/removed how=open') == 'STATUS_DELETE_PENDING'
    assert other.refused('stat kept/removed') == 'STATUS_DELETE_PENDING'
    other.ok('mv kept/renamed kept/elsewhere')
    other.ok('open y kept/new')
    other.ok('close y')
    other.ok('mv kept/new kept/replaced replace')
    # The first break of all: nothing before has caused one.
    alone = other.begin('open y kept/alone share=0')
    assert keeper.next_break().startswith('8 RH R')
    assert not other.answered(alone)
    keeper.ok('close alone')
    assert other.answer(alone).startswith('ok')
    other.ok('close y')
    for name in ('elsewhere', 'replaced', 'alone'):
        other.ok(f'rm kept/{name}')
    assert other.refused('rmdir kept') == 'STATUS_DIRECTORY_NOT_EMPTY'
    for name in ('removed', 'renamed', 'replaced'):
        keeper.ok(f'close {name}')
    other.ok('rmdir kept')


def test_a_look_at_the_directory_rides_along(lab, probes, disk):
    for variant in ('3.1.1-gmac', '3.1.1-aes-128-gcm', '3.0.2-cmac'):
        lab.configure('t1', CRYPTO[variant])
        one, two = probes(2)
        one.ok(f'mkdir looked-{variant}')
        path, directory = f'looked-{variant}/file', disk(f'looked-{variant}')
        assert f' directory={os.stat(directory).st_ino}' in one.ok(f'open a {path} how=create lease=5:RWH looks')
        assert two.refused(f'open b {path} how=create looks') == 'STATUS_OBJECT_NAME_COLLISION'
        # One that waits for somebody's lease is not the last part of its frame.
        opening = two.begin(f'open b {path} how=open_if looks')
        assert one.next_break() == '5 RWH RH 1'
        one.ok('write a 0 before')
        assert not two.answered(opening)
        one.ok('acknowledge 5 RH')
        assert f' directory={os.stat(directory).st_ino}' in two.answer(opening)
        assert two.ask('read b 0 6') == 'ok before'


def test_our_own_open_does_not_stop_the_acknowledgment(probes):
    probe = probes()
    assert 'lease=RWH' in probe.ok('open a own lease=9:RWH')
    openings = [probe.begin(f'open b{i} own') for i in range(20)]
    assert probe.next_break().startswith('9 RWH')
    probe.ok('acknowledge 9 RH')
    for opening in openings:
        assert probe.answer(opening).startswith('ok')


def test_leases_in_an_encrypted_session(lab, probes):
    lab.configure('t1', CRYPTO['3.1.1-aes-256-gcm'])
    one, two = probes(2)
    assert 'lease=RWH' in one.ok('open a sealed lease=3:RWH')
    opening = two.begin('open a sealed')
    assert one.next_break() == '3 RWH RH 1'
    one.ok('acknowledge 3 RH')
    assert two.answer(opening).startswith('ok')


def test_a_durable_handle_outlives_a_reset(lab, probes, disk):
    probe = probes()
    said = probe.ok('open a durable lease=5:RWH durable')
    assert 'durable=0' not in said, said
    probe.ok('write a 0 one')
    probe.ok('lock a 0 3')
    lab.fail('reset', 't1')
    assert probe.ask('write a 3 lost').startswith('error - ')
    lab.heal('t1')
    probe.ok('connect t1 bench')
    again = probe.ok('reopen a')
    persistent = [word for word in said.split() if word.startswith('persistent_id=')]
    assert persistent[0] in again and 'lease=RWH' in again
    probe.ok('write a 3 two')
    assert content(disk('durable')) == b'onetwo'
    # The lock is still ours: another client must break the lease, and then finds the range locked.
    other = probes()
    opening = other.begin('open a durable')
    assert probe.next_break() == '5 RWH RH 1'
    probe.ok('acknowledge 5 RH')
    assert other.answer(opening).startswith('ok')
    assert other.refused('lock a 1 1') == 'STATUS_LOCK_NOT_GRANTED'
    probe.ok('close a')


def test_a_durable_handle_that_another_client_took(lab, probes):
    probe = probes()
    probe.ok('open a taken lease=6:RWH durable')
    lab.fail('reset', 't1')
    assert probe.ask('stat taken').startswith('error')
    lab.heal('t1')
    probes().ok('open a taken')
    probe.ok('connect t1 bench')
    assert probe.ask('reopen a') == 'gone'


def test_copies_holes_attributes(probes, disk):
    probe = probes()
    probe.ok('open a source')
    probe.ok('open b target')
    size = (18 << 20) + 5
    probe.ok(f'fill a 0 {size}')
    assert probe.ok(f'copy a 3 b 1 {size - 3}') == str(size - 3)
    assert content(disk('target')) == b'\0' + content(disk('source'))[3:]
    assert probe.refused(f'copy a {size} b 0 10').startswith('STATUS_')
    probe.ok('sparse b')
    probe.ok(f'zero b {1 << 20} {9 << 20}')
    assert content(disk('target'))[1 << 20:9 << 20] == bytes(8 << 20)
    assert probe.ok(f'ranges b {size}').startswith('0+')
    probe.ok('setea a user_key value')
    assert 'value' in probe.ok('getea a')
    probe.ok('setea a user_key ')
    assert 'value' not in probe.ok('getea a')


def test_a_share_that_is_read_only_to_this_user(lab, probes):
    lab.configure('t2', {'read list': 'dfsuser'})
    probe = probes()
    probe.ok('connect t2 bench')
    for command in ('mkdir refused', 'open a refused', 'rm hello.txt', 'truncate copy/hello.txt 0'):
        assert probe.refused(command) in ('STATUS_ACCESS_DENIED', 'STATUS_OBJECT_NAME_NOT_FOUND'), command
    assert not os.path.exists(lab.data('t2', 'bench/refused'))
    assert os.path.getsize(lab.data('t2', 'bench/copy/hello.txt')) > 0
