"""Rows about processes that a breakpoint is not for: they come to it all the same, where they have its page at one address."""
import struct
import time

from harness import gdb, server

from table import Series

OWNER, OTHERS = 'writer-0', tuple(f'writer-{number}' for number in range(1, 11))  # guest_init/process.c


class Others:
    def __init__(self, what: str, smoke: bool):
        self.seconds = 1 if smoke else 5
        self.row = Series(f'ten processes that call `write` {what}, a breakpoint there of an eleventh (time for a call)',
                          'no breakpoint', cost=True)

    def round(self, serving: server.Server):
        with gdb.Session(serving.socket) as session:
            without = self.seconds_per_call(session)
            session.console('break write if 0')  # what it costs its own process is not asked here
            self.row.add(self.seconds_per_call(session), without)

    def seconds_per_call(self, session) -> float:
        before, begin = self.calls(session), time.monotonic()
        session.resume()
        time.sleep(self.seconds)
        session.control_c()
        session.wait_stop()
        taken = time.monotonic() - begin
        return taken / max(1, self.calls(session) - before)

    @staticmethod
    def calls(session) -> int:
        """Of all ten, as each has counted them in its file: out of the page cache, while the guest stands."""
        return sum(struct.unpack_from('<Q', session.fetch(f'/{name}'))[0] for name in OTHERS)
