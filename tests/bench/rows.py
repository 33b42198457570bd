"""The rows of the table. Each takes its two figures next to each other in every round, so that a machine that is
busy with something else slows both."""
import contextlib
import subprocess
import tempfile
import time

from harness import gdb, server
from harness.errors import HarnessError, MissingPrerequisite

import measure
from table import Series

MIB = 1 << 20
STUB = "QEMU's stub"
LINKED_AT = 0xffffffff81000000  # kernel text without KASLR, arch/x86/include/asm/page_64_types.h; at least 8 MiB of it
VIRTUAL = 'maintenance packet Qqemu.PhyMemMode:0'  # QEMU keeps what its last client has set
SETTLE = 0.2  # seconds in which QEMU notices that its client is gone; its stub takes one at a time


class SpinningGuest:
    """All vCPUs spin in user mode. `stub` is the socket of QEMU's own stub, which the server borrows while it has a
    client and gives back."""

    def __init__(self, guest, smoke: bool):
        self.guest = guest
        self.stub = guest.folder / 'stub'
        self.text = LINKED_AT + int(server.run_json('info', guest.target)['slide'], 16)
        self.bulk = (1 if smoke else 8) * MIB
        self.times = 1 if smoke else 10  # how much more work than in a smoke test
        self.table = {
            'x': Series('bulk memory, raw client, `x`', f'{STUB}, `m`', 50, amount=self.bulk / MIB, speed='MiB/s'),
            'm': Series('bulk memory, raw client, `m`', f'{STUB}, `m`', amount=self.bulk / MIB, speed='MiB/s'),
            'dump': Series('`dump memory` in gdb', STUB, 5, amount=self.bulk / MIB, speed='MiB/s'),
            'first': Series('start to first `info threads`', f"{STUB}: gdb's start to 2 vCPUs", cost=True,
                            remark=f'{guest.config.memory_mib} MiB of RAM, server and gdb started, nothing configured'),
            'backtrace': Series('from `target remote` to the first `bt`', f'{STUB}, and gdb is given the same file to load',
                                cost=True, remark='goal: at most 2 s more than the peer'),
            'read8': Series('8 bytes by `m`', STUB),
            'g': Series('all registers, `g`', STUB),
            'stop': Series('^C to stop reply', STUB),
            'step': Series('step, raw client', STUB),
            'cost': Series('turns of a busy loop, server running, no client', 'no server', 1.0, cost=True,
                           remark='time for a turn'),
            'noise': Series('the same, neither has a server', 'no server', cost=True, remark='what of it is noise'),
        }

    def series(self) -> list:
        return [series for series in self.table.values() if series.ours]

    def round(self, serving: server.Server):
        self.raw(serving)
        self.dump(serving)

    def raw(self, serving: server.Server):
        small = (f'read8:{self.text:#x}:{200 * self.times}', f'g:{50 * self.times}', f'stop:{2 * self.times}',
                 f'step:{20 * self.times}')
        bulk = f'{self.text:#x}:{self.bulk}'
        # Once takes the server a few milliseconds, of which a single turn of another process makes half as much again.
        ours = measure.raw(serving.socket, f'x:{bulk}:{self.times}', f'm:{bulk}:{self.times}', *small)
        peers = measure.raw(self.stub, f'm:{bulk}', *small)
        time.sleep(SETTLE)
        if not ours['x'].crc == ours['m'].crc == peers['m'].crc:
            raise HarnessError('the two servers read different kernel text')
        for name in ('x', 'm'):
            self.table[name].add(ours[name].each * self.bulk, peers['m'].each * self.bulk)
        for name in ('read8', 'g', 'stop', 'step'):
            self.table[name].add(ours[name].each, peers[name].each)

    def dump(self, serving: server.Server):
        command = f'dump binary memory /dev/null {self.text:#x} {self.text + self.bulk:#x}'
        ours, peers = (measure.gdb_commands(command, prepare=(f'target remote {socket}', VIRTUAL))[0].seconds
                       for socket in (serving.socket, self.stub))
        time.sleep(SETTLE)
        self.table['dump'].add(ours, peers)

    def first(self):
        """From nothing but a running guest to the list on the screen."""
        begin = time.monotonic()
        with server.Server(self.guest.target) as serving:
            ours = measure.gdb_commands(f'target remote {serving.socket}', 'info threads')[1].end - begin
        begin = time.monotonic()
        peers = measure.gdb_commands(f'target remote {self.stub}', 'info threads')[1].end - begin
        time.sleep(SETTLE)
        self.table['first'].add(ours, peers)

    def backtrace(self, serving: server.Server, file: str):
        """What gdb is given with no configuration, against what its user has made and loads where the kernel is."""
        load = f'symbol-file -o {self.text - LINKED_AT:#x} {file}'
        ours = measure.gdb_commands(f'target remote {serving.socket}', 'bt')
        peers = measure.gdb_commands(load, f'target remote {self.stub}', 'bt')
        time.sleep(SETTLE)
        self.table['backtrace'].add(*(sum(command.seconds for command in commands) for commands in (ours, peers)))

    def symbol_file(self, file: str) -> tuple:
        """A row of counts; the file is kept."""
        seconds, peak = measure.resources([server.program(), 'symbols', self.guest.target, '-o', file])
        return ("`exogdb symbols`: time, peak memory (goals: 2 s, 300 MiB)", f'{seconds:.2f} s, {peak / MIB:.0f} MiB', '–')

    def cost(self, seconds: float) -> float:
        """Adds to two rows; returns the processor time that the waiting server used, in seconds for a second."""
        before = measure.spin_rate(self.guest, seconds)
        with server.Server(self.guest.target) as serving:
            used = measure.processor_seconds(serving.process.pid)
            begin = time.monotonic()
            served = measure.spin_rate(self.guest, seconds)
            used = (measure.processor_seconds(serving.process.pid) - used) / (time.monotonic() - begin)
        after = measure.spin_rate(self.guest, seconds)
        self.table['cost'].add(1 / served, 2 / (before + after))
        self.table['noise'].add(1 / after, 1 / before)
        return used

    def packets(self) -> list:
        """Rows of (what, exogdb, peer): of gdb."""
        def counted(socket, **how):
            return measure.gdb_commands(f'target remote {socket}', 'info threads', 'info threads', 'stepi', 'stepi', **how)
        names = ('connect', 'first `info threads`', '`info threads` again', 'first `stepi`', '`stepi` again')
        with recording(self.guest.target) as (serving, record):
            ours = counted(serving.socket, record=record)
        peers = counted(self.stub, count_packets=True)
        time.sleep(SETTLE)
        return [(f"gdb's packets: {name}", str(mine.packets), str(theirs.packets))
                for name, mine, theirs in zip(names, ours, peers)]

    def calls(self, serving: server.Server) -> tuple:
        what = "server's system calls for each 8-byte `m`"
        few, many = 100, 1100
        try:
            with_few, with_many = (
                measure.system_calls(serving.process.pid,
                                     lambda: measure.raw(serving.socket, f'read8:{self.text:#x}:{count}'))
                for count in (few, many))
        except (MissingPrerequisite, subprocess.TimeoutExpired) as error:
            return (what, f'not counted: {error}', '–')
        return (what, f'{(with_many - with_few) / (many - few):.1f}', '–')


@contextlib.contextmanager
def recording(target, **options):
    """A server and the path of its record."""
    with tempfile.TemporaryDirectory(prefix='exogdb-bench-') as folder:
        record = f'{folder}/record'
        with server.Server(target, '--record', record, **options) as serving:
            yield serving, record


def settled_count(guest, limit: float = 60) -> int:
    """Of its tasks, once it has started all that it will."""
    until = time.monotonic() + limit
    count, before = len(guest.tasks()), -1
    while count != before:
        if time.monotonic() > until:
            raise HarnessError(f'the guest still makes tasks after {limit:.0f} s')
        time.sleep(1)
        count, before = len(guest.tasks()), count
    return count


class ThreadsGuest:
    """A guest with many tasks, against gdbserver on a process with as many threads. gdb is given gdbserver's program
    and libraries as local files, so that it need not fetch them from there."""

    def __init__(self, guest, address: str):
        self.guest = guest
        self.address = address  # where the server listens: TCP, as gdbserver does
        self.count = settled_count(guest)
        peer = f'gdbserver, {self.count:,} threads'
        self.connect = Series('connect', peer, cost=True, remark=f'{self.count:,} guest tasks')
        self.both = Series('connect and `info threads`', peer, 1.0, cost=True, remark=f'{self.count:,} guest tasks')
        self.first = Series('first `info threads`', peer, 1.0, cost=True, remark=f'{self.count:,} guest tasks')
        self.again = Series('`info threads` again', peer, 1.0, cost=True, remark=f'{self.count:,} guest tasks')

    def series(self) -> list:
        return [self.both, self.connect, self.first, self.again] if self.both.ours else []

    def commands(self, remote: str, prepare: tuple = (), **options) -> list:
        rows = measure.gdb_commands(f'target remote {remote}', 'info threads', 'info threads', prepare=prepare,
                                    **options)
        for listing in rows[1:]:
            if listing.lines < 0.9 * self.count:
                raise HarnessError(f'{remote}: only {listing.lines} lines of info threads')
        return rows

    def peers(self, pid: int, **options) -> list:
        prepare = ('set sysroot /', f'file {measure.tool("many_threads")}')
        with measure.gdbserver(pid) as address:
            return self.commands(address, prepare, **options)

    def round(self, pid: int):
        ours, peers = self.commands(self.address), self.peers(pid)
        for series, index in ((self.connect, 0), (self.first, 1), (self.again, 2)):
            series.add(ours[index].seconds, peers[index].seconds)
        self.both.add(*(rows[0].seconds + rows[1].seconds for rows in (ours, peers)))

    def packets(self, pid: int) -> list:
        names = ('connect', 'first `info threads`', '`info threads` again')
        with recording(self.guest.target, listen=self.address) as (_, record):
            ours = self.commands(self.address, record=record)
        peers = self.peers(pid, count_packets=True)
        return [(f"gdb's packets, {self.count:,} tasks: {name}", str(mine.packets), f'{theirs.packets} (gdbserver)')
                for name, mine, theirs in zip(names, ours, peers)]


def gdb_version() -> str:
    output = subprocess.run([gdb.program(), '--version'], capture_output=True, text=True, check=True).stdout
    return output.splitlines()[0].rpartition(' ')[2].split('-')[0]
