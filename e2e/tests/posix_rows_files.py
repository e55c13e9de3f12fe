"""Rows of posix_table.py: content, attributes, other kinds of files, read-only mounts."""

from posix_row import Row, smb

CONTENT = [
    Row('read: a write-only handle', "e(os.read, fd(make('f'), os.O_WRONLY), 1)", 'EBADF'),
    Row('write: a read-only handle', "e(os.write, fd(make('f'), os.O_RDONLY), b'x')", 'EBADF'),
    Row('read: beyond the end', "os.pread(fd(make('f', b'123'), os.O_RDONLY), 10, 5)", b''),
    Row('read: over the end', "os.pread(fd(make('f', b'123'), os.O_RDONLY), 10, 1)", b'23'),
    Row('read: a negative offset', "e(os.pread, fd(make('f'), os.O_RDONLY), 1, -1)", 'EINVAL'),
    Row('write: a negative offset', "e(os.pwrite, fd(make('f'), os.O_RDWR), b'x', -1)", 'EINVAL'),
    Row('write: nothing',
        "f = fd(make('f', b'12'), os.O_RDWR)\n"
        "(os.pwrite(f, b'', 10), os.fstat(f).st_size)",
        (0, 2)),
    Row('write: beyond the end leaves zeros',
        "f = fd(make('f', b'12'), os.O_RDWR)\n"
        "os.pwrite(f, b'x', 5)\n"
        'os.pread(f, 9, 0)',
        b'12\x00\x00\x00x'),
    Row('write: at the greatest offset',
        "e(os.pwrite, fd(make('f'), os.O_RDWR), b'x', 2 ** 63 - 2)",
        'EFBIG', **smb('EINVAL', 'how big a file may be is the server’s own')),
    Row('write: at 5 GiB',
        "f = fd(make('f'), os.O_RDWR)\n"
        "os.pwrite(f, b'x', 5 << 30)\n"
        "(os.stat(p('f')).st_size, os.pread(f, 2, (5 << 30) - 1))",
        ((5 << 30) + 1, b'\x00x')),
    Row('write: seen by another handle',
        "f, g = fd(make('f', b'12'), os.O_RDWR), fd(p('f'), os.O_RDONLY)\n"
        'os.pread(g, 9, 0)\n'
        "os.pwrite(f, b'345', 2)\n"
        'os.pread(g, 9, 0)',
        b'12345'),
    Row('write: seen by a mapping',
        "f = fd(make('f', b'12'), os.O_RDWR)\n"
        'm = mmap.mmap(f, 2)\n'
        'm[0]\n'
        "os.pwrite(f, b'ab', 0)\n"
        'm[:]',
        b'ab'),
    Row('write: the offset moves',
        "f = fd(p('f'), os.O_CREAT | os.O_RDWR)\n"
        "os.write(f, b'12')\n"
        "os.write(f, b'34')\n"
        '(os.lseek(f, 0, os.SEEK_CUR), os.pread(f, 9, 0))',
        (4, b'1234')),
    Row('write: many buffers',
        "f = fd(p('f'), os.O_CREAT | os.O_RDWR)\n"
        "(os.writev(f, [b'1', b'', b'23']), os.pread(f, 9, 0))",
        (3, b'123')),
    Row('write: 3 MiB in one call',
        "f = fd(p('f'), os.O_CREAT | os.O_RDWR)\n"
        "(os.pwrite(f, b'y' * (3 << 20), 1), os.pread(f, 2, 3 << 20))",
        (3 << 20, b'y')),
    Row('write: a mapping, seen by read',
        "f = fd(make('f', b'12'), os.O_RDWR)\n"
        'm = mmap.mmap(f, 2)\n'
        "m[1:2] = b'z'\n"
        'os.pread(f, 9, 0)',
        b'1z'),
    Row('write: a private mapping changes nothing',
        "f = fd(make('f', b'12'), os.O_RDWR)\n"
        'm = mmap.mmap(f, 2, flags=mmap.MAP_PRIVATE)\n'
        "m[1:2] = b'z'\n"
        '(os.pread(f, 9, 0), m[:])',
        (b'12', b'1z')),
    Row('mmap: for writing, of a read-only handle', "e(mmap.mmap, fd(make('f'), os.O_RDONLY), 1)", 'EACCES'),
    Row('mmap: read after the handle was closed',
        "f = os.open(make('f', b'text'), os.O_RDONLY)\n"
        'm = mmap.mmap(f, 4, prot=mmap.PROT_READ)\n'
        'os.close(f)\n'
        'm[:]',
        b'text'),
    Row('append: goes to the end',
        "f = fd(make('f', b'12'), os.O_WRONLY | os.O_APPEND)\n"
        "(v(os.write, f, b'34'), open(p('f'), 'rb').read())",
        (2, b'1234')),
    Row('append: after another one wrote',
        "f = fd(make('f', b'12'), os.O_WRONLY | os.O_APPEND)\n"
        "g = fd(p('f'), os.O_WRONLY)\n"
        "os.pwrite(g, b'345', 2)\n"
        "(v(os.write, f, b'6'), open(p('f'), 'rb').read())",
        (1, b'123456')),
    Row('append: pwrite appends, too',
        "f = fd(make('f', b'12'), os.O_WRONLY | os.O_APPEND)\n"
        "(v(os.pwrite, f, b'3', 0), open(p('f'), 'rb').read())",
        (1, b'123')),
    Row('append: reading', "f = fd(make('f', b'12'), os.O_RDWR | os.O_APPEND)\nos.read(f, 9)", b'12'),
    Row('append: set later',
        "f = fd(make('f', b'12'), os.O_RDWR)\n"
        'fcntl.fcntl(f, fcntl.F_SETFL, os.O_APPEND)\n'
        "(v(os.write, f, b'3'), open(p('f'), 'rb').read())",
        (1, b'123')),
    Row('append: set later, another one wrote meanwhile',
        "f = fd(make('f', b'12'), os.O_RDWR)\n"
        'fcntl.fcntl(f, fcntl.F_SETFL, os.O_APPEND)\n'
        "os.pwrite(fd(p('f'), os.O_WRONLY), b'345', 2)\n"
        "(v(os.write, f, b'6'), open(p('f'), 'rb').read(), os.lseek(f, 0, os.SEEK_CUR))",
        (1, b'123456', 6)),
    Row('append: set and taken back',
        "f = fd(make('f', b'12'), os.O_WRONLY)\n"
        'fcntl.fcntl(f, fcntl.F_SETFL, os.O_APPEND)\n'
        "os.pwrite(f, b'3', 0)\n"
        'fcntl.fcntl(f, fcntl.F_SETFL, 0)\n'
        "os.pwrite(f, b'x', 0)\n"
        "open(p('f'), 'rb').read()",
        b'x23'),
    Row('truncate: grows with zeros',
        "os.truncate(make('f', b'12'), 5)\n"
        "open(p('f'), 'rb').read()",
        b'12\x00\x00\x00'),
    Row('truncate: shrinks', "os.truncate(make('f', b'12345'), 2)\nopen(p('f'), 'rb').read()", b'12'),
    Row('truncate: shrinks and grows',
        "f = fd(make('f', b'12345'), os.O_RDWR)\n"
        'os.ftruncate(f, 2)\n'
        'os.ftruncate(f, 4)\n'
        'os.pread(f, 9, 0)',
        b'12\x00\x00'),
    Row('truncate: to the same size', "os.truncate(make('f', b'12'), 2)\nopen(p('f'), 'rb').read()", b'12'),
    Row('truncate: missing', "e(os.truncate, p('x'), 0)", 'ENOENT'),
    Row('truncate: a folder', "e(os.truncate, p('.'), 0)", 'EISDIR'),
    Row('truncate: negative', "e(os.truncate, make('f'), -1)", 'EINVAL'),
    Row('truncate: too big',
        "e(os.truncate, make('f'), 2 ** 63 - 1)",
        'EFBIG', **smb('ok', 'how big a file may be is the server’s own')),
    Row('truncate: a read-only handle', "e(os.ftruncate, fd(make('f'), os.O_RDONLY), 0)", 'EINVAL'),
    Row('truncate: open elsewhere, size there',
        "f = fd(make('f', b'12345'), os.O_RDONLY)\n"
        "os.truncate(p('f'), 2)\n"
        '(os.fstat(f).st_size, os.pread(f, 9, 0))',
        (2, b'12')),
    Row('truncate: by an appending handle',
        "f = fd(make('f', b'12345'), os.O_WRONLY | os.O_APPEND)\n"
        'os.ftruncate(f, 2)\n'
        "os.stat(p('f')).st_size",
        2),
    Row('truncate: unlinked',
        "f = fd(make('f', b'12345'), os.O_RDWR)\n"
        "os.unlink(p('f'))\n"
        'os.ftruncate(f, 2)\n'
        '(os.fstat(f).st_size, os.pread(f, 9, 0))',
        (2, b'12')),
    Row('lseek: beyond the end',
        "f = fd(make('f', b'12'), os.O_RDWR)\n"
        'os.lseek(f, 4, os.SEEK_SET)\n'
        "os.write(f, b'5')\n"
        'os.pread(f, 9, 0)',
        b'12\x00\x005'),
    Row('lseek: negative', "e(os.lseek, fd(make('f'), os.O_RDONLY), -1, os.SEEK_SET)", 'EINVAL'),
    Row('lseek: from the end',
        "f = fd(make('f', b'123'), os.O_RDONLY)\n"
        'os.lseek(f, -1, os.SEEK_END)\n'
        'os.read(f, 9)',
        b'3'),
    Row('lseek: from the end that another one moved',
        "f = fd(make('f', b'123'), os.O_RDONLY)\n"
        "os.pwrite(fd(p('f'), os.O_WRONLY), b'456', 3)\n"
        'os.lseek(f, 0, os.SEEK_END)',
        6),
    Row('lseek: DATA of a full file', "os.lseek(fd(make('f', b'x' * 9000), os.O_RDONLY), 5, os.SEEK_DATA)", 5),
    Row('lseek: HOLE of a full file', "os.lseek(fd(make('f', b'x' * 9000), os.O_RDONLY), 5, os.SEEK_HOLE)", 9000),
    Row('lseek: DATA beyond the end', "e(os.lseek, fd(make('f'), os.O_RDONLY), 5, os.SEEK_DATA)", 'ENXIO'),
    Row('lseek: HOLE beyond the end', "e(os.lseek, fd(make('f'), os.O_RDONLY), 5, os.SEEK_HOLE)", 'ENXIO'),
    Row('lseek: DATA after a hole of 1 MiB',
        "f = fd(make('f', b''), os.O_RDWR)\n"
        "os.pwrite(f, b'x', 1 << 20)\n"
        'os.lseek(f, 0, os.SEEK_DATA)',
        1 << 20,
        **smb(0, 'servers tell no holes of a file that is not marked as sparse')),
    Row('lseek: HOLE of an empty file that was grown',
        "f = fd(make('f', b''), os.O_RDWR)\n"
        'os.ftruncate(f, 1 << 20)\n'
        '(os.lseek(f, 0, os.SEEK_HOLE), v(os.lseek, f, 0, os.SEEK_DATA))',
        (0, 'ENXIO'),
        **smb((1 << 20, 0), 'servers tell no holes of a file that is not marked as sparse')),
    Row('lseek: DATA that another handle wrote',
        "f, g = fd(make('f', b''), os.O_RDWR), fd(p('f'), os.O_RDWR)\n"
        "os.pwrite(g, b'x' * 9000, 0)\n"
        '(v(os.lseek, f, 5, os.SEEK_DATA), v(os.lseek, f, 5, os.SEEK_HOLE))',
        (5, 9000)),
    Row('lseek: HOLE beyond the end, after another handle cut the file',
        "f = fd(make('f', b'x' * 9000), os.O_RDWR)\n"
        "os.truncate(p('f'), 100)\n"
        'v(os.lseek, f, 500, os.SEEK_HOLE)',
        'ENXIO'),
    Row('fsync: a read-only handle', "e(os.fsync, fd(make('f'), os.O_RDONLY))", 'ok'),
    Row('fdatasync', "f = fd(make('f'), os.O_RDWR)\nos.pwrite(f, b'y', 0)\ne(os.fdatasync, f)", 'ok'),
    Row('fallocate',
        "f = fd(make('f', b'12'), os.O_RDWR)\n"
        '(e(fallocate, f, 0, 0, 100), os.fstat(f).st_size)',
        ('ok', 100)),
    Row('fallocate: as the C library does it',
        "f = fd(make('f', b'12'), os.O_RDWR)\n"
        '(e(os.posix_fallocate, f, 0, 100), os.fstat(f).st_size)',
        ('ok', 100)),
    Row('fallocate: a hole',
        "f = fd(make('f', b'x' * 9000), os.O_RDWR)\n"
        '(e(fallocate, f, 3, 0, 4096), os.pread(f, 1, 0))',
        ('ok', b'\x00')),
    Row('copy_file_range: between two files',
        "f, g = fd(make('f', b'text'), os.O_RDONLY), fd(p('g'), os.O_CREAT | os.O_RDWR)\n"
        '(v(os.copy_file_range, f, g, 4), os.pread(g, 9, 0))',
        (4, b'text')),
    Row('sendfile: between two files',
        "f, g = fd(make('f', b'text'), os.O_RDONLY), fd(p('g'), os.O_CREAT | os.O_RDWR)\n"
        '(os.sendfile(g, f, 0, 4), os.pread(g, 9, 0))',
        (4, b'text')),
]

ATTRIBUTES = [
    Row('stat: missing', "e(os.stat, p('x'))", 'ENOENT'),
    Row('stat: below a file', "make('f')\ne(os.stat, p('f/x'))", 'ENOTDIR'),
    Row('stat: a trailing slash on a file', "make('f')\ne(os.stat, p('f/'))", 'ENOTDIR'),
    Row('stat: a trailing slash on a folder', "e(os.stat, p('') )", 'ok'),
    Row('stat: number of names', "os.stat(make('f')).st_nlink", 1),
    Row('stat: size by name after a write by handle',
        "f = fd(make('f'), os.O_RDWR)\n"
        "os.stat(p('f'))\n"
        "os.pwrite(f, b'12345', 0)\n"
        "os.stat(p('f')).st_size",
        5),
    Row('stat: size by handle after a truncate by name',
        "f = fd(make('f', b'12345'), os.O_RDWR)\n"
        'os.fstat(f)\n'
        "os.truncate(p('f'), 1)\n"
        'os.fstat(f).st_size',
        1),
    Row('stat: the device is one', "os.mkdir(p('d'))\nos.stat(make('d/f')).st_dev == os.stat(p('.')).st_dev", True),
    Row('stat: another file, another number', "os.stat(make('f')).st_ino != os.stat(make('g')).st_ino", True),
    Row('stat: blocks of a file of 8 KiB',
        "f = make('f', b'x' * 8192)\n"
        'os.sync()\n'
        '8 <= os.stat(f).st_blocks <= 64',
        True),
    Row('times: mtime after write',
        "f = fd(make('f'), os.O_RDWR)\n"
        "os.utime(p('f'), (1e9, 1e9))\n"
        "os.pwrite(f, b'y', 0)\n"
        "os.stat(p('f')).st_mtime > 1e9 + 1",
        True),
    Row('times: mtime after write, by handle',
        "f = fd(make('f'), os.O_RDWR)\n"
        'os.utime(f, (1e9, 1e9))\n'
        "os.pwrite(f, b'y', 0)\n"
        'os.fstat(f).st_mtime > 1e9 + 1',
        True),
    Row('times: mtime after write and close',
        "f = os.open(make('f'), os.O_RDWR)\n"
        "os.utime(p('f'), (1e9, 1e9))\n"
        "os.pwrite(f, b'y', 0)\n"
        'os.close(f)\n'
        "os.stat(p('f')).st_mtime > 1e9 + 1",
        True),
    Row('times: mtime after truncate',
        "os.utime(make('f', b'123'), (1e9, 1e9))\n"
        "os.truncate(p('f'), 1)\n"
        "os.stat(p('f')).st_mtime > 1e9 + 1",
        True),
    Row('times: mtime after a mapped write',
        "f = fd(make('f', b'123'), os.O_RDWR)\n"
        'os.utime(f, (1e9, 1e9))\n'
        'm = mmap.mmap(f, 3)\n'
        "m[0:1] = b'z'\n"
        'm.flush()\n'
        "os.stat(p('f')).st_mtime > 1e9 + 1",
        True),
    Row('times: mtime stays after read',
        "os.utime(make('f', b'123'), (1e9, 1e9))\n"
        "open(p('f'), 'rb').read()\n"
        "os.stat(p('f')).st_mtime",
        1000000000.0),
    Row('times: set while it is open for writing, then closed',
        "f = os.open(make('f'), os.O_RDWR)\n"
        "os.pwrite(f, b'y', 0)\n"
        "os.utime(p('f'), (1e9, 1e9))\n"
        'os.close(f)\n'
        "os.listdir(p('.'))\n"  # The kernel forgets what it was told before.
        "os.stat(p('f')).st_mtime",
        1000000000.0),
    Row('times: the last write alone set after a write to a new file, then closed',
        "f = os.open(p('f'), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)\n"
        "os.pwrite(f, b'y', 0)\n"
        "subprocess.run(['touch', '-m', '-d', '@1000000000', p('f')], check=True)\n"
        'os.close(f)\n'
        "os.listdir(p('.'))\n"  # The kernel forgets what it was told before.
        "os.stat(p('f')).st_mtime",
        1000000000.0),
    Row('times: written after they were set, to a new file, then closed',
        "f = os.open(p('f'), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)\n"
        "os.pwrite(f, b'y', 0)\n"
        'os.utime(f, (1e9, 1e9))\n'
        "os.pwrite(f, b'z', 0)\n"
        'os.close(f)\n'
        "os.listdir(p('.'))\n"  # The kernel forgets what it was told before.
        "os.stat(p('f')).st_mtime > 1e9 + 1",
        True),
    Row('times: set by handle after a write, then closed',
        "f = os.open(make('f'), os.O_RDWR)\n"
        "os.pwrite(f, b'y', 0)\n"
        'os.utime(f, (1e9, 1e9))\n'
        'os.close(f)\n'
        "os.listdir(p('.'))\n"  # The kernel forgets what it was told before.
        "os.stat(p('f')).st_mtime",
        1000000000.0),
    Row('times: utime of both',
        "os.utime(make('f'), (1_100_000_000, 1_200_000_000))\n"
        "(os.stat(p('f')).st_atime, os.stat(p('f')).st_mtime)",
        (1100000000.0, 1200000000.0)),
    Row('times: utime of a folder',
        "os.mkdir(p('d'))\n"
        "os.utime(p('d'), (1_100_000_000, 1_200_000_000))\n"
        "os.stat(p('d')).st_mtime",
        1200000000.0),
    Row('times: utime, 100 ns',
        "os.utime(make('f'), ns=(10 ** 18, 10 ** 18 + 1_234_567_800))\n"
        "os.stat(p('f')).st_mtime_ns - 10 ** 18",
        1234567800),
    Row('times: utime, 1 ns',
        "os.utime(make('f'), ns=(10 ** 18, 10 ** 18 + 123))\n"
        "os.stat(p('f')).st_mtime_ns - 10 ** 18",
        123, **smb(100, 'times have a resolution of 100 ns')),
    Row('times: utime to now',
        "os.utime(make('f'), (1e9, 1e9))\n"
        "os.utime(p('f'))\n"
        "os.stat(p('f')).st_mtime > 1e9 + 1",
        True),
    Row('times: utime before 1970', "os.utime(make('f'), (-86400, -86400))\nos.stat(p('f')).st_mtime", -86400.0),
    Row('times: utime after 2038', "os.utime(make('f'), (5e9, 5e9))\nos.stat(p('f')).st_mtime", 5000000000.0),
    Row('times: utime of a missing file', "e(os.utime, p('x'))", 'ENOENT'),
    Row('times: utime of a read-only handle',
        "f = fd(make('f'), os.O_RDONLY)\n"
        'os.utime(f, (1e9, 1e9))\n'
        'os.fstat(f).st_mtime',
        1000000000.0),
    Row('times: set on a read-only file',
        "os.chmod(make('f'), 0o444)\n"
        "(e(os.utime, p('f'), (1e9, 1e9)), os.stat(p('f')).st_mtime)",
        ('ok', 1000000000.0)),
    Row('times: made, as statx tells',
        "made = birth(make('f'))\n"
        "os.utime(p('f'), (1e9, 1e9))\n"
        "(birth(p('f')) == made, abs(made - time.time()) < 600)",
        (True, True)),
    Row('times: ctime after chmod',
        "before = os.stat(make('f')).st_ctime_ns\n"
        "os.chmod(p('f'), 0o444)\n"
        "os.stat(p('f')).st_ctime_ns >= before",
        True),
    Row('mode: no write bit', "os.chmod(make('f'), 0o444)\noct(os.stat(p('f')).st_mode & 0o222)", '0o0'),
    Row('mode: the write bit again',
        "os.chmod(make('f'), 0o444)\n"
        "os.chmod(p('f'), 0o644)\n"
        "oct(os.stat(p('f')).st_mode & 0o200)",
        '0o200'),
    Row('mode: by handle',
        "f = fd(make('f'), os.O_RDWR)\n"
        'os.fchmod(f, 0o444)\n'
        'oct(os.fstat(f).st_mode & 0o222)',
        '0o0'),
    Row('mode: read-only, the open handle goes on',
        "f = fd(make('f', b'12'), os.O_RDWR)\n"
        "os.chmod(p('f'), 0o444)\n"
        "(v(os.pwrite, f, b'3', 2), os.pread(f, 9, 0))",
        (1, b'123')),
    Row('mode: made without a write bit, written by its handle',
        "f = fd(p('f'), os.O_CREAT | os.O_RDWR, 0o444)\n"
        "(v(os.write, f, b'x'), oct(os.stat(p('f')).st_mode & 0o222))",
        (1, '0o0'), **smb((1, '0o200'), 'modes are those of the mount, file_mode and dir_mode')),
    Row('mode: bits of the owner alone',
        "os.chmod(make('f'), 0o600)\n"
        "oct(os.stat(p('f')).st_mode & 0o777)",
        '0o600', **smb('0o755', 'modes are those of the mount, file_mode and dir_mode')),
    Row('mode: a folder',
        "os.mkdir(p('d'))\n"
        "os.chmod(p('d'), 0o500)\n"
        "oct(os.stat(p('d')).st_mode & 0o777)",
        '0o500', **smb('0o755', 'modes are those of the mount, file_mode and dir_mode')),
    Row('mode: chmod of a missing file', "e(os.chmod, p('x'), 0o444)", 'ENOENT'),
    Row('owner: chown',
        "os.chown(make('f'), 5, 5)\n"
        "os.stat(p('f')).st_uid",
        5, **smb(0, 'owners are those of the mount, uid and gid')),
    Row('owner: chown, as refused or not', "e(os.chown, make('f'), 5, 5)", 'ok'),
    Row('access: a file',
        "make('f')\n"
        "(os.access(p('f'), os.R_OK | os.W_OK), os.access(p('x'), os.F_OK))",
        (True, False)),
    Row('statvfs: a name may have 255 bytes', "os.statvfs(p('.')).f_namemax", 255),
    Row('statvfs: blocks',
        "s = os.statvfs(p('.'))\n"
        's.f_blocks >= s.f_bfree >= s.f_bavail > 0 and s.f_bsize > 0',
        True),
    Row('statvfs: missing', "e(os.statvfs, p('x'))", 'ENOENT'),
    Row('xattr: user.*',
        "f = make('f')\n"
        "(e(os.setxattr, f, 'user.a', b'1'), v(os.listxattr, f))",
        ('ok', ['user.a'])),
    Row('xattr: missing',
        "e(os.getxattr, make('f'), 'user.a')",
        'ENODATA'),
]

OTHERS = [
    Row('symlink',
        "os.symlink('target', p('l'))\n"
        "os.readlink(p('l'))",
        'target'),
    Row('symlink: a loop',
        "os.symlink('l', p('l'))\n"
        "e(os.stat, p('l'))",
        'ELOOP'),
    Row('symlink: there', "make('f')\ne(os.symlink, 'x', p('f'))", 'EEXIST'),
    Row('readlink: a file', "e(os.readlink, make('f'))", 'EINVAL'),
    Row('link',
        "os.stat(make('f'))\n"
        "os.link(p('f'), p('g'))\n"
        "(os.stat(p('f')).st_nlink, os.stat(p('g')).st_nlink, os.path.samefile(p('f'), p('g')))",
        (2, 2, True)),
    Row('link: an open file, read by both names',
        "f = fd(make('f', b'12'), os.O_RDWR)\n"
        "os.link(p('f'), p('g'))\n"
        "g = fd(p('g'), os.O_RDWR)\n"
        "os.pwrite(f, b'345', 2)\n"
        '(os.fstat(f).st_nlink, os.pread(g, 9, 0), os.fstat(g).st_size)',
        (2, b'12345', 5)),
    Row('link: written by the second name',
        "os.link(make('f', b'12'), p('g'))\n"
        "f, g = fd(p('f'), os.O_RDWR), fd(p('g'), os.O_RDWR)\n"
        'os.pread(f, 9, 0)\n'
        "os.pwrite(g, b'345', 2)\n"
        "(os.pread(f, 9, 0), os.fstat(f).st_size, os.stat(p('f')).st_size)",
        (b'12345', 5, 5)),
    Row('link: mapped by one name, written by the other',
        "os.link(make('f', b'12'), p('g'))\n"
        "f, g = fd(p('f'), os.O_RDWR), fd(p('g'), os.O_RDWR)\n"
        'm = mmap.mmap(f, 2)\n'
        "m[0:1] = b'x'\n"
        'm.flush()\n'
        'os.pread(g, 9, 0)',
        b'x2'),
    Row('link: the first name goes',
        "os.link(make('f', b'12'), p('g'))\n"
        "os.unlink(p('f'))\n"
        "(open(p('g'), 'rb').read(), os.stat(p('g')).st_nlink, e(os.stat, p('f')))",
        (b'12', 1, 'ENOENT')),
    Row('link: the first name goes while it is open',
        "f = fd(make('f', b'12'), os.O_RDWR)\n"
        "os.link(p('f'), p('g'))\n"
        "os.unlink(p('f'))\n"
        "os.pwrite(f, b'3', 2)\n"
        "open(p('g'), 'rb').read()",
        b'123'),
    Row('link: the second name goes',
        "os.link(make('f', b'12'), p('g'))\n"
        "os.unlink(p('g'))\n"
        "(open(p('f'), 'rb').read(), os.stat(p('f')).st_nlink)",
        (b'12', 1)),
    Row('link: three names, listed',
        "for n in 'gh': os.link(make('f') if n == 'g' else p('f'), p(n))\n"
        "(sorted(os.listdir(p('.'))), len({os.stat(p(n)).st_ino for n in 'fgh'}), os.stat(p('h')).st_nlink)",
        (['f', 'g', 'h'], 1, 3)),
    Row('link: to a symbolic link',
        "os.symlink('target', p('l'))\n"
        "os.link(p('l'), p('m'), follow_symlinks=False)\n"
        "os.readlink(p('m'))",
        'target'),
    Row('link: into another folder',
        "os.mkdir(p('d'))\n"
        "os.link(make('f', b'12'), p('d/g'))\n"
        "open(p('d/g'), 'rb').read()",
        b'12'),
    Row('link: renamed over the other name',
        "os.link(make('f', b'12'), p('g'))\n"
        "os.stat(p('g'))\n"
        "os.rename(p('f'), p('g'))\n"
        "sorted(os.listdir(p('.')))",
        ['f', 'g']),
    Row('link: below a file', "make('f')\nmake('g')\ne(os.link, p('f'), p('g/x'))", 'ENOTDIR'),
    Row('link: a read-only file', "os.chmod(make('f'), 0o444)\n(e(os.link, p('f'), p('g')), os.stat(p('f')).st_nlink)",
        ('ok', 2)),
    Row('link: there', "make('f')\nmake('g')\ne(os.link, p('f'), p('g'))", 'EEXIST'),
    Row('link: missing', "e(os.link, p('x'), p('g'))", 'ENOENT'),
    Row('link: to another file system', "make('f')\ne(os.link, p('f'), other + '/linked')", 'EXDEV'),
    Row('link: a folder', "os.mkdir(p('d'))\ne(os.link, p('d'), p('e'))", 'EPERM'),
    Row('mkfifo', "e(os.mkfifo, p('f'))", 'ok', **smb('EOPNOTSUPP', 'SMB has no such files')),
    Row('mknod: a device',
        "e(os.mknod, p('n'), 0o600 | stat.S_IFCHR, os.makedev(1, 3))",
        'ok', **smb('EOPNOTSUPP', 'SMB has no such files')),
    Row('mknod: a file', "e(os.mknod, p('n'), 0o600 | stat.S_IFREG)", 'ok'),
    Row('mknod: there', "e(os.mknod, make('f'), 0o600 | stat.S_IFREG)", 'EEXIST'),
    Row('mknod: then written',
        "os.mknod(p('n'), 0o600 | stat.S_IFREG)\n"
        "open(p('n'), 'wb').write(b'12')\n"
        "(os.stat(p('n')).st_size, stat.S_ISREG(os.stat(p('n')).st_mode))",
        (2, True)),
    Row('bind of a socket',
        's = socket.socket(socket.AF_UNIX)\n'
        "os.chdir(p('.'))\n"
        "e(s.bind, 's')",
        'ok', **smb('EOPNOTSUPP', 'SMB has no such files')),
    Row('chdir: a file', "e(os.chdir, make('f'))", 'ENOTDIR'),
    Row('tempfile: a file without a name',
        'import tempfile\n'
        "with tempfile.TemporaryFile(dir=p('.')) as t: t.write(b'12'); t.seek(0); found = t.read()\n"
        'found',
        b'12'),
    Row('exec: a program',
        'import shutil\n'
        "shutil.copy('/bin/true', p('true'))\n"
        "os.chmod(p('true'), 0o755)\n"
        "subprocess.run([p('true')], check=False).returncode",
        0),
]

READ_ONLY = [
    Row('read-only: open for writing', "e(os.open, ro + '/file', os.O_WRONLY)", 'EROFS'),
    Row('read-only: O_TRUNC', "e(os.open, ro + '/file', os.O_RDONLY | os.O_TRUNC)", 'EROFS'),
    Row('read-only: O_CREAT of a new name', "e(os.open, ro + '/new', os.O_CREAT | os.O_RDONLY)", 'EROFS'),
    Row('read-only: O_CREAT of what is there', "e(os.open, ro + '/file', os.O_CREAT | os.O_RDONLY)", 'ok'),
    Row('read-only: O_EXCL of what is there', "e(os.open, ro + '/file', os.O_CREAT | os.O_EXCL)", 'EEXIST'),
    Row('read-only: mkdir', "e(os.mkdir, ro + '/new')", 'EROFS'),
    Row('read-only: mkdir of what is there', "e(os.mkdir, ro + '/dir')", 'EEXIST'),
    Row('read-only: unlink', "e(os.unlink, ro + '/file')", 'EROFS'),
    Row('read-only: unlink, missing', "e(os.unlink, ro + '/new')", 'EROFS'),
    Row('read-only: rmdir', "e(os.rmdir, ro + '/dir')", 'EROFS'),
    Row('read-only: rename', "e(os.rename, ro + '/file', ro + '/new')", 'EROFS'),
    Row('read-only: truncate', "e(os.truncate, ro + '/file', 0)", 'EROFS'),
    Row('read-only: chmod', "e(os.chmod, ro + '/file', 0o444)", 'EROFS'),
    Row('read-only: utime', "e(os.utime, ro + '/file')", 'EROFS'),
    Row('read-only: symlink', "e(os.symlink, 'x', ro + '/new')", 'EROFS'),
    Row('read-only: link', "e(os.link, ro + '/file', ro + '/new')", 'EROFS'),
    Row('read-only: mkfifo', "e(os.mkfifo, ro + '/new')", 'EROFS'),
    Row('read-only: setxattr', "e(os.setxattr, ro + '/file', 'user.a', b'1')", 'EROFS'),
    Row('read-only: access', "(os.access(ro + '/file', os.W_OK), os.access(ro + '/file', os.R_OK))", (False, True)),
    Row('read-only: statvfs says so', 'os.statvfs(ro).f_flag & os.ST_RDONLY', 1),
]
