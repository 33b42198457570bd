"""clang-tidy over the program's own sources, by the compile commands of a build folder: tidy.py BUILD_FOLDER.

Of a unity build: of a source alone nearly all of the time would go into the library's headers, again for each. That each
source also compiles alone, with the headers that it includes itself, is seen by the compiler.

Tests are left out: they would double the time, and doctest's macros fill them with findings of their own.

What passed is not looked at again until one of its sources, any header of ours, its command or the configuration changes."""
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
from typing import Iterator, NamedTuple

import tree

TIDY, COMPILER = 'clang-tidy-19', 'clang++-19'
INCLUDED = re.compile(r'^#include "(.*\.cpp)"$', re.M)  # as CMake writes the sources of a unity build


class Check(NamedTuple):
    words: list  # the command
    files: tuple  # ours that it reads, but for headers


def sources(file: pathlib.Path, folder: pathlib.Path) -> list:
    """Of a compiled file; one of our own is its only one."""
    unity = file.is_relative_to(folder) and file.parent.name == 'Unity'
    return INCLUDED.findall(file.read_text()) if unity else [str(file)]


def flags(command: str) -> list:
    """Those of the preprocessor and the compiler: nothing of what is compiled, and where it and its dependencies go."""
    words = iter(shlex.split(command))
    kept = []
    for word in words:
        if word in ('-c', '-o', '-MT', '-MF'):
            next(words, None)
        elif word.startswith('-') and word != '-MD':
            kept.append(word)
    # GCC's own warning flags mean nothing to clang; libstdc++ 12's stable_sort uses what it deprecates
    return [*kept, '-Wno-unknown-warning-option', '-Wno-deprecated-declarations']


def is_ours(file: str, folder: pathlib.Path) -> bool:
    path = pathlib.Path(file)
    return path.is_relative_to(tree.TOP) and not any(map(path.is_relative_to, (folder, tree.TOP / 'tests')))


def checks(folder: pathlib.Path) -> Iterator[Check]:
    """One that is compiled twice is looked at once."""
    seen = set()
    for entry in json.loads((folder / 'compile_commands.json').read_text()):
        file = tree.TOP / entry['file']
        ours = tuple(source for source in sources(file, folder) if is_ours(source, folder) and source not in seen)
        if not ours:
            continue
        seen.update(ours)
        words = flags(entry['command'])
        # A unity build includes sources, and nothing else may.
        tidy = [TIDY, '--quiet', '--warnings-as-errors=*', '--checks=-bugprone-suspicious-include']
        yield Check([*tidy, str(file), '--', *words], ours)
        yield from (Check([COMPILER, '-fsyntax-only', '-Wshadow', *words, source], (source,)) for source in ours)


def fingerprint(version: str) -> 'hashlib._Hash':
    """Of all that every result depends on."""
    digest = hashlib.sha256(version.encode())
    for path in [pathlib.Path('.clang-tidy'), *tree.files('.h')]:
        digest.update(str(path).encode() + b'\0' + (tree.TOP / path).read_bytes())
    return digest


def complaint(check: Check, folder: pathlib.Path, common) -> str:
    """'' when there is none."""
    digest = common.copy()
    digest.update(shlex.join(check.words).encode())
    for file in check.files:
        digest.update(b'\0' + pathlib.Path(file).read_bytes())
    passed = folder / 'tidy-passed' / digest.hexdigest()
    if passed.exists():
        return ''
    result = subprocess.run(check.words, cwd=tree.TOP, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if result.returncode == 0:
        passed.parent.mkdir(exist_ok=True)
        passed.touch()
        return ''
    return result.stdout or result.stderr or f'{shlex.join(check.words)} ended with {result.returncode}'


def main():
    folder = pathlib.Path(sys.argv[1]).resolve()
    for program in (TIDY, COMPILER):
        if not shutil.which(program):
            print(f'skipped, the machine lacks: {program}')
            sys.exit(77)
    version = subprocess.run([TIDY, '--version'], capture_output=True, text=True, check=True).stdout
    everything, common = list(checks(folder)), fingerprint(version)
    # The longest first: what is left at the end is short.
    everything.sort(key=lambda check: -len(check.files))
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        complaints = pool.map(lambda check: complaint(check, folder, common), everything)
    tree.finish([text for text in complaints if text], len(everything))


if __name__ == '__main__':
    main()
