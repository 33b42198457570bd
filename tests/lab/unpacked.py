"""Programs of another Debian suite than this machine's: packages unpacked in the cache and run in place by their own
loader. Nothing of them is installed, and no privilege is needed."""
import pathlib
import re
import shutil
import subprocess
import sys

from harness import cache
from harness.apt import Suite
from harness.errors import HarnessError


def fetch(name: str, suite: str, packages, also: str = '') -> pathlib.Path:
    """The folder NAME-SUITE, which stands for /; fetched once. Of what the packages depend on, libraries are taken, and
    what the regular expression `also` matches the beginning of: no more is needed to run them in place."""
    folder = cache.root() / f'{name}-{suite}'
    wanted = re.compile('lib|zlib' + (f'|{also}' if also else ''))
    with cache.lock(folder.name):
        if (folder / 'complete').exists():
            return folder
        print(f'{name}: fetching its packages, once', file=sys.stderr, flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        source = Suite(suite)
        names = [each for each in source.with_dependencies(packages) if each in packages or wanted.match(each)]
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
