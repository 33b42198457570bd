"""Packages of any Debian suite, fetched with apt's own checks and without touching the machine's apt state.

The mirror is the one that the machine's own sources use; signatures are checked against debian-archive-keyring."""
import os
import pathlib
import re
import subprocess

from . import cache
from .errors import HarnessError, MissingPrerequisite

KEYRING = '/usr/share/keyrings/debian-archive-keyring.gpg'


def own_codename() -> str:
    release = pathlib.Path('/etc/os-release').read_text()
    found = re.search(r'^VERSION_CODENAME=(\w+)', release, re.M)
    if not found:
        raise MissingPrerequisite('VERSION_CODENAME in /etc/os-release: stock kernels are fetched on Debian only')
    return found.group(1)


def _one_line_sources(text: str):
    for line in text.splitlines():
        words = re.sub(r'\[[^]]*\]', '', line.split('#')[0]).split()
        if len(words) >= 4 and words[0] == 'deb':
            yield words[1], words[2], words[3:]


def _deb822_sources(text: str):
    for stanza in re.split(r'\n\s*\n', text):
        fields = {}
        for line in stanza.splitlines():
            if line.startswith('#'):
                continue
            if line[:1] in ' \t' and fields:
                last = next(reversed(fields))
                fields[last] += ' ' + line.strip()
            elif ':' in line:
                key, value = line.split(':', 1)
                fields[key.strip().lower()] = value.strip()
        if fields.get('enabled', 'yes').lower() == 'no' or 'deb' not in fields.get('types', '').split():
            continue
        for uri in fields.get('uris', '').split():
            for suite in fields.get('suites', '').split():
                yield uri, suite, fields.get('components', '').split()


def mirror() -> str:
    """The URI from which this machine gets its own release."""
    codename = own_codename()
    folder = pathlib.Path('/etc/apt')
    entries = []
    for path in [folder / 'sources.list', *sorted((folder / 'sources.list.d').glob('*'))]:
        if not path.is_file():
            continue
        reader = {'.list': _one_line_sources, '.sources': _deb822_sources}.get(path.suffix)
        if reader:
            entries += reader(path.read_text(errors='replace'))
    for uri, suite, components in entries:
        if suite in (codename, 'stable') and 'main' in components:
            return uri.rstrip('/')
    raise MissingPrerequisite(f'an apt source for {codename} main in /etc/apt')


class Suite:
    """One suite's package lists in a private folder."""

    def __init__(self, name: str):
        self.name = name
        self.folder = cache.root() / 'apt' / name
        for part in ('lists/partial', 'archives/partial', 'etc'):
            (self.folder / part).mkdir(parents=True, exist_ok=True)
        (self.folder / 'status').touch()
        self._updated = False

    @property
    def sources(self) -> pathlib.Path:
        """The suite as a source of apt's; there after update()."""
        return self.folder / 'etc' / 'suite.sources'

    def _options(self):
        settings = {
            'Dir::Etc::sourcelist': self.sources,
            'Dir::Etc::sourceparts': '/dev/null',
            'Dir::Etc::preferences': '/dev/null',
            'Dir::Etc::preferencesparts': '/dev/null',
            'Dir::Etc::trustedparts': '/dev/null',
            'Dir::State': self.folder,
            'Dir::State::lists': self.folder / 'lists',
            'Dir::State::status': self.folder / 'status',
            'Dir::Cache': self.folder,
            'Dir::Cache::archives': self.folder / 'archives',
            'APT::Architecture': 'amd64',
            'APT::Architectures': 'amd64',
            'APT::Sandbox::User': '',
            'Acquire::Languages': 'none',
            'Acquire::Retries': '3',
            'APT::Update::Post-Invoke-Success::': '',
        }
        return [word for key, value in settings.items() for word in ('-o', f'{key}={value}')]

    def _run(self, *command, what: str) -> str:
        environment = {**os.environ, 'LC_ALL': 'C', 'DEBIAN_FRONTEND': 'noninteractive'}
        result = subprocess.run([command[0], *self._options(), *command[1:]], stdin=subprocess.DEVNULL,
                                capture_output=True, text=True, env=environment, cwd=self.folder / 'archives',
                                check=False)
        if result.returncode:
            lines = [line for line in result.stderr.splitlines() if line.startswith(('E:', 'W:'))]
            raise HarnessError(f'{what} ({self.name}): {lines[-1] if lines else result.stderr.strip()[-200:]}')
        return result.stdout

    def update(self):
        """Fetches the signed package list once for each object."""
        if self._updated:
            return
        if not os.path.exists(KEYRING):
            raise MissingPrerequisite(f'{KEYRING} (package debian-archive-keyring)')
        self.sources.write_text(
            f'Types: deb\nURIs: {mirror()}\nSuites: {self.name}\nComponents: main\nArchitectures: amd64\n'
            f'Signed-By: {KEYRING}\n')
        # Error-Mode=any: a list that could not be fetched or verified is a failure, not a warning.
        self._run('apt-get', '-q', '-o', 'APT::Update::Error-Mode=any', 'update', what='package lists')
        self._updated = True

    def show(self, package: str) -> dict:
        """The newest version's fields, {} when there is no such package."""
        self.update()
        try:
            text = self._run('apt-cache', 'show', '--no-all-versions', package, what=package)
        except HarnessError:
            return {}
        return dict(line.split(': ', 1) for line in text.splitlines() if re.match(r'[\w-]+: ', line))

    def download(self, package: str) -> pathlib.Path:
        """The .deb, its checksum verified against the signed list. The caller may delete it."""
        self.update()
        archives = self.folder / 'archives'
        for old in archives.glob(f'{package}_*.deb'):
            old.unlink()
        self._run('apt-get', '-q', 'download', package, what=f'download of {package}')
        found = list(archives.glob(f'{package}_*.deb'))
        if len(found) != 1:
            raise HarnessError(f'download of {package} ({self.name}): no file came')
        return found[0]

    def with_dependencies(self, packages) -> list:
        """Their names and those of all that they need on a machine that has nothing."""
        self.update()
        plan = self._run('apt-get', 'install', '--simulate', '--no-install-recommends', *packages, what='dependencies')
        return [line.split()[1] for line in plan.splitlines() if line.startswith('Inst ')]

    def download_all(self, packages) -> list:
        """The .debs, as download() does for one."""
        self.update()
        archives = self.folder / 'archives'
        for name in packages:
            for old in archives.glob(f'{name}_*.deb'):
                old.unlink()
        self._run('apt-get', '-q', 'download', *packages, what='download')
        found = [path for name in packages for path in archives.glob(f'{name}_*.deb')]
        if len(found) != len(packages):
            raise HarnessError(f'download ({self.name}): {len(found)} of {len(packages)} packages came')
        return found
