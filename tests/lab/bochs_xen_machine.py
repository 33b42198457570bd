"""A stock Debian Xen in Bochs, which emulates Intel's virtualisation whole: there, Xen tells of int3, hardware breakpoints,
watchpoints, steps by the monitor trap flag and accesses to pages, and has altp2m. In QEMU's emulation of AMD's it does not.

PID 1 of dom0 (bochs_xen_init) starts Xen's daemons and runs one script; what it prints comes out of the first serial port,
after Xen's own messages. PVH guests are at hand: `xl create /guest/hidden`, which has altp2m, and `/guest/visible`. Or the
script is an agent (bochs_xen_agent), asked over a network card: gdb is on this machine then, where it is not slow. A serial port
would not do: Bochs does not wait for one whose buffer is full, and dom0 does not run all the time."""
import contextlib
import gzip
import lzma
import os
import pathlib
import re
import select
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time

from harness import initramfs, kernels, processes
from harness.errors import HarnessError, MissingPrerequisite

import bochs_machine
import bochs_tools
import xen_tools

HERE = pathlib.Path(__file__).parent
GUEST_KERNEL = 'bookworm'
GUEST_PROGRAM = 'traps'
MODULES = ('xen-privcmd', 'xen-evtchn', 'xen-gntdev', 'xen-gntalloc', 'xenfs', 'e1000')
PROGRAMS = ('xl', 'xenstored', 'xenconsoled', 'xen-init-dom0', 'xenstore-control')
MEMORY_MIB = 1024
# A unix socket beside the emulator leads to each of these ports of dom0's.
AGENT_PORT, LINE_PORT = 4000, 4001
ADDRESS = '10.0.2.15'
NETWORK = '# slirp config\nrestricted = 1\n' + ''.join(
    f'hostfwd = tcp:127.0.0.1:{port}-{ADDRESS}:{port}\n' for port in (AGENT_PORT, LINE_PORT))
CARD = '''pci: enabled=1, chipset=i440fx, slot1=e1000
e1000: card=0, enabled=1, mac=52:54:00:12:34:56, ethmod=slirp, script={folder}/network
'''
ANSWER = 32  # bytes, the longest "@status N"
# Two, of which one has altp2m.
GUESTS = ('hidden', 'visible')
GUEST_CONFIG = '''name = "{name}"
type = "pvh"
kernel = "/guest/vmlinuz"
ramdisk = "/guest/initrd"
cmdline = "console=hvc0 mitigations=off quiet panic=-1"
memory = 96
vcpus = 1
altp2m = "{altp2m}"
on_crash = "preserve"
on_reboot = "preserve"
on_poweroff = "preserve"
'''
# apicv=0: Bochs refuses to enter a guest with virtual interrupts as Xen sets them up. noreboot: what Xen said last is
# read here. The rest is what takes time in an emulated processor and has nothing to do with the tests.
XEN_OPTIONS = ('console=com1 com1=115200,8n1 dom0_mem=512M,max:512M dom0_max_vcpus=1 altp2m=1 apicv=0 spec-ctrl=no xpti=no '
               'pv-l1tf=no edd=off noreboot loglvl=warning guest_loglvl=warning')
DOM0_OPTIONS = 'console=hvc0 rdinit=/init mitigations=off quiet panic=-1'
BOOT_MENU = f'''default lab
prompt 0
label lab
 kernel mboot.c32
 append /xen.elf {XEN_OPTIONS} --- /vmlinux {DOM0_OPTIONS} --- /dom0.cpi
'''
BOOT_FILES = ('ldlinux.c32', 'mboot.c32', 'libcom32.c32')
PAYLOAD = 0x248  # setup_header.payload_offset and payload_length (Documentation/x86/boot.rst)
SETUP_SECTORS = 0x1f1
LZ4 = b'\x02\x21\x4c\x18'  # of its legacy frames, which the kernel's build makes


def unpacked_kernel(image: pathlib.Path) -> bytes:
    """The ELF file in a bzImage, which Xen takes as well: unpacking it in there takes a minute."""
    packed = image.read_bytes()
    start, length = struct.unpack_from('<II', packed, PAYLOAD)
    start += (packed[SETUP_SECTORS] + 1) * 512
    payload = packed[start:start + length - 4]  # behind it is its size when unpacked
    if payload.startswith(LZ4):
        return _unpacked_lz4(payload)
    try:
        return lzma.LZMADecompressor().decompress(payload)
    except lzma.LZMAError as error:
        raise HarnessError(f'{image}: {error}') from None


def _unpacked_lz4(payload: bytes) -> bytes:
    if not shutil.which('lz4'):
        raise MissingPrerequisite('lz4')
    told = subprocess.run(['lz4', '-d', '-c'], input=payload, capture_output=True, check=False)
    if told.returncode:
        raise HarnessError(f'lz4: {told.stderr.decode(errors="replace").strip()}')
    return told.stdout


def _guest_files() -> dict:
    program = initramfs.program(GUEST_PROGRAM).read_bytes()
    return {'guest/vmlinuz': kernels.fetch(GUEST_KERNEL).image.read_bytes(),
            'guest/initrd': initramfs.archive(program),
            **{f'guest/{name}': GUEST_CONFIG.format(name=name, altp2m='external' if name == 'hidden' else 'disabled').encode()
               for name in GUESTS}}


def _toolstack() -> dict:
    """Xen's programs for dom0, with its own libraries, which exogdb uses there, too."""
    root = xen_tools.fetch()
    programs = [root / f'usr/lib/xen-{xen_tools.VERSION}/bin' / name for name in PROGRAMS]
    # The C library loads it when a thread ends by pthread_cancel(), as xl's do.
    unwinder = '/usr/lib/x86_64-linux-gnu/libgcc_s.so.1'
    return bochs_machine.gather([*programs, unwinder], root, str(root / 'usr/lib/x86_64-linux-gnu'))


def _initrd(script: str, paths) -> bytes:
    modules = kernels.load_order(kernels.fetch(GUEST_KERNEL, flavour=kernels.FULL), MODULES)
    files = {path.name: path.read_bytes() for path in modules}
    files['load_order'] = ''.join(f'{path.stem}\n' for path in modules).encode()
    files['command'] = script.encode()
    files.update(_guest_files())
    programs = {**bochs_machine.gather(paths), **_toolstack()}
    packed = initramfs.archive((HERE / 'bochs_xen_init').read_bytes(), files, programs)
    return gzip.decompress(packed)  # reading more of the disk is quicker there than unpacking


def _make_disk(folder: pathlib.Path, tools: pathlib.Path, initrd: bytes):
    tree = folder / 'tree'
    tree.mkdir()
    (tree / 'xen.elf').write_bytes(xen_tools.hypervisor().read_bytes())
    kernel = kernels.fetch(GUEST_KERNEL, flavour=kernels.FULL)
    (tree / 'vmlinux').write_bytes(unpacked_kernel(kernel.image))
    (tree / 'dom0.cpi').write_bytes(initrd)
    bochs_machine.make_disk(folder, tools, BOOT_MENU, BOOT_FILES)


class Dom0:
    """What bochs_xen_agent does, over a network card. `line` is a unix socket that leads to LINE's port."""

    def __init__(self, folder: pathlib.Path):
        self._agent, self.line = str(folder / str(AGENT_PORT)), str(folder / str(LINE_PORT))
        self._log = folder / 'serial.log'

    def console(self) -> str:
        return self._log.read_text(errors='replace').replace('\r', '') if self._log.exists() else ''

    def wait_ready(self, process, limit: float):
        until = time.monotonic() + limit
        while 'lab: the agent is' not in self.console() or not self._answers():
            if process.poll() is not None or time.monotonic() > until:
                raise HarnessError(f'dom0 does not come up: {self.console()[-2000:]}')
            time.sleep(0.2)

    def _answers(self) -> bool:
        """The emulated network takes every connection, also when nobody listens there yet."""
        try:
            self.run('true', limit=10)
        except HarnessError:
            return False
        return True

    def run(self, command: str, limit: float = 120, check: bool = True) -> str:
        """The output of a line of busybox' sh. It may leave something running that has another output."""
        told, until = b'', time.monotonic() + limit
        with socket.socket(socket.AF_UNIX) as agent:
            agent.connect(self._agent)
            agent.sendall(command.encode() + b'\n')
            while not (found := re.search(rb'@status (\d+)\n\Z', told[-ANSWER:])):
                if not select.select([agent], [], [], max(0.0, until - time.monotonic()))[0]:
                    raise HarnessError(f'dom0: {command}: no end in {limit:.0f} s: {told[-500:]!r}; {self.console()[-1000:]}')
                data = agent.recv(1 << 16)
                if not data:
                    raise HarnessError(f'dom0: {command}: no answer: {told[-500:]!r}; {self.console()[-1000:]}')
                told += data
        output, status = told[:told.rindex(b'@status ')].decode(errors='replace'), int(found[1])
        if check and status:
            raise HarnessError(f'dom0: {command}: {status}: {output[-2000:]}')
        return output


@contextlib.contextmanager
def _machine(script: str, paths=(), network: bool = False):
    tools = bochs_tools.root()
    with tempfile.TemporaryDirectory(prefix='exogdb-bochs-xen-') as name:
        folder = pathlib.Path(name)
        _make_disk(folder, tools, _initrd(script, paths))
        devices, by = '', ()
        if network:
            (folder / 'network').write_text(NETWORK)
            devices = CARD.format(folder=folder)
            by = (sys.executable, '-B', HERE / 'bochs_xen_relay.py', folder, f'{AGENT_PORT},{LINE_PORT}')
        process = bochs_machine.start(folder, tools, MEMORY_MIB, devices, by)
        try:
            yield process, folder
        finally:
            processes.end(process, 2)


@contextlib.contextmanager
def dom0(paths=(), limit: float = 400):
    """One that does what it is asked for. `paths` as for run()."""
    with _machine((HERE / 'bochs_xen_agent').read_text(), paths, network=True) as (process, folder):
        running = Dom0(folder)
        running.wait_ready(process, limit)
        yield running


def run(script: str, paths=(), limit: float = 600, sink=sys.stdout.buffer) -> int:
    """Runs a script of busybox' sh in dom0; its exit status. `paths` are files and folders of the host that are there as well,
    at their own paths, with the libraries that they need."""
    with _machine(script, paths) as (process, folder):
        return bochs_machine.follow(process, folder / 'serial.log', time.monotonic() + limit, sink)
