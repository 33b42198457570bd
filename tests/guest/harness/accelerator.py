"""KVM or TCG. That /dev/kvm can be opened does not mean that it can run a stock kernel (a nested or a restricted
one may not), so KVM is chosen only after a kernel really booted under it."""
import hashlib
import os
import pathlib
import subprocess
import sys
import tempfile

from . import cache, initramfs, kernels
from .channel import Channel
from .errors import HarnessError

PROBE_LIMIT = 40.0  # seconds; a kernel that runs natively is up in a few


def _boots_under_kvm() -> str:
    """Why not, or ''."""
    from . import vm
    from .guest import Config
    kernel = kernels.fetch('bookworm')
    with tempfile.TemporaryDirectory(prefix='exogdb-probe-') as folder:
        pathlib.Path(folder, 'vmlinuz').write_bytes(kernel.image.read_bytes())
        pathlib.Path(folder, 'initrd.gz').write_bytes(initramfs.build())
        words = vm.command(Config(kernel), folder, 'kvm')
        with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                              stderr=subprocess.PIPE, text=True) as process:
            channel = Channel(f'{folder}/channel', lambda: process.poll() is not None and 'QEMU ended' or None)
            try:
                channel.wait_ready(PROBE_LIMIT)
                return ''
            except HarnessError as error:
                return f'a stock kernel does not boot under it ({error})'
            finally:
                channel.close()
                process.kill()


def _identity() -> str:
    """Changes when the answer may: another boot, another device node."""
    boot = pathlib.Path('/proc/sys/kernel/random/boot_id').read_text().strip()
    status = os.stat('/dev/kvm')
    return hashlib.sha256(f'{boot} {status.st_ino} {status.st_ctime_ns} {os.getuid()}'.encode()).hexdigest()[:16]


def choose(say=lambda line: print(line, file=sys.stderr, flush=True)) -> str:
    """'kvm' or 'tcg'. EXOGDB_ACCEL overrides."""
    forced = os.environ.get('EXOGDB_ACCEL')
    return forced if forced in ('kvm', 'tcg') else best(say)


def best(say=lambda line: print(line, file=sys.stderr, flush=True)) -> str:
    """'kvm' where this machine's runs a stock kernel, else 'tcg'."""
    if not os.access('/dev/kvm', os.R_OK | os.W_OK):
        return 'tcg'
    with cache.lock('kvm'):
        answer = cache.root() / f'kvm-{_identity()}'
        if not answer.exists():
            say('trying whether /dev/kvm runs a stock kernel…')
            why_not = _boots_under_kvm()
            if why_not:
                say(f'/dev/kvm is there, but {why_not}: using TCG, which is slower')
            with cache.replacing(answer) as partial:
                partial.write_text('tcg' if why_not else 'kvm')
        return answer.read_text()
