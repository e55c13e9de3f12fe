"""A program on the client that does what a test tells it: holds files open, lists, reads, is killed."""

import ast
import os
import select
import subprocess
import time

from .lab import LabError

# Speaks one line per operation: the expression in; what it took, its errno and its value out.
PROGRAM = '''
import hashlib, mmap, os, signal, stat, sys, time
signal.signal(signal.SIGINT, signal.SIG_DFL)

def take(entries, count):
    """The next names of a scandir; fewer at its end."""
    return [entry.name for _, entry in zip(range(count), entries)]

def read(path, size=1 << 16):
    """Past the page cache: a copy of the same size and time is the same file to it."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        return os.read(fd, size)
    finally:
        os.close(fd)

def digests(path, seconds):
    """The distinct digests of the whole file, read in order again and again past the page cache."""
    seen, end = set(), time.monotonic() + seconds
    while time.monotonic() < end:
        fd, digest = os.open(path, os.O_RDONLY), hashlib.sha256()
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        while piece := os.read(fd, 1 << 18):
            digest.update(piece)
        os.close(fd)
        seen.add(digest.hexdigest())
    return sorted(seen)

kept = {}
for line in sys.stdin:
    begin = time.monotonic()
    number, value = 0, None
    try:
        value = eval(line)
    except OSError as error:
        number = error.errno
    print(repr((time.monotonic() - begin, number, value)), flush=True)
'''


class Application:
    """`with Application(lab) as app: app.do("os.listdir('/mnt/dfs')")`.

    Expressions may use os, stat, mmap, the functions of PROGRAM and the dict `kept`, which lasts:
    app.keep('file', "os.open(…)"), then app.do("os.pread(kept['file'], 10, 0)").
    """

    def __init__(self, lab):
        self._lab = lab
        self._process = None
        self._text = b''
        self.took = None  # Seconds of the last operation.

    def __enter__(self):
        self._process = self._lab.popen_in('client', ['/usr/bin/python3', '-Bc', PROGRAM],
                                           stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.do('None')
        return self

    def end(self):
        """It comes to the end of its program."""
        self._process.stdin.close()

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait(timeout=20)
        self._process.stdin.close()
        self._process.stdout.close()

    @property
    def pid(self):
        return self._process.pid

    def start(self, expression):
        """Begins an operation; result() waits for its end."""
        self._process.stdin.write(expression.replace('\n', ' ').encode() + b'\n')
        self._process.stdin.flush()

    def is_done(self, within=0.0):
        if b'\n' in self._text:
            return True
        ready, _, _ = select.select([self._process.stdout], [], [], within)
        if ready:
            piece = os.read(self._process.stdout.fileno(), 1 << 20)
            if not piece:
                raise LabError(f'the application ended, code {self._process.wait(timeout=5)}')
            self._text += piece
        return b'\n' in self._text

    def result(self, timeout=30):
        """What the operation returned; raises the OSError that it met."""
        deadline = time.monotonic() + timeout
        while not self.is_done(max(0.0, min(1.0, deadline - time.monotonic()))):
            if time.monotonic() > deadline:
                raise TimeoutError(f'the application still waits after {timeout} s')
        line, self._text = self._text.split(b'\n', 1)
        self.took, number, value = ast.literal_eval(line.decode())
        if number:
            raise OSError(number, os.strerror(number))
        return value

    def wait_for_end(self, timeout):
        """After a signal: its exit code; TimeoutError if it goes on."""
        try:
            return self._process.wait(timeout=timeout)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f'the application lives {timeout} s after its signal') from None

    def do(self, expression, timeout=30):
        self.start(expression)
        return self.result(timeout)

    def keep(self, name, expression, timeout=30):
        self.do(f'kept.__setitem__({name!r}, {expression})', timeout)

    def errno_of(self, expression, timeout=30):
        """The errno that the operation ends with; 0: none."""
        try:
            self.do(expression, timeout)
        except TimeoutError as error:
            if error.errno is None:  # It still waits.
                raise
            return error.errno
        except OSError as error:
            return error.errno
        return 0
