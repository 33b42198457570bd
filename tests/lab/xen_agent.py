"""Does in dom0 what xen_machine.py asks for over TCP: python3 xen_agent.py, with its files in the same folder.

A connection is one request, a line of JSON with the secret that this machine was started with:
    {"run": [WORD…], "folder": F, "environment": {…}}    then frames both ways, see `Frames`
    {"connect": PATH}     a unix socket of dom0's, or
    {"terminal": PATH}    a terminal of dom0's: then bytes both ways
"""
import hmac
import json
import os
import pathlib
import select
import signal
import socket
import struct
import subprocess
import threading
import tty

ADDRESS = ('10.0.2.15', 4000)  # the one that QEMU's user network gives to its guest
HEADER = struct.Struct('>cI')
OUTPUT, ERRORS, STATUS, SIGNAL = b'o', b'e', b'x', b's'
LINE_LIMIT = 1 << 20
FLUSH = 2.0  # seconds for what an ended command has written; what it left running may hold the pipe for ever


class Frames:
    """A kind, a length and so many bytes: OUTPUT and ERRORS of a command, its STATUS at last, a SIGNAL for it."""

    def __init__(self, connection: socket.socket):
        self._connection = connection
        self._sending = threading.Lock()

    def send(self, kind: bytes, content: bytes):
        with self._sending:
            self._connection.sendall(HEADER.pack(kind, len(content)) + content)

    def _exactly(self, count: int) -> bytes:
        content = b''
        while len(content) < count:
            received = self._connection.recv(count - len(content))
            if not received:
                raise ConnectionError('the connection was closed')
            content += received
        return content

    def receive(self) -> tuple:
        kind, length = HEADER.unpack(self._exactly(HEADER.size))
        return kind, self._exactly(length)


def line_of(connection: socket.socket) -> bytes:
    """Byte by byte: what follows it belongs to others."""
    line = b''
    while not line.endswith(b'\n'):
        byte = connection.recv(1)
        if not byte or len(line) > LINE_LIMIT:
            raise ConnectionError('no line came')
        line += byte
    return line


def copy_both_ways(connection: socket.socket, other: int):
    """Until one of them ends."""
    try:
        while True:
            for ready in select.select([connection, other], [], [])[0]:
                data = os.read(other, 1 << 16) if ready == other else connection.recv(1 << 16)
                if not data:
                    return
                if ready == other:
                    connection.sendall(data)
                else:
                    while data:
                        data = data[os.write(other, data):]
    except OSError:  # a reset, or EIO of a terminal whose other end was closed
        pass


def _run(connection: socket.socket, request: dict):
    frames = Frames(connection)
    try:
        process = subprocess.Popen(request['run'], cwd=request['folder'], env=request['environment'],
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   start_new_session=True)
    except OSError as error:
        frames.send(ERRORS, f'dom0: {error}\n'.encode())
        frames.send(STATUS, b'127')
        return

    def pump(kind: bytes, source):
        try:
            while data := os.read(source.fileno(), 1 << 16):
                frames.send(kind, data)
        except (OSError, ValueError):
            pass

    def obey():
        try:
            while True:
                kind, content = frames.receive()
                if kind == SIGNAL:
                    process.send_signal(int(content))
        except OSError:  # who asked is gone, killed maybe: so is what it asked for, and nothing that this has started
            process.kill()

    pumps = [threading.Thread(target=pump, args=each, daemon=True)
             for each in ((OUTPUT, process.stdout), (ERRORS, process.stderr))]
    for thread in (*pumps, threading.Thread(target=obey, daemon=True)):
        thread.start()
    status = process.wait()
    for thread in pumps:
        thread.join(FLUSH)
    frames.send(STATUS, str(status if status >= 0 else 128 - status).encode())


def _connect(connection: socket.socket, path: str):
    with socket.socket(socket.AF_UNIX) as other:
        other.connect(path)
        copy_both_ways(connection, other.fileno())


def _open_terminal(connection: socket.socket, path: str):
    terminal = os.open(path, os.O_RDWR | os.O_NOCTTY)
    try:
        tty.setraw(terminal)
        copy_both_ways(connection, terminal)
    finally:
        os.close(terminal)


def _serve(connection: socket.socket, secret: str):
    with connection:
        try:
            request = json.loads(line_of(connection))
            if not hmac.compare_digest(request.get('secret', ''), secret):
                return
            if 'run' in request:
                _run(connection, request)
            elif 'connect' in request:
                _connect(connection, request['connect'])
            else:
                _open_terminal(connection, request['terminal'])
        except (OSError, ValueError) as error:
            print(f'agent: {error}', flush=True)


def main():
    folder = pathlib.Path(__file__).parent
    secret = (folder / 'secret').read_text()
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    with socket.create_server(ADDRESS, backlog=64) as listener:
        (folder / 'ready').touch()
        while True:
            connection = listener.accept()[0]
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=_serve, args=(connection, secret), daemon=True).start()


if __name__ == '__main__':
    main()
