"""The rows of a guest of KVM, which exogdb debugs from outside QEMU while QEMU's own stub does so from inside. Both are of the
same guest, next to each other in every round."""
import contextlib
import time

from harness import gdb, server

import measure
from rows import SETTLE, STUB
from table import Series


class KvmGuest:
    """`weight`: how much more is done in a round than on an emulated machine."""

    def __init__(self, guest, smoke: bool, what: str = 'KVM', weight: int = 1):
        self.guest = guest
        self.stub = guest.folder / 'stub'
        self.target = f'kvm:{guest.pid()}'
        self.times = 1 if smoke else 5 * weight
        self.table = {
            'step': Series(f'{what}: step, raw client', STUB, 5),
            'stop': Series(f'{what}: ^C to stop reply', STUB, 2),
            'g': Series(f'{what}: all registers, `g`', STUB),
        }

    def series(self) -> list:
        return list(self.table.values())

    def round(self):
        work = (f'step:{20 * self.times}', f'stop:{2 * self.times}', f'g:{20 * self.times}')
        with server.Server(self.target) as serving:
            ours = measure.raw(serving.socket, *work)
        self.guest.alive()
        peers = measure.raw(self.stub, *work)
        time.sleep(SETTLE)
        self.guest.alive()
        for name, series in self.table.items():
            series.add(ours[name].each, peers[name].each)


class IdleCost:
    """What a debugger costs that is attached while the guest runs and nothing is watched for."""

    def __init__(self, guest, what: str, smoke: bool):
        self.guest = guest
        self.seconds = 1 if smoke else 5
        self.cost = Series(f'KVM: {what}, gdb attached and the guest running', 'no server', 1.0, cost=True)
        self.noise = Series('the same, neither has a server', 'no server', cost=True, remark='what of it is noise')

    def series(self) -> list:
        return [self.cost, self.noise]

    def round(self):
        before = measure.spin_rate(self.guest, self.seconds)
        with server.Server(f'kvm:{self.guest.pid()}') as serving, running(serving.socket):
            served = measure.spin_rate(self.guest, self.seconds)
        after = measure.spin_rate(self.guest, self.seconds)
        self.cost.add(1 / served, 2 / (before + after))
        self.noise.add(1 / after, 1 / before)


@contextlib.contextmanager
def running(socket):
    """A debugger that has let the guest go on."""
    with gdb.Session(socket) as session:
        session.resume()
        measure.wait_until_idle(session.pid)  # it reads symbols for a while
        yield
        session.control_c()
        session.wait_stop()
