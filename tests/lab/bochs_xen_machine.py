"""A stock Debian Xen in Bochs, which emulates Intel's virtualisation whole: there, Xen tells of int3, hardware breakpoints,
watchpoints, steps by the monitor trap flag and accesses to pages, and has altp2m. In QEMU's emulation of AMD's it does not.

PID 1 of dom0 (bochs_xen_init) starts Xen's daemons and runs one script; what it prints comes out of the first serial port,
after Xen's own messages. The second port is a line to a program in dom0: `line` is a unix socket here, /dev/ttyS1 there. A
PVH guest's kernel, initramfs and configuration are at hand: `xl create /guest/config`."""
import contextlib
import gzip
import lzma
import os
import pathlib
import selectors
import shutil
import socket
import struct
import sys
import tempfile
import threading
import time
import tty

from harness import initramfs, kernels, processes
from harness.errors import HarnessError

import bochs_machine
import bochs_tools
import xen_tools

HERE = pathlib.Path(__file__).parent
GUEST_KERNEL = 'bookworm'
GUEST_PROGRAM = 'traps'
GUEST_NAME = 'small'
MODULES = ('xen-privcmd', 'xen-evtchn', 'xen-gntdev', 'xen-gntalloc', 'xenfs')
MEMORY_MIB = 1024
GUEST_CONFIG = f'''name = "{GUEST_NAME}"
type = "pvh"
kernel = "/guest/vmlinuz"
ramdisk = "/guest/initrd"
cmdline = "console=hvc0 mitigations=off quiet panic=-1"
memory = 96
vcpus = 1
altp2m = "external"
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


def _unpacked_kernel(image: pathlib.Path) -> bytes:
    """The ELF file in a bzImage, which Xen takes as well: unpacking it in there takes a minute."""
    packed = image.read_bytes()
    start, length = struct.unpack_from('<II', packed, PAYLOAD)
    start += (packed[SETUP_SECTORS] + 1) * 512
    try:
        return lzma.LZMADecompressor().decompress(packed[start:start + length])
    except lzma.LZMAError as error:
        raise HarnessError(f'{image}: {error}') from None


def _guest_files() -> dict:
    program = initramfs.program(GUEST_PROGRAM).read_bytes()
    return {'guest/vmlinuz': kernels.fetch(GUEST_KERNEL).image.read_bytes(),
            'guest/initrd': initramfs.archive(program),
            'guest/config': GUEST_CONFIG.encode()}


def _initrd(script: str, paths) -> bytes:
    modules = kernels.load_order(kernels.fetch(GUEST_KERNEL, flavour=kernels.FULL), MODULES)
    files = {path.name: path.read_bytes() for path in modules}
    files['load_order'] = ''.join(f'{path.stem}\n' for path in modules).encode()
    files['command'] = script.encode()
    files.update(_guest_files())
    programs = {**bochs_machine.gather(paths), **xen_tools.dom0_files()}
    packed = initramfs.archive((HERE / 'bochs_xen_init').read_bytes(), files, programs)
    return gzip.decompress(packed)  # reading more of the disk is quicker there than unpacking


def _make_disk(folder: pathlib.Path, tools: pathlib.Path, initrd: bytes):
    tree = folder / 'tree'
    tree.mkdir()
    (tree / 'xen.elf').write_bytes(xen_tools.hypervisor())
    kernel = kernels.fetch(GUEST_KERNEL, flavour=kernels.FULL)
    (tree / 'vmlinux').write_bytes(_unpacked_kernel(kernel.image))
    (tree / 'dom0.cpi').write_bytes(initrd)
    bochs_machine.make_disk(folder, tools, BOOT_MENU, BOOT_FILES)


class Line:
    """A unix socket, for one client after the other, that is a serial port there."""

    def __init__(self, folder: pathlib.Path):
        self.path = str(folder / 'line')
        self._master, slave = os.openpty()
        tty.setraw(slave)
        self.device = os.ttyname(slave)
        self._slave = slave  # held open: what comes from there before Bochs has opened it would be an error
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen(1)
        self._ended, self._wake = os.pipe()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self):
        while True:
            with selectors.DefaultSelector() as waiting:
                waiting.register(self._listener, selectors.EVENT_READ)
                waiting.register(self._ended, selectors.EVENT_READ)
                ready = [key.fileobj for key, _ in waiting.select()]
            if self._ended in ready:
                return
            client = self._listener.accept()[0]
            with client:
                self._copy(client)

    def _copy(self, client):
        with selectors.DefaultSelector() as waiting:
            for source in (client, self._master, self._ended):
                waiting.register(source, selectors.EVENT_READ)
            while True:
                for source in [key.fileobj for key, _ in waiting.select()]:
                    if source == self._ended:
                        return
                    try:
                        if source is client:
                            data = client.recv(4096)
                            if not data:
                                return
                            os.write(self._master, data)
                        else:
                            client.sendall(os.read(self._master, 4096))
                    except OSError:
                        return

    def close(self):
        os.write(self._wake, b'.')
        self._thread.join()
        self._listener.close()
        for descriptor in (self._master, self._slave, self._ended, self._wake):
            os.close(descriptor)


class Machine:
    """One that runs; its script's exit status comes from wait()."""

    def __init__(self, process, folder: pathlib.Path, line: Line):
        self.process, self.line, self._log = process, line.path, folder / 'serial.log'

    def output(self) -> str:
        return self._log.read_text(errors='replace').replace('\r', '') if self._log.exists() else ''

    def wait_for(self, text: str, limit: float = 300):
        """Until the script has printed `text`."""
        until = time.monotonic() + limit
        while text not in self.output():
            if self.process.poll() is not None or 'exogdb-lab-status' in self.output() or time.monotonic() > until:
                raise HarnessError(f'{text!r} did not come: {self.output()[-2000:]}')
            time.sleep(0.2)

    def wait(self, limit: float = 600, sink=sys.stdout.buffer) -> int:
        return bochs_machine.follow(self.process, self._log, time.monotonic() + limit, sink)


@contextlib.contextmanager
def machine(script: str, paths=()):
    """Runs a script of busybox' sh in dom0. `paths` are files and folders of the host that are there as well, at their own
    paths, with the libraries that they need."""
    tools = bochs_tools.root()
    with tempfile.TemporaryDirectory(prefix='exogdb-bochs-xen-') as name:
        folder = pathlib.Path(name)
        _make_disk(folder, tools, _initrd(script, paths))
        line = Line(folder)
        process = bochs_machine.start(folder, tools, MEMORY_MIB, f'com2: enabled=1, mode=term, dev={line.device}\n')
        try:
            yield Machine(process, folder, line)
        finally:
            processes.end(process, 2)
            line.close()


def run(script: str, paths=(), limit: float = 600, sink=sys.stdout.buffer) -> int:
    with machine(script, paths) as running:
        return running.wait(limit, sink)
