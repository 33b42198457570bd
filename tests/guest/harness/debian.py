"""A real Debian, made by the distribution's own tools: its systemd, its kernel, the initrd that it makes itself, ext4.

    python3 -m harness.debian [--refresh] [SUITE]      prints the folder of the image
"""
import argparse
import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

from . import cache
from .apt import Suite
from .errors import HarnessError, MissingPrerequisite
from .guest import Config
from .kernels import Kernel
from .vm import Vm

PACKAGES = ('systemd-sysv', 'dbus', 'linux-image-cloud-amd64', 'initramfs-tools', 'gdbserver', 'libstdc++6')
SIZE = '1G'  # of the file system; the file is sparse
LEFT_OUT = ('/usr/share/doc/*', '/usr/share/locale/*', '/usr/share/man/*')
# The guest's end of channel.py. guest_init answers more, but is that only as PID 1, which here is systemd.
AGENT = r'''#!/bin/sh
stty raw -echo
while read -r word rest; do
    case $word in
        hello) echo "$word $rest"; echo .ok ;;
        run) if sh -c "$rest" </dev/null 2>&1; then echo .ok; else echo ".error exit status $?"; fi ;;
        *) echo '.error unknown' ;;
    esac
done
'''
SERVICE = '''[Unit]
Description=Command channel of the tests
[Service]
ExecStart=/usr/local/lib/exo-agent
StandardInput=tty-force
StandardOutput=tty
TTYPath=/dev/ttyS1
Environment=TERM=dumb SYSTEMD_PAGER= SYSTEMD_COLORS=0
[Install]
WantedBy=multi-user.target
'''
UNIT = 'etc/systemd/system/exo-agent.service'
FILES = {'usr/local/lib/exo-agent': (AGENT, 0o755), UNIT: (SERVICE, 0o644), 'etc/hostname': ('debian\n', 0o644),
         'etc/fstab': ('/dev/vda / ext4 defaults 0 0\n', 0o644)}
PARTS = ('root.ext4', 'vmlinuz', 'initrd.img', 'release')


def _key(suite: str) -> str:
    """Of what an image is made of; its packages are as new as when it was made (--refresh)."""
    made_of = json.dumps([suite, PACKAGES, SIZE, LEFT_OUT, FILES])
    return hashlib.sha256(made_of.encode()).hexdigest()[:16]


def image(suite: str, refresh: bool = False) -> pathlib.Path:
    """The folder with PARTS; from the cache when it is there, unless `refresh`."""
    folder = cache.root() / 'debian' / f'{suite}-{_key(suite)}'
    with cache.lock(f'debian/{suite}'):
        if refresh or not all((folder / part).exists() for part in PARTS):
            if os.geteuid():
                raise MissingPrerequisite('root, for whom alone mmdebstrap leaves a folder whose files have their owners')
            for tool, package in (('mmdebstrap', 'mmdebstrap'), ('mke2fs', 'e2fsprogs')):
                if not shutil.which(tool):
                    raise MissingPrerequisite(f'{tool} (package {package})')
            with tempfile.TemporaryDirectory(prefix='exogdb-debian-', dir=folder.parent) as scratch:
                _make(suite, pathlib.Path(scratch))
                for old in folder.parent.glob(f'{suite}-*'):
                    shutil.rmtree(old)
                shutil.move(f'{scratch}/image', folder)
    return folder


def _make(suite: str, scratch: pathlib.Path):
    print(f'making a Debian {suite} with systemd: this takes minutes, once', file=sys.stderr, flush=True)
    source = Suite(suite)
    source.update()
    tree, made = scratch / 'tree', scratch / 'image'
    made.mkdir()
    for name, (content, mode) in FILES.items():
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        path.chmod(mode)
    wanted = tree / 'etc/systemd/system/multi-user.target.wants/exo-agent.service'
    wanted.parent.mkdir()
    wanted.symlink_to(f'/{UNIT}')
    hooks = (f'copy-out /boot {scratch}', f'sync-in {tree} /', 'rm -rf "$1"/boot/* "$1"/etc/apt/sources.list*')
    words = ['mmdebstrap', '--quiet', '--variant=minbase', f'--include={",".join(PACKAGES)}',
             *(f'--dpkgopt=path-exclude={pattern}' for pattern in LEFT_OUT),
             *(f'--customize-hook={hook}' for hook in hooks), '--mode=root', '--format=directory',
             suite, f'{scratch}/root', str(source.sources)]
    for command in (words, ['mke2fs', '-q', '-F', '-t', 'ext4', '-d', f'{scratch}/root', f'{made}/root.ext4', SIZE]):
        result = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                text=True, check=False)
        if result.returncode:
            raise HarnessError(f'{command[0]} ended with {result.returncode}: {result.stdout[-1500:]}')
    for name, pattern in (('vmlinuz', 'vmlinuz-*'), ('initrd.img', 'initrd.img-*')):
        found = list((scratch / 'boot').glob(pattern))
        if len(found) != 1:
            raise HarnessError(f'{suite}: {len(found)} files boot/{pattern} instead of one')
        shutil.move(found[0], made / name)
        (made / 'release').write_text(re.sub('^.*?-', '', found[0].name))


class DebianVm(Vm):
    """Boots the image; what it writes is gone with it (snapshot=on)."""

    def __init__(self, suite: str, extra: tuple = ()):
        self._image = image(suite)
        kernel = Kernel(suite, (self._image / 'release').read_text(), self._image / 'vmlinuz')
        super().__init__(Config(kernel, arguments=('root=/dev/vda', 'rw')),
                         extra=('-drive', f'file={self._image}/root.ext4,format=raw,if=virtio,snapshot=on', *extra))

    def initrd(self) -> bytes:
        return (self._image / 'initrd.img').read_bytes()

    def copy(self, path: str, folder: pathlib.Path):
        """A file of the image to its place below `folder`, links in its path followed."""
        real = self.run(f'readlink -f {path}')[0]
        copied = folder / path.lstrip('/')
        copied.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(['debugfs', '-R', f'dump {real} {copied}', f'{self._image}/root.ext4'], check=True,
                       stdin=subprocess.DEVNULL, capture_output=True)

    def run(self, command: str, limit: float = 120) -> list:
        """What a shell of the guest's prints."""
        return self.channel.ask(f'run {command}', limit)


def main():
    parser = argparse.ArgumentParser(prog='harness.debian', description='make an image of a real Debian')
    parser.add_argument('--refresh', action='store_true', help='with the newest packages')
    parser.add_argument('suite', nargs='?', default='bookworm')
    options = parser.parse_args()
    try:
        print(image(options.suite, options.refresh))
    except HarnessError as error:
        sys.exit(f'debian: {error}')


if __name__ == '__main__':
    main()
