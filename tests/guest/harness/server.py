"""The program under test, as a user starts it."""
import json
import os
import pathlib
import queue
import shutil
import signal
import subprocess
import tempfile
import threading
import time

from . import lab, processes
from .errors import HarnessError, MissingPrerequisite
from .patience import seconds

TOP = pathlib.Path(__file__).resolve().parents[3]


def program() -> str:
    """EXOGDB, else the newest build of this checkout."""
    chosen = os.environ.get('EXOGDB')
    if chosen:
        return chosen
    built = [path for path in TOP.glob('build/*/**/exogdb') if path.is_file() and os.access(path, os.X_OK)]
    if not built:
        raise MissingPrerequisite('exogdb itself (build it, or name it in EXOGDB)')
    return str(max(built, key=lambda path: path.stat().st_mtime))


def with_backend(*words: str) -> list:
    """EXOGDB_BACKEND says by which backend a suite's guests of QEMU are served, where a test does not."""
    chosen = os.environ.get('EXOGDB_BACKEND')
    of_qemu = any(word.startswith(('libvirt:', 'qemu:')) for word in words)
    return [*words, '--backend', chosen] if chosen and of_qemu and '--backend' not in words else list(words)


def run(*words, limit: float = 60, check: bool = True) -> subprocess.CompletedProcess:
    """One exogdb command to its end."""
    result = subprocess.run([program(), *with_backend(*words)], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                            errors='surrogateescape', timeout=seconds(limit), check=False)
    if check and result.returncode:
        raise HarnessError(f'exogdb {" ".join(words)} ended with {result.returncode}: {result.stderr.strip()[-500:]}')
    return result


def run_json(*words, limit: float = 60):
    return json.loads(run(*words, '--json', limit=limit).stdout)


class Server:
    """`exogdb serve TARGET`, on a unix socket of its own unless `listen` says where else."""

    def __init__(self, target: str, *options: str, listen: str = None, limit: float = 60):
        self._target = target
        self._options = options
        self._listen = listen
        self._limit = seconds(limit)
        self.folder = None
        self.process = None

    @property
    def socket(self) -> str:
        return f'{self.folder}/gdb'

    def start(self):
        self.folder = tempfile.mkdtemp(prefix='exogdb-serve-')
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def __enter__(self):
        self.start()
        return self

    def _start(self):
        listen = self._listen or f'unix:{self.socket}'
        lacking = ('--breakpoints', 'hardware') if lab.lacks('breakpoints') else ()
        words = [program(), *with_backend('serve', self._target, '--listen', listen, *lacking, *self._options)]
        with open(f'{self.folder}/log', 'wb') as log:
            self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log,
                                            start_new_session=True)
        lines = queue.Queue()
        threading.Thread(target=self._pump, args=(lines,), daemon=True).start()
        until = time.monotonic() + self._limit
        while True:
            try:
                line = lines.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                raise HarnessError(f'exogdb serve: not listening after {self._limit:.0f} s: {self.log()[-500:]}'
                                   ) from None
            if line is None:
                raise HarnessError(f'exogdb serve ended with {self.process.wait()}: {self.log()[-500:]}')
            if line.startswith(b'listening on '):
                return

    def _pump(self, lines: queue.Queue):
        for line in self.process.stdout:
            lines.put(line)
        lines.put(None)

    def log(self) -> str:
        return pathlib.Path(self.folder, 'log').read_text(errors='replace')

    def kill(self):
        """As the kernel's out-of-memory killer would: no chance to clean up."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self):
        processes.end(self.process)
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    def __exit__(self, *_):
        self.stop()
