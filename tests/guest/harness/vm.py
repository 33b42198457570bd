"""A guest in a QEMU of its own, without libvirt: what a `qemu:QMP_SOCKET` target attaches to."""
import json
import shutil
import socket
import subprocess
import time

from . import accelerator, processes
from .errors import HarnessError, MissingPrerequisite
from .guest import Config, Guest
from .patience import seconds

QEMU = 'qemu-system-x86_64'


def command(config: Config, folder, accel: str) -> list:
    """QEMU's command line for a guest whose files are in `folder`."""
    path = shutil.which(QEMU)
    if not path:
        raise MissingPrerequisite(f'{QEMU} (package qemu-system-x86)')
    words = [path, '-accel', accel, '-cpu', 'max' if accel == 'tcg' else 'host', '-m', f'{config.memory_mib}M',
             '-smp', str(config.vcpus), '-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot',
             '-kernel', f'{folder}/vmlinuz', '-initrd', f'{folder}/initrd.gz', '-append', config.command_line(),
             '-serial', f'file:{folder}/console.log', '-serial', f'unix:{folder}/channel,server=on,wait=off',
             '-qmp', f'unix:{folder}/qmp,server=on,wait=off']
    if config.shared_memory:
        return words + ['-object', f'memory-backend-memfd,id=ram,size={config.memory_mib}M,share=on',
                        '-M', f'{config.machine},memory-backend=ram']
    return words + ['-M', config.machine]


class Vm(Guest):
    def __init__(self, config: Config, accel: str = None, extra: tuple = ()):
        super().__init__(config)
        self._accel = accel
        self._extra = extra
        self._process = None

    @property
    def qmp_path(self):
        return self.folder / 'qmp'

    @property
    def target(self) -> str:
        return f'qemu:{self.qmp_path}'

    def _start(self):
        accel = self._accel or accelerator.choose()
        words = command(self.config, self.folder, accel) + [word.format(folder=self.folder) for word in self._extra]
        with open(self.folder / 'qemu.log', 'wb') as log:
            self._process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                             start_new_session=True)

    def begin_at_reset(self):
        """With `-S` among its options: it stands before its first instruction, and can be served."""
        self.begin()
        until = time.monotonic() + seconds(30)
        while not self.qmp_path.exists():
            if self.why_gone() or time.monotonic() > until:
                raise HarnessError(f'QEMU has no monitor: {self.why_gone()}')
            time.sleep(0.05)

    def why_gone(self):
        if self._process.poll() is None:
            return None
        log = (self.folder / 'qemu.log').read_text(errors='replace').strip()
        return f'QEMU ended with {self._process.returncode}: {log[-300:]}'

    def pid(self) -> int:
        return self._process.pid

    def qmp(self, command: str):
        """What one command of QEMU's monitor returns (docs/interop/qmp-spec.txt), over a connection of its own."""
        with socket.socket(socket.AF_UNIX) as monitor:
            monitor.settimeout(seconds(30))
            monitor.connect(str(self.qmp_path))
            with monitor.makefile('rw') as lines:
                lines.readline()  # the greeting
                for word in ('qmp_capabilities', command):
                    lines.write(json.dumps({'execute': word}) + '\n')
                    lines.flush()
                    answer = {}
                    while not answer.keys() & {'return', 'error'}:  # events come in between
                        answer = json.loads(lines.readline())
        if 'error' in answer:
            raise HarnessError(f'QMP {command}: {answer["error"].get("desc")}')
        return answer['return']

    def pause(self):
        self.qmp('stop')

    def unpause(self):
        self.qmp('cont')

    def _end(self):
        processes.end(self._process)


class KvmVm(Vm):
    """A guest of KVM, and a debugger that knows no more than QEMU's pid. There is no stub, and no thread's name helps."""

    def __init__(self, config: Config):
        super().__init__(config, 'kvm', ('-name', 'guest=exogdb-test,debug-threads=off'))

    @property
    def target(self) -> str:
        return f'kvm:{self.pid()}'
