"""Stock Debian kernels: the vmlinuz exactly as the distribution ships it, no debug package.

    python3 -m harness.kernels [--refresh] SUITE…      prints the path of each image
"""
import argparse
import dataclasses
import lzma
import pathlib
import re
import subprocess
import sys
import tarfile

from . import cache
from .apt import Suite
from .errors import HarnessError, MissingPrerequisite

# One suite for each generation of data layouts that the tests want; what it holds now is looked up, not assumed.
SUITES = ('bullseye', 'bookworm', 'trixie', 'forky')


@dataclasses.dataclass(frozen=True)
class Kernel:
    suite: str
    release: str  # as uname -r prints it
    image: pathlib.Path


def _image_in(archive: pathlib.Path):
    """The bytes of the package's vmlinuz, without unpacking the rest; None when it has none."""
    with subprocess.Popen(['dpkg-deb', '--fsys-tarfile', archive], stdout=subprocess.PIPE) as unpacker:
        image = None
        with tarfile.open(fileobj=unpacker.stdout, mode='r|') as members:
            for member in members:
                # boot/vmlinuz-RELEASE; from Linux 7.2's packages on usr/lib/modules/RELEASE/vmlinuz
                if member.isfile() and re.search(r'(^|/)(boot/vmlinuz-[^/]+|lib/modules/[^/]+/vmlinuz)$', member.name):
                    image = members.extractfile(member).read()
    return image


def _modules_in(archive: pathlib.Path, names) -> dict:
    """{name: bytes of NAME.ko} of those that the package has, unpacked."""
    wanted = re.compile(r'(?:^|/)lib/modules/[^/]+/kernel/.*/(' + '|'.join(map(re.escape, names)) + r')\.ko(\.xz)?$')
    found = {}
    with subprocess.Popen(['dpkg-deb', '--fsys-tarfile', archive], stdout=subprocess.PIPE) as unpacker:
        with tarfile.open(fileobj=unpacker.stdout, mode='r|') as members:
            for member in members:
                match = wanted.search(member.name)
                if match and member.isfile():
                    content = members.extractfile(member).read()
                    found[match.group(1)] = lzma.decompress(content) if match.group(2) else content
    return found


def modules(kernel: Kernel, names) -> dict:
    """{name: path of NAME.ko}, the modules of that very kernel as its distribution ships them."""
    folder = cache.root() / 'kernels' / kernel.suite / f'modules-{kernel.release}'
    paths = {name: folder / f'{name}.ko' for name in names}
    with cache.lock(f'kernels/{kernel.suite}'):
        if all(path.exists() for path in paths.values()):
            return paths
        source = Suite(kernel.suite)
        for package in (f'linux-modules-{kernel.release}', f'linux-image-{kernel.release}'):
            if not source.show(package):
                continue
            archive = source.download(package)
            content = _modules_in(archive, names)
            archive.unlink()
            for name, body in content.items():
                with cache.replacing(paths[name]) as partial:
                    partial.write_bytes(body)
            if all(path.exists() for path in paths.values()):
                return paths
        missing = sorted(name for name, path in paths.items() if not path.exists())
        # The suite has a newer kernel by now, and its mirror only that: python3 -m harness.kernels --refresh
        raise MissingPrerequisite(f'the modules {missing} of {kernel.release}; --refresh fetches a newer kernel')


def _cached(suite: str):
    images = sorted((cache.root() / 'kernels' / suite).glob('vmlinuz-*'), key=lambda path: path.stat().st_mtime)
    images = [path for path in images if not path.name.endswith('.partial')]
    return Kernel(suite, images[-1].name.removeprefix('vmlinuz-'), images[-1]) if images else None


def fetch(suite: str, refresh: bool = False) -> Kernel:
    """The newest `-cloud-amd64` kernel of a suite; from the cache when it is there, unless `refresh`."""
    with cache.lock(f'kernels/{suite}'):
        kept = _cached(suite)
        if kept and not refresh:
            return kept
        source = Suite(suite)
        depends = source.show('linux-image-cloud-amd64').get('Depends', '')
        found = re.search(r'linux-image-(\S+-cloud-amd64)', depends)
        if not found:
            raise HarnessError(f'{suite} has no linux-image-cloud-amd64')
        release = found.group(1)
        image = cache.root() / 'kernels' / suite / f'vmlinuz-{release}'
        for package in (f'linux-image-{release}', f'linux-binary-{release}'):
            if not source.show(package):
                continue
            archive = source.download(package)
            content = _image_in(archive)
            archive.unlink()
            if content:
                with cache.replacing(image) as partial:
                    partial.write_bytes(content)
                return Kernel(suite, release, image)
        raise HarnessError(f'{suite}: no vmlinuz in the packages of {release}')


def main():
    parser = argparse.ArgumentParser(prog='harness.kernels', description='fetch stock Debian kernels')
    parser.add_argument('--refresh', action='store_true', help='look for a newer one')
    parser.add_argument('suites', nargs='*', default=SUITES)
    options = parser.parse_args()
    try:
        for suite in options.suites:
            kernel = fetch(suite, options.refresh)
            print(f'{suite}\t{kernel.release}\t{kernel.image}', flush=True)
    except HarnessError as error:
        sys.exit(f'kernels: {error}')


if __name__ == '__main__':
    main()
