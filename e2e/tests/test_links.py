"""Links of a live mount follow their namespace: they come, they go, and one that is dead is still a folder."""

import os
import stat
import threading
import time

LAB = {'big_mib': 0}
OPTIONS = 'ro,referral_ttl_min=1s,referral_ttl_max=2s'
ROOTS = ('root1', 'root2')


def set_link(lab, name, targets):
    for root in ROOTS:
        lab.set_link(root, name, targets)


def is_folder(path):
    """None: there is nothing."""
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except FileNotFoundError:
        return None


def test_a_link_that_is_taken_out_of_the_namespace_goes_away(lab, engine):
    set_link(lab, 'leaving', ['t1{s}/share'])
    try:
        mount = lab.path('client', engine.mount('//root1/dfs', options=OPTIONS))
        assert 'leaving' in os.listdir(mount)
        assert os.path.exists(f'{mount}/leaving/who')
    finally:
        set_link(lab, 'leaving', None)
    lab.wait_until(lambda: is_folder(f'{mount}/leaving') is None, 20, 'the link is gone')
    assert 'leaving' not in os.listdir(mount)
    assert not os.path.exists(f'{mount}/leaving/who')
    assert os.path.exists(f'{mount}/two/who')
    set_link(lab, 'leaving', ['t2{s}/share'])
    try:
        lab.wait_until(lambda: os.path.exists(f'{mount}/leaving/who'), 20, 'the link is back')
        with open(f'{mount}/leaving/who') as file:
            assert file.read() == 't2\n'
    finally:
        set_link(lab, 'leaving', None)
    engine.unmount()


def test_links_that_lead_nowhere_are_folders(lab, engine):
    mount = lab.path('client', engine.mount('//root1/dfs', options=OPTIONS))
    for _ in range(2):
        for name in ('dangling', 'noshare', 'empty', 'broken'):
            assert is_folder(f'{mount}/{name}'), name
        assert {'dangling', 'noshare', 'empty', 'broken'} <= set(os.listdir(mount))
    assert is_folder(f'{mount}/dangling/who') is None
    engine.unmount()


def test_the_first_look_at_a_frozen_link_does_not_stop_its_siblings(lab, engine):
    mount = lab.path('client', engine.mount('//root1/dfs', options=OPTIONS))
    os.stat(mount)
    for target in ('t1', 't2', 't3'):
        lab.fail('stop', target)
    looks = [threading.Thread(target=is_folder, args=(f'{mount}/two',)) for _ in range(8)]
    for look in looks:
        look.start()
    begin = time.monotonic()
    os.listdir(mount)
    took = time.monotonic() - begin
    for look in looks:
        look.join(timeout=20)
    assert not any(look.is_alive() for look in looks)
    for target in ('t1', 't2', 't3'):
        lab.heal(target)
    engine.unmount()
    assert took < 3, f'{took:.1f} s'
