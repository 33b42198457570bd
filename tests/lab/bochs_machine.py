"""A machine in Bochs, which emulates Intel's virtualisation whole: there, KVM reports int3, hardware breakpoints,
watchpoints and steps of its guests, which QEMU's emulation of AMD's does not. It is much slower than QEMU's, so only
small guests go into it.

A stock kernel boots from a disk made for the run; PID 1 (bochs_init) runs one command. What it prints comes out of the
first serial port. Its clock is not the host's: a second in there is one of the emulated processor."""
import gzip
import os
import pathlib
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from harness import initramfs, kernels, processes
from harness.errors import HarnessError, MissingPrerequisite

import bochs_tools

HERE = pathlib.Path(__file__).parent
KERNEL = 'bookworm'  # its -cloud flavour: no drivers are needed, and LZ4 is quick to unpack
MODULES = ('kvm-intel',)
# Bochs refuses to enter a guest with both an APIC in KVM and virtual interrupts.
OPTIONS = {'kvm-intel': 'enable_apicv=0'}
STATUS = re.compile(rb'exogdb-lab-status (\d+)\r*\n')  # Xen adds a carriage return of its own
MEMORY_MIB = 512
COMMAND_LINE = 'console=ttyS0 mitigations=off nokaslr tsc=reliable quiet panic=-1'

CONFIGURATION = '''cpu: model=corei7_skylake_x, count=1, ips=100000000, reset_on_triple_fault=0, ignore_bad_msrs=1
memory: guest={memory}, host={memory}
romimage: file={tools}/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file={tools}/usr/share/bochs/VGABIOS-lgpl-latest
{devices}ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
ata0-master: type=cdrom, path={folder}/disk.iso, status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev={folder}/serial.log
clock: sync=none
display_library: rfb, options="timeout=0"
log: {folder}/bochs.log
panic: action=report
error: action=ignore
info: action=ignore
debug: action=ignore
'''
BOOT_MENU = f'default lab\nprompt 0\nlabel lab\n kernel /vmlinuz\n append initrd=/initrd {COMMAND_LINE}\n'


def libraries_of(path: pathlib.Path, search: str = '') -> list:
    """What the loader would load for a program or library, by ldd(1); nothing for other files. `search` are folders to look
    into first, as in LD_LIBRARY_PATH."""
    listing = subprocess.run(['ldd', path], capture_output=True, text=True, check=False,
                             env={**os.environ, 'LD_LIBRARY_PATH': search} if search else None)
    missing = re.search(r'^\s*(\S+) => not found', listing.stdout, re.M)
    if missing:
        raise MissingPrerequisite(f'{missing.group(1)}, which {path} wants')
    return [pathlib.Path(found) for found in re.findall(r'(?:=> |^\s*)(/\S+) \(0x', listing.stdout, re.M)]


def gather(paths, root: pathlib.Path = None, search: str = '') -> dict:
    """{name below the root: content} of files, of what is in folders, and of the libraries that all these need. What is below
    `root` gets the name that it has there."""
    wanted, done = [pathlib.Path(path).absolute() for path in paths], {}
    while wanted:
        path = wanted.pop()
        name = str(path.relative_to(root) if root and path.is_relative_to(root) else path).lstrip('/')
        if name in done:
            continue
        if path.is_dir():
            wanted += path.iterdir()
            continue
        try:
            done[name] = path.read_bytes()
        except OSError as error:
            raise HarnessError(f'{path}: {error.strerror}') from None
        if done[name][:4] == b'\x7fELF':
            wanted += libraries_of(path, search)
    return done


def gdb_files() -> list:
    """This machine's gdb with its Python: what it needs to start, and the modules of one file that scripts use."""
    gdb = shutil.which('gdb')
    if not gdb:
        raise MissingPrerequisite('gdb')
    version = re.search(r'libpython(3\.\d+)', ' '.join(map(str, libraries_of(gdb))))
    if not version:
        raise MissingPrerequisite(f'a gdb with Python ({gdb} has none)')
    library = pathlib.Path('/usr/lib', f'python{version.group(1)}')
    packages = (library / name for name in ('encodings', 'collections', 'importlib', 're', 'json'))
    compiled = library.glob('lib-dynload/_json.*')  # by its folder Python finds itself
    return [gdb, '/usr/share/gdb/python', *library.glob('*.py'), *compiled, *(path for path in packages if path.exists())]


def _initrd(script: str, paths) -> bytes:
    modules = kernels.load_order(kernels.fetch(KERNEL), MODULES)
    files = {path.name: path.read_bytes() for path in modules}
    files['load_order'] = ''.join(f'{path.stem} {OPTIONS.get(path.stem, "")}\n' for path in modules).encode()
    files['command'] = script.encode()
    packed = initramfs.archive((HERE / 'bochs_init').read_bytes(), files, gather(paths))
    return gzip.decompress(packed)  # reading more of the disk is quicker there than unpacking


def make_disk(folder: pathlib.Path, tools: pathlib.Path, menu: str, programs=('ldlinux.c32',)):
    """disk.iso of what is in `tree`, that starts as `menu` says. `programs` are isolinux' own."""
    tree = folder / 'tree'
    (tree / 'isolinux').mkdir()
    (tree / 'isolinux/isolinux.cfg').write_text(menu)
    shutil.copyfile(tools / 'usr/lib/ISOLINUX/isolinux.bin', tree / 'isolinux/isolinux.bin')
    for name in programs:
        shutil.copyfile(tools / 'usr/lib/syslinux/modules/bios' / name, tree / 'isolinux' / name)
    words = [*bochs_tools.program(tools, 'xorriso'), '-as', 'mkisofs', '-quiet', '-o', folder / 'disk.iso',
             '-b', 'isolinux/isolinux.bin', '-c', 'isolinux/boot.cat', '-no-emul-boot', '-boot-load-size', '4',
             '-boot-info-table', tree]
    status, output = processes.output_of(words, 120, 'xorriso')
    if status:
        raise HarnessError(f'xorriso: {output.strip()[-300:]}')


def start(folder: pathlib.Path, tools: pathlib.Path, memory: int, devices: str = '', by=()):
    """The emulator. `devices` are lines of its configuration, for others than the disk and the first serial port; `by` are the
    words of a command that starts it."""
    (folder / 'bochsrc').write_text(CONFIGURATION.format(folder=folder, tools=tools, memory=memory, devices=devices))
    (folder / 'commands').write_text('c\n')  # Debian's build starts in its own debugger
    # A network namespace of its own: its display listens at a port.
    own_network = ['unshare', '--net'] if os.getuid() == 0 else ['unshare', '--net', '--map-root-user']
    words = [*own_network, *by, *bochs_tools.program(tools, 'bochs-bin'), '-q', '-f', folder / 'bochsrc',
             '-rc', folder / 'commands']
    with open(folder / 'output', 'wb') as output:
        return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=folder,
                                env={**os.environ, **bochs_tools.environment(tools)}, start_new_session=True)


def follow(machine, log: pathlib.Path, until: float, sink) -> int:
    """Copies the serial port's output as it comes; the command's exit status, when it is told."""
    told, shown = b'', 0
    while True:
        ended = machine.poll() is not None
        told = log.read_bytes() if log.exists() else b''
        status = STATUS.search(told)
        complete = status.start() if status else told.rfind(b'\n') + 1
        sink.write(told[shown:complete].replace(b'\r', b''))
        sink.flush()
        shown = max(shown, complete)
        if status:
            return int(status.group(1))
        if ended:
            raise HarnessError(f'Bochs ended before the command did: {_last_words(log.parent)}')
        if time.monotonic() > until:
            raise HarnessError('the time limit is over; the machine was ended')
        select.select([], [], [], 0.2)


def _last_words(folder: pathlib.Path) -> str:
    texts = (folder / name for name in ('output', 'bochs.log'))
    return ' '.join(text.read_text(errors='replace').strip()[-500:] for text in texts if text.exists())


def run(script: str, paths=(), limit: float = 600, sink=sys.stdout.buffer) -> int:
    """Runs a script of busybox' sh; its exit status. `paths` are files and folders of the host that are there as well, at
    their own paths, with the libraries that they need."""
    tools = bochs_tools.root()
    with tempfile.TemporaryDirectory(prefix='exogdb-bochs-') as name:
        folder = pathlib.Path(name)
        tree = folder / 'tree'
        tree.mkdir()
        shutil.copyfile(kernels.fetch(KERNEL).image, tree / 'vmlinuz')
        (tree / 'initrd').write_bytes(_initrd(script, paths))
        make_disk(folder, tools, BOOT_MENU)
        machine = start(folder, tools, MEMORY_MIB)
        try:
            return follow(machine, folder / 'serial.log', time.monotonic() + limit, sink)
        finally:
            processes.end(machine, 2)
