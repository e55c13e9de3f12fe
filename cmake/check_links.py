#!/usr/bin/python3
"""Every relative link of a Markdown file leads to a file, and every #anchor to a heading."""

import os
import re

import repository

FENCE = re.compile(r'^(```|~~~).*?^\1', re.DOTALL | re.MULTILINE)
CODE = re.compile(r'`[^`\n]*`')
LINK = re.compile(r'\[[^\]\n]*\]\(\s*<?([^)\s>]+)>?(?:\s+"[^"]*")?\s*\)')
HEADING = re.compile(r'^#{1,6}\s+(.*?)\s*#*\s*$', re.MULTILINE)


def anchors(text):
    """The anchors that GitHub gives to the headings of `text`."""
    seen, found = {}, set()
    for heading in HEADING.findall(FENCE.sub('', text)):
        plain = re.sub(r'\[([^\]]*)\]\([^)]*\)', r'\1', heading.replace('`', ''))
        slug = re.sub(r'[^\w\- ]', '', plain.lower()).replace(' ', '-')
        number = seen.get(slug, 0)
        seen[slug] = number + 1
        found.add(slug if number == 0 else f'{slug}-{number}')
    return found


def findings_in(path, text, exists, read):
    found = []
    for target in LINK.findall(CODE.sub('', FENCE.sub('', text))):
        if re.match(r'[a-z][a-z0-9+.-]*:', target):
            continue  # Another site: not asked.
        file, _, anchor = target.partition('#')
        to = os.path.normpath(os.path.join(os.path.dirname(path), file)) if file else path
        if to.startswith('..') or not exists(to):
            found.append(f'{path}: {target} leads nowhere')
        elif anchor and to.endswith('.md'):
            if anchor.lower() not in anchors(text if to == path else read(to)):
                found.append(f'{path}: {target}: no such heading')
    return found


def check():
    paths = repository.files('*.md')
    exists = lambda path: os.path.exists(os.path.join(repository.ROOT, path))
    findings = [finding for path in paths
                for finding in findings_in(path, repository.read(path), exists, repository.read)]
    return repository.report(findings, len(paths))


TREE = {'docs/a.md': '# One\n## Two `x` (three)\n', 'README.md': ''}
PLANTED = [
    ('[a](docs/a.md)', False), ('[a](docs/b.md)', True), ('[a](docs/a.md#two-x-three)', False),
    ('[a](docs/a.md#four)', True), ('`[a](nowhere.md)`', False),
    ('```\n[a](nowhere.md)\n```\n', False), ('[a](https://example.com/x)', False),
    ('[a](../outside.md)', True), ('# Here\n[a](#here)', False), ('[a](#there)', True),
]


def self_test():
    wrong = [f'{text!r}: expected {"a" if bad else "no"} finding' for text, bad in PLANTED
             if bool(findings_in('README.md', text, TREE.__contains__, TREE.__getitem__)) != bad]
    return repository.report(wrong, len(PLANTED))


if __name__ == '__main__':
    repository.main(check, self_test)
