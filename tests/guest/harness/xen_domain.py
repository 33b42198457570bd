"""Guests of a Xen, in whose dom0 the harness has commands run: tests/lab/run-xen --outside starts one."""
import os
import time
import uuid

from .errors import HarnessError
from .guest import Config, Guest
from .patience import seconds

CONSOLE = 'hvc0'  # a guest of Xen without an emulator of devices has no other, so it is the channel, too
LOOK = 10.0  # seconds between two looks whether the domain is still there: the toolstack is slow in an emulated dom0


def definition(name: str, kind: str, config: Config, folder) -> str:
    """For xl; see xl.cfg(5)."""
    # The clock of a PV guest goes on while it stands, and its kernel takes that for a lock-up, of which it tells the console.
    arguments = f'{config.command_line(CONSOLE)} exo.channel={CONSOLE} nosoftlockup'
    return ''.join(f'{key} = "{value}"\n' if isinstance(value, str) else f'{key} = {value}\n' for key, value in {
        'name': name, 'type': kind, 'kernel': f'{folder}/vmlinuz', 'ramdisk': f'{folder}/initrd.gz', 'cmdline': arguments,
        'memory': config.memory_mib, 'vcpus': config.vcpus,
        'on_poweroff': 'destroy', 'on_reboot': 'destroy', 'on_crash': 'preserve'}.items())


class XenDomain(Guest):
    """Its files are this machine's, which dom0 sees."""

    kind = None  # as xl.cfg(5) says it

    def __init__(self, config: Config, name: str = None):
        super().__init__(config)
        # Of tests/lab, which others that use the harness need not have in their path.
        import xen_machine
        self._relay_to = xen_machine.Relay
        self.dom0 = xen_machine.Dom0()
        self.name = name or f'exogdb-test-{os.getpid()}-{uuid.uuid4().hex[:8]}'
        self.domid = None
        self._relay = None
        self._looked, self._gone = 0.0, None

    @property
    def target(self) -> str:
        return f'xen:{self.name}'

    def _start(self):
        written = self.folder / 'domain.cfg'
        written.write_text(definition(self.name, self.kind, self.config, self.folder))
        self.domid = ''  # also when it takes so long that we give up
        self.dom0.run('xl', 'create', written, limit=seconds(60))
        self._find()

    def _find(self):
        self.domid = int(self.dom0.run('xl', 'domid', self.name).stdout)
        self._relay = self._relay_to(self.dom0, self.channel_path, terminal=self._terminal())

    def save(self):
        """Its memory and state are in a file of dom0's, and the domain is no more (xl(1))."""
        self.dom0.run('xl', 'save', self.name, self.saved, limit=seconds(60))

    def restore(self):
        """It goes on where it was saved, as another domain of the same name."""
        self.channel.close()
        self._relay.close()
        self.channel_path.unlink()
        self.dom0.run('xl', 'restore', self.saved, limit=seconds(60))
        self._find()

    @property
    def saved(self) -> str:
        return f'/var/lib/xen/{self.name}.saved'

    def _terminal(self) -> str:
        """Where xenconsoled has the other end of the domain's console."""
        until = time.monotonic() + seconds(10)
        while True:
            told = self.dom0.run('xenstore-read', f'/local/domain/{self.domid}/console/tty', check=False)
            if told.stdout.strip():
                return told.stdout.strip()
            if time.monotonic() > until:
                raise HarnessError(f'{self.name} has no console: {told.stderr}')
            time.sleep(0.5)

    def state(self) -> str:
        """The letters of `xl list`, r-b-p-s-c-d, without those that it is not; '' when there is no such domain. A vCPU that
        waits for its turn has none of them."""
        told = self.dom0.run('xl', 'list', self.name, check=False)
        return told.stdout.splitlines()[-1].split()[-2].replace('-', '') or 'waits' if told.returncode == 0 else ''

    def why_gone(self):
        if time.monotonic() > self._looked + LOOK:
            self._looked, state = time.monotonic(), self.state()
            self._gone = f'the domain has {"crashed" if state else "gone"}' if not state or state in ('c', 'd', 's', 'sc') else None
        return self._gone

    def console(self) -> str:
        return self.dom0.run('cat', f'/var/log/xen/console/guest-{self.name}.log', check=False).stdout

    def pid(self) -> int:
        raise HarnessError('a domain of Xen is no process')

    def pause(self):
        self.dom0.run('xl', 'pause', self.name)

    def unpause(self):
        self.dom0.run('xl', 'unpause', self.name)

    def _end(self):
        if self._relay:
            self._relay.close()
            self._relay = None
        if self.domid is not None:
            self.dom0.run('xl', 'destroy', self.name, check=False)
            self.dom0.run('rm', '-f', self.saved, check=False)
            self.domid = None


class XenPvh(XenDomain):
    kind = 'pvh'


class XenPv(XenDomain):
    kind = 'pv'


TYPES = {'pvh': XenPvh, 'pv': XenPv}
