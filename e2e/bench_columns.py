"""What bench.py compares: programs that mount the same files, each as one column of its tables."""

import os
import subprocess
import sys

E2E = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, E2E)
from lab import Engine  # noqa: E402  pylint: disable=wrong-import-position
from lab.lab import PASSWORDS  # noqa: E402  pylint: disable=wrong-import-position

ROOT = os.path.dirname(E2E)
POINT = '/mnt/bench'


class Mounted:
    """A column: mounts t1's share, and knows the processes that serve the mount."""

    most_written_mib = 1 << 20

    def __init__(self, name):
        self.name = name

    def mount(self, lab):
        raise NotImplementedError

    def unmount(self, lab):
        raise NotImplementedError

    def folder(self):
        return POINT

    def cpu_seconds(self, lab):
        """User and system time, so far, of what serves the mount."""
        ticks = 0
        for pid in lab.client_processes():
            try:
                with open(f'/proc/{pid}/stat') as file:
                    fields = file.read().rsplit(')', 1)[1].split()
            except OSError:
                continue
            ticks += sum(map(int, fields[11:15]))  # Its own, and of children that it waited for.
        return ticks / os.sysconf('SC_CLK_TCK')


class Ours(Mounted):
    def __init__(self, name, options):
        super().__init__(name)
        self._options = options
        self._engine = None

    def mount(self, lab):
        self._engine = Engine(lab)
        self._engine.mount('//t1/share', POINT, self._options)

    def unmount(self, lab):
        self._engine.stop()


class Daemon(Mounted):
    """A FUSE program that runs until it is unmounted."""

    def mount(self, lab):
        os.makedirs(lab.path('client', POINT), exist_ok=True)
        self.start(lab)
        lab.wait_until(lambda: POINT in [point for point, _ in lab.client_mounts()], 20,
                       f'{self.name} is mounted')

    def start(self, lab):
        raise NotImplementedError

    def unmount(self, lab):
        lab.run_in('client', ['umount', POINT], timeout=60)
        lab.wait_until(lambda: not lab.client_processes(), 20, f'{self.name} ends')


class Smbnetfs(Daemon):
    most_written_mib = 128  # A GiB would take it more than a minute.

    def folder(self):
        return f'{POINT}/t1/share'

    def start(self, lab):
        home = lab.path('client', '/run/smbnetfs/.smb')
        os.makedirs(home, exist_ok=True)
        for name, text in (('smb.conf', ''), ('smbnetfs.conf', 'auth "dfsuser" "%s"\nhost t1 visible=true\n'
                                             'smb_query_browsers false\n' % PASSWORDS['dfsuser'])):
            with open(f'{home}/{name}', 'w', opener=lambda p, f: os.open(p, f, 0o600)) as file:
                file.write(text)
        lab.run_in('client', ['smbnetfs', POINT, '-o', 'allow_other'], env={'HOME': '/run/smbnetfs'})


class Passthrough(Daemon):
    def start(self, lab):
        lab.popen_in('client', [os.path.join(ROOT, 'build', 'release', 'tests', 'passthrough-fuse'),
                                lab.data('t1', 'share'), POINT],
                     stdin=subprocess.DEVNULL, start_new_session=True)
        lab.wait_until(lambda: POINT in [p for p, _ in lab.client_mounts()], 20, 'it is mounted')
        # As much read-ahead as our mounter sets, so that it is a floor.
        device = lab.run_in('client', ['mountpoint', '-d', POINT]).stdout.strip()
        with open(f'/sys/class/bdi/{device}/read_ahead_kb', 'w') as file:
            file.write('4096')


def clear(lab):
    """What a failed measurement left behind must not spoil the next one."""
    lab.end_client_processes()
    for point, _ in reversed(lab.client_mounts()):
        lab.run_in('client', ['umount', '-l', point], timeout=60)
