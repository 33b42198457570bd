"""Real lldbs of several versions. Debian's packages of two versions cannot be installed side by side (their Python
modules conflict), so what is not installed is fetched and unpacked beside the other downloads.

    python3 -m harness.lldb [VERSION…]      prints how to run each
"""
import os
import pathlib
import re
import shutil
import subprocess
import sys

from . import cache, processes
from .apt import Suite, own_codename
from .errors import HarnessError, MissingPrerequisite

VERSIONS = (14, 19)


def _environment(version: int, root: pathlib.Path) -> dict:
    library = root / f'usr/lib/llvm-{version}/lib'
    modules = [path for path in library.glob('python3*/dist-packages') if path.is_dir()]
    modules.append('/usr/lib/python3/dist-packages')  # lldb 14's module wants six
    environment = {**os.environ, 'PYTHONPATH': ':'.join(map(str, modules))}
    if root != pathlib.Path('/'):
        environment['LD_LIBRARY_PATH'] = f'{library}:{root}/usr/lib/x86_64-linux-gnu'
    return environment


def _fetch(version: int) -> pathlib.Path:
    """Unpacks the packages that the machine lacks; returns the folder that stands for /."""
    root = cache.root() / f'lldb-{version}'
    with cache.lock(f'lldb-{version}'):
        if (root / 'complete').exists():
            return root
        shutil.rmtree(root, ignore_errors=True)
        source = Suite(own_codename())
        for package in (f'lldb-{version}', f'liblldb-{version}', f'python3-lldb-{version}', f'libllvm{version}',
                        f'libclang-cpp{version}'):
            archive = source.download(package)
            subprocess.run(['dpkg-deb', '-x', archive, root], check=True, stdin=subprocess.DEVNULL)
            archive.unlink()
        (root / 'complete').touch()
    return root


def find(version: int):
    """(program, environment)."""
    installed = shutil.which(f'lldb-{version}')
    root = pathlib.Path('/') if installed else _fetch(version)
    path = root / f'usr/lib/llvm-{version}/bin/lldb'
    if not path.exists():
        raise MissingPrerequisite(f'lldb {version} (package lldb-{version})')
    return str(path), _environment(version, root)


def adapter(version: int):
    """(program, environment) of that version's debug adapter; it was lldb-vscode until 18."""
    path, environment = find(version)
    for name in ('lldb-dap', 'lldb-vscode'):
        program = pathlib.Path(path).with_name(name)
        if program.exists():
            return str(program), environment
    raise MissingPrerequisite(f'the debug adapter of lldb {version} (package lldb-{version})')


def batch(version: int, *commands: str, limit: float = 120) -> str:
    """What lldb prints for these commands, error output included."""
    path, environment = find(version)
    words = [path, '--no-lldbinit', '--batch']
    for command in commands:
        words += ['-o', command]
    output = processes.output_of(words, limit, f'lldb-{version}', env=environment)[1]
    missing = re.search(r'error while loading shared libraries: (\S+):', output)
    if missing:
        raise MissingPrerequisite(f'{missing.group(1)}, which lldb-{version} wants')
    return output


def main():
    try:
        for version in map(int, sys.argv[1:] or VERSIONS):
            print(f'{find(version)[0]}\t{batch(version, "version").strip().splitlines()[-1]}')
    except HarnessError as error:
        sys.exit(f'lldb: {error}')


if __name__ == '__main__':
    main()
