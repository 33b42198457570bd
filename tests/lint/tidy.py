"""clang-tidy over the program's own sources, by the compile commands of a build folder: tidy.py BUILD_FOLDER.

Tests are left out: they would double the time, and doctest's macros fill them with findings of their own.

A file that passed is not looked at again until it, any header of ours, its command or the configuration changes."""
import concurrent.futures
import hashlib
import json
import os
import pathlib
import shlex
import shutil
import subprocess
import sys

import tree

PROGRAM = 'clang-tidy-19'


def commands(folder: pathlib.Path) -> list:
    entries = json.loads((folder / 'compile_commands.json').read_text())
    ours = [entry for entry in entries if (tree.TOP / entry['file']).is_relative_to(tree.TOP)
            and not (tree.TOP / entry['file']).is_relative_to(folder)
            and not (tree.TOP / entry['file']).is_relative_to(tree.TOP / 'tests')]
    return sorted({entry['file']: entry for entry in ours}.values(), key=lambda entry: entry['file'])


def fingerprint(version: str) -> 'hashlib._Hash':
    """Of all that every file's result depends on."""
    digest = hashlib.sha256(version.encode())
    for path in [pathlib.Path('.clang-tidy'), *tree.files('.h')]:
        digest.update(str(path).encode() + b'\0' + (tree.TOP / path).read_bytes())
    return digest


def check(entry: dict, folder: pathlib.Path, common) -> str:
    """What clang-tidy complains about, '' when nothing."""
    digest = common.copy()
    digest.update(entry.get('command', '').encode() + pathlib.Path(entry['file']).read_bytes())
    passed = folder / 'tidy-passed' / digest.hexdigest()
    if passed.exists():
        return ''
    words = [PROGRAM, '--quiet', '--warnings-as-errors=*', '-p', str(folder), entry['file'],
             # GCC's own warning flags mean nothing to clang; libstdc++ 12's stable_sort uses what it deprecates
             '--extra-arg=-Wno-unknown-warning-option', '--extra-arg=-Wno-deprecated-declarations']
    result = subprocess.run(words, cwd=tree.TOP, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if result.returncode == 0:
        passed.parent.mkdir(exist_ok=True)
        passed.touch()
        return ''
    return result.stdout or result.stderr or f'{shlex.join(words)} ended with {result.returncode}'


def main():
    folder = pathlib.Path(sys.argv[1]).resolve()
    if not shutil.which(PROGRAM):
        print(f'skipped, the machine lacks: {PROGRAM}')
        sys.exit(77)
    version = subprocess.run([PROGRAM, '--version'], capture_output=True, text=True, check=True).stdout
    entries, common = commands(folder), fingerprint(version)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        complaints = pool.map(lambda entry: check(entry, folder, common), entries)
    tree.finish([complaint for complaint in complaints if complaint], len(entries))


if __name__ == '__main__':
    main()
