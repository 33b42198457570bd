"""A stock Debian Xen in Bochs, which emulates Intel's virtualisation whole: there, Xen tells of int3, hardware breakpoints,
watchpoints, steps by the monitor trap flag and accesses to pages, and has altp2m. In QEMU's emulation of AMD's it does not.

PID 1 of dom0 (bochs_xen_init) starts Xen's daemons and runs one script; what it prints comes out of the first serial port,
after Xen's own messages. A PVH guest's kernel, initramfs and configuration are at hand: `xl create /guest/config`. Or the
script is an agent (bochs_xen_agent), and the second port the way to it: gdb is on this machine then, where it is not slow."""
import contextlib
import gzip
import lzma
import os
import pathlib
import re
import select
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
PROGRAMS = ('xl', 'xenstored', 'xenconsoled', 'xen-init-dom0', 'xenstore-control')
MEMORY_MIB = 1024
LONGEST_ANSWER = 32  # bytes, of the agent's
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
    (tree / 'vmlinux').write_bytes(_unpacked_kernel(kernel.image))
    (tree / 'dom0.cpi').write_bytes(initrd)
    bochs_machine.make_disk(folder, tools, BOOT_MENU, BOOT_FILES)


class Dom0:
    """What bochs_xen_agent does, over the second serial port. One thing at a time."""

    def __init__(self, folder: pathlib.Path):
        self._folder = folder
        self._master, self._slave = os.openpty()  # the slave is held: until Bochs has opened it, reading would be an error
        tty.setraw(self._slave)
        self.device = os.ttyname(self._slave)
        self._told = b''

    def _read(self) -> bytes:
        data = os.read(self._master, 4096)
        self._told += data
        return data

    def _read_until(self, pattern: bytes, limit: float) -> tuple:
        """What came before the match, and the match."""
        until = time.monotonic() + limit
        searched = 0
        while not (found := re.compile(pattern).search(self._told, searched)):
            searched = max(0, len(self._told) - LONGEST_ANSWER)
            if not select.select([self._master], [], [], max(0.0, until - time.monotonic()))[0]:
                raise HarnessError(f'dom0 did not answer in {limit:.0f} s: {self._told[-500:]!r}')
            self._read()
        before, self._told = self._told[:found.start()], self._told[found.end():]
        return before, found

    def _status(self, limit: float) -> tuple:
        output, found = self._read_until(rb'@status (\d+)\n@ready\n', limit)
        return int(found[1]), output.decode(errors='replace')

    def wait_ready(self, limit: float = 300):
        self._read_until(rb'@ready\n', limit)

    def run(self, command: str, limit: float = 120, check: bool = True) -> str:
        """The output of a line of busybox' sh."""
        os.write(self._master, f'\n@run {command}\n'.encode())
        status, output = self._status(limit)
        if check and status:
            raise HarnessError(f'dom0: {command}: {status}: {output[-2000:]}')
        return output

    @contextlib.contextmanager
    def talk(self, command: str, limit: float = 120):
        """The path of a unix socket that is the command's input and output. At the end of the block the command must have
        ended or end by itself."""
        os.write(self._master, f'\n@talk {command}\n'.encode())
        path = self._folder / 'line'
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen(1)
            relay = threading.Thread(target=self._relay, args=(listener,), daemon=True)
            relay.start()
            try:
                yield str(path)
            finally:
                path.unlink()
                listener.shutdown(socket.SHUT_RDWR)
                relay.join()
        self._status(limit)

    def _relay(self, listener):
        """For one client."""
        try:
            client = listener.accept()[0]
        except OSError:  # nobody came
            return
        with client:
            while True:
                for source in select.select([client, self._master], [], [])[0]:
                    try:
                        if source is client:
                            data = client.recv(4096)
                            os.write(self._master, data)
                        else:
                            data = self._read()
                            client.sendall(data)
                    except OSError:
                        return
                    if not data:
                        return

    def close(self):
        for descriptor in (self._master, self._slave):
            os.close(descriptor)


def _tell_console(log: pathlib.Path) -> str:
    return log.read_text(errors='replace').replace('\r', '') if log.exists() else ''


@contextlib.contextmanager
def _machine(script: str, paths=(), ports: str = ''):
    tools = bochs_tools.root()
    with tempfile.TemporaryDirectory(prefix='exogdb-bochs-xen-') as name:
        folder = pathlib.Path(name)
        _make_disk(folder, tools, _initrd(script, paths))
        process = bochs_machine.start(folder, tools, MEMORY_MIB, ports)
        try:
            yield process, folder
        finally:
            processes.end(process, 2)


@contextlib.contextmanager
def dom0(paths=()):
    """One that does what it is asked for. `paths` as for run()."""
    with tempfile.TemporaryDirectory(prefix='exogdb-dom0-') as name:
        running = Dom0(pathlib.Path(name))
        try:
            port = f'com2: enabled=1, mode=term, dev={running.device}\n'
            with _machine((HERE / 'bochs_xen_agent').read_text(), paths, port) as (_, folder):
                try:
                    running.wait_ready()
                    yield running
                except HarnessError as error:
                    raise HarnessError(f'{error}; its console: {_tell_console(folder / "serial.log")[-2000:]}') from None
        finally:
            running.close()


def run(script: str, paths=(), limit: float = 600, sink=sys.stdout.buffer) -> int:
    """Runs a script of busybox' sh in dom0; its exit status. `paths` are files and folders of the host that are there as well,
    at their own paths, with the libraries that they need."""
    with _machine(script, paths) as (process, folder):
        return bochs_machine.follow(process, folder / 'serial.log', time.monotonic() + limit, sink)
