"""Rows of posix_table.py: opening, names, folders, renaming."""

from posix_row import Row, smb

OPEN = [
    Row('open: missing', "e(os.open, p('x'), os.O_RDONLY)", 'ENOENT'),
    Row('open: for writing, missing', "e(os.open, p('x'), os.O_WRONLY)", 'ENOENT'),
    Row('open: empty path', "e(os.open, '', os.O_RDONLY)", 'ENOENT'),
    Row('open: below a missing folder', "e(os.open, p('x/y'), os.O_CREAT | os.O_WRONLY)", 'ENOENT'),
    Row('open: below a file', "make('f')\ne(os.open, p('f/y'), os.O_RDONLY)", 'ENOTDIR'),
    Row('open: made below a file', "make('f')\ne(os.open, p('f/y'), os.O_CREAT | os.O_WRONLY)", 'ENOTDIR'),
    Row('open: a file with a trailing slash', "make('f')\ne(os.open, p('f/'), os.O_RDONLY)", 'ENOTDIR'),
    Row('open: made with a trailing slash', "e(os.open, p('f/'), os.O_CREAT | os.O_WRONLY)", 'EISDIR'),
    Row('open: O_EXCL on a file', "make('f')\ne(os.open, p('f'), os.O_CREAT | os.O_EXCL | os.O_RDWR)", 'EEXIST'),
    Row('open: O_EXCL on a folder',
        "os.mkdir(p('d'))\n"
        "e(os.open, p('d'), os.O_CREAT | os.O_EXCL | os.O_RDWR)",
        'EEXIST'),
    Row('open: O_EXCL on a new name', "e(os.open, p('f'), os.O_CREAT | os.O_EXCL | os.O_RDWR)", 'ok'),
    Row('open: O_EXCL right after unlink',
        "os.unlink(make('f'))\n"
        "e(os.open, p('f'), os.O_CREAT | os.O_EXCL | os.O_RDWR)",
        'ok'),
    Row('open: O_CREAT on a folder', "os.mkdir(p('d'))\ne(os.open, p('d'), os.O_CREAT | os.O_RDWR)", 'EISDIR'),
    Row('open: O_CREAT, for reading alone',
        "f = fd(p('f'), os.O_CREAT | os.O_RDONLY)\n"
        "(os.fstat(f).st_size, v(os.write, f, b'x'))",
        (0, 'EBADF')),
    Row('open: O_DIRECTORY on a file', "make('f')\ne(os.open, p('f'), os.O_RDONLY | os.O_DIRECTORY)", 'ENOTDIR'),
    Row('open: O_DIRECTORY on a folder', "os.mkdir(p('d'))\ne(os.open, p('d'), os.O_RDONLY | os.O_DIRECTORY)", 'ok'),
    Row('open: a folder for writing', "os.mkdir(p('d'))\ne(os.open, p('d'), os.O_WRONLY)", 'EISDIR'),
    Row('open: a folder for both', "os.mkdir(p('d'))\ne(os.open, p('d'), os.O_RDWR)", 'EISDIR'),
    Row('open: O_TRUNC on a folder', "os.mkdir(p('d'))\ne(os.open, p('d'), os.O_RDONLY | os.O_TRUNC)", 'EISDIR'),
    Row('open: O_TRUNC empties',
        "make('f', b'123')\n"
        "fd(p('f'), os.O_WRONLY | os.O_TRUNC)\n"
        "os.stat(p('f')).st_size",
        0),
    Row('open: O_TRUNC empties for who has it open',
        "f = fd(make('f', b'123'), os.O_RDONLY)\n"
        'os.read(f, 1)\n'
        "fd(p('f'), os.O_WRONLY | os.O_TRUNC)\n"
        '(os.fstat(f).st_size, os.read(f, 9))',
        (0, b'')),
    Row('open: O_CREAT | O_TRUNC of what is there',
        "make('f', b'123')\n"
        "fd(p('f'), os.O_CREAT | os.O_WRONLY | os.O_TRUNC)\n"
        "os.stat(p('f')).st_size",
        0),
    Row('open: O_NOFOLLOW on a symlink',
        "os.symlink('x', p('l'))\n"
        "e(os.open, p('l'), os.O_RDONLY | os.O_NOFOLLOW)",
        'ELOOP'),
    Row('open: O_TMPFILE',
        "e(os.open, p('.'), os.O_TMPFILE | os.O_RDWR)",
        'ok', **smb('EOPNOTSUPP', 'SMB has no files without a name')),
    Row('open: O_PATH', "f = fd(make('f'), os.O_PATH)\n(os.fstat(f).st_size, v(os.read, f, 1))", (1, 'EBADF')),
    Row('open: O_DIRECT reads and writes',
        "f = fd(p('f'), os.O_CREAT | os.O_RDWR | os.O_DIRECT)\n"
        'm = mmap.mmap(-1, 4096)\n'
        "m[:] = b'z' * 4096\n"
        '(os.pwrite(f, m, 0), os.preadv(f, [m], 0), m[:1])',
        (4096, 4096, b'z')),
    Row('open: the new file is empty and a file',
        "fd(p('f'), os.O_CREAT | os.O_WRONLY)\n"
        "(os.stat(p('f')).st_size, stat.S_ISREG(os.stat(p('f')).st_mode))",
        (0, True)),
    Row('open: the umask',
        'before = os.umask(0o077)\n'
        "fd(p('f'), os.O_CREAT | os.O_WRONLY)\n"
        'os.umask(before)\n'
        "oct(os.stat(p('f')).st_mode & 0o777)",
        '0o700', **smb('0o755', 'modes are those of the mount, file_mode and dir_mode')),
]

NAMES = [
    Row('names: 255 bytes', "e(make, 'n' * 255)", 'ok'),
    Row('names: 256 bytes', "e(make, 'n' * 256)", 'ENAMETOOLONG'),
    Row('names: 256 bytes, stat', "e(os.stat, p('n' * 256))", 'ENAMETOOLONG'),
    Row('names: 256 bytes, mkdir', "e(os.mkdir, p('n' * 256))", 'ENAMETOOLONG'),
    Row('names: 256 bytes, rename to', "make('f')\ne(os.rename, p('f'), p('n' * 256))", 'ENAMETOOLONG'),
    Row('names: a path beyond PATH_MAX', "e(os.stat, p('/'.join(['n' * 200] * 25)))", 'ENAMETOOLONG'),
    Row('names: Unicode, as it was given', "make('grüße-文件-😀')\nsorted(os.listdir(p('.')))", ['grüße-文件-😀']),
    Row('names: composed and decomposed differ', "make('\\u00fc')\nmake('u\\u0308')\nlen(os.listdir(p('.')))", 2),
    Row('names: what Windows does not allow',
        'for n in \'a:b\', \'a*\', \'a?\', \'a"\', \'a<\', \'a>\', \'a|\', \'a\\\\b\': make(n)\n'
        "sorted(os.listdir(p('.')))",
        sorted(['a:b', 'a*', 'a?', 'a"', 'a<', 'a>', 'a|', 'a\\b'])),
    Row('names: control characters', "make('a\\tb\\x01')\nos.listdir(p('.'))", ['a\tb\x01']),
    Row('names: a dot at the end', "make('a.')\n(os.listdir(p('.')), e(os.stat, p('a')))", (['a.'], 'ENOENT')),
    Row('names: a space at the end', "make('a ')\n(os.listdir(p('.')), e(os.stat, p('a')))", (['a '], 'ENOENT')),
    Row('names: a dot at the beginning', "make('.a')\nos.listdir(p('.'))", ['.a']),
    Row('names: as 8.3 names look',
        "make('LONGNA~1.TXT')\n"
        "make('longnamethatislong.txt')\n"
        "len(os.listdir(p('.')))",
        2),
    Row('names: devices of DOS', "for n in 'CON', 'nul', 'COM1', 'aux.txt': make(n)\nlen(os.listdir(p('.')))", 4),
    Row('names: devices of DOS, listed',
        "make('aux.txt')\nos.listdir(p('.')) == ['aux.txt']",
        True, **smb(False, 'Samba lists another name for them (`mangled names = no` of its share ends that)')),
    Row('names: not UTF-8',
        "e(os.open, os.fsencode(p('a')) + b'\\xff', os.O_CREAT | os.O_WRONLY)",
        'ok', **smb('EILSEQ', 'names are UTF-16 on the wire')),
    Row('names: two cases are two names',
        "make('a')\n"
        "make('A')\n"
        "len(os.listdir(p('.')))",
        2, **smb('EEXIST', 'names have no case on most servers')),
    Row('names: another case is missing',
        "make('a')\n"
        "e(os.stat, p('A'))",
        'ENOENT', **smb('ok', 'names have no case on most servers')),
    Row('names: case-only rename', "os.rename(make('a'), p('A'))\nos.listdir(p('.'))", ['A']),
    Row('names: dot', "e(os.mkdir, p('.'))", 'EEXIST'),
    Row('names: dot-dot', "os.mkdir(p('d'))\nsorted(os.listdir(p('d/..')))", ['d']),
    Row('names: rmdir of dot', "e(os.rmdir, p('.'))", 'EINVAL'),
    Row('names: rmdir of dot-dot', "os.mkdir(p('d'))\ne(os.rmdir, p('d/..'))", 'ENOTEMPTY'),
    Row('names: unlink of dot', "e(os.unlink, p('.'))", 'EISDIR'),
    Row('names: rename of dot', "os.mkdir(p('d'))\ne(os.rename, p('d/.'), p('e'))", 'EBUSY'),
    Row('names: rename to dot-dot', "os.mkdir(p('d'))\nos.mkdir(p('e'))\ne(os.rename, p('d'), p('e/..'))", 'EBUSY'),
]

FOLDERS = [
    Row('mkdir: there', "os.mkdir(p('d'))\ne(os.mkdir, p('d'))", 'EEXIST'),
    Row('mkdir: a file is there', "make('f')\ne(os.mkdir, p('f'))", 'EEXIST'),
    Row('mkdir: below a missing folder', "e(os.mkdir, p('x/y'))", 'ENOENT'),
    Row('mkdir: below a file', "make('f')\ne(os.mkdir, p('f/y'))", 'ENOTDIR'),
    Row('mkdir: with a trailing slash', "e(os.mkdir, p('d/'))", 'ok'),
    Row('mkdir: right after rmdir', "os.mkdir(p('d'))\nos.rmdir(p('d'))\ne(os.mkdir, p('d'))", 'ok'),
    Row('rmdir: missing', "e(os.rmdir, p('x'))", 'ENOENT'),
    Row('rmdir: a file', "make('f')\ne(os.rmdir, p('f'))", 'ENOTDIR'),
    Row('rmdir: with a file in it', "os.mkdir(p('d'))\nmake('d/f')\ne(os.rmdir, p('d'))", 'ENOTEMPTY'),
    Row('rmdir: with a folder in it', "os.makedirs(p('d/e'))\ne(os.rmdir, p('d'))", 'ENOTEMPTY'),
    Row('rmdir: with a trailing slash', "os.mkdir(p('d'))\ne(os.rmdir, p('d/'))", 'ok'),
    Row('rmdir: below a file', "make('f')\ne(os.rmdir, p('f/d'))", 'ENOTDIR'),
    Row('rmdir: right after its last file was closed and removed',
        "os.mkdir(p('d'))\n"
        "f = os.open(p('d/f'), os.O_CREAT | os.O_RDWR)\n"
        'os.close(f)\n'
        "os.unlink(p('d/f'))\n"
        "e(os.rmdir, p('d'))",
        'ok'),
    Row('rmdir: open as a folder',
        "os.mkdir(p('d'))\n"
        "fd(p('d'), os.O_RDONLY | os.O_DIRECTORY)\n"
        "(e(os.rmdir, p('d')), e(os.stat, p('d')))",
        ('ok', 'ENOENT')),
    Row('rmdir: held a file that was removed while it is open',
        "os.mkdir(p('d'))\n"
        "fd(make('d/f'), os.O_RDONLY)\n"
        "os.unlink(p('d/f'))\n"
        "e(os.rmdir, p('d'))",
        'ok', **smb('ENOTEMPTY', 'the file has a hidden name there until it is closed')),
    Row('unlink: missing', "e(os.unlink, p('x'))", 'ENOENT'),
    Row('unlink: a folder', "os.mkdir(p('d'))\ne(os.unlink, p('d'))", 'EISDIR'),
    Row('unlink: with a trailing slash', "make('f')\ne(os.unlink, p('f/'))", 'ENOTDIR'),
    Row('unlink: a folder with a trailing slash', "os.mkdir(p('d'))\ne(os.unlink, p('d/'))", 'EISDIR'),
    Row('unlink: below a file', "make('f')\ne(os.unlink, p('f/x'))", 'ENOTDIR'),
    Row('unlink: twice', "os.unlink(make('f'))\ne(os.unlink, p('f'))", 'ENOENT'),
    Row('unlink: open, the bytes stay',
        "f = fd(make('f', b'text'), os.O_RDWR)\n"
        "os.unlink(p('f'))\n"
        "os.pwrite(f, b'T', 0)\n"
        "(e(os.stat, p('f')), os.pread(f, 9, 0), os.fstat(f).st_size)",
        ('ENOENT', b'Text', 4)),
    Row('unlink: open, not listed',
        "fd(make('f'), os.O_RDONLY)\n"
        "os.unlink(p('f'))\n"
        "len(os.listdir(p('.')))",
        0, **smb(1, 'the file has a hidden name there until it is closed')),
    Row('unlink: open, number of names',
        "f = fd(make('f'), os.O_RDONLY)\n"
        "os.unlink(p('f'))\n"
        'os.fstat(f).st_nlink',
        0),
    Row('unlink: open by two handles',
        "f, g = fd(make('f', b'text'), os.O_RDONLY), fd(p('f'), os.O_RDONLY)\n"
        "os.unlink(p('f'))\n"
        'os.close(os.dup(f))\n'
        '(os.pread(f, 4, 0), os.pread(g, 4, 0))',
        (b'text', b'text')),
    Row('unlink: mapped, the bytes stay',
        "f = fd(make('f', b'text' * 1024), os.O_RDWR)\n"
        'm = mmap.mmap(f, 4096)\n'
        "os.unlink(p('f'))\n"
        "m[0:1] = b'T'\n"
        'm.flush()\n'
        'm[0:4]',
        b'Text'),
    Row('unlink: read-only attribute',
        "os.chmod(make('f'), 0o444)\n"
        "e(os.unlink, p('f'))",
        'ok'),
    Row('readdir: after create', "make('f')\nos.listdir(p('.'))", ['f']),
    Row('readdir: after unlink', "make('f')\nos.listdir(p('.'))\nos.unlink(p('f'))\nos.listdir(p('.'))", []),
    Row('readdir: after rename',
        "make('f')\n"
        "os.listdir(p('.'))\n"
        "os.rename(p('f'), p('g'))\n"
        "os.listdir(p('.'))",
        ['g']),
    Row('readdir: after mkdir',
        "os.listdir(p('.'))\n"
        "os.mkdir(p('d'))\n"
        "[(x.name, x.is_dir()) for x in os.scandir(p('.'))]",
        [('d', True)]),
    Row('readdir: a missing folder', "e(os.listdir, p('x'))", 'ENOENT'),
    Row('readdir: a file', "make('f')\ne(os.listdir, p('f'))", 'ENOTDIR'),
    Row('readdir: sizes and types of the entries',
        "make('f', b'12345')\n"
        "os.mkdir(p('d'))\n"
        "sorted((x.name, x.is_file(), x.stat().st_size if x.is_file() else 0) for x in os.scandir(p('.')))",
        [('d', False, 0), ('f', True, 5)]),
    Row('readdir: 300 new files, each once',
        "for n in range(300): make(f'f{n}')\n"
        "(len(os.listdir(p('.'))), len(set(os.listdir(p('.')))))",
        (300, 300)),
    Row('readdir: removed while it is read',
        "for n in range(300): make(f'f{n}')\n"
        "with os.scandir(p('.')) as s: seen = [(os.unlink(x.path), x.name)[1] for x in s]\n"
        "(len(seen), os.listdir(p('.')))",
        (300, [])),
    Row('folder: number of names',
        "os.makedirs(p('d/e'))\n"
        "os.stat(p('d')).st_nlink",
        3, **smb(2, 'servers do not count the folders of a folder')),
    Row('folder: read(2)', "e(os.read, fd(p('.'), os.O_RDONLY), 1)", 'EISDIR'),
    Row('folder: fsync', "e(os.fsync, fd(p('.'), os.O_RDONLY))", 'ok'),
    Row('folder: mtime after a file is made',
        "os.utime(p('.'), (1e9, 1e9))\n"
        "make('f')\n"
        "os.stat(p('.')).st_mtime > 1e9 + 1",
        True),
]

RENAME = [
    Row('rename: missing', "e(os.rename, p('x'), p('y'))", 'ENOENT'),
    Row('rename: to below a missing folder', "make('f')\ne(os.rename, p('f'), p('x/y'))", 'ENOENT'),
    Row('rename: to below a file', "make('f')\nmake('g')\ne(os.rename, p('f'), p('g/y'))", 'ENOTDIR'),
    Row('rename: a file over a file',
        "os.rename(make('f', b'new'), make('g', b'old'))\n"
        "(open(p('g'), 'rb').read(), os.listdir(p('.')))",
        (b'new', ['g'])),
    Row('rename: a file over a folder', "make('f')\nos.mkdir(p('d'))\ne(os.rename, p('f'), p('d'))", 'EISDIR'),
    Row('rename: a folder over a file', "make('f')\nos.mkdir(p('d'))\ne(os.rename, p('d'), p('f'))", 'ENOTDIR'),
    Row('rename: a folder over an empty folder',
        "os.mkdir(p('d'))\n"
        "make('d/f')\n"
        "os.mkdir(p('e'))\n"
        "(e(os.rename, p('d'), p('e')), v(os.listdir, p('e')))",
        ('ok', ['f'])),
    Row('rename: a folder over a full folder',
        "os.mkdir(p('d'))\n"
        "os.mkdir(p('e'))\n"
        "make('e/f')\n"
        "e(os.rename, p('d'), p('e'))",
        'ENOTEMPTY'),
    Row('rename: onto itself',
        "make('f', b'text')\n"
        "(e(os.rename, p('f'), p('f')), open(p('f'), 'rb').read())",
        ('ok', b'text')),
    Row('rename: a folder onto itself', "os.mkdir(p('d'))\ne(os.rename, p('d'), p('d'))", 'ok'),
    Row('rename: a folder into itself', "os.mkdir(p('d'))\ne(os.rename, p('d'), p('d/e'))", 'EINVAL'),
    Row('rename: onto its own parent', "os.makedirs(p('d/e'))\ne(os.rename, p('d/e'), p('d'))", 'ENOTEMPTY'),
    Row('rename: a file with a trailing slash', "make('f')\ne(os.rename, p('f/'), p('g'))", 'ENOTDIR'),
    Row('rename: a file to a trailing slash', "make('f')\ne(os.rename, p('f'), p('g/'))", 'ENOTDIR'),
    Row('rename: a folder to a trailing slash', "os.mkdir(p('d'))\ne(os.rename, p('d'), p('e/'))", 'ok'),
    Row('rename: into another folder',
        "os.mkdir(p('d'))\n"
        "os.rename(make('f', b'text'), p('d/f'))\n"
        "(open(p('d/f'), 'rb').read(), e(os.stat, p('f')))",
        (b'text', 'ENOENT')),
    Row('rename: to another file system', "make('f')\ne(os.rename, p('f'), other + '/f')", 'EXDEV'),
    Row('rename: from another file system',
        "open(other + '/f', 'w').close()\n"
        "e(os.rename, other + '/f', p('f'))",
        'EXDEV'),
    Row('rename: NOREPLACE over a file', "make('f')\nmake('g')\ne(renameat2, p('f'), p('g'), 1)", 'EEXIST'),
    Row('rename: NOREPLACE to a new name',
        "make('f')\n"
        "(e(renameat2, p('f'), p('g'), 1), os.listdir(p('.')))",
        ('ok', ['g'])),
    Row('rename: EXCHANGE',
        "make('f')\n"
        "make('g')\n"
        "e(renameat2, p('f'), p('g'), 2)",
        'ok', **smb('EINVAL', 'SMB cannot exchange two names')),
    Row('rename: an open file',
        "f = fd(make('f', b'text'), os.O_RDWR)\n"
        "os.rename(p('f'), p('g'))\n"
        "os.pwrite(f, b'T', 0)\n"
        "(open(p('g'), 'rb').read(), os.fstat(f).st_size)",
        (b'Text', 4)),
    Row('rename: over an open file',
        "f = fd(make('g', b'old'), os.O_RDONLY)\n"
        "os.rename(make('f', b'new'), p('g'))\n"
        "(os.pread(f, 9, 0), open(p('g'), 'rb').read())",
        (b'old', b'new')),
    Row('rename: a folder with an open file',
        "os.mkdir(p('d'))\n"
        "fd(make('d/f'), os.O_RDONLY)\n"
        "e(os.rename, p('d'), p('e'))",
        'ok', **smb('EACCES', 'servers do not rename a folder in which a file is open')),
    Row('rename: a folder whose file was just closed',
        "os.mkdir(p('d'))\n"
        "os.close(os.open(make('d/f'), os.O_RDWR))\n"
        "e(os.rename, p('d'), p('e'))",
        'ok'),
    Row('rename: a folder that is open',
        "os.mkdir(p('d'))\n"
        "d = fd(p('d'), os.O_RDONLY)\n"
        'os.listdir(d)\n'
        "(e(os.rename, p('d'), p('e')), v(os.listdir, d))",
        ('ok', [])),
    Row('rename: a read-only file', "os.chmod(make('f'), 0o444)\ne(os.rename, p('f'), p('g'))", 'ok'),
    Row('rename: over a read-only file', "os.chmod(make('g'), 0o444)\nmake('f')\ne(os.rename, p('f'), p('g'))", 'ok'),
    Row('rename: the inode number stays',
        "n = os.stat(make('f')).st_ino\n"
        "os.rename(p('f'), p('g'))\n"
        "os.stat(p('g')).st_ino == n",
        True),
    Row('rename: mtime stays',
        "os.utime(make('f'), (1e9, 1e9))\n"
        "os.rename(p('f'), p('g'))\n"
        "os.stat(p('g')).st_mtime",
        1000000000.0),
]
