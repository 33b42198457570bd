"""Runs a command in a network namespace of its own, in which ports are open, and lets those of this machine in who may open a
file: bochs_xen_relay.py FOLDER PORT,… COMMAND…    FOLDER/PORT is a unix socket for each."""
import ctypes
import fcntl
import pathlib
import select
import signal
import socket
import struct
import subprocess
import sys
import threading

SIOCSIFFLAGS, IFF_UP = 0x8914, 1
PR_SET_PDEATHSIG = 1


def bring_up_loopback():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack('16sH14x', b'lo', IFF_UP))


def copy(client, port: int):
    with client, socket.create_connection(('127.0.0.1', port)) as other:
        other.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            while True:
                for source in select.select([client, other], [], [])[0]:
                    data = source.recv(1 << 16)
                    if not data:
                        return
                    (other if source is client else client).sendall(data)
        except OSError:  # a reset is an end, too
            pass


def serve(listener, port: int):
    while True:
        client = listener.accept()[0]
        threading.Thread(target=copy, args=(client, port), daemon=True).start()


def main():
    folder, ports, *command = sys.argv[1:]
    bring_up_loopback()
    for port in map(int, ports.split(',')):
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(pathlib.Path(folder, str(port))))
        listener.listen(8)
        threading.Thread(target=serve, args=(listener, port), daemon=True).start()
    prctl = ctypes.CDLL(None).prctl
    with subprocess.Popen(command, preexec_fn=lambda: prctl(PR_SET_PDEATHSIG, signal.SIGKILL)) as process:
        signal.signal(signal.SIGTERM, lambda *_: process.kill())
        sys.exit(process.wait())


if __name__ == '__main__':
    main()
