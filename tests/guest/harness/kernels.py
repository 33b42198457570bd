"""Stock Debian kernels: the vmlinuz exactly as the distribution ships it, no debug package.

    python3 -m harness.kernels [--refresh] SUITE…      prints the path of each image
"""
import argparse
import dataclasses
import lzma
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile

from . import cache
from .apt import Suite
from .errors import HarnessError, MissingPrerequisite

# One suite for each generation of data layouts that the tests want; what it holds now is looked up, not assumed.
SUITES = ('bullseye', 'bookworm', 'trixie', 'forky')
# Flavours, and their folders in a suite's of the cache.
CLOUD, FULL = 'cloud-amd64', 'amd64'  # few drivers, all that a guest of the tests has use for; and all drivers
FOLDERS = {CLOUD: '.', FULL: 'full'}


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


def load_order(kernel: Kernel, names) -> list:
    """Paths of NAME.ko, of the modules and of all that they need, in the order in which to load them."""
    folder = cache.root() / 'kernels' / kernel.suite / f'modules-{kernel.release}'
    listing = folder / f'order-{"+".join(names)}'
    with cache.lock(f'kernels/{kernel.suite}'):
        if not listing.exists():
            source, package = Suite(kernel.suite), f'linux-image-{kernel.release}'
            if not source.show(package):
                raise MissingPrerequisite(f'{package}; --refresh fetches a newer kernel')
            archive = source.download(package)
            with tempfile.TemporaryDirectory(prefix='exogdb-modules-') as unpacked:
                subprocess.run(['dpkg-deb', '-x', archive, unpacked], check=True)
                archive.unlink()
                files = _dependencies_first(unpacked, kernel.release, names)
                for path in files:
                    with cache.replacing(folder / f'{_module_name(path)}.ko') as partial:
                        body = path.read_bytes()
                        partial.write_bytes(lzma.decompress(body) if path.suffix == '.xz' else body)
                with cache.replacing(listing) as partial:
                    partial.write_text(''.join(f'{_module_name(path)}\n' for path in files))
        return [folder / f'{name}.ko' for name in listing.read_text().split()]


def _module_name(path: pathlib.Path) -> str:
    return path.name.split('.ko')[0]


def _dependencies_first(unpacked: str, release: str, names) -> list:
    """Files below `unpacked`, each once. What is built in needs no loading."""
    for tool in ('depmod', 'modprobe'):
        if not shutil.which(tool):
            raise MissingPrerequisite(f'{tool} (package kmod)')
    subprocess.run(['depmod', '-b', unpacked, release], check=True)
    shown = subprocess.run(['modprobe', '-d', unpacked, '-S', release, '--show-depends', '--all', *names],
                           stdout=subprocess.PIPE, text=True, check=True).stdout
    words = (line.split() for line in shown.splitlines())
    return list(dict.fromkeys(pathlib.Path(line[1]) for line in words if line[0] == 'insmod'))


def _cached(suite: str, folder: pathlib.Path):
    images = sorted(folder.glob('vmlinuz-*'), key=lambda path: path.stat().st_mtime)
    images = [path for path in images if not path.name.endswith('.partial')]
    return Kernel(suite, images[-1].name.removeprefix('vmlinuz-'), images[-1]) if images else None


def fetch(suite: str, refresh: bool = False, flavour: str = CLOUD) -> Kernel:
    """The newest kernel of a suite; from the cache when it is there, unless `refresh`."""
    folder = cache.root() / 'kernels' / suite / FOLDERS[flavour]
    with cache.lock(f'kernels/{suite}'):
        kept = _cached(suite, folder)
        if kept and not refresh:
            return kept
        source = Suite(suite)
        depends = source.show(f'linux-image-{flavour}').get('Depends', '')
        found = re.search(rf'linux-image-(\S+-{flavour})', depends)
        if not found:
            raise HarnessError(f'{suite} has no linux-image-{flavour}')
        release = found.group(1)
        image = folder / f'vmlinuz-{release}'
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
