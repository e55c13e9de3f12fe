"""What the cache of referrals asks, keeps and forgets under a live mount: catalogue E, and C18-C20.

Requests are counted in the namespace servers' own traffic. Samba's referrals live 600 s; a short
life comes from referral_ttl_max.
"""

import errno
import time

import pytest

from lab import Application, Trial

LAB = {'big_mib': 16}
ROOT = '//root1/dfs'
POINT = '/mnt/dfs'
SHORT = 'referral_ttl_min=1s,referral_ttl_max=2s'
SOON = 0.5
NAMESPACE = 'ns.lab.test'  # One name for both roots.


@pytest.fixture(name='links', autouse=True)
def put_links_back(lab):
    """set_link(root, name, targets) for one test: the links of others stay as they are."""
    made = []

    def set_link(root, name, targets):
        made.append((root, name))
        lab.set_link(root, name, [target + '{s}/share' if '/' not in target else target for target in targets])
    yield set_link
    for root, name in set(made):
        try:
            lab.set_link(root, name, None)
        except FileNotFoundError:
            pass


@pytest.fixture(name='app')
def application(lab, engine):
    """An application; afterwards nobody holds anything in the agent."""
    with Application(lab) as made:
        yield made
    if lab.client_mounts():
        engine.check_idle()


def who(app, name, point=POINT):
    return app.do(f"read('{point}/{name}/who')").decode().strip()


def wait_for_refresh(lab, engine, prefix, targets, seconds=20):
    """Until the cached referral lists exactly these targets."""
    def listed():
        for referral in engine.listed('referrals'):
            if referral['prefix'] == prefix and not referral['negative']:
                return [target['path'].split('/')[2].split('.')[0] for target in referral['targets']]
        return None
    lab.wait_until(lambda: listed() == targets, seconds, f'{prefix} lists {targets} (now {listed()})')


def test_e01_within_its_life_a_referral_is_asked_once(lab, engine, app):
    engine.mount(ROOT)
    with lab.capture('root1') as first:
        assert who(app, 'three') == 't1'
    with lab.capture('root1') as seen, lab.capture('t1') as target:
        for _ in range(10):
            assert who(app, 'three') == 't1'
            assert len(app.do(f"os.listdir('{POINT}/three/many')")) == 200
            assert app.do(f"os.stat('{POINT}/three/sub/deep/leaf.txt').st_size") == 14
    assert first.referrals() == 1
    assert seen.referrals() == target.referrals() == 0
    assert engine.counter('referral_requests_total') <= 2


def test_e04_refreshed_list_without_the_target_that_serves(lab, engine, links):
    links('root1', 'changing', ['t1', 't2'])
    engine.mount(ROOT, options=SHORT)
    with Trial(lab, engine, f'{POINT}/changing') as trial:
        trial.begin()
        links('root1', 'changing', ['t3', 't2'])
        trial.wait_for('t3').check(SOON, serves='t3', failovers=1)
    engine.check_idle()


def test_e05_refreshed_list_in_another_order(lab, engine, links):
    """The hint stays, however often the list is shuffled."""
    lab.configure('root1', {'msdfs shuffle referrals': 'yes'})
    engine.mount(ROOT, options='referral_ttl_min=1s,referral_ttl_max=1s')
    with Application(lab) as app, Trial(lab, engine, f'{POINT}/three') as trial, \
            lab.capture('root1') as seen:
        trial.begin()
        first, orders = who(app, 'three'), set()
        end = time.monotonic() + 30
        while len(orders) < 3 and time.monotonic() < end:
            for referral in engine.listed('referrals'):
                if referral['prefix'] == f'{ROOT}/three':
                    orders.add(tuple(target['path'] for target in referral['targets']))
                    hint = [target['path'] for target in referral['targets'] if target['hint']]
                    assert hint == [f'//{first}.lab.test/share']
            trial.run_on(10)
        trial.check(SOON, serves=first, failovers=0)
    assert len(orders) >= 3 and seen.referrals() >= 3


@pytest.mark.parametrize('gone', [True, False], ids=['removed', 'no_targets'])
def test_e06_refreshed_list_is_empty(lab, engine, links, app, gone):
    """The link vanishes for new opens; what is open stays open; and it comes back."""
    links('root1', 'changing', ['t1', 't2'])
    engine.mount(ROOT, options=SHORT)
    app.keep('file', f"os.open('{POINT}/changing/hello.txt', os.O_RDONLY)")
    app.keep('big', f"os.open('{POINT}/changing/big.bin', os.O_RDONLY | os.O_DIRECT)")
    lab.set_link('root1', 'changing', None if gone else [])
    lab.wait_until(lambda: app.errno_of(f"read('{POINT}/changing/who')") == errno.ENOENT, 15,
                   'new opens find no link')
    assert app.do("os.pread(kept['file'], 3, 0)") == b'the'
    app.keep('page', 'mmap.mmap(-1, 4096)')
    assert app.do("os.preadv(kept['big'], [kept['page']], 0)") == 4096
    links('root1', 'changing', ['t3'])
    lab.wait_until(lambda: app.errno_of(f"read('{POINT}/changing/who')") == 0, 15, 'the link is back')
    assert who(app, 'changing') == 't3'
    app.do("[os.close(kept[name]) for name in ('file', 'big')]")


def test_e07_refresh_fails(lab, engine):
    """The stale list stays in use, and the root is asked again, now and then."""
    engine.mount(ROOT, options=SHORT)
    with Trial(lab, engine, f'{POINT}/three', watch='root1') as trial:
        trial.fail('kill', 'root1')
        stale = time.monotonic() + 5
        lab.wait_until(lambda: time.monotonic() >= stale, 10, 'the referral is stale')
        trial.check(SOON, serves='t1', failovers=0)
        trial.fail('kill', 't1')
        trial.wait_for('t2').check(SOON, serves='t2', failovers=1)
        assert engine.counter('target_failures_total', target='//root1') >= 1
    assert trial.connects_within_rate() >= 1
    engine.check_idle()


def test_e08_an_idle_mount_keeps_its_list_fresh(lab, engine, links, app):
    """Root and target die right after the list has changed: the one that came last serves."""
    links('root1', 'changing', ['t1', 't2'])
    engine.mount(ROOT, options=SHORT)
    assert who(app, 'changing') == 't1'
    links('root1', 'changing', ['t1', 't3'])
    wait_for_refresh(lab, engine, f'{ROOT}/changing', ['t1', 't3'])
    lab.fail('kill', 'root1')
    lab.fail('kill', 't1')
    assert who(app, 'changing') == 't3'


def test_e12_negative_entries(lab, engine, links, app):
    """A link that is made is found within 10 s, and at once after a flush."""
    engine.mount(ROOT)
    for flush in (False, True):
        name = f'later-{flush}'
        assert app.errno_of(f"read('{POINT}/{name}/who')") == errno.ENOENT
        links('root1', name, ['t2'])
        if flush:
            engine.dfsctl('cache', 'flush')
        lab.wait_until(lambda name=name: app.errno_of(f"read('{POINT}/{name}/who')") == 0,
                       5 if flush else 12, 'the new link is found')
        assert who(app, name) == 't2'


def test_e12_a_link_whose_target_was_repaired(lab, engine, links, app):
    """A17: a dangling link fails, its siblings do not; repaired, it works within 10 s."""
    links('root1', 'repaired', ['nosuchhost{s}/share'])
    engine.mount(ROOT, options='soft,op_timeout=3s')
    assert app.errno_of(f"read('{POINT}/repaired/who')") in (errno.EHOSTDOWN, errno.ENOENT, errno.EHOSTUNREACH)
    assert who(app, 'single') == 't1'
    links('root1', 'repaired', ['t2'])
    engine.dfsctl('cache', 'flush')
    lab.wait_until(lambda: app.errno_of(f"read('{POINT}/repaired/who')") == 0, 12, 'it works')
    assert who(app, 'repaired') == 't2'


def test_e14_the_hint_outlives_its_mount(lab, engine, app):
    """A second mount keeps the agent; a new mount of the namespace goes where the last one was."""
    engine.mount('//t3/share', '/mnt/other')
    engine.mount(ROOT)
    lab.fail('kill', 't1')
    assert who(app, 'three') == 't2'
    engine.unmount(POINT)
    lab.heal('t1')
    engine.mount(ROOT)
    assert who(app, 'three') == 't2'
    assert engine.hint(f'{ROOT}/three') == '//t2.lab.test/share'


def test_e15_flush_while_it_is_used(lab, engine):
    engine.mount(ROOT)
    with Trial(lab, engine, f'{POINT}/three') as trial:
        trial.begin()
        for _ in range(15):
            engine.dfsctl('cache', 'flush')
        trial.run_on().check(SOON, serves='t1', failovers=0)
        trial.fail('kill', 't1')
        for _ in range(5):
            engine.dfsctl('cache', 'flush')
        trial.wait_for('t2').check(SOON, serves='t2')
    engine.check_idle()


def test_e16_link_led_elsewhere_while_its_target_is_well(lab, engine, links):
    links('root1', 'changing', ['t1'])
    engine.mount(ROOT, options=SHORT)
    with Trial(lab, engine, f'{POINT}/changing') as trial:
        trial.begin()
        links('root1', 'changing', ['t3'])
        trial.wait_for('t3').check(SOON, serves='t3', failovers=1)


@pytest.mark.parametrize('mode', ['kill', 'stop'])
def test_c18_root_dies_under_resolved_links(lab, engine, mode):
    engine.mount(ROOT)
    with Trial(lab, engine, f'{POINT}/three', modes=('open', 'fresh', 'held', 'list')) as trial:
        trial.fail(mode, 'root1')
        trial.run_on(100, seconds=12).check(SOON, serves='t1', failovers=0)
    engine.check_idle()


@pytest.fixture(name='namespace')
def namespace_of_two_roots(lab, links):
    """//ns.lab.test/dfs: both roots, with the same links; root1 first."""
    for root in ('root1', 'root2'):
        for name in ('common', 'fresh-link'):
            links(root, name, ['t1', 't2'])
    with open(lab.path('client', '/etc/hosts')) as file:
        hosts = file.read()
    lab.set_hosts(hosts + f'{lab.address("root1")} {NAMESPACE}\n{lab.address("root2")} {NAMESPACE}\n')
    return f'//{NAMESPACE}/dfs'


@pytest.mark.parametrize('mode', ['kill', 'drop'])
def test_c19_root_and_target_die_together(lab, engine, namespace, links, mode):
    """The cached list leads to t2; it is refreshed by the other root later."""
    engine.mount(namespace, options=SHORT)
    with Trial(lab, engine, f'{POINT}/common') as trial:
        assert lab.connections('root2') == [] or lab.connections('root1') == []
        root = 'root1' if lab.connections('root1') else 'root2'
        other = {'root1': 'root2', 'root2': 'root1'}[root]
        trial.begin()
        lab.fail(mode, root)
        lab.fail(mode, 't1')
        trial.wait_for('t2').check(SOON if mode == 'kill' else 3.0, serves='t2', failovers=1)
        links(other, 'common', ['t2', 't3'])
        wait_for_refresh(lab, engine, f'{namespace}/common', ['t2', 't3'], 30)
        assert not trial.errors()


def test_c20_root_dies_before_a_link_is_resolved(lab, engine, namespace, app):
    engine.mount(namespace)
    assert app.do(f"'fresh-link' in os.listdir('{POINT}')")
    root = 'root1' if lab.connections('root1') else 'root2'
    with Trial(lab, engine, POINT, modes=()) as trial:
        trial.fail('kill', root)
        assert who(app, 'fresh-link') == 't1'
        trial.check_took(app.took, 3.0)


def test_c20_no_other_root(lab, engine, app):
    """Soft: an error at its time. Hard: it waits for the root."""
    engine.mount(ROOT, options='soft,op_timeout=2s')
    engine.mount(ROOT, '/mnt/hard')
    with Trial(lab, engine, POINT, modes=()) as trial:
        trial.fail('kill', 'root1')
        assert app.errno_of(f"read('{POINT}/two/who')") == errno.EHOSTDOWN
        trial.check_took(app.took, 2.2)
        app.start("read('/mnt/hard/two/who')")
        assert not app.is_done(0.5)
        lab.heal('root1')
        assert app.result(20) == b't1\n'
