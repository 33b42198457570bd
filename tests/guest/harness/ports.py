"""TCP ports on the loopback interface."""
import socket

from .errors import HarnessError


def free(preferred: int = 0) -> int:
    """`preferred` if nobody listens there, else another one."""
    for port in (preferred, 0):
        with socket.socket() as candidate:
            candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                candidate.bind(('127.0.0.1', port))
                return candidate.getsockname()[1]
            except OSError:
                pass
    raise HarnessError('no free TCP port on 127.0.0.1')
