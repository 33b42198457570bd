"""A client of the remote protocol that is quicker to start than a gdb (gdb manual, "Remote Protocol", "Overview")."""
import contextlib
import select
import socket

from .patience import seconds


class Client:
    """OSError when the server is gone."""

    def __init__(self, path: str, limit: float = 20):
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(seconds(limit))
        self._received = b''
        try:
            self._socket.connect(path)
        except OSError:
            self._socket.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._socket.close()

    def greet(self) -> str:
        """What a debugger begins with, and the stop reply that it gets."""
        self.ask('qSupported:multiprocess+;swbreak+;hwbreak+;vContSupported+')
        return self.ask('?')

    def ask(self, packet: str) -> str:
        self.send(packet)
        return self.receive()

    def send(self, packet: str):
        self._socket.sendall(f'${packet}#{sum(packet.encode()) % 256:02x}'.encode())

    def interrupt(self):
        self._socket.sendall(b'\x03')

    def wait(self, limit: float):
        """The next packet if it begins to come within so many seconds, else None."""
        if not self._received and not select.select([self._socket], [], [], max(limit, 0))[0]:
            return None
        return self.receive()

    def stop_reply(self) -> str:
        """The next packet that is no text for the user ("Stop Reply Packets", `O`): that may come before each stop."""
        while (packet := self.receive())[:1] == 'O':
            pass
        return packet

    def receive(self) -> str:
        """The next packet; acknowledged, as nobody asked to leave that out."""
        while True:
            begin, end = self._received.find(b'$'), self._received.find(b'#')
            if 0 <= begin < end and len(self._received) >= end + 3:
                packet, self._received = self._received[begin + 1:end], self._received[end + 3:]
                with contextlib.suppress(OSError):  # after the last one the server is gone
                    self._socket.sendall(b'+')
                return packet.decode('latin-1')
            data = self._socket.recv(1 << 16)
            if not data:
                raise ConnectionResetError('the server has gone')
            self._received += data
