"""A script under an older Linux kernel: an emulated machine whose root is this one's, read-only, under a
layer of memory. Every program and the built tree are there; what the script writes is gone at the end.

It needs no KVM, boots in seconds and runs ten to twenty times slower: it shows that something works, not how
fast. The kernel is Debian 12's own package (6.1: FUSE 7.38, without RESEND and INC_EPOCH), fetched once into a
folder of the build.
"""

import glob
import hashlib
import os
import re
import shutil
import subprocess

PROGRAMS = ('qemu-system-x86_64', 'busybox', 'modprobe', 'depmod', 'cpio', 'zstd', 'dpkg')
PACKAGES = 'qemu-system-x86 busybox-static kmod cpio zstd'
# In the order in which they are loaded: devices, the root, then what the lab's networks and faults ask for.
MODULES = ('virtio_pci', '9p', '9pnet_virtio', 'fuse', 'overlay', 'veth', 'bridge', 'tun', 'crc32c_generic', 'sch_netem', 'sch_tbf',
           'nf_tables', 'nft_ct', 'nft_limit', 'nft_numgen', 'nft_reject_inet', 'nf_reject_ipv6', 'loop', 'aesni_intel')
MEMORY = '6G'
UP, DONE = 'GUEST-UP', 'GUEST-DONE'

INIT = '''#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin:/usr/bin:/usr/sbin:/sbin
mount -t proc p /proc; mount -t sysfs s /sys; mount -t devtmpfs d /dev
mkdir -p /dev/shm /dev/pts; mount -t devpts p /dev/pts; mount -t tmpfs t /dev/shm
for module in {modules}; do modprobe $module || echo "guest: no module $module"; done
ip link set lo up
options=trans=virtio,version=9p2000.L,ro,msize=262144
mkdir -p /rw /r; mount -t tmpfs t /rw; mkdir -p /rw/u /rw/w
mount -t 9p -o cache=loose,$options root /host || {{ echo "guest: no root"; poweroff -f; }}
mount -t overlay -o lowerdir=/host,upperdir=/rw/u,workdir=/rw/w o /r || {{ echo "guest: no layer"; poweroff -f; }}
mount -t proc p /r/proc; mount -t sysfs s /r/sys; mount --rbind /dev /r/dev
mount -t tmpfs t /r/run
echo > /r/etc/resolv.conf
mkdir -p /r/lib/modules; cp -r /lib/modules/* /r/lib/modules/; cp /bin/busybox /r/run/busybox
# Not chroot: who enters a mount namespace has its root, not that of a chroot.
exec switch_root /r /bin/bash -c 'echo "{up} $(uname -r)"; /bin/bash {script}; echo "{done} $?"; /run/busybox poweroff -f'
'''


class GuestError(Exception):
    """The machine cannot have a guest, or the guest did not come up."""


class Guest:
    """`Guest(folder).run('echo hello', seconds=600)` -> (exit code, output)."""

    def __init__(self, folder):
        """folder: where the kernel and the first root are kept, some 500 MiB; made if it is not there."""
        self.folder = folder
        made_of = hashlib.sha256(repr((INIT, MODULES)).encode()).hexdigest()[:12]
        self._initrd = os.path.join(folder, f'initrd-{made_of}')

    @staticmethod
    def missing():
        """The programs that this machine lacks."""
        path = os.environ.get('PATH', '') + ':/usr/sbin:/sbin'
        return [program for program in PROGRAMS if not shutil.which(program, path=path)]

    def run(self, script, seconds):
        """Runs the script as root under the older kernel, for so many seconds at most."""
        self._prepare()
        with open(os.path.join(self.folder, 'script'), 'w') as file:
            file.write(script)
        kernel = glob.glob(os.path.join(self.folder, 'kernel', 'boot', 'vmlinuz-*'))[0]
        try:
            said = subprocess.run(
                ['qemu-system-x86_64', '-accel', 'tcg,thread=multi', '-cpu', 'max', '-smp', '2', '-m', MEMORY,
                 '-nographic', '-no-reboot', '-nic', 'none', '-kernel', kernel,
                 '-initrd', self._initrd,
                 '-append', 'console=ttyS0 quiet panic=-1 mitigations=off',
                 '-virtfs', 'local,path=/,mount_tag=root,security_model=none,readonly=on,multidevs=remap'],
                stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds).stdout
        except subprocess.TimeoutExpired as late:
            raise GuestError(f'not done after {seconds} s:\n' + _text(late.stdout or b'')[-8000:]) from None
        text = _text(said)
        end = re.search(rf'^{DONE} (\d+)$', text, re.MULTILINE)
        if not end:
            raise GuestError('the guest ended early:\n' + text[-8000:])
        return int(end.group(1)), text[text.index(UP):end.start()]

    def _prepare(self):
        lacks = self.missing()
        if lacks:
            raise GuestError(f'no {", ".join(lacks)}: apt-get install {PACKAGES}')
        if os.path.exists(self._initrd):
            return
        os.makedirs(self.folder, exist_ok=True)
        kernel = os.path.join(self.folder, 'kernel')
        if not glob.glob(os.path.join(kernel, 'boot', 'vmlinuz-*')):
            self._fetch_kernel(kernel)
        self._make_first_root(kernel)
        self._pack(self._initrd)

    def _fetch_kernel(self, kernel):
        depends = subprocess.run(['apt-cache', 'depends', 'linux-image-amd64'], capture_output=True, text=True)
        name = re.search(r'Depends: (linux-image-\S+)', depends.stdout)
        if not name:
            raise GuestError('no package of a kernel: ' + depends.stderr.strip())
        fetched = subprocess.run(['apt-get', 'download', '-qq', name.group(1)], cwd=self.folder, capture_output=True,
                                 text=True)
        packages = glob.glob(os.path.join(self.folder, 'linux-image-*.deb'))
        if fetched.returncode or not packages:
            raise GuestError(f'{name.group(1)} cannot be fetched: {fetched.stderr.strip()}')
        subprocess.run(['dpkg', '-x', packages[0], kernel], check=True)

    def _make_first_root(self, kernel):
        root = os.path.join(self.folder, 'first-root')
        shutil.rmtree(root, ignore_errors=True)
        for name in ('bin', 'proc', 'sys', 'dev', 'host'):
            os.makedirs(os.path.join(root, name))
        shutil.copy(shutil.which('busybox'), os.path.join(root, 'bin', 'busybox'))
        version = os.listdir(os.path.join(kernel, 'lib', 'modules'))[0]
        modules = os.path.join('lib', 'modules', version)
        subprocess.run(['depmod', '-b', kernel, version], check=True)
        for module in MODULES:
            wanted = subprocess.run(['modprobe', '-d', kernel, '-S', version, '--show-depends', module],
                                    capture_output=True, text=True)
            for path in re.findall(r'^insmod (\S+)', wanted.stdout, re.MULTILINE):
                target = os.path.join(root, os.path.relpath(path, kernel))
                os.makedirs(os.path.dirname(target), exist_ok=True)
                shutil.copy(path, target)
        for name in ('modules.order', 'modules.builtin', 'modules.builtin.modinfo'):
            shutil.copy(os.path.join(kernel, modules, name), os.path.join(root, modules, name))
        subprocess.run(['depmod', '-b', root, version], check=True)
        with open(os.path.join(root, 'init'), 'w') as file:
            file.write(INIT.format(modules=' '.join(MODULES), up=UP, done=DONE,
                                   script=os.path.join(self.folder, 'script')))
        os.chmod(os.path.join(root, 'init'), 0o755)

    def _pack(self, initrd):
        part = initrd + '.part'
        subprocess.run(f'find . | cpio -o -H newc --quiet | zstd -q -3 -f -o {part}', shell=True, check=True,
                       cwd=os.path.join(self.folder, 'first-root'))
        os.rename(part, initrd)


def _text(said):
    return said.decode(errors='replace').replace('\r', '')
