"""The rows of a domain of Xen: what a packet that reads memory takes, beside mapping its pages for each read. In dom0."""
import subprocess

from harness import server
from harness.errors import HarnessError, MissingPrerequisite

import measure
from table import Series

DOMAIN = 'pvh'  # as tests/lab/run-xen --guests names it
MAPPING = 'map, copy, unmap'
# NAME: bytes of a read, how often, the packet.
SIZES = {'8 bytes': (8, 200, 'm'), '4 KiB': (4096, 200, 'x'), '1 MiB': (1 << 20, 10, 'x')}


class XenMemory:
    def __init__(self, smoke: bool):
        self.domid = subprocess.run(['xl', 'domid', DOMAIN], capture_output=True, text=True, check=False).stdout.strip()
        if not self.domid:
            raise MissingPrerequisite(f'a domain {DOMAIN} of Xen (tests/lab/run-xen --guests {DOMAIN})')
        # Within the kernel's read-only data, of which more than a MiB follows.
        self.base = int(server.run_json('info', f'xen:{DOMAIN}')['linux_banner'], 16) & ~0xfff
        self.smoke = smoke
        self.rows = {name: Series(f'Xen: a read of {name}, `{packet}`', MAPPING) for name, (_, _, packet) in SIZES.items()}

    def series(self) -> list:
        return list(self.rows.values())

    def round(self, socket):
        for name, row in self.rows.items():
            size, times, packet = SIZES[name]
            times = 1 if self.smoke else times
            ours = measure.raw(socket, f'{packet}:{self.base:#x}:{size}:{times}')[packet]
            peers = self.mapped(size, times)
            if ours.crc != peers.crc:
                raise HarnessError(f'{size} bytes at {self.base:#x}: the two read different memory')
            row.add(ours.seconds / times, peers.each)

    def mapped(self, size: int, times: int) -> measure.Raw:
        told = subprocess.run([measure.tool('xen_map'), self.domid, hex(self.base), str(size), str(times)], capture_output=True,
                              text=True, timeout=120, check=False)
        if told.returncode:
            raise HarnessError(told.stderr.strip())
        _, nanoseconds, operations, crc = told.stdout.split()
        return measure.Raw(int(nanoseconds) / 1e9, int(operations), crc)

    def backend(self) -> list:
        """The backend's own reads of the guest's physical memory, without packets (xen_memory.cpp)."""
        told = subprocess.run([measure.tool('xen_memory'), DOMAIN], capture_output=True, text=True, timeout=300, check=False)
        if told.returncode:
            raise HarnessError(told.stderr.strip())
        return ['```', *told.stdout.splitlines(), '```']

    def gdbsx(self) -> str:
        """What Xen's own server says to this domain."""
        try:
            told = subprocess.run(['gdbsx', '-a', self.domid, '64', '127.0.0.1:0'], stdin=subprocess.DEVNULL, capture_output=True,
                                  text=True, timeout=20, check=False)
        except FileNotFoundError:
            return 'gdbsx is not installed.'
        except subprocess.TimeoutExpired:
            return 'gdbsx listens.'
        lines = (told.stdout + told.stderr).strip().splitlines()
        return f'gdbsx ends with {told.returncode}: {"; ".join(line.strip() for line in lines)[:300]}'
