"""Paths through DFS roots, links, links of links, to a file: catalogue A, without a mount.

`dfsctl get` and `ls` resolve as a mount does. What only a mount can show: test_mount_resolution.py.
"""

import time
import unicodedata

import pytest

LAB = {'big_mib': 0}
ROOT = '//root1/dfs'

# Exit codes of dfsctl: docs/options.md.
BAD_ARGUMENT, MISSING_PATH, LOOP, DANGLING = 2, 7, 9, 10


@pytest.fixture(name='dfsctl')
def run_dfsctl(lab, engine):
    """dfsctl as the user dfsuser on the lab's client; check=False returns a failed run, too."""
    credentials = engine.credentials()
    return lambda *arguments, **keywords: engine.dfsctl(*arguments, '--credentials', credentials,
                                                        **{'timeout': 25, **keywords})


@pytest.fixture(name='get')
def get_text(dfsctl):
    return lambda source: dfsctl('get', source, '-').stdout


@pytest.fixture(name='names')
def list_names(dfsctl):
    """{name: 'file', 'dir' or 'link'} of a directory."""
    def names(source):
        lines = [line.split(maxsplit=2) for line in dfsctl('ls', source).stdout.splitlines()]
        return {name: kind for kind, _, name in lines}
    return names


@pytest.fixture(name='fails')
def check_failure(dfsctl):
    """Fails with that exit code, within the time, with one line that names the source."""
    def fails(source, code, seconds=20):
        begin = time.monotonic()
        run = dfsctl('get', source, '-', check=False)
        took = time.monotonic() - begin
        assert not run.stdout and len(run.stderr.splitlines()) == 1, run.stderr
        assert run.returncode == code, f'exit code {run.returncode}: {run.stderr}'
        assert took <= seconds, f'{took:.1f} s'
        return run.stderr
    return fails


def make_chain(lab, name, links):
    """`links` links, each to the next in the other root; the last one to t1's share."""
    roots = ('root1', 'root2')
    for n in range(1, links + 1):
        target = 't1{s}/share' if n == links else f'{roots[n % 2]}{{s}}/dfs/{name}{n + 1}'
        lab.set_link(roots[(n - 1) % 2], f'{name}{n}', [target])
    return f'{ROOT}/{name}1'


def test_A03_a_root_lists_its_links(names):
    listed = names(ROOT)
    assert listed['two'] == listed['dangling'] == listed['emoji-😀'] == 'link'
    assert listed['plain-dir'] == 'dir' and listed['readme.txt'] == 'file'
    assert names(ROOT + '/two')['hello.txt'] == 'file'


def test_A04_a_link(get):
    assert get(ROOT + '/single/who') == 't1\n'


def test_A05_a_path_below_a_link(get, names):
    assert names(ROOT + '/single/sub/deep') == {'leaf.txt': 'file'}
    assert get(ROOT + '/single/sub/deep/leaf.txt') == 'below a share\n'


def test_A06_a_link_three_levels_deep(get, names):
    assert names(ROOT + '/a/b') == {'c': 'dir'}
    assert get(ROOT + '/a/b/c/link/sub/deep/leaf.txt') == 'below a share\n'


def test_A07_a_target_below_its_share(get):
    assert get(ROOT + '/below/leaf.txt') == 'below a share\n'


def test_A08_a_target_without_the_path_is_passed_over(names):
    assert names(ROOT + '/missingpath') == {'file.txt': 'file'}


def test_A09_a_path_that_no_target_has(fails):
    fails(ROOT + '/three/no/such/file', MISSING_PATH, seconds=3)


@pytest.mark.parametrize('links', [2, 3, 8])
def test_A11_nested_links(lab, get, links):
    assert get(make_chain(lab, f'deep{links}-', links) + '/who') == 't1\n'


def test_A11_nine_nested_links_are_too_many(lab, fails):
    fails(make_chain(lab, 'deep9-', 9) + '/who', LOOP, seconds=5)


def test_A13_an_interlink_that_only_the_target_tells(get, names):
    assert names(ROOT + '/nested')['inner'] == 'link'
    assert get(ROOT + '/nested/inner/who') == 't2\n'
    assert get(ROOT + '/nestlink/who') == 't2\n'


def test_A14_a_proxy_share_that_refuses_tree_connects(lab, get):
    assert get('//root1/proxy/who') == 't1\n'
    lab.fail('kill', 't1')
    assert get('//root1/proxy/who') == 't2\n'


def test_A15_a_link_that_does_not_exist(fails):
    fails(ROOT + '/nosuch', MISSING_PATH, seconds=3)


@pytest.mark.parametrize('link', ['empty', 'broken'])
def test_A16_A18_a_link_without_targets_or_with_broken_text(dfsctl, names, link):
    run = dfsctl('ls', f'{ROOT}/{link}', check=False)
    assert run.returncode in (MISSING_PATH, DANGLING) and len(run.stderr.splitlines()) == 1, run
    assert names(ROOT)['readme.txt'] == 'file'


@pytest.mark.parametrize('link,about', [('dangling', 'nosuchhost'), ('noshare', 'nosuchshare')])
def test_A17_a_dangling_link(fails, get, link, about):
    assert about in fails(f'{ROOT}/{link}/who', DANGLING)
    assert get(ROOT + '/single/who') == 't1\n'


def test_A17_a_dead_first_target_is_passed_over(get):
    assert get(ROOT + '/halfdead/who') == 't2\n'


@pytest.mark.parametrize('link', ['pingpong', 'loop'])
def test_A19_A20_a_loop_ends(lab, fails, link):
    with lab.capture('root1') as first, lab.capture('root2') as second:
        fails(f'{ROOT}/{link}/who', LOOP, seconds=5)
    assert 0 < first.referrals() + second.referrals() <= 16


def test_A21_a_link_to_its_own_root(get):
    assert get(ROOT + '/upwards/readme.txt') == 'a file in root1 itself\n'
    assert get(ROOT + '/upwards/upwards/upwards/single/who') == 't1\n'


@pytest.mark.parametrize('source', [
    '//root1/dfs/single/who/', '//root1/dfs//single///who', r'\\root1\dfs\single\who',
    r'\\root1/dfs\single/who', '//root1.lab.test/dfs/single/who', '//ROOT1/DFS/Single/WHO'])
def test_A22_A23_spellings_of_one_source(get, source):
    assert get(source) == 't1\n'


def test_A24_names_that_fold_differently_are_different(lab, get, fails):
    """Dotted and dotless i, sharp s, final sigma: no client may take one for the other."""
    lab.set_link('root1', 'İstanbul', ['t2{s}/share'])
    lab.set_link('root1', 'straße', ['t3{s}/share'])
    lab.set_link('root1', 'λόγος', ['t2{s}/share'])
    assert get(ROOT + '/İstanbul/who') == 't2\n'
    assert get(ROOT + '/straße/who') == 't3\n'
    assert get(ROOT + '/λόγος/who') == 't2\n'
    fails(ROOT + '/Istanbul/who', MISSING_PATH)
    fails(ROOT + '/strasse/who', MISSING_PATH)


@pytest.mark.parametrize('path,text', [
    ('ünïcødé-链接/who', 't1\n'), ('ünïcødé-链接/sub/deep/leaf.txt', 'below a share\n'),
    ('emoji-😀/who', 't2\n'), ('emoji-😀/文件.txt', '文件.txt\n'),
    ('emoji-😀/emoji-😀.txt', 'emoji-😀.txt\n')])
def test_A25_links_beyond_latin(get, path, text):
    assert get(f'{ROOT}/{path}') == text


def test_A26_composed_and_decomposed_names_are_different(lab, get):
    composed, decomposed = (unicodedata.normalize(form, 'café') for form in ('NFC', 'NFD'))
    lab.set_link('root1', composed, ['t1{s}/share'])
    lab.set_link('root1', decomposed, ['t2{s}/share'])
    assert get(f'{ROOT}/{composed}/who') == 't1\n'
    assert get(f'{ROOT}/{decomposed}/who') == 't2\n'


def test_A27_long_names(get, fails):
    name = 'n' * 251 + '.txt'
    assert get(f'{ROOT}/two/{name}') == 'a name of 255 characters\n'
    fails(f'{ROOT}/two/n{name}', BAD_ARGUMENT)


def test_A28_a_long_link_with_many_targets(lab, get):
    """The only target that exists is the last of twenty, in a reply of more than 1 KiB."""
    name = 'l' * 200
    lab.set_link('root1', name, [f't1{{s}}/nosuchshare-with-a-long-name-{n:02}' for n in range(19)]
                 + ['t2{s}/share'])
    assert get(f'{ROOT}/{name}/who') == 't2\n'


def test_A31_targets_by_address_and_by_short_name(lab, get):
    lab.set_link('root1', 'by-address', [lab.address('t3') + '/share'])
    lab.set_link('root1', 'by-short-name', ['t3/share'])
    assert get(ROOT + '/by-address/who') == 't3\n'
    assert get(ROOT + '/by-short-name/who') == 't3\n'
