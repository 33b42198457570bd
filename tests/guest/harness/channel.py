"""The host's end of the guest's command channel (see guest_init/main.c)."""
import re
import secrets
import socket
import time

from .errors import HarnessError
from .patience import seconds


class GuestSilent(HarnessError):
    """The guest did not answer in time."""


class Channel:
    def __init__(self, path, still_there=lambda: None):
        """`still_there` returns why the guest cannot answer any more, or None."""
        self._path = str(path)
        self._still_there = still_there
        self._socket = None
        self._buffer = b''
        self._late = 0  # answers that nobody waited for any longer: they are not the next command's

    def close(self):
        if self._socket:
            self._socket.close()
            self._socket = None

    def _connect(self, until: float):
        while not self._socket:
            candidate = socket.socket(socket.AF_UNIX)
            try:
                candidate.connect(self._path)
                self._socket = candidate
            except OSError as error:
                candidate.close()
                self._check(until, f'no command channel: {error}')
                time.sleep(0.1)

    def _check(self, until: float, what: str):
        gone = self._still_there()
        if gone:
            raise GuestSilent(f'{what}: {gone}')
        if time.monotonic() > until:
            raise GuestSilent(what)

    def _closed(self, what: str) -> GuestSilent:
        """With the reason, for which its process is given the time to end."""
        until = time.monotonic() + seconds(2)
        while not self._still_there() and time.monotonic() < until:
            time.sleep(0.1)
        return GuestSilent(f'{what}: the channel was closed: {self._still_there() or "its other end lives"}')

    def _line(self, until: float, what: str) -> str:
        while b'\n' not in self._buffer:
            self._socket.settimeout(0.5)
            try:
                received = self._socket.recv(1 << 16)
            except TimeoutError:
                received = None
            if received == b'':
                raise self._closed(what)
            self._buffer += received or b''
            self._check(until, what)
        line, self._buffer = self._buffer.split(b'\n', 1)
        return line.decode(errors='surrogateescape')

    def wait_ready(self, limit: float, hopeless=lambda: None):
        """Until guest-init answers: fresh words, so that no old answer is taken for it. What is sent before the guest has
        opened its end may be lost in part, so more is sent until it answers, however long one answer takes. `hopeless`: why it
        never will."""
        until = time.monotonic() + limit
        silence = f'guest-init is not there after {limit:.0f} s'
        call, last = f'hello {secrets.token_hex(4)}', 0
        while True:
            self._connect(until)
            try:
                self._socket.sendall(f'{call} {last + 1}\n'.encode())
                last += 1
            except TimeoutError:  # nobody has read the words so far: the guest is not that far
                pass
            answered = self._answer_to(call, min(until, time.monotonic() + 2))
            if answered:
                break
            self._check(until, silence)
            if why := hopeless():
                raise GuestSilent(f'guest-init is not there: {why}')
        # It answers in order: what comes before the last answer is to words of this call, or to older ones.
        while answered != last:
            answered = self._answer_to(call, until) or self._check(until, silence)
        while self._line(until, silence) != '.ok':
            pass
        self._late = 0

    def _answer_to(self, call: str, until: float) -> int:
        """The number in the next answer to a word of wait_ready(), 0 when none comes until then."""
        try:
            while True:
                found = re.fullmatch(rf'{call} (\d+)', self._line(until, 'no answer'))
                if found:
                    return int(found[1])
        except GuestSilent:
            return 0

    def send(self, command: str):
        """Without waiting for the answer: a guest that stands reads it when it runs. receive() must follow."""
        self._connect(time.monotonic() + 10)
        self._socket.sendall(command.encode() + b'\n')

    def receive(self, command: str, limit: float = 60) -> list:
        """The answer to the first command sent that has none yet. HarnessError when the guest says that it failed."""
        limit = seconds(limit)
        until = time.monotonic() + limit
        silence = f'guest: {command!r} not answered in {limit:.0f} s'
        try:
            while self._late:
                self._answer(until, silence)
                self._late -= 1
            lines, error = self._answer(until, silence)
        except GuestSilent:  # of this command, whichever answer was waited for
            self._late += 1
            raise
        if error:
            raise HarnessError(f'guest: {command!r}: {error} {lines[-3:]}')
        return lines

    def _answer(self, until: float, silence: str) -> tuple:
        """Its lines, and what the guest says if it failed."""
        lines = []
        while True:
            line = self._line(until, silence).rstrip('\r')
            if line == '.ok':
                return lines, ''
            if line.startswith('.error '):
                return lines, line.removeprefix('.error ')
            lines.append(line)

    def ask(self, command: str, limit: float = 60) -> list:
        """The answer's lines. HarnessError when the guest says that it failed."""
        self._connect(time.monotonic() + limit)
        self._socket.sendall(command.encode() + b'\n')
        return self.receive(command, limit)
