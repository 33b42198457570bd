"""The vmlinux with DWARF of a kernel that the guest tests use, from the distribution's debug package.

    python3 debug_kernels.py [SUITE…]      prints the path of each
"""
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / 'guest'))

from harness import cache, kernels
from harness.apt import Suite
from harness.errors import HarnessError


def _take_vmlinux(archive: pathlib.Path, target: pathlib.Path) -> bool:
    """The package's vmlinux into `target`, without unpacking the modules' files."""
    with subprocess.Popen(['dpkg-deb', '--fsys-tarfile', archive], stdout=subprocess.PIPE) as unpacker:
        with tarfile.open(fileobj=unpacker.stdout, mode='r|') as members:
            for member in members:
                if not member.isfile() or not re.search(r'(^|/)vmlinux(-[^/]+)?$', member.name):
                    continue
                with open(target, 'wb') as file:
                    shutil.copyfileobj(members.extractfile(member), file, 1 << 20)
                unpacker.kill()
                return True
    return False


def fetch(kernel: kernels.Kernel) -> pathlib.Path:
    """Of exactly this release; HarnessError when the mirror does not have it any more."""
    with cache.lock(f'dbg-{kernel.suite}'):
        target = cache.root() / 'dbg' / 'usr/lib/debug/boot' / f'vmlinux-{kernel.release}'
        if target.exists():
            return target
        package = f'linux-image-{kernel.release}-dbg'
        source = Suite(kernel.suite)
        if not source.show(package):
            raise HarnessError(f'{kernel.suite} has no {package} (any more): '
                               'fetch the newest kernel by `harness.kernels --refresh`')
        archive = source.download(package)
        try:
            with cache.replacing(target) as partial:
                if not _take_vmlinux(archive, partial):
                    raise HarnessError(f'{package} has no vmlinux')
        finally:
            archive.unlink()
        return target


def main():
    for suite in sys.argv[1:] or kernels.SUITES:
        try:
            print(suite, fetch(kernels.fetch(suite)), sep='\t', flush=True)
        except HarnessError as error:
            print(suite, error, sep='\t', flush=True)


if __name__ == '__main__':
    main()
