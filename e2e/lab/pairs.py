"""Two threads of a writer (writer.py) in one folder: one has files open, the other changes their names.

What goes through a handle is about the file that was opened, whatever it is called by now. Each file begins with its
number, by which an open is told from one of another file; only the thread with the handles changes what files hold, so
it knows each of them to the byte.
"""

import errno
import fcntl
import hashlib
import os
import random
import threading
import time

NAMES = [f'n{i}' for i in range(5)]
HEAD = 16
MOST = 8192  # Bytes of a file.


def head(number):
    return b'file %010d\n' % number


class Pair:
    """`must` and `say` are writer.py's."""

    def __init__(self, folder, must, say):
        self._folder = folder
        self._must = must
        self._say = say
        self._names = {}  # The number of the file that has it.
        self._contents = {}  # By number.
        self._changes = 0  # Of names: begun and ended, so that it is odd while one is under way.
        self._last = 0
        self._ends = False

    def run(self, goes_on):
        """Until then; returns what must be on the server."""
        self._must('mkdir', os.mkdir, self._folder)
        changes = threading.Thread(target=self._change_names)
        changes.start()
        try:
            self._use_handles(goes_on)
        finally:
            self._ends = True
            changes.join()
        return {'folder': os.path.basename(self._folder),
                'files': {name: hashlib.md5(self._contents[number]).hexdigest()
                          for name, number in self._names.items()}}

    def _path(self, name):
        return f'{self._folder}/{name}'

    # The thread that changes names

    def _make(self, name):
        """Anew, or by a file that replaces what has the name."""
        self._last += 1
        number = self._last
        replaces = name in self._names or random.random() < 0.5
        first = 'next' if replaces else name
        if not replaces:
            self._changes += 1
        fd = self._must('create', os.open, self._path(first), os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644)
        if fd is not None:
            self._must('write of a head', os.pwrite, fd, head(number).ljust(HEAD, b'.'), 0)
            self._must('close', os.close, fd)
        if not replaces:
            self._changes += 1
        if fd is None:
            return
        self._contents[number] = bytearray(head(number).ljust(HEAD, b'.'))
        if replaces:
            self._changes += 1
            self._must('rename over', os.rename, self._path('next'), self._path(name))
            self._changes += 1
        self._names[name] = number

    def _change_names(self):
        while not self._ends:
            name, other = random.sample(NAMES, 2)
            what = random.random()
            if name not in self._names or what < 0.3:
                self._make(name)
            elif what < 0.75:
                self._changes += 1
                self._must('rename', os.rename, self._path(name), self._path(other))
                self._names[other] = self._names.pop(name)
                self._changes += 1
            else:
                self._changes += 1
                self._must('unlink', os.unlink, self._path(name))
                del self._names[name]
                self._changes += 1
            time.sleep(random.random() * 0.004)  # It is the load; nothing rests on how long.

    # The thread that has files open

    def _wrong(self, what):
        self._say(time.monotonic(), 'wrong', what)

    def _open(self):
        """A handle and the number of its file; None: the name was being changed."""
        name = random.choice(NAMES)
        before, had = self._changes, name in self._names
        try:
            begin = time.monotonic()
            fd = os.open(self._path(name), os.O_RDWR | random.choice([0, 0, os.O_APPEND]))
        except OSError as error:
            steady = before % 2 == 0 and before == self._changes
            expected = error.errno == errno.ENOENT and not (steady and had)
            self._say(begin, 'ok' if expected else 'wrong', f'open: {error}')
            return None
        self._say(begin, 'ok', 'open')
        found = self._must('read of a head', os.pread, fd, HEAD, 0)
        if not found:  # It is just being made.
            if found == b'' and before % 2 == 0 and before == self._changes:
                self._wrong('an empty file')
            os.close(fd)
            return None
        number = int(found.split(b'\n')[0].split()[1])
        return fd, number

    def _use(self, fd, number):
        content = self._contents.get(number)
        if content is None:  # Its maker has not said so yet.
            return
        what = random.random()
        at = random.randrange(HEAD, MOST)
        if what < 0.35:
            text = os.urandom(random.randrange(1, 600))
            if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_APPEND:
                at = len(content)
            if at > len(content):
                content.extend(bytes(at - len(content)))
            content[at:at + len(text)] = text
            if (count := self._must('write', os.pwrite, fd, text, at)) not in (None, len(text)):
                self._wrong(f'{count} bytes were written of {len(text)}')
        elif what < 0.6:
            found = self._must('read', os.pread, fd, 65536, 0)
            if found is not None and found != bytes(content):
                self._wrong(f'file {number}: {len(found)} bytes, not the {len(content)} that were written')
        elif what < 0.7:
            status = self._must('fstat', os.fstat, fd)
            if status is not None and status.st_size != len(content):
                self._wrong(f'file {number}: fstat says {status.st_size}, not {len(content)}')
        elif what < 0.8:
            self._must('fsync', os.fsync, fd)
        elif what < 0.9:
            self._must('lock', fcntl.lockf, fd, fcntl.LOCK_EX, 64, 0)
            if random.random() < 0.7:
                self._must('unlock', fcntl.lockf, fd, fcntl.LOCK_UN, 64, 0)
        else:
            size = max(HEAD, at // 4)
            if size < len(content):
                del content[size:]
            else:
                content.extend(bytes(size - len(content)))
            self._must('ftruncate', os.ftruncate, fd, size)

    def _use_handles(self, goes_on):
        handles = []
        while goes_on():
            if len(handles) < 4 and random.random() < 0.3:
                opened = self._open()
                if opened is not None:
                    handles.append(opened)
            elif handles:
                self._use(*random.choice(handles))
            if handles and random.random() < 0.06:
                fd, _ = handles.pop(random.randrange(len(handles)))
                self._must('close', os.close, fd)
        for fd, number in handles:
            found = self._must('read at the end', os.pread, fd, 65536, 0)
            if found is not None and found != bytes(self._contents.get(number, found)):
                self._wrong(f'file {number} at the end: {len(found)} bytes, not {len(self._contents[number])}')
            self._must('close', os.close, fd)
