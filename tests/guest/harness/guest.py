"""What a libvirt domain and a plain QEMU guest have in common: files, command channel, readiness."""
import dataclasses
import os
import pathlib
import shutil
import tempfile

from . import initramfs, kernels
from .channel import Channel, GuestSilent
from .errors import HarnessError
from .kernels import Kernel

# Under TCG on a busy machine a kernel takes a minute to boot; this only bounds a guest that hangs.
BOOT_LIMIT = float(os.environ.get('EXOGDB_BOOT_LIMIT', '200'))
BOOT_TRIES = 2
PANIC = 'end Kernel panic - not syncing'  # the last line of panic(), kernel/panic.c
ARGUMENTS = os.environ.get('EXOGDB_GUEST_ARGUMENTS', '').split()  # for every guest's kernel


@dataclasses.dataclass(frozen=True)
class Config:
    kernel: Kernel
    scenario: str = 'idle'  # see guest_init/main.c
    memory_mib: int = 512
    vcpus: int = 2
    shared_memory: bool = False  # RAM in a memfd that others can map
    machine: str = 'pc'
    arguments: tuple = ()  # more of the kernel command line
    programs: tuple = ()  # of guest_programs, in /bin
    dynamic: bool = False  # those are PIEs, with the shared libraries of this machine
    modules: tuple = ()  # of the kernel's package, as /NAME.ko in the guest; guest_init's `load` loads one

    def command_line(self, console: str = 'ttyS0') -> str:
        # A guest that gets no turn on a busy machine finds that its timer does not tick, and panics. Guests of KVM do
        # not look (kvm_guest_init(), arch/x86/kernel/kvm.c); those of TCG have to be told. It finds its time stamp counter
        # late, too, and changes its own text for a clock without one (static keys: kernel/sched/clock.c).
        return ' '.join([f'console={console}', 'no_timer_check', 'tsc=reliable', f'exo.scenario={self.scenario}', *self.arguments,
                         *ARGUMENTS])


@dataclasses.dataclass(frozen=True)
class Task:
    """One task as the guest's /proc shows it."""
    tid: int
    tgid: int
    state: str
    flags: int
    processor: int
    comm: bytes

    @property
    def is_kernel_thread(self) -> bool:
        return bool(self.flags & 0x00200000)  # PF_KTHREAD, include/linux/sched.h


class Guest:
    """Subclasses start and end the machine; `with` boots it and always cleans up."""

    def __init__(self, config: Config):
        self.config = config
        self.folder = None
        self.channel = None

    def _start(self):
        raise NotImplementedError

    def _end(self):
        """Idempotent; must work after a _start that failed half way."""
        raise NotImplementedError

    def why_gone(self):
        """Why the guest cannot answer any more, or None."""
        raise NotImplementedError

    def pid(self) -> int:
        """Of the QEMU process."""
        raise NotImplementedError

    def begin(self):
        """The machine is there; what runs in it is not waited for."""
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix='exogdb-guest-'))
        # QEMU may run as another user (libvirt's default): it must get at its files.
        self.folder.chmod(0o711)
        shutil.copyfile(self.config.kernel.image, self.folder / 'vmlinuz')
        (self.folder / 'initrd.gz').write_bytes(self.initrd())
        for name in ('vmlinuz', 'initrd.gz'):
            (self.folder / name).chmod(0o644)
        self.channel = Channel(self.channel_path, self.why_gone)
        self._start()

    def initrd(self) -> bytes:
        files = {f'{name}.ko': path.read_bytes() for name, path in self.module_paths().items()}
        return initramfs.build(files, self.config.programs, self.config.dynamic)

    def boot(self, limit: float = BOOT_LIMIT):
        """Once more when it does not come up. No debugger is near it yet: that a kernel hangs so early is QEMU's doing or its own
        (seen of 5.10 and 7.2 under TCG, on a busy machine)."""
        for _ in range(BOOT_TRIES - 1):
            try:
                return self._boot(limit)
            except GuestSilent as error:
                print(f'{self._not_up(error)}; once more', flush=True)
                self.destroy()
        self.begin()
        self.wait_up(limit)

    def _boot(self, limit: float):
        self.begin()
        self.channel.wait_ready(limit, self._panicked)

    def wait_up(self, limit: float):
        """Until a guest that boots under a debugger's eyes answers; else what its console says."""
        try:
            self.channel.wait_ready(limit, self._panicked)
        except GuestSilent as error:
            raise HarnessError(self._not_up(error)) from error

    def _panicked(self):
        return 'its kernel has panicked' if PANIC in Guest.console(self) else None

    def _not_up(self, error: GuestSilent) -> str:
        return f'{self.config.kernel.release} does not boot: {error}; console: {self.console()[-600:]!r}'

    def module_paths(self) -> dict:
        """{name: its file on this machine} of those that the guest has."""
        return kernels.modules(self.config.kernel, self.config.modules) if self.config.modules else {}

    @property
    def channel_path(self) -> pathlib.Path:
        return self.folder / 'channel'

    @property
    def console_path(self) -> pathlib.Path:
        return self.folder / 'console.log'

    def console(self) -> str:
        try:
            return self.console_path.read_text(errors='replace')
        except OSError:
            return ''

    def destroy(self):
        if self.channel:
            self.channel.close()
        try:
            self._end()
        finally:
            if self.folder:
                shutil.rmtree(self.folder, ignore_errors=True)
                self.folder = None

    def __enter__(self):
        try:
            self.boot()
        except BaseException:
            self.destroy()
            raise
        return self

    def __exit__(self, *_):
        self.destroy()

    # The guest's own view.

    def tasks(self) -> list:
        rows = (line.split(' ') for line in self.channel.ask('tasks'))
        return [Task(int(tid), int(tgid), state, int(flags), int(processor), bytes.fromhex(comm))
                for tid, tgid, state, flags, processor, comm in rows]

    def symbols(self, *names: str) -> dict:
        """NAME: (address, address of the next symbol), from /proc/kallsyms."""
        rows = (line.split(' ') for line in self.channel.ask('symbol ' + ' '.join(names), limit=240))
        return {name: (int(address, 16), int(following, 16)) for address, following, name in rows}

    def save_text(self):
        """The guest keeps a copy of its kernel's text, for text_changes()."""
        self.channel.ask('text save')

    def text_changes(self) -> list:
        return self.channel.ask('text diff')

    def witness(self) -> dict:
        """{CPU: {what: how often}} of the scenario of that name; see guest_init/witness.c."""
        found = {}
        for line in self.channel.ask('witness'):
            words = line.split(' ')
            found[int(words[1])] = {name: int(count) for name, count in zip(words[2::2], words[3::2])}
        return found

    def alive(self, limit: float = 60) -> list:
        """(cpu, monotonic ms, spinner's count) for each CPU; HarnessError when one does not run."""
        rows = (line.split(' ') for line in self.channel.ask('alive', limit))
        return [(int(cpu), int(milliseconds), int(count)) for _, cpu, milliseconds, count in rows]
