"""Debian's own Xen, hypervisor and toolstack, as packages of its archive hold them."""
import gzip
import pathlib
import re
import shutil
import subprocess
import sys

from harness import cache
from harness.apt import Suite

SUITE, VERSION = 'bookworm', '4.17'
PACKAGES = (f'xen-hypervisor-{VERSION}-amd64', f'xen-utils-{VERSION}', 'xen-utils-common', 'xenstore-utils')
# What of their dependencies a Debian has only where it has Xen, too.
OWN = re.compile('xen|libxen|libyajl')


def fetch() -> pathlib.Path:
    """The folder with their files, to be laid over the / of a Debian of that suite; fetched once. 30 MB."""
    folder = cache.root() / f'xen-{VERSION}-{SUITE}'
    with cache.lock(folder.name):
        if (folder / 'complete').exists():
            return folder / 'root'
        print('xen: fetching its packages, once', file=sys.stderr, flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        source = Suite(SUITE)
        names = [name for name in source.with_dependencies(PACKAGES) if OWN.match(name)]
        for archive in source.download_all(names):
            subprocess.run(['dpkg-deb', '-x', archive, folder / 'root'], check=True, stdin=subprocess.DEVNULL)
            archive.unlink()
        _merge_usr(folder / 'root')
        packed = folder / 'root/boot' / f'xen-{VERSION}-amd64.gz'
        # QEMU's -kernel takes multiboot images as they are; the package has it packed for GRUB.
        (folder / 'root/boot/xen').write_bytes(gzip.decompress(packed.read_bytes()))
        (folder / 'complete').touch()
        return folder / 'root'


def hypervisor() -> pathlib.Path:
    return fetch() / 'boot/xen'


def _merge_usr(root: pathlib.Path):
    """A folder /lib of theirs would hide the symbolic link that a Debian has there."""
    for name in ('bin', 'sbin', 'lib', 'lib64'):
        if (root / name).is_dir():
            shutil.copytree(root / name, root / 'usr' / name, symlinks=True, dirs_exist_ok=True)
            shutil.rmtree(root / name)
