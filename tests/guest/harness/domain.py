"""A guest as a libvirt domain: transient, so that nothing of it stays behind."""
import os
import pathlib
import re
import uuid
from xml.sax.saxutils import escape

from . import accelerator, libvirtd
from .errors import HarnessError
from .guest import Config, Guest


def domain_xml(name: str, config: Config, folder, accel: str) -> str:
    shared = ('<memoryBacking><source type="memfd"/><access mode="shared"/></memoryBacking>'
              if config.shared_memory else '')
    kind, cpu = ('kvm', 'host-passthrough') if accel == 'kvm' else ('qemu', 'maximum')
    return f'''<domain type="{kind}">
  <name>{escape(name)}</name>
  <memory unit="MiB">{config.memory_mib}</memory>
  <vcpu>{config.vcpus}</vcpu>
  {shared}
  <os>
    <type arch="x86_64" machine="{escape(config.machine)}">hvm</type>
    <kernel>{folder}/vmlinuz</kernel>
    <initrd>{folder}/initrd.gz</initrd>
    <cmdline>{escape(config.command_line())}</cmdline>
  </os>
  <features><acpi/><apic/></features>
  <cpu mode="{cpu}"/>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>preserve</on_crash>
  <devices>
    <serial type="file"><source path="{folder}/console.log"/><target port="0"/></serial>
    <serial type="unix"><source mode="bind" path="{folder}/channel"/><target port="1"/></serial>
    <memballoon model="none"/>
  </devices>
</domain>
'''


PREFIX = 'exogdb-test-'  # then the pid of the process that the domain belongs to


def destroy_abandoned():
    """Ends the domains whose test was killed before it could do so."""
    for name in libvirtd.virsh('list', '--all', '--name', check=False).split():
        found = re.match(PREFIX + r'(\d+)-', name)
        if found and not os.path.exists(f'/proc/{found.group(1)}'):
            libvirtd.virsh('destroy', name, check=False)


class Domain(Guest):
    def __init__(self, config: Config, name: str = None):
        super().__init__(config)
        self.name = name or f'{PREFIX}{os.getpid()}-{uuid.uuid4().hex[:8]}'
        self._created = False
        self._daemons = {}

    @property
    def target(self) -> str:
        return f'libvirt:{self.name}'

    def _start(self):
        self._daemons = libvirtd.ensure()
        accel = accelerator.choose()
        # The folder must be writable for QEMU's user: it makes the channel's socket.
        self.folder.chmod(0o1777)
        definition = self.folder / 'domain.xml'
        definition.write_text(domain_xml(self.name, self.config, self.folder, accel))
        self._created = True  # also when it takes so long that we give up
        libvirtd.virsh('create', str(definition))

    def state(self) -> str:
        """As `virsh domstate` says it: running, paused, …; '' when there is no such domain."""
        return libvirtd.virsh('domstate', self.name, check=False).strip()

    def why_gone(self):
        state = self.state()
        return None if state in ('running', 'paused') else f'the domain is {state or "gone"}'

    def pid(self) -> int:
        file = pathlib.Path('/run/libvirt/qemu') / f'{self.name}.pid'
        try:
            return int(file.read_text())
        except OSError as error:
            raise HarnessError(f'no pid of {self.name}: {error}') from error

    def release_daemons(self) -> dict:
        """From now on the caller stops the daemons that this domain's start brought up (libvirtd.stop)."""
        daemons, self._daemons = self._daemons, {}
        return daemons

    def _end(self):
        if self._created:
            libvirtd.virsh('destroy', self.name, check=False)
            self._created = False
        libvirtd.stop(self.release_daemons())
