"""A real gdb: a batch of commands, or a session over its machine interface (gdb manual, "GDB/MI")."""
import json
import os
import pathlib
import queue
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time

from . import initramfs, lab, processes
from .errors import HarnessError, MissingPrerequisite
from .patience import seconds


def program() -> str:
    path = shutil.which(os.environ.get('GDB', 'gdb'))
    if not path:
        raise MissingPrerequisite('gdb')
    return path


REMOTE_TIMEOUT = 2  # gdb's own: a reply that takes longer is taken for lost, and the next packet's for it
# No init files, no index cache, no debuginfod, no questions: what is left is what the server makes it do.
PLAIN = ('-nx', '-q', '-iex', f'set remotetimeout {seconds(REMOTE_TIMEOUT):.0f}')  # as an IDE starts it
QUIET = (*PLAIN, '-iex', 'set debuginfod enabled off', '-iex', 'set confirm off', '-iex', 'set pagination off',
         '-iex', 'set width 0', '-iex', f'set substitute-path {initramfs.SOURCE_ROOT} {initramfs.PROGRAMS}')


def batch(*commands: str, limit: float = 120, check: bool = True) -> str:
    """What gdb prints for these commands, error output included."""
    words = [program(), *QUIET, '-batch']
    for command in commands:
        words += ['-ex', command]
    status, output = processes.output_of(words, limit, 'gdb')
    if check and status:
        raise HarnessError(f'gdb ended with {status}: {output[-1000:]}')
    return output


def evaluate(remote: str, source: str, limit: float = 120):
    """Runs Python inside a gdb that is connected to `remote`; its `result` comes back as JSON."""
    with tempfile.TemporaryDirectory(prefix='exogdb-gdb-') as folder:
        script, answer = f'{folder}/script.py', f'{folder}/answer.json'
        with open(script, 'w') as file:
            file.write(f'import gdb, json\nresult = None\n{source}\n'
                       f'json.dump(result, open({answer!r}, "w"))\n')
        output = batch(f'target remote {remote}', f'source {script}', limit=limit, check=False)
        try:
            with open(answer) as file:
                return json.load(file)
        except (OSError, ValueError):
            raise HarnessError(f'the script in gdb failed: {output[-2000:]}') from None


class Session:
    """gdb/MI: one command at a time, stops as they come, ^C by the signal that a terminal would send."""

    def __init__(self, remote: str = None, limit: float = 60, flags: tuple = QUIET):
        self._limit = seconds(limit)
        self._lines = queue.Queue()
        self._stops = []
        self._console = []
        self._token = 0
        self._process = subprocess.Popen([program(), *flags, '--interpreter=mi3'], stdin=subprocess.PIPE,
                                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
        threading.Thread(target=self._pump, daemon=True).start()
        try:
            if remote:
                self.connect(remote)
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def _pump(self):
        for line in self._process.stdout:
            self._lines.put(line.decode(errors='surrogateescape').rstrip('\n'))
        self._lines.put(None)

    def _next(self, until: float, what: str) -> str:
        try:
            line = self._lines.get(timeout=max(0.0, until - time.monotonic()))
        except queue.Empty:
            raise HarnessError(f'gdb: {what}: nothing for {self._limit:.0f} s') from None
        if line is None:
            raise HarnessError(f'gdb: {what}: gdb ended with {self._process.wait()}')
        if line.startswith('*stopped'):
            self._stops.append(line)
        elif line.startswith(('~', '@')):  # gdb's own words, and what `monitor` answers
            self._console.append(unquote(line[1:]))
        return line

    def command(self, text: str, limit: float = None) -> str:
        """The rest of the ^done or ^running record. HarnessError with gdb's words for ^error."""
        self._token += 1
        self._process.stdin.write(f'{self._token}{text}\n'.encode())
        self._process.stdin.flush()
        until = time.monotonic() + (seconds(limit) if limit else self._limit)
        while True:
            found = re.match(r'(\d+)\^(\w+),?(.*)', self._next(until, text))
            if not found or int(found.group(1)) != self._token:
                continue
            if found.group(2) == 'error':
                raise HarnessError(f'gdb: {text}: {found.group(3)}')
            return found.group(3)

    def console(self, text: str, limit: float = None) -> str:
        """What a command of gdb's command line prints. Where guests can have no breakpoints in their text, one in a debug
        register is set instead (tests/lab)."""
        if lab.lacks('breakpoints'):
            text = re.sub(r'^(t?)break ', r'\1hbreak ', text)
        self._console = []
        self.command(f'-interpreter-exec console {json.dumps(text)}', limit)
        return ''.join(self._console)

    def shown(self) -> str:
        """What was printed since the last console(), by gdb and by the server."""
        return ''.join(self._console)

    def value(self, expression: str) -> int:
        found = re.search(r'value="(-?\d+)', self.command(
            f'-data-evaluate-expression {json.dumps(f"(long long)({expression})")}'))
        if not found:
            raise HarnessError(f'gdb: no value of {expression}')
        return int(found.group(1)) % (1 << 64)

    def walk(self, count: int) -> dict:
        """What walk.py says of that many steps."""
        with tempfile.TemporaryDirectory(prefix='exogdb-walk-') as folder:
            answer = pathlib.Path(folder, 'answer')
            self.console(f'source {pathlib.Path(__file__).with_name("walk.py")}')
            self.console(f'python walk({count}, {str(answer)!r})')  # gdb answers ^running, which is not the end of it
            until = time.monotonic() + seconds(120 + count / 20)
            while not answer.exists():
                if time.monotonic() > until:
                    raise HarnessError(f'{count} steps have not ended; gdb: {"".join(self._console)[-500:]}')
                time.sleep(0.2)
            return json.loads(answer.read_text())

    def fetch(self, path: str) -> bytes:
        """A file of the guest's, by `remote get`."""
        with tempfile.TemporaryDirectory(prefix='exogdb-fetch-') as folder:
            self.console(f'remote get {path} {folder}/file')
            return pathlib.Path(folder, 'file').read_bytes()

    def connect(self, remote: str, kind: str = 'remote'):
        self.command(f'-target-select {kind} {remote}')
        if lab.lacks('breakpoints'):
            # So that gdb's own, of `finish` say, are in debug registers too (`set breakpoint auto-hw`).
            self.console('set mem inaccessible-by-default off')
            self.console('python try: gdb.execute("mem (long)&_stext (long)&_etext ro")\nexcept gdb.error: pass')
        self._stops.clear()

    def resume(self, how: str = '-exec-continue'):
        self._stops.clear()
        self._console = []
        self.command(how)

    def wait_stop(self, limit: float = None) -> str:
        """The next *stopped record."""
        until = time.monotonic() + (seconds(limit) if limit else self._limit)
        while not self._stops:
            self._next(until, 'waiting for a stop')
        return self._stops.pop(0)

    def said(self) -> str:
        """What was printed since the last command: of the server, too, while the guest ran."""
        return ''.join(self._console)

    def control_c(self):
        """gdb says ^running before it sends the packet (infrun.c proceed(), set_running()); a SIGINT in between makes it
        give the command up, and no stop follows."""
        time.sleep(0.5)
        os.kill(self._process.pid, signal.SIGINT)

    def kill(self):
        """SIGKILL, with whatever is in progress."""
        self._process.kill()
        self._process.wait()

    def close(self):
        """Leaves as a user does who types quit: gdb detaches."""
        if self._process.poll() is None:
            try:
                self._process.stdin.write(b'-gdb-exit\n')
                self._process.stdin.flush()
                self._process.wait(self._limit)
            except (OSError, subprocess.TimeoutExpired):
                pass
        processes.end(self._process)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def unquote(text: str) -> str:
    """A C string of the machine interface: octal escapes for bytes above 127 too."""
    body = text[1:-1] if text[:1] == '"' else text
    simple = {'n': '\n', 't': '\t', 'r': '\r', 'e': '\x1b', 'b': '\b', 'f': '\f', 'v': '\v', 'a': '\a'}

    def one(found):
        escape = found.group(1)
        return chr(int(escape, 8)) if escape[0].isdigit() else simple.get(escape, escape)
    plain = re.sub(r'\\([0-7]{1,3}|.)', one, body)
    return plain.encode('latin-1', 'replace').decode(errors='surrogateescape')


def stop_reason(record: str) -> str:
    found = re.search(r'reason="([^"]*)"', record)
    return found.group(1) if found else ''
