#!/usr/bin/env python3
"""exogdb, as this machine's tests start it, in the dom0 of a Xen that runs (xen_machine.py): arguments, output, signals and
exit status are those of the program that EXOGDB_IN_DOM0 names. `--listen unix:PATH` is a socket of this machine's, of
which every connection is one to exogdb in there. Killed, it takes exogdb in there with it, as suddenly."""
import os
import pathlib
import secrets
import signal
import sys
import threading

sys.dont_write_bytecode = True
sys.path[:0] = [str(pathlib.Path(__file__).resolve().parents[1] / 'guest'), str(pathlib.Path(__file__).resolve().parent)]
from harness.errors import HarnessError  # noqa: E402

import xen_agent  # noqa: E402
import xen_machine  # noqa: E402

FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
SOCKETS = '/run/lock'  # in dom0, in memory


def run(dom0, words: list, environment: dict, on_output=None) -> int:
    """Its exit status; what it writes goes where this process' own does, `on_output` sees it before."""
    with dom0.start(words, environment, os.getcwd()) as connection:
        frames = xen_agent.Frames(connection)

        def forward(number, _frame):
            # Not in the handler: the lock of the frames may be held by what the signal has interrupted.
            threading.Thread(target=frames.send, args=(xen_agent.SIGNAL, str(int(number)).encode())).start()
        before = {number: signal.signal(number, forward) for number in FORWARDED}
        try:
            while True:
                kind, content = frames.receive()
                if kind == xen_agent.STATUS:
                    return int(content)
                if kind == xen_agent.OUTPUT and on_output:
                    content = on_output(content)
                sink = sys.stdout if kind == xen_agent.OUTPUT else sys.stderr
                sink.buffer.write(content)
                sink.buffer.flush()
        except ConnectionError as error:
            raise HarnessError(f'dom0 is gone: {error}') from error
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def serve(dom0, words: list) -> int:
    """With its unix socket in here."""
    position = words.index('--listen') + 1 if '--listen' in words else len(words)
    own = words[position] if position < len(words) else ''
    if not own.startswith('unix:'):
        return run(dom0, words, {})
    path = own.removeprefix('unix:')
    theirs = f'{SOCKETS}/{secrets.token_hex(8)}'
    words[position] = f'unix:{theirs}'
    relays = []

    def on_output(content: bytes) -> bytes:
        if b'listening on ' in content and not relays:
            relays.append(xen_machine.Relay(dom0, path, connect=theirs))
        return content.replace(theirs.encode(), path.encode())
    try:
        return run(dom0, words, {}, on_output)
    finally:
        for relay in relays:
            relay.close()
            pathlib.Path(path).unlink(missing_ok=True)


def main():
    program = os.environ.get('EXOGDB_IN_DOM0')
    if not program:
        sys.exit('in_dom0: EXOGDB_IN_DOM0 names no program')
    try:
        sys.exit(serve(xen_machine.Dom0(), [program, *sys.argv[1:]]))
    except (HarnessError, OSError) as error:
        sys.exit(f'in_dom0: {error}')


if __name__ == '__main__':
    main()
