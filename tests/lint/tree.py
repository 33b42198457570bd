"""What the lints share: the tracked files of the checkout, and how findings are reported."""
import pathlib
import subprocess
import sys

TOP = pathlib.Path(__file__).resolve().parents[2]


def files(*suffixes: str) -> list:
    """Tracked files, and new ones that are not ignored; of all kinds when no suffix is given."""
    listed = subprocess.run(['git', '-c', 'safe.directory=*', 'ls-files', '-z', '--cached', '--others',
                             '--exclude-standard'], cwd=TOP, capture_output=True, check=False)
    if listed.returncode:  # an unpacked archive: everything but what is built
        paths = [path.relative_to(TOP) for path in TOP.rglob('*') if path.is_file()]
        paths = [path for path in paths if path.parts[0] not in ('build', '.git')]
    else:
        paths = [pathlib.Path(name.decode()) for name in listed.stdout.split(b'\0') if name]
    return sorted(path for path in paths
                  if (not suffixes or path.suffix in suffixes) and (TOP / path).is_file())


def lines(path: pathlib.Path):
    """(number, text), numbered from 1; nothing for a binary file."""
    content = (TOP / path).read_bytes()
    if b'\0' not in content[:8000]:
        yield from enumerate(content.decode(errors='replace').splitlines(), 1)


def finish(findings: list, checked: int):
    """Ends the program: a lint that looked at nothing has failed too."""
    for finding in findings:
        print(finding)
    if not checked:
        sys.exit('nothing was checked')
    print(f'{checked} files checked, {len(findings)} findings')
    sys.exit(1 if findings else 0)
