"""Bochs 3.0 and what makes a disk for it: trixie's packages, unpacked in the cache and run in place by their own loader.
Nothing of them is installed, and no privilege is needed."""
import pathlib
import re
import shutil
import subprocess
import sys

from harness import cache
from harness.apt import Suite
from harness.errors import HarnessError

SUITE = 'trixie'
# 3.0: earlier ones lack the monitor trap flag, and with 3.1 the outer kernel crashes while it boots.
PACKAGES = ('bochs', 'bochsbios', 'vgabios', 'xorriso', 'isolinux', 'syslinux-common')
# Of what these depend on, only libraries are needed to run them in place.
LEFT_OUT = re.compile(r'^(?!lib|zlib|bochs|vgabios|xorriso|isolinux|syslinux)')


def root() -> pathlib.Path:
    """The folder that stands for /. Fetched once: 180 MB when unpacked."""
    folder = cache.root() / f'bochs-{SUITE}'
    with cache.lock(folder.name):
        if (folder / 'complete').exists():
            return folder
        print('bochs: fetching its packages, once', file=sys.stderr, flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        source = Suite(SUITE)
        names = [name for name in source.with_dependencies(PACKAGES) if not LEFT_OUT.match(name)]
        for archive in source.download_all(names):
            subprocess.run(['dpkg-deb', '-x', archive, folder], check=True, stdin=subprocess.DEVNULL)
            archive.unlink()
        (folder / 'complete').touch()
    return folder


def program(folder: pathlib.Path, name: str) -> list:
    """The words that run it."""
    libraries = folder / 'usr/lib/x86_64-linux-gnu'
    loader, path = libraries / 'ld-linux-x86-64.so.2', folder / 'usr/bin' / name
    for needed in (loader, path):
        if not needed.exists():
            raise HarnessError(f'{needed} is not there; remove {folder} to have it fetched again')
    return [loader, '--library-path', libraries, path]


def environment(folder: pathlib.Path) -> dict:
    return {'LTDL_LIBRARY_PATH': str(folder / 'usr/lib/x86_64-linux-gnu/bochs/plugins')}
