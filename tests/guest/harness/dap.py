"""A debug adapter over its standard streams, as Visual Studio Code drives it: the Debug Adapter Protocol (its specification,
"Base protocol": a header with the length, then JSON)."""
import collections
import json
import queue
import subprocess
import threading
import time

from . import processes
from .errors import HarnessError
from .patience import seconds


class Adapter:
    """Answers and events are kept until they are asked for."""

    def __init__(self, words: list, environment: dict = None, limit: float = 120):
        self._limit = seconds(limit)
        self._messages = queue.Queue()
        self._events = collections.deque()
        self._answers = {}
        self._sequence = 0
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                         start_new_session=True, env=environment)
        threading.Thread(target=self._pump, daemon=True).start()

    def _pump(self):
        stream, length = self._process.stdout, 0
        try:
            while header := stream.readline():
                name, _, value = header.partition(b':')
                if name.lower() == b'content-length':
                    length = int(value)
                elif not header.strip():
                    self._messages.put(json.loads(stream.read(length)))
        except ValueError:  # what one that crashes has left of a message
            pass
        self._messages.put(None)

    def _take(self, until: float, what: str):
        try:
            message = self._messages.get(timeout=max(0.0, until - time.monotonic()))
        except queue.Empty:
            raise HarnessError(f'debug adapter: {what}: nothing for {self._limit:.0f} s') from None
        if message is None:
            raise HarnessError(f'debug adapter: {what}: it ended with {self._process.wait()}')
        if message['type'] == 'event':
            self._events.append(message)
        elif message['type'] == 'response':
            self._answers[message['request_seq']] = message

    def send(self, command: str, **arguments) -> int:
        self._sequence += 1
        body = json.dumps({'seq': self._sequence, 'type': 'request', 'command': command, 'arguments': arguments}).encode()
        self._process.stdin.write(b'Content-Length: %d\r\n\r\n' % len(body) + body)
        self._process.stdin.flush()
        return self._sequence

    def answer(self, sequence: int, what: str = '') -> dict:
        """The body of a response. HarnessError with the adapter's words for a failure."""
        until = time.monotonic() + self._limit
        while sequence not in self._answers:
            self._take(until, what)
        message = self._answers.pop(sequence)
        if not message['success']:
            raise HarnessError(f'debug adapter: {what}: {message.get("message")} {message.get("body", "")}')
        return message.get('body') or {}

    def request(self, command: str, **arguments) -> dict:
        return self.answer(self.send(command, **arguments), command)

    def event(self, name: str) -> dict:
        """The body of the next event of that name; those before it are passed over."""
        until = time.monotonic() + self._limit
        while True:
            while self._events:
                if (event := self._events.popleft())['event'] == name:
                    return event.get('body') or {}
            self._take(until, f'waiting for {name}')

    def close(self):
        """`disconnect`, as an editor does whose user stops the session."""
        if self._process.poll() is None:
            try:
                self.request('disconnect', terminateDebuggee=False)
                self._process.stdin.close()
                self._process.wait(self._limit)
            except (OSError, HarnessError, subprocess.TimeoutExpired):
                pass
        processes.end(self._process)
