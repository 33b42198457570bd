"""A machine that runs stock Debian's Xen: this machine's own QEMU emulates it, with AMD's virtualisation for PVH guests
(target/i386/tcg/sysemu/svm_helper.c). dom0 is a stock kernel whose root is this machine's, which nothing in there changes,
and Xen's toolstack over it. No privilege is needed, and no other accelerator.

QEMU 11 halts PVH guests there; Debian 12's does not."""
import contextlib
import ctypes
import json
import os
import pathlib
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

from harness import initramfs, kernels, ports, processes, vm
from harness.errors import HarnessError, MissingPrerequisite

import xen_agent
import xen_tools

SUITE, FLAVOUR = xen_tools.SUITE, kernels.FULL  # dom0's kernel
MODULES = ('9p', '9pnet_virtio', 'virtio_pci', 'virtio_net', 'overlay',
           'xen-privcmd', 'xen-evtchn', 'xen-gntdev', 'xen-gntalloc', 'xenfs')
MEMORY_MIB = int(os.environ.get('EXOGDB_LAB_MEMORY', '3584'))
DOM0_MIB = 1536
# One processor, and so one thread of QEMU's: what is emulated then takes turns in one order, and loses no interrupt.
PROCESSOR = ('-accel', 'tcg,thread=single', '-smp', '1', '-cpu', 'qemu64,+svm,+npt')
XEN_COMMAND_LINE = (f'console=com1 com1=115200,8n1 dom0_mem={DOM0_MIB}M,max:{DOM0_MIB}M dom0_max_vcpus=1 '
                    'loglvl=info guest_loglvl=warning')
DOM0_COMMAND_LINE = 'console=hvc0 rdinit=/init quiet mitigations=off no_timer_check panic=-1'
FOLDER = '/run/exogdb-lab'  # in dom0; the one whose files come out
RESULTS = f'{FOLDER}/results'
UP_LIMIT = float(os.environ.get('EXOGDB_BOOT_LIMIT', '300'))
PATIENCE = '10'  # how much slower a debugger is in there
ADDRESS = 'EXOGDB_XEN_LAB'  # the variable that names the running machine to others: PORT:SECRET
PR_SET_PDEATHSIG = 1  # include/uapi/linux/prctl.h


def _initrd() -> bytes:
    paths = kernels.load_order(kernels.fetch(SUITE, flavour=FLAVOUR), MODULES)
    files = {path.name: path.read_bytes() for path in paths}
    files['load_order'] = ''.join(f'{path.stem}\n' for path in paths).encode()
    return initramfs.archive(pathlib.Path(__file__).with_name('xen_init').read_bytes(), files)


def _shared(tag: str, path, writable: bool = False) -> list:
    options = f'local,security_model=none,multidevs=remap,id={tag},path={path}' + ('' if writable else ',readonly=on')
    # No MSI-X, as in outer.py.
    return ['-fsdev', options, '-device', f'virtio-9p,vectors=0,fsdev={tag},mount_tag={tag}']


def _qemu(folder: str, port: int) -> list:
    program = shutil.which(vm.QEMU)
    if not program:
        raise MissingPrerequisite(f'{vm.QEMU} (package qemu-system-x86)')
    inside = ':'.join(map(str, xen_agent.ADDRESS))
    return [program, '-M', 'q35', *PROCESSOR, '-m', f'{MEMORY_MIB}M',
            '-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot',
            '-kernel', xen_tools.hypervisor(), '-append', XEN_COMMAND_LINE,
            '-initrd', f'{folder}/vmlinuz {DOM0_COMMAND_LINE},{folder}/initrd.gz',
            '-serial', f'file:{folder}/log/console.log',
            *_shared('host', '/'), *_shared('xen', xen_tools.fetch()), *_shared('lab', f'{folder}/share', writable=True),
            '-netdev', f'user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{port}-{inside}',
            '-device', 'virtio-net-pci,vectors=0,netdev=net,romfile=']


def _dies_with_us():
    """In the child: a lab that is killed takes its machine with it."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Dom0:
    """What can be asked of a machine that runs."""

    def __init__(self, address: str = None):
        address = address or os.environ.get(ADDRESS)
        if not address:
            raise MissingPrerequisite(f'a running Xen ({ADDRESS} names it: tests/lab/run-xen --outside)')
        port, self._secret = address.split(':')
        self._port = int(port)

    def request(self, **what) -> socket.socket:
        connection = socket.create_connection(('127.0.0.1', self._port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(json.dumps({**what, 'secret': self._secret}).encode() + b'\n')
        return connection

    def start(self, words: list, environment: dict = None, folder: str = '/') -> socket.socket:
        """A command, with which xen_agent.Frames are exchanged from now on."""
        path = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
        return self.request(run=[str(word) for word in words], folder=str(folder),
                            environment={'PATH': path, 'LC_ALL': 'C.UTF-8', 'HOME': '/root', **(environment or {})})

    def run(self, *words, limit: float = 120, check: bool = True) -> subprocess.CompletedProcess:
        """One command to its end."""
        written = {xen_agent.OUTPUT: b'', xen_agent.ERRORS: b''}
        with self.start(words) as connection:
            connection.settimeout(limit)
            frames = xen_agent.Frames(connection)
            try:
                while True:
                    kind, content = frames.receive()
                    if kind == xen_agent.STATUS:
                        break
                    written[kind] += content
            except OSError as error:
                raise HarnessError(f'dom0: {words}: {error}') from error
        output, errors = (text.decode(errors='surrogateescape') for text in written.values())
        if check and int(content):
            raise HarnessError(f'dom0: {words} ended with {int(content)}: {errors[-500:]}')
        return subprocess.CompletedProcess(words, int(content), output, errors)


class Relay:
    """A unix socket of this machine's, each connection to which is one to what `request` names in dom0."""

    def __init__(self, dom0: Dom0, path: str, **request):
        self._dom0, self._request = dom0, request
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(8)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):  # closed
            while True:
                threading.Thread(target=self._copy, args=(self._listener.accept()[0],), daemon=True).start()

    def _copy(self, client: socket.socket):
        with client, contextlib.suppress(OSError), self._dom0.request(**self._request) as other:
            xen_agent.copy_both_ways(client, other.fileno())

    def close(self):
        self._listener.close()


class Machine:
    """`with` starts it, waits for dom0 and ends it."""

    def __init__(self, results: pathlib.Path = None):
        self._results = results
        self._folder = self._process = self.address = None

    def _begin(self):
        share = pathlib.Path(self._folder, 'share')
        for folder in (share, share / 'results', pathlib.Path(self._folder, 'log')):
            folder.mkdir()
        secret, port = secrets.token_hex(16), ports.free()
        self.address = f'{port}:{secret}'
        (share / 'secret').write_text(secret)
        shutil.copyfile(xen_agent.__file__, share / 'agent.py')
        shutil.copyfile(kernels.fetch(SUITE, flavour=FLAVOUR).image, f'{self._folder}/vmlinuz')
        pathlib.Path(self._folder, 'initrd.gz').write_bytes(_initrd())
        with open(f'{self._folder}/log/qemu.log', 'wb') as log:
            self._process = subprocess.Popen(_qemu(self._folder, port), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                             start_new_session=True, preexec_fn=_dies_with_us)
        until = time.monotonic() + UP_LIMIT
        while not (share / 'ready').exists():
            if self._process.poll() is not None or time.monotonic() > until:
                raise HarnessError(f'dom0 does not come up: {self.trouble()}')
            time.sleep(0.2)

    def trouble(self) -> str:
        """What QEMU, Xen and dom0 said last."""
        logs = (pathlib.Path(self._folder, 'log', name) for name in ('qemu.log', 'console.log'))
        return ' '.join(path.read_text(errors='replace').strip()[-2000:] for path in logs if path.exists())

    def ended(self) -> bool:
        return self._process.poll() is not None

    def kill(self):
        self._process.kill()

    def _end(self):
        processes.end(self._process)
        try:
            for source in (f'{self._folder}/share/results', f'{self._folder}/log') if self._results else ():
                if os.path.isdir(source):
                    shutil.copytree(source, self._results, dirs_exist_ok=True)
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self):
        self._folder = tempfile.mkdtemp(prefix='exogdb-xen-')
        try:
            self._begin()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_):
        self._end()
