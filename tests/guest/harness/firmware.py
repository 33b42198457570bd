"""Stock QEMU with KVM, and in it no more than a firmware of the tests' own (tests/lab/vmm/bare/firmware.S)."""
import pathlib
import shutil
import subprocess
import tempfile
import time

from . import processes
from .errors import HarnessError, MissingPrerequisite
from .patience import seconds
from .small_vmm import bare_program
from .vm import QEMU

COUNTERS = 0x500  # firmware.S
GO = 0x540


class FirmwareVm:
    """Two vCPUs. `in_ram`: nobody needs to call it out of its ROM. `with` ends it."""

    def __init__(self, in_ram: bool):
        self._in_ram = in_ram
        self._process = None
        self._folder = tempfile.TemporaryDirectory(prefix='exogdb-firmware-')
        self.folder = pathlib.Path(self._folder.name)

    def __enter__(self):
        path = shutil.which(QEMU)
        if not path:
            raise MissingPrerequisite(f'{QEMU} (package qemu-system-x86)')
        words = [path, '-accel', 'kvm', '-cpu', 'qemu64,+x2apic', '-M', 'q35', '-m', '64', '-smp', '2', '-nodefaults',
                 '-no-user-config', '-display', 'none', '-bios', str(bare_program('firmware')),
                 '-gdb', f'unix:{self.stub},server=on,wait=off']
        if self._in_ram:
            words += ['-device', f'loader,addr={GO:#x},data=1,data-len=1']
        with open(self.folder / 'log', 'wb') as log:
            self._process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        until = time.monotonic() + seconds(30)
        while not self.stub.exists():
            self.alive()
            if time.monotonic() > until:
                raise HarnessError('QEMU does not begin')
            time.sleep(0.05)
        return self

    def __exit__(self, *_):
        processes.end(self._process)
        self._folder.cleanup()

    @property
    def stub(self) -> pathlib.Path:
        """The socket of QEMU's own stub."""
        return self.folder / 'stub'

    @property
    def target(self) -> str:
        return f'kvm:{self.pid()}'

    def pid(self) -> int:
        return self._process.pid

    def alive(self):
        if self._process.poll() is not None:
            log = (self.folder / 'log').read_text(errors='replace').strip()
            raise HarnessError(f'QEMU ended with {self._process.returncode}: {log[-300:]}')
