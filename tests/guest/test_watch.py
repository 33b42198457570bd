"""Watchpoints of every length: what gdb asks for is what it gets."""
import re

from harness import case, gdb


class WatchCase(case.GuestCase):
    config = {'scenario': 'idle', 'vcpus': 1}

    def watch(self, session, kind: str, place: str):
        """A watchpoint of the debug registers, and the guest runs until it is hit; what is said at the stop."""
        self.assertRegex(session.console(f'{kind} -l {place}'), '[Hh]ardware')
        session.resume()
        record = session.wait_stop(120)
        self.assertRegex(gdb.stop_reason(record), 'watchpoint-trigger', record)
        return record


class Watchpoints(WatchCase):
    """`jiffies_64` is a variable of 8 bytes that the timer's interrupt counts up; the guest has one CPU, which ticks."""

    def test_each_length_of_a_debug_register(self):
        """watch of 1, 2, 4 and 8 bytes of a variable: each stops when it has changed, with its old and new value"""
        with gdb.Session(self.serve().socket) as session:
            for size, kind in ((1, 'char'), (2, 'short'), (4, 'int'), (8, 'long')):
                record = self.watch(session, 'watch', f'*(unsigned {kind}*)&jiffies_64')
                old, new = re.search(r'value=\{old="(\d+).*?",new="(\d+)', record).groups()
                self.assertNotEqual(old, new)
                self.assertLess((int(new) - int(old)) % (1 << 8 * size), 10_000)
                session.console('delete')

    def test_a_range_that_is_not_aligned(self):
        """watch of 7 bytes at an odd address: a write to any of them stops, with what gdb asked for"""
        with gdb.Session(self.serve().socket) as session:
            # The byte that changes is the first of jiffies_64, the last of these.
            self.watch(session, 'watch', '*(unsigned char(*)[7])((char*)&jiffies_64 - 6)')

    def test_a_long_range(self):
        """watch of 24 bytes, more than a debug register has: a write in its midst stops"""
        with gdb.Session(self.serve().socket) as session:
            self.watch(session, 'watch', '*(unsigned long(*)[3])((char*)&jiffies_64 - 8)')

    def test_reads_too(self):
        """awatch: a read stops as a write does, and gdb shows the value"""
        with gdb.Session(self.serve().socket) as session:
            self.assertIn('value=', self.watch(session, 'awatch', '*(unsigned long*)&jiffies_64'))


if __name__ == '__main__':
    case.main()
