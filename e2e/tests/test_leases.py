"""Leases on two machines (two agents, two mounters): what one writes, the other sees at once in files that it holds
open and cached; and what becomes of them when servers die."""

import os

import pytest

from lab import Application

LAB = {'big_mib': 0}
FIRST = '/mnt/dfs'
# What is seen before that is seen for the sake of a lease.
ACTIMEO = 600
OPTIONS = f'rw,actimeo={ACTIMEO}s'
SOON = 20
PAGE = 4096
NAME = 'leased'


class Program(Application):
    """Has the file open, and mapped."""

    def __init__(self, lab, folder):
        super().__init__(lab)
        self._path = f'{folder}/{NAME}'

    def open(self, flags='os.O_RDWR'):
        self.do(f"kept.__setitem__('f', os.open('{self._path}', {flags}))")
        self.do("kept.__setitem__('map', mmap.mmap(kept['f'], 0, prot=mmap.PROT_READ))")
        return self.seen()

    def close(self):
        self.do("(kept.pop('map').close(), os.close(kept.pop('f')))")

    def write(self, content, at=0):
        self.do(f"os.pwrite(kept['f'], {content!r}, {at})")

    def read(self, size=PAGE, at=0):
        return self.do(f"os.pread(kept['f'], {size}, {at})")

    def mapped(self, size=PAGE, at=0):
        return self.do(f"kept['map'][{at}:{at + size}]")

    def seen(self):
        return self.read(), self.mapped()

    def size(self):
        return self.do("os.fstat(kept['f']).st_size")


def put(lab, host, content, when=1_700_000_000):
    path = lab.data(host, f'bench/{NAME}')
    with open(path, 'wb') as file:
        file.write(content)
    os.chmod(path, 0o666)
    os.utime(path, (when, when))


@pytest.fixture(name='nodes')
def two_nodes(lab, engine, request):
    """Both mount //root1/dfs/bench (t1, then t2)."""
    source, options = '//root1/dfs/bench', getattr(request, 'param', OPTIONS)
    for host in ('t1', 't2'):
        put(lab, host, b'.' * 4 * PAGE)
    engine.mount(source, FIRST, options=options)
    with engine.second_node(source, options=options) as second:
        yield [FIRST, second]
    engine.check_idle()
    for host in ('t1', 't2'):
        for name in (NAME, NAME + '.moved'):
            if os.path.exists(lab.data(host, f'bench/{name}')):
                os.unlink(lab.data(host, f'bench/{name}'))


def broken(engine):
    return engine.counter('lease_breaks_total')


@pytest.mark.parametrize('how', ['os.O_RDONLY', 'os.O_RDWR'])
def test_what_the_other_writes_is_seen_at_once(lab, a, b, how):
    """In a file that is open, read and mapped; also a second and a third time, and its size."""
    assert b.open(how) == (b'.' * PAGE,) * 2
    a.open()
    for turn in range(10):
        page = bytes([ord('a') + turn]) * PAGE
        a.write(page)
        lab.wait_until(lambda: b.seen() == (page, page), SOON, f'turn {turn} is seen')  # pylint: disable=cell-var-from-loop
        assert b.size() == 4 * PAGE
    for turn in range(3):
        end = (4 + turn) * PAGE
        a.write(b'+' * PAGE, end)
        lab.wait_until(lambda: b.size() == end + PAGE, SOON, f'size {turn} is seen')  # pylint: disable=cell-var-from-loop
        assert b.read(2 * PAGE, end) == b'+' * PAGE, f'what is behind size {turn}, which is seen'


@pytest.mark.parametrize('nodes', [OPTIONS + ',nolease'], indirect=True)
def test_without_leases_it_is_not(lab, a, b):
    assert b.open() == (b'.' * PAGE,) * 2
    a.open()
    a.write(b'x' * PAGE)
    assert b.seen() == (b'.' * PAGE,) * 2
    b.close()
    a.close()
    # Samba tells nobody of the time of a write before the handle is closed, which is behind close(2).
    lab.wait_until(lambda: lab.opens('t1') == [], SOON, 't1 has closed it')
    assert b.open() == (b'x' * PAGE,) * 2, 'close-to-open'


def test_both_write_in_turn(lab, a, b):
    """Neither has W; each sees what the other has done."""
    a.open()
    b.open()
    for turn in range(10):
        writes, reads = (a, b) if turn % 2 else (b, a)
        page = bytes([ord('A') + turn]) * PAGE
        writes.write(page)
        assert writes.read() == page
        lab.wait_until(lambda: reads.seen() == (page, page), SOON, f'turn {turn} is seen')  # pylint: disable=cell-var-from-loop


def test_what_one_node_does_breaks_none_of_its_own(engine, nodes, a):
    a.open()
    before = broken(engine)
    path = f'{nodes[0]}/{NAME}'
    for expression in (f"os.close(os.open('{path}', os.O_RDONLY))", f"os.close(os.open('{path}', os.O_RDWR))",
                       f"os.close(os.open('{path}', os.O_WRONLY | os.O_APPEND))", f"os.truncate('{path}', {2 * PAGE})",
                       f"os.setxattr('{path}', 'user.x', b'1')", f"os.getxattr('{path}', 'user.x')",
                       f"os.utime('{path}', (1, 2))", f"os.chmod('{path}', 0o444)", f"os.chmod('{path}', 0o644)",
                       f"os.rename('{path}', '{path}.moved')", f"os.truncate('{path}.moved', {PAGE})",
                       f"os.close(os.open('{path}.moved', os.O_RDWR))", f"os.unlink('{path}.moved')"):
        a.do(expression)
        assert broken(engine) == before, expression
    a.write(b'still')
    assert a.read(5) == b'still'


def test_d11_a_lease_that_is_held_when_the_target_dies_is_gone(lab, engine, a, b):
    """Nothing of the copy that was cached under it is seen on the other target, and there it is asked for anew."""
    put(lab, 't2', b'2' * 3 * PAGE, 1_700_000_500)
    assert a.open() == (b'.' * PAGE,) * 2
    lab.fail('kill', 't1')
    a.close()
    with Program(lab, FIRST) as fresh:
        assert fresh.open() == (b'2' * PAGE,) * 2
        assert fresh.size() == 3 * PAGE
        assert b.open() == (b'2' * PAGE,) * 2
        b.write(b'3' * PAGE)
        lab.wait_until(lambda: fresh.seen() == (b'3' * PAGE,) * 2, SOON, 'the write is seen on the other target')
    before = broken(engine)
    lab.heal('t1')
    assert broken(engine) == before, 'what the dead server would have broken'


GROWN = """
import os, sys, time
one, two, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
wrong = []
for turn in range(rounds):
    here, there = f'{one}/grown-{turn}', f'{two}/grown-{turn}'
    with open(there, 'wb') as file: file.write(b'a' * 100)
    reader = os.open(here, os.O_RDONLY)
    assert os.pread(reader, 4096, 0) == b'a' * 100
    writer = os.open(there, os.O_WRONLY | os.O_APPEND)
    os.write(writer, b'X' * 100)
    os.close(writer)
    end = time.monotonic() + 20
    while os.fstat(reader).st_size != 200: assert time.monotonic() < end
    got = os.pread(reader, 100, 100)
    if got not in (b'X' * 100, b''): wrong.append((turn, got))
    os.close(reader)
    os.unlink(there)
sys.exit(f'{len(wrong)} of {rounds}: {wrong[:3]}' if wrong else 0)
"""


@pytest.mark.parametrize('options', ['rw', 'rw,nolease', 'rw,actimeo=0s'])
def test_behind_a_former_end_within_a_page_are_no_zeros(lab, engine, options):
    """Of a file that another node has made longer, once its new size was seen."""
    engine.mount('//t1/bench', options=options)
    with engine.second_node('//t1/bench') as second:
        lab.run_in('client', ['/usr/bin/python3', '-c', GROWN, '/mnt/dfs', second, '30'], timeout=120)


REOPENED = """
import os, sys
one, two, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
for turn in range(rounds):
    here, there = f'{one}/reopened', f'{two}/reopened'
    text = (b'%d ' % turn) * (turn % 7 + 1)
    with open(there, 'wb') as file: file.write(text)
    fd = os.open(here, os.O_RDONLY)
    size = os.fstat(fd).st_size
    assert (size, os.lseek(fd, 0, os.SEEK_END), os.pread(fd, 4096, 0)) == (len(text), len(text), text), (turn, size, text)
    os.close(fd)
"""


@pytest.mark.parametrize('options', ['rw', 'rw,nolease', 'rw,nolease,actimeo=30s'])
def test_who_opens_a_file_is_told_its_size(lab, engine, options):
    """Close-to-open: what another node has closed is seen whole, whatever is believed for actimeo."""
    engine.mount('//t1/bench', options=options)
    with engine.second_node('//t1/bench') as second:
        lab.run_in('client', ['/usr/bin/python3', '-c', REOPENED, '/mnt/dfs', second, '60'], timeout=120)
