"""clang-tidy over the program's own sources, by the compile commands of a build folder: tidy.py BUILD_FOLDER.

Tests are left out: they would double the time, and doctest's macros fill them with findings of their own.

A file that passed is not looked at again until it, any header of ours, its command or the configuration changes."""
import concurrent.futures
import hashlib
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import tree

PROGRAM = 'clang-tidy-19'


INCLUDED = re.compile(r'^#include "(.*\.cpp)"$', re.M)  # as CMake writes the sources of a unity build


def sources(entry: dict, folder: pathlib.Path) -> list:
    path = tree.TOP / entry['file']
    unity = path.is_relative_to(folder) and path.parent.name == 'Unity'
    return INCLUDED.findall(path.read_text()) if unity else [entry['file']]


def flags(command: str) -> list:
    """Those of the preprocessor and the compiler: nothing of what is compiled, and where it and its dependencies go."""
    words = iter(shlex.split(command))
    kept = []
    for word in words:
        if word in ('-c', '-o', '-MT', '-MF'):
            next(words, None)
        elif word.startswith('-') and word != '-MD':
            kept.append(word)
    return kept


def commands(folder: pathlib.Path) -> list:
    """(file, flags) of each of our sources; one that is compiled twice is looked at once."""
    entries = json.loads((folder / 'compile_commands.json').read_text())
    found = {file: flags(entry['command']) for entry in entries for file in sources(entry, folder)}
    ours = [(file, words) for file, words in found.items() if (tree.TOP / file).is_relative_to(tree.TOP)
            and not (tree.TOP / file).is_relative_to(folder)
            and not (tree.TOP / file).is_relative_to(tree.TOP / 'tests')]
    return sorted(ours)


def fingerprint(version: str) -> 'hashlib._Hash':
    """Of all that every file's result depends on."""
    digest = hashlib.sha256(version.encode())
    for path in [pathlib.Path('.clang-tidy'), *tree.files('.h')]:
        digest.update(str(path).encode() + b'\0' + (tree.TOP / path).read_bytes())
    return digest


def check(file: str, words: list, folder: pathlib.Path, common) -> str:
    """What clang-tidy complains about, '' when nothing."""
    digest = common.copy()
    digest.update(shlex.join(words).encode() + pathlib.Path(file).read_bytes())
    passed = folder / 'tidy-passed' / digest.hexdigest()
    if passed.exists():
        return ''
    words = [PROGRAM, '--quiet', '--warnings-as-errors=*', file, '--', *words,
             # GCC's own warning flags mean nothing to clang; libstdc++ 12's stable_sort uses what it deprecates
             '-Wno-unknown-warning-option', '-Wno-deprecated-declarations']
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
        complaints = pool.map(lambda entry: check(*entry, folder, common), entries)
    tree.finish([complaint for complaint in complaints if complaint], len(entries))


if __name__ == '__main__':
    main()
