"""What becomes of files that are open for writing when their server is lost: catalogue D, and C28."""

import errno
import os

import pytest

from lab import Application

LAB = {'big_mib': 0}
MOUNT = '/mnt/dfs'
FOLDER = f'{MOUNT}/three'  # Served by t1, then by t2.
GRACE = 3


@pytest.fixture(name='app')
def application(lab, engine, request):
    """An application on a writable namespace whose targets hold the same file `written`."""
    for host in ('t1', 't2', 't3'):
        on_server(lab, host, b'0123456789')
    engine.mount('//root1/dfs', options=f'rw,write_grace={GRACE}s' + getattr(request, 'param', ''))
    with Application(lab) as made:
        assert made.do(f"read('{FOLDER}/who')") == b't1\n'
        yield made
    engine.check_idle()


def on_server(lab, host, content=None, name='written'):
    """Reads, or makes: the same size and time on each target."""
    path = lab.data(host, f'share/{name}')
    if content is None:
        if not os.path.exists(path):
            return None
        with open(path, 'rb') as file:
            return file.read()
    with open(path, 'wb') as file:
        file.write(content)
    os.chmod(path, 0o666)
    os.utime(path, (1_600_000_000, 1_600_000_000))
    return content


def open_file(app, flags, name='file', path='written'):
    app.keep(name, f"os.open('{FOLDER}/{path}', {flags})")


def move(lab, app):
    """t1 dies; afterwards t2 serves the link."""
    lab.fail('kill', 't1')
    assert app.do(f"read('{FOLDER}/who')") == b't2\n'


def test_d04_a_handle_that_has_not_written_moves_and_writes(lab, app):
    open_file(app, 'os.O_RDWR')
    assert app.do("os.pread(kept['file'], 4, 0)") == b'0123'
    move(lab, app)
    assert app.do("os.pwrite(kept['file'], b'new', 0)") == 3
    assert on_server(lab, 't2') == b'new3456789' and on_server(lab, 't1') == b'0123456789'


def test_d04_not_to_a_copy_that_differs(lab, app):
    on_server(lab, 't2', b'another')
    open_file(app, 'os.O_RDWR')
    move(lab, app)
    assert app.errno_of("os.pwrite(kept['file'], b'new', 0)") == errno.ESTALE
    assert on_server(lab, 't2') == b'another'


def test_d05_what_was_written_stays_on_its_server_and_nothing_is_sent_to_the_other(lab, app):
    """Every write was acknowledged by t1: there is nothing of which an EIO would have to tell."""
    open_file(app, 'os.O_RDWR')
    assert app.do("os.pwrite(kept['file'], b'abc', 0)") == 3
    move(lab, app)
    for _ in range(2):
        assert app.errno_of("os.pwrite(kept['file'], b'def', 3)") == errno.ESTALE
    assert app.errno_of("os.close(kept['file'])") == 0
    assert on_server(lab, 't1') == b'abc3456789' and on_server(lab, 't2') == b'0123456789'


def test_d05_a_write_whose_answer_is_lost_is_eio_once_its_server_does_not_come_back(lab, app):
    open_file(app, 'os.O_RDWR')
    assert app.do("os.pwrite(kept['file'], b'abc', 0)") == 3
    lab.fail('stop', 't1')
    assert app.errno_of("os.pwrite(kept['file'], b'def', 3)") == errno.EIO
    assert on_server(lab, 't2') == b'0123456789'
    assert app.errno_of("os.pwrite(kept['file'], b'ghi', 6)") in (errno.ESTALE, errno.EIO)
    assert on_server(lab, 't2') == b'0123456789'


REPLAY = pytest.mark.parametrize('app', [',failover_writes=replay'], indirect=True)


@REPLAY
def test_d05_replay_a_write_whose_answer_is_lost_goes_to_the_other_copy(lab, engine, app):
    open_file(app, 'os.O_RDWR')
    assert app.do("os.pread(kept['file'], 4, 0)") == b'0123'
    lab.fail('stop', 't1')
    assert app.do("os.pwrite(kept['file'], b'def', 3)") == 3
    assert on_server(lab, 't2') == b'012def6789'
    assert app.do("os.fsync(kept['file'])") is None
    assert app.do("os.pwrite(kept['file'], b'ghi', 6)") == 3
    assert on_server(lab, 't2') == b'012defghi9'
    assert engine.counter('replayed_writes_total') == 1


@REPLAY
@pytest.mark.parametrize('other', [b'another', b'9876543210', None])
def test_d05_replay_not_to_a_copy_that_differs(lab, app, other):
    path = lab.data('t2', 'share/written')
    open_file(app, 'os.O_RDWR')
    if other is None:
        os.unlink(path)
    else:
        with open(path, 'wb') as file:  # Of now.
            file.write(other)
    lab.fail('stop', 't1')
    assert app.errno_of("os.pwrite(kept['file'], b'def', 3)") == errno.EIO
    assert app.errno_of("os.pwrite(kept['file'], b'def', 3)") == errno.ESTALE
    assert on_server(lab, 't2') == other


@REPLAY
def test_d05_replay_not_beside_what_was_acknowledged(lab, app):
    """The other copy lacks the first write: with the second it would be neither the old file nor the new one."""
    open_file(app, 'os.O_RDWR')
    assert app.do("os.pwrite(kept['file'], b'abc', 0)") == 3
    lab.fail('stop', 't1')
    assert app.errno_of("os.pwrite(kept['file'], b'def', 3)") == errno.EIO
    assert on_server(lab, 't2') == b'0123456789'


def test_d06_fsync_is_no_false_success(lab, app):
    open_file(app, 'os.O_RDWR')
    assert app.do("os.pwrite(kept['file'], b'abc', 0)") == 3
    lab.fail('stop', 't1')
    assert app.errno_of("os.fsync(kept['file'])") != 0
    assert on_server(lab, 't2') == b'0123456789'


@pytest.mark.parametrize('flags', ['os.O_RDWR | os.O_CREAT | os.O_TRUNC', 'os.O_RDWR | os.O_CREAT | os.O_EXCL'])
def test_d08_a_handle_that_made_or_emptied_a_file_does_not_do_so_elsewhere(lab, app, flags):
    path = 'new-d08' if 'O_EXCL' in flags else 'written'
    open_file(app, flags, path=path)
    move(lab, app)
    number = app.errno_of("os.pwrite(kept['file'], b'x', 0)")
    assert number == errno.ESTALE
    assert on_server(lab, 't2') == b'0123456789' and on_server(lab, 't2', name='new-d08') is None
    app.do("os.close(kept['file'])")
    made = lab.data('t1', 'share/new-d08')
    if os.path.exists(made):
        os.unlink(made)


def test_d09_a_removed_file_that_is_open_removes_nothing_elsewhere(lab, app):
    open_file(app, 'os.O_RDWR | os.O_DIRECT')
    app.keep('page', 'mmap.mmap(-1, 4096)')
    app.do(f"os.unlink('{FOLDER}/written')")
    assert app.do("os.preadv(kept['file'], [kept['page']], 0)") == 10
    before = sorted(os.listdir(lab.data('t2', 'share')))
    move(lab, app)
    assert app.errno_of("os.preadv(kept['file'], [kept['page']], 0)") == errno.ESTALE
    assert app.errno_of("os.close(kept['file'])") == 0
    assert sorted(os.listdir(lab.data('t2', 'share'))) == before
    lab.heal('t1')
    hidden = [name for name in os.listdir(lab.data('t1', 'share')) if name.startswith('.dfscsi')]
    for name in hidden:  # Its own server was gone when its last handle was closed.
        os.unlink(lab.data('t1', f'share/{name}'))


def test_d13_a_renamed_file_is_found_by_its_new_name(lab, app):
    for host in ('t1', 't2'):
        on_server(lab, host, b'moved', name='moved-to')
    open_file(app, 'os.O_RDONLY | os.O_DIRECT', path='written')
    app.do(f"os.rename('{FOLDER}/written', '{FOLDER}/moved-to')")
    # The copy on t2 got the same by other means, as replication does.
    os.rename(lab.data('t2', 'share/written'), lab.data('t2', 'share/moved-to'))
    move(lab, app)
    app.keep('page', 'mmap.mmap(-1, 4096)')
    assert app.do("os.preadv(kept['file'], [kept['page']], 0)") == 10
    assert app.do("kept['page'][:10]") == b'0123456789'
    app.do("os.close(kept['file'])")
    for host in ('t1', 't2'):
        os.unlink(lab.data(host, 'share/moved-to'))


def test_d19_a_file_that_took_the_place_of_another_is_another(lab, app):
    """Also where the file system gives it the number that the other had."""
    open_file(app, 'os.O_RDONLY | os.O_DIRECT')
    app.keep('page', 'mmap.mmap(-1, 4096)')
    assert app.do("os.preadv(kept['file'], [kept['page']], 0)") == 10
    os.unlink(lab.data('t1', 'share/written'))
    on_server(lab, 't1', b'an other file')
    assert app.do(f"read('{FOLDER}/written')") == b'an other file'
    # Who had the first goes on with that, and gets no byte of the second.
    assert app.do("os.preadv(kept['file'], [kept['page']], 0)") == 10
    assert app.do("kept['page'][:10]") == b'0123456789'


@pytest.mark.parametrize('app', [',actimeo=60s'], indirect=True)
@pytest.mark.parametrize('change', ['rename', 'unlink'])
def test_c28_a_change_whose_answer_was_lost_is_eio_and_not_made_elsewhere(lab, app, change):
    """Its own server does not come back. That it does: test_write.py, with every kind of change. The kernel knows the
    names, so that nothing is asked before the change itself, and its answer is the first that is lost."""
    for host in ('t1', 't2'):
        on_server(lab, host, b'other', name='other')
    names = sorted(os.listdir(lab.data('t2', 'share')))
    for name in ('written', 'other'):
        app.do(f"os.stat('{FOLDER}/{name}').st_size")
    lab.fail('half', 't1')
    call = {'rename': f"os.rename('{FOLDER}/written', '{FOLDER}/other')", 'unlink': f"os.unlink('{FOLDER}/written')"}[change]
    assert app.errno_of(call) == errno.EIO
    assert sorted(os.listdir(lab.data('t2', 'share'))) == names
    assert on_server(lab, 't2', name='other') == b'other' and on_server(lab, 't2') == b'0123456789'
    lab.heal('t1')
    for host in ('t1', 't2'):
        os.unlink(lab.data(host, 'share/other'))


def told(engine):
    return [line for line in engine.log_text().splitlines() if 'older than what this mount has written' in line]


@pytest.mark.parametrize('app', ['', ',failover_identity=strict'], indirect=True)
def test_a_copy_that_is_older_than_what_was_written_is_counted_or_refused(lab, engine, app, request):
    strict = 'strict' in request.node.callspec.params['app']
    open_file(app, 'os.O_RDWR')
    assert app.do("os.pwrite(kept['file'], b'abc', 0)") == 3
    app.do("os.close(kept['file'])")
    move(lab, app)
    before = told(engine)
    for count in (1, 2):
        number = app.errno_of(f"read('{FOLDER}/written')")
        assert number == (errno.ESTALE if strict else 0)
        counted = engine.counter('older_copies_opened_total')
        assert counted == count or strict and counted > count  # Told ESTALE, the kernel opens once more.
    after = told(engine)
    assert len(after) == len(before) + 1 and 'three' not in after[-1]
    # Once it is there, it is what was written.
    on_server(lab, 't2', b'abc3456789')
    os.utime(lab.data('t2', 'share/written'))
    assert app.do(f"read('{FOLDER}/written')") == b'abc3456789'
    assert engine.counter('older_copies_opened_total') == counted
