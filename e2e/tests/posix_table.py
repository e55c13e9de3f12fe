"""What POSIX calls must answer, one row per case: run by tools/run_posix_table.py on a local disk and on the
mount, compared by test_posix_table.py. The rows that differ stand in docs/posix.md, too:

  posix_table.py    prints that part of docs/posix.md

A row is Python; the value of its last line is its outcome. What it may use, beside the standard library:
  p(name)          a path in the row's own new folder        make(name, content=b'x')  makes a file; its path
  e(call, *args)   'ok', or the name of the errno            fd(path, flags, mode=0o777)  an open file, closed at the end
  v(call, *args)   its value, or the name of the errno       other                     a folder of another file system
A row of a read-only mount has `ro`, a folder there, which holds a file `file` and a folder `dir`.
"""

from posix_row import KINDS
from posix_rows_files import ATTRIBUTES, CONTENT, OTHERS, READ_ONLY
from posix_rows_names import FOLDERS, NAMES, OPEN, RENAME

ROWS = [*OPEN, *NAMES, *FOLDERS, *RENAME, *CONTENT, *ATTRIBUTES, *OTHERS, *READ_ONLY]


def markdown():
    """The differences, as they stand in docs/posix.md."""
    lines = []
    for kind, title in KINDS.items():
        rows = [row for row in ROWS if row.why and row.kind == kind]
        if not rows:
            continue
        lines += [f'## {title}', '', '| case | local disk | mount | why |', '|---|---|---|---|']
        cell = lambda text: str(text).replace('|', r'\|')
        lines += [f'| {cell(row.name)} | `{cell(row.local)}` | `{cell(row.mount)}` | {cell(row.why)} |' for row in rows]
        lines.append('')
    return '\n'.join(lines)


if __name__ == '__main__':
    print(markdown())
