"""The outer machine: a stock kernel in an emulated machine with AMD's virtualisation, which gives a real /dev/kvm to a
command that runs in it. QEMU emulates SVM with nested paging (target/i386/tcg/sysemu/svm_helper.c); no other
accelerator is needed, and no privilege.

The command sees the host's files, at the same paths, and changes none of them; RESULTS is the one folder that comes out.
"""
import ctypes
import os
import pathlib
import select
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from harness import initramfs, kernels, processes, vm
from harness.errors import HarnessError, MissingPrerequisite

import outer_tools

RESULTS = '/run/exogdb-lab/results'
# Its packages have the 9p modules that the -cloud flavour lacks.
SUITE, FLAVOUR = 'bookworm', kernels.FULL
MODULES = ('9p', '9pnet_virtio', 'virtio_pci', 'virtio_console', 'kvm-amd', 'overlay')
CPU = 'max,-vgif'  # QEMU 7.2 lost two of five guests while KVM used the virtual global interrupt flag, and fewer without it
# tsc=reliable: on a busy machine the kernel finds its time stamp counter late, and takes it for broken. Every look at the
# clock is then one at an emulated device, and KVM sets its guests' counters back whenever a vCPU moves: they crawl.
# With it none of 20 guests of two vCPUs was lost, beside other work on two cores; the slowest took more than 90 s to boot.
# On a machine that has four times as much to do as cores, two of four were, with no debugger near them: a vCPU at an address
# where nothing is, whose fault KVM lets it meet for ever. A guest that does nothing any more may be lost by the lab.
COMMAND_LINE = 'console=ttyS0 quiet mitigations=off no_timer_check tsc=reliable panic=-1'
MEMORY_MIB = int(os.environ.get('EXOGDB_LAB_MEMORY', '3072'))
# What guests in there cannot show (harness.case.needs()): breakpoints in their text. The emulation does not leave the guest
# on #BP, so an int3 that KVM was asked to report is the guest's own. Those in registers work.
LACKS = 'breakpoints'
# A guest that writes no boot messages through an emulated serial port, and flushes nothing, is up in half of the time.
GUEST_ARGUMENTS = 'quiet mitigations=off'
PATIENCE = '5'  # how much slower a debugger is in there
PR_SET_PDEATHSIG = 1  # include/uapi/linux/prctl.h


def _initrd() -> bytes:
    kernel = kernels.fetch(SUITE, flavour=FLAVOUR)
    paths = kernels.load_order(kernel, MODULES)
    files = {path.name: path.read_bytes() for path in paths}
    files['load_order'] = ''.join(f'{path.stem}\n' for path in paths).encode()
    return initramfs.archive(pathlib.Path(__file__).with_name('init').read_bytes(), files)


def _qemu(folder: str) -> list:
    files = 'local,security_model=none,multidevs=remap'
    # No MSI-X: its table is now and then written past its end there (an assertion of QEMU 7.2's msix.c).
    device = 'virtio-9p,vectors=0'
    return [*outer_tools.words(vm.QEMU), '-accel', 'tcg,thread=multi', '-M', 'q35', '-cpu', CPU, '-smp', '2',
            '-m', f'{MEMORY_MIB}M',
            '-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot',
            '-kernel', f'{folder}/vmlinuz', '-initrd', f'{folder}/initrd.gz',
            '-append', COMMAND_LINE,
            '-serial', f'file:{folder}/console.log',
            '-fsdev', f'{files},id=host,path=/,readonly=on', '-device', f'{device},fsdev=host,mount_tag=host',
            '-fsdev', f'{files},id=lab,path={folder}/share', '-device', f'{device},fsdev=lab,mount_tag=lab',
            '-chardev', 'file,id=output,path=/dev/fd/1',
            '-device', 'virtio-serial,vectors=0', '-device', 'virtserialport,chardev=output']


def _script(words: list, environment: dict) -> str:
    assigned = ' '.join(shlex.quote(f'{name}={value}') for name, value in environment.items())
    return f'mkdir -p {RESULTS}\ncd {shlex.quote(os.getcwd())} || exit 126\nexec env -i {assigned} {shlex.join(words)}\n'


def _dies_with_us():
    """In the child: a lab that is killed takes its machine with it."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _copy(source, sink, until: float):
    while True:
        if not select.select([source], [], [], max(0.0, until - time.monotonic()))[0]:
            raise HarnessError('the time limit is over; the outer machine was ended')
        data = os.read(source.fileno(), 1 << 16)
        if not data:
            return
        sink.write(data)
        sink.flush()


def run(words: list, environment: dict, limit: float, results: pathlib.Path = None, sink=sys.stdout.buffer) -> int:
    """The command's exit status. Its output goes to `sink` as it comes, what it leaves in RESULTS to `results`."""
    with tempfile.TemporaryDirectory(prefix='exogdb-lab-') as folder:
        share = pathlib.Path(folder, 'share')
        share.mkdir()
        shutil.copyfile(kernels.fetch(SUITE, flavour=FLAVOUR).image, f'{folder}/vmlinuz')
        pathlib.Path(folder, 'initrd.gz').write_bytes(_initrd())
        (share / 'command').write_text(_script(words, environment))
        with open(f'{folder}/qemu.log', 'wb') as log:
            machine = subprocess.Popen(_qemu(folder), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log,
                                       start_new_session=True, preexec_fn=_dies_with_us)
        try:
            _copy(machine.stdout, sink, time.monotonic() + limit)
            machine.wait(10)
        finally:
            processes.end(machine)
            if results and (share / 'results').is_dir():
                shutil.copytree(share / 'results', results, dirs_exist_ok=True)
        try:
            return int((share / 'status').read_text())
        except (OSError, ValueError):
            log, console = (pathlib.Path(folder, name).read_text(errors='replace').strip()[-2000:]
                            for name in ('qemu.log', 'console.log'))
            raise HarnessError(f'the outer machine ended before the command did: {log} {console}') from None
