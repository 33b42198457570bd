"""What the documents say of the program and of its tests is so: generated files are current, tests, files and options
that are named exist.

    docs.py EXOGDB BUILD_FOLDER"""
import json
import pathlib
import re
import subprocess
import sys
import tomllib

import tree

MATRIX = pathlib.Path('docs/support-matrix.toml')
ARCHITECTURE = pathlib.Path('docs/ARCHITECTURE.md')
LONGEST_ARCHITECTURE = 200  # lines
LEVELS = 'unit|transcript|lint|guest|gdb|fuzz-replay|live|lab'
TEST = re.compile(rf'^(?:{LEVELS})\.[\w.]+$')


def run(*words) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True, cwd=tree.TOP).stdout


def stale(program: str) -> list:
    check = subprocess.run([sys.executable, '-B', 'scripts/generate-docs', '--check', program], capture_output=True,
                           text=True, cwd=tree.TOP, check=False)
    return [check.stderr.strip()] if check.returncode else []


def exists(test: str, tests: set, suite: str = '') -> bool:
    """`guest.threads` stands for the test of each suite, or of the one that is given."""
    if suite and f'{test}.{suite}' in tests:
        return True
    return test in tests or (not suite and any(name.startswith(f'{test}.') for name in tests))


def has_method(test: str, method: str) -> bool:
    level, file = test.split('.')[:2]
    folder = tree.TOP / 'tests' / level
    source = folder / f'test_{file}.py'
    if not source.exists():
        return False
    # Also what is mixed in out of the same folder.
    mixed_in = [folder / f'{name}.py' for name in re.findall(r'^import (\w+)$', source.read_text(), re.M)]
    return any(re.search(rf'def test_{method}', path.read_text()) for path in (source, *mixed_in) if path.exists())


def matrix(tests: set) -> list:
    findings = []
    for table in tomllib.loads((tree.TOP / MATRIX).read_text())['matrix']:
        for row in table['row']:
            for column, cell in zip(table['columns'], row['cells']):
                suite = column.get('suite', '') if isinstance(column, dict) else ''
                test, _, method = cell.partition(':')
                where = f'{MATRIX}: {table["title"]}: {row["name"]}: {cell!r}'
                if '.' not in test:
                    if cell not in ('no', 'not run', '-'):
                        findings.append(f'{where} is none of the values of a cell')
                elif not exists(test, tests, suite):
                    findings.append(f'{where}: there is no such test{" of " + suite if suite else ""}')
                elif method and not has_method(test, method):
                    findings.append(f'{where}: the test has no such method')
    return findings


def invariants(tests: set) -> list:
    text = (tree.TOP / ARCHITECTURE).read_text()
    findings = []
    if len(text.splitlines()) > LONGEST_ARCHITECTURE:
        findings.append(f'{ARCHITECTURE} is longer than {LONGEST_ARCHITECTURE} lines')
    rows = re.findall(r'^\|([^|]+)\|([^|]+)\|$', text.split('\n## Invariants', 1)[1].split('\n## ', 1)[0], re.M)[2:]
    for invariant, held_by in rows:
        named = [name for name in re.findall(r'`([^`]+)`', held_by) if TEST.match(name)]
        if not named:
            findings.append(f'{ARCHITECTURE}: no test is named for:{invariant}')
        findings += [f'{ARCHITECTURE}: there is no test {name}' for name in named if not exists(name, tests)]
    return findings if rows else [f'{ARCHITECTURE}: no invariants are listed']


def unused_packets(packets: list) -> list:
    """Packets of the table that are in no transcript. [[name, exact or prefix]]"""
    seen = set()
    for path in (tree.TOP / 'tests' / 'transcripts').glob('*.rsp'):
        for payload in re.findall(r'^-> (.*)$', path.read_text(errors='replace'), re.M):
            fitting = [name for name, match in packets
                       if payload == name or (match == 'prefix' and payload.startswith(name))]
            seen.add(max(fitting, key=len, default=''))
    return [f'no transcript has the packet {name}' for name, _ in packets if name not in seen]


def paths(path: pathlib.Path, text: str) -> list:
    """Links to files, and paths in backticks that begin with one of our folders."""
    named = [(path.parent, target) for target in re.findall(r'\]\((?!https?:)([^)#\s]+)', text)]
    folders = {entry.name for entry in tree.TOP.iterdir() if entry.is_dir()} - {'build', '.git'}
    named += [(pathlib.Path(), target) for target in re.findall(r'`([\w.-]+/[\w./*-]*)`', text)
              if target.split('/')[0] in folders]
    return [f'{path}: {target} does not exist' for base, target in named
            if not any(True for _ in tree.TOP.glob(str(pathlib.Path(base, target))))
            and not (tree.TOP / base / target).exists()]


def options(program: str) -> list:
    """The README's options are those of the program, and its commands too."""
    readme = (tree.TOP / 'README.md').read_text()
    told = set(re.findall(r'^\| `(--[\w-]+)', readme, re.M))
    commands = re.findall(r'^  (\w+) {2,}\S', run(program, '--help').split('Subcommands:')[1], re.M)
    real = set()
    for command in commands:
        real |= set(re.findall(r'^  (?:-\w,)?(--[\w-]+)', run(program, command, '--help'), re.M)) - {'--help'}
    findings = [f'README.md: no row for the option {option}' for option in sorted(real - told)]
    findings += [f'README.md: the program has no option {option}' for option in sorted(told - real)]
    shown = set(re.findall(r'^\| `exogdb (\w+)', readme, re.M))
    findings += [f'README.md: command {name} is in the README or in --help only' for name in shown ^ set(commands)]
    return findings


def main():
    program, build = sys.argv[1:]
    tests = {test['name'] for test in
             json.loads(run('ctest', '--test-dir', build, '--show-only=json-v1'))['tests']}
    rows = [line.split('\t')[:2] for line in run(program, '--list-packets').splitlines()]
    findings = stale(program) + matrix(tests) + invariants(tests) + unused_packets(rows) + options(program)
    documents = tree.files('.md')
    for path in documents:
        findings += paths(path, (tree.TOP / path).read_text())
    tree.finish(findings, len(documents))


if __name__ == '__main__':
    main()
