"""Guests of the tests' own VMM (tests/lab/vmm): Linux kernels, and bare programs that tell how they are.

EXOGDB_SMALL_VMM names the program; its bare programs lie in tests/lab/vmm/bare of that build."""
import os
import pathlib
import re
import signal
import subprocess
import tempfile
import time

from . import processes
from .errors import HarnessError, MissingPrerequisite
from .guest import Guest

RECORD = re.compile(r'^vcpu ([0-9a-f]{8})((?: \w+ [0-9a-f]{8})+)\n', re.M)


def program() -> str:
    path = os.environ.get('EXOGDB_SMALL_VMM')
    if not path or not os.path.exists(path):
        raise MissingPrerequisite('small_vmm (EXOGDB_SMALL_VMM names it)')
    return path


def bare_program(name: str, suffix: str = 'bin') -> pathlib.Path:
    """`elf` has the symbols."""
    return pathlib.Path(program()).parent / 'tests/lab/vmm/bare' / f'{name}.{suffix}'


def symbol(bare: str, name: str) -> int:
    """Where a bare program has it."""
    listing = subprocess.run(['nm', bare_program(bare, 'elf')], capture_output=True, text=True, check=True).stdout
    return next(int(line.split()[0], 16) for line in listing.splitlines() if line.split()[-1] == name)


class SmallVmm(Guest):
    """The tests' Linux guest in it. No thread's name and no socket tells a debugger more than the pid does."""

    extra = ()  # more of its options

    def __init__(self, config):
        super().__init__(config)
        self._process = None

    @property
    def target(self) -> str:
        return f'kvm:{self.pid()}'

    def _start(self):
        words = [program(), '--kernel', f'{self.folder}/vmlinuz', '--initrd', f'{self.folder}/initrd.gz',
                 '--append', self.config.command_line(), '--vcpus', str(self.config.vcpus),
                 '--memory', str(self.config.memory_mib), '--serial', f'{self.folder}/console.log',
                 '--channel', f'unix:{self.folder}/channel', *self.extra]
        if self.config.shared_memory:
            words += ['--memory-kind', 'memfd']
        with open(self.folder / 'vmm.log', 'wb') as log:
            self._process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                             start_new_session=True)

    def why_gone(self):
        if self._process.poll() is None:
            return None
        return f'small_vmm ended with {self._process.returncode}: {(self.folder / "vmm.log").read_text().strip()[-300:]}'

    def pid(self) -> int:
        return self._process.pid

    def pause(self):
        self._process.send_signal(signal.SIGUSR2)

    def unpause(self):
        self._process.send_signal(signal.SIGUSR1)

    def wait_end(self, limit: float) -> int:
        """Its exit status: 0 when the guest ended itself."""
        return self._process.wait(limit)

    def _end(self):
        processes.end(self._process)


class Bare:
    """One small_vmm with bare programs. Each machine is its options, without --serial. `with` ends it."""

    def __init__(self, *machines: list, paused: bool = False):
        self._machines, self._paused = machines, paused
        self._folder = self._process = None

    def __enter__(self):
        self._folder = tempfile.TemporaryDirectory(prefix='exogdb-bare-')
        words = [program(), *(['--paused'] if self._paused else [])]
        for number, options in enumerate(self._machines):
            words += [*(['--and'] if number else []), *map(str, options), '--serial', f'{self._folder.name}/serial{number}']
        with open(f'{self._folder.name}/log', 'wb') as log:
            self._process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                             start_new_session=True)
        if self._paused:
            self.wait(lambda: 'paused' in self.log(), 30, 'small_vmm does not say that it is paused')
        return self

    def __exit__(self, *_):
        processes.end(self._process)
        self._folder.cleanup()

    @property
    def pid(self) -> int:
        return self._process.pid

    def signal(self, number: int):
        self._process.send_signal(number)

    def log(self) -> str:
        return pathlib.Path(self._folder.name, 'log').read_text()

    def serial(self, machine: int = 0) -> str:
        path = pathlib.Path(self._folder.name, f'serial{machine}')
        return path.read_text(errors='replace') if path.exists() else ''

    def records(self, machine: int = 0) -> dict:
        """{vCPU: {field: number}} as last printed; see tests/lab/vmm/bare/print.inc."""
        found = {}
        for index, fields in RECORD.findall(self.serial(machine)):
            words = fields.split()
            found[int(index, 16)] = {name: int(number, 16) for name, number in zip(words[::2], words[1::2])}
        return found

    def wait(self, done, limit: float, what: str):
        until = time.monotonic() + limit
        while not done():
            if self._process.poll() is not None:
                raise HarnessError(f'small_vmm ended with {self._process.returncode}: {self.log().strip()[-300:]}')
            if time.monotonic() > until:
                raise HarnessError(f'{what}: {self.serial()[-300:]!r}')
            time.sleep(0.05)

    def wait_rounds(self, more: int = 1, machine: int = 0, vcpus: int = 1, limit: float = 60) -> dict:
        """The records once `vcpus` vCPUs have made `more` rounds from now on: so the guest goes on."""
        before = self.records(machine)

        def went_on():
            now = self.records(machine)
            return all(index in now and now[index]['rounds'] >= before.get(index, {'rounds': 0})['rounds'] + more
                       for index in range(vcpus))
        self.wait(went_on, limit, f'{vcpus} vCPUs of machine {machine} do not make {more} rounds')
        return self.records(machine)
