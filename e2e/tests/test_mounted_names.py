"""Names, links and paths through a live mount: catalogue A.

What resolution alone shows, without a mount: test_resolution.py.
"""

import errno
import os
import stat
import unicodedata

import pytest

from lab import Application, Trial

LAB = {'big_mib': 0}
ROOT = '//root1/dfs'
POINT = '/mnt/dfs'
# What an application may be told of a link that leads nowhere.
NOWHERE = (errno.ENOENT, errno.EHOSTUNREACH, errno.EHOSTDOWN, errno.EIO)


@pytest.fixture(name='app')
def application(lab, engine):
    """An application; afterwards nobody holds anything in the agent."""
    with Application(lab) as made:
        yield made
    if lab.client_mounts():
        engine.check_idle()


@pytest.fixture(name='names')
def mounted_namespace(engine, app):
    """An application with //root1/dfs mounted; soft, so that what leads nowhere ends."""
    engine.mount(ROOT, options='soft,op_timeout=4s')
    return app


def who(app, path):
    return app.do(f'read({POINT + "/" + path + "/who"!r})').decode().strip()


def test_a01_a_share_without_dfs(lab, engine, app):
    with lab.capture('t1') as seen:
        engine.mount('//t1/share', options='soft,op_timeout=4s')
        for _ in range(5):
            assert app.do(f"read('{POINT}/sub/deep/leaf.txt')") == b'below a share\n'
    assert seen.referrals() <= 1  # That of the root, which is refused.
    assert all(referral['negative'] for referral in engine.listed('referrals'))


def test_a02_a_server_without_dfs(lab, engine, app):
    lab.configure('t1', {'host msdfs': 'no'})
    with lab.capture('t1') as seen:
        engine.mount('//t1/share')
        assert app.do(f"read('{POINT}/who')") == b't1\n'
    assert seen.referrals() == 0


def test_a03_a35_a_root_lists_its_links(lab, engine, app):
    """As directories; by one listing, and without a question about a single link."""
    engine.mount(ROOT)
    assert app.do(f"read('{POINT}/readme.txt')")  # The session is there.
    with lab.capture('root1') as seen:
        kinds = dict(app.do(f"[(e.name, e.is_dir(follow_symlinks=False)) for e in os.scandir('{POINT}')]"))
    assert kinds['two'] and kinds['dangling'] and kinds['emoji-😀'] and kinds['plain-dir']
    assert not kinds['readme.txt']
    assert seen.referrals() == 0
    listings = seen.commands()['QUERY_DIRECTORY']
    assert listings <= 2, listings  # The last one says that there is no more.
    assert seen.frames() <= 6, seen.commands()


def test_a03_stat_of_a_link_is_that_of_its_target(lab, names):
    path = lab.data('t1', 'share')
    os.utime(path, (1_650_000_000, 1_650_000_000))
    assert who(names, 'single') == 't1'
    mode, mtime = names.do(f"(os.stat('{POINT}/single').st_mode, os.stat('{POINT}/single').st_mtime)")
    assert stat.S_ISDIR(mode) and mtime == 1_650_000_000


def test_a04_mount_of_a_link(lab, engine, app):
    engine.mount(ROOT + '/single')
    assert app.do(f"read('{POINT}/who')") == b't1\n'
    theirs = os.statvfs(lab.data('t1', 'share'))
    size = app.do(f"(os.statvfs('{POINT}').f_blocks * os.statvfs('{POINT}').f_frsize)")
    assert size == theirs.f_blocks * theirs.f_frsize


def test_a05_mount_below_a_link(engine, app):
    engine.mount(ROOT + '/two/sub/deep')
    assert app.do(f"os.listdir('{POINT}')") == ['leaf.txt']
    above = app.do(f"(os.stat('{POINT}/..').st_ino, os.stat('/mnt').st_ino)")
    assert above[0] == above[1]


def test_a06_mount_of_a_link_three_levels_deep(lab, engine, app):
    engine.mount(ROOT + '/a/b/c/link/sub')
    assert app.do(f"read('{POINT}/deep/leaf.txt')") == b'below a share\n'
    lab.fail('kill', 't1')
    assert app.do(f"read('{POINT}/deep/leaf.txt')") == b'below a share\n'


def test_a07_target_below_its_share(engine, app):
    engine.mount(ROOT + '/below')
    assert app.do(f"read('{POINT}/leaf.txt')") == b'below a share\n'


def test_a08_target_without_the_path(engine, app):
    engine.mount(ROOT + '/missingpath')
    assert app.do(f"read('{POINT}/file.txt')") == b't2\n'


def test_a09_path_that_no_target_has(lab, names):
    with lab.capture('t1') as seen:
        for _ in range(5):
            assert names.errno_of(f"read('{POINT}/three/no/such/file')") == errno.ENOENT
            assert names.took < 2
    assert seen.frames() < 40


def test_a10_a_link_met_later(lab, engine, app):
    engine.mount(ROOT)
    with lab.capture('root1') as seen:
        assert who(app, 'two') == 't1'
        devices = app.do(f"[os.stat('{POINT}' + p).st_dev for p in ('', '/two', '/two/who', '/plain-dir')]")
    assert seen.referrals() == 1 and len(set(devices)) == 1


def make_chain(lab, name, links):
    """`links` links, each to the next in the other root; the last one to t1's share."""
    roots = ('root1', 'root2')
    for n in range(1, links + 1):
        target = 't1{s}/share' if n == links else f'{roots[n % 2]}{{s}}/dfs/{name}{n + 1}'
        lab.set_link(roots[(n - 1) % 2], f'{name}{n}', [target])
    return f'{name}1'


def test_a11_nested_links(lab, names):
    for links in (2, 3, 8):
        assert who(names, make_chain(lab, f'deep{links}-', links)) == 't1'
    begin = make_chain(lab, 'deep9-', 9)
    assert names.errno_of(f"read('{POINT}/{begin}/who')") == errno.ELOOP


def test_a13_an_interlink_that_only_the_target_tells(names):
    assert names.do(f"'inner' in os.listdir('{POINT}/nested')")
    assert who(names, 'nested/inner') == 't2'
    assert who(names, 'nestlink') == 't2'


def test_a14_mount_of_a_proxy_share(lab, engine, app):
    engine.mount('//root1/proxy')
    assert app.do(f"read('{POINT}/who')") == b't1\n'
    lab.fail('kill', 't1')
    assert app.do(f"read('{POINT}/who')") == b't2\n'


def test_a15_a_link_that_does_not_exist(names):
    assert names.errno_of(f"os.stat('{POINT}/nosuch')") == errno.ENOENT


@pytest.mark.parametrize('link', ['empty', 'broken'], ids=['a16_empty', 'a18_broken'])
def test_link_without_targets(names, link):
    assert names.errno_of(f"read('{POINT}/{link}/who')") in NOWHERE
    assert names.errno_of(f"os.listdir('{POINT}/{link}')") in NOWHERE
    assert {'two', link} & set(names.do(f"os.listdir('{POINT}')")) >= {'two'}
    assert who(names, 'single') == 't1'


@pytest.mark.parametrize('link', ['dangling', 'noshare'])
def test_a17_dangling_link(lab, engine, names, link):
    """All tried, within the time; siblings go on meanwhile."""
    with Trial(lab, engine, f'{POINT}/single', modes=('open',)) as trial:
        trial.begin()
        assert names.errno_of(f"read('{POINT}/{link}/who')") in NOWHERE
        assert names.took <= 5 * 4
        trial.check(0.5, serves='t1', failovers=0)


def test_a17_dead_first_target(names):
    assert who(names, 'halfdead') == 't2'


@pytest.mark.parametrize('link', ['pingpong', 'loop'], ids=['a19_pingpong', 'a20_itself'])
def test_loop(lab, engine, names, link):
    with lab.capture('root1') as first, lab.capture('root2') as second, \
            Trial(lab, engine, POINT, modes=()) as trial:
        trial.begin()
        assert names.errno_of(f"read('{POINT}/{link}/who')") == errno.ELOOP
        trial.check_took(names.took, 1.0)
    assert 0 < first.referrals() + second.referrals() <= 16


def test_a21_a_link_to_its_own_root(names):
    """Each level is there; and there is a last one."""
    assert names.do(f"read('{POINT}/upwards/readme.txt')") == b'a file in root1 itself\n'
    assert who(names, 'upwards/upwards/single') == 't1'
    depth = 1
    while depth < 40 and not names.errno_of(f"read('{POINT}{'/upwards' * depth}/readme.txt')"):
        depth += 1
    assert 2 < depth < 20
    assert names.errno_of(f"read('{POINT}{'/upwards' * depth}/readme.txt')") == errno.ELOOP


@pytest.mark.parametrize('source', ['//root1/dfs/single/', '//root1/dfs//single', r'\\root1\dfs\single',
                                    r'\\root1/dfs\single/', '//ROOT1.lab.test/DFS/Single'])
def test_a22_spellings_of_a_source(engine, app, source):
    engine.mount(source)
    assert app.do(f"read('{POINT}/who')") == b't1\n'


def test_a23_spellings_of_a_link(lab, engine, names):
    with lab.capture('root1') as seen:
        assert who(names, 'two') == who(names, 'TWO') == who(names, 'Two') == 't1'
        inodes = names.do(f"[os.stat('{POINT}/' + n + '/who').st_ino for n in ('two', 'TWO', 'Two')]")
    assert len(set(inodes)) == 1 and seen.referrals() == 1
    assert sum(r['prefix'].lower() == '//root1/dfs/two' for r in engine.listed('referrals')) == 1


def test_a24_names_that_fold_differently(lab, names):
    for name, target in (('İzmir', 't2'), ('straße', 't3'), ('λόγος', 't2')):
        lab.set_link('root1', name, [target + '{s}/share'])
        assert who(names, name) == target
    for name in ('Izmir', 'strasse'):
        assert names.errno_of(f"read('{POINT}/{name}/who')") == errno.ENOENT


def test_a25_links_beyond_latin(lab, names):
    for link in ('ünïcødé-链接', 'emoji-😀'):
        assert names.do(f"read('{POINT}/{link}/emoji-😀.txt')").decode() == 'emoji-😀.txt\n'
        assert names.do(f"read('{POINT}/{link}/sub/deep/leaf.txt')") == b'below a share\n'
    lab.fail('kill', 't1')
    assert who(names, 'ünïcødé-链接') == 't2'


def test_a26_composed_and_decomposed(lab, names):
    for form, target in (('NFC', 't1'), ('NFD', 't2')):
        lab.set_link('root1', unicodedata.normalize(form, 'thé'), [target + '{s}/share'])
    assert who(names, unicodedata.normalize('NFC', 'thé')) == 't1'
    assert who(names, unicodedata.normalize('NFD', 'thé')) == 't2'


def test_a27_long_names(names):
    longest = 'n' * 251 + '.txt'
    assert names.do(f"read('{POINT}/two/{longest}')") == b'a name of 255 characters\n'
    assert names.errno_of(f"os.stat('{POINT}/two/{'n' * 256}')") in (errno.ENAMETOOLONG, errno.ENOENT)
    deep = '/'.join(['d' * 200] * 18)  # As long as a path may be here.
    assert names.errno_of(f"os.stat('{POINT}/two/{deep}')") in (errno.ENAMETOOLONG, errno.ENOENT)


def test_a28_a29_a_long_link_with_twenty_targets(lab, names):
    """All are seen, although the referral needs more room than it is given at first: 8, 16, 32 KiB."""
    name = 'l' * 200
    lab.set_link('root1', name, [f't1{{s}}/nosuchshare-with-a-long-name-{n:02}' for n in range(19)]
                 + ['t2{s}/share'])
    with lab.capture('root1') as seen:
        assert who(names, name) == 't2'
    assert 2 <= seen.referrals() <= 4


@pytest.mark.parametrize('how', ['option', 'source'])
def test_a30_another_port(lab, engine, app, how):
    """Of the namespace server alone: its links' targets are asked on 445."""
    lab.configure('root1', {'smb ports': '445 4450'})
    if how == 'option':
        engine.mount(ROOT, options='port=4450')
    else:
        engine.mount(ROOT.replace('root1', 'root1@4450'))
    assert who(app, 'single') == 't1'
    addresses = {one['host']: one['address'] for one in engine.listed('targets', 'connections')}
    assert addresses['root1'].endswith(':4450') and addresses['t1.lab.test'].endswith(':445')


def test_a31_targets_by_address_and_by_short_name(lab, names):
    lab.set_link('root1', 'address', [lab.address('t3') + '/share'])
    lab.set_link('root1', 'short', ['t3/share'])
    assert who(names, 'address') == who(names, 'short') == 't3'


def test_a34_out_of_a_link_and_back(names):
    names.do(f"os.chdir('{POINT}/two/sub')")
    assert names.do('os.getcwd()') == f'{POINT}/two/sub'
    assert names.do("read('../../single/who')") == b't1\n'
    assert names.do("os.stat('../..').st_ino") == names.do(f"os.stat('{POINT}').st_ino")
    assert names.do("sorted(os.listdir('..')) == sorted(os.listdir('../../two'))")
    names.do("os.chdir('/')")
