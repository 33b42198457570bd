"""`kvm:PID` of a guest that has not begun: its memory is found when the guest shows it, in the same session. Its VMM is QEMU,
which nobody asks for anything but to let it run."""
import re
import unittest

from harness import case, gdb, server
from harness.guest import BOOT_LIMIT, Config
from harness.vm import KvmVm

NOT_FOUND = 'no memory of the monitor has code where one executes it'
MIB = 1 << 20
BELOW = 256 * MIB  # of the guest's memory, the rest of which is at 4 GiB


class GuestAtReset(KvmVm):
    def __init__(self):
        super().__init__(Config(case.kernel(), memory_mib=640, machine=f'q35,max-ram-below-4g={BELOW}'))
        self._extra += ('-S',)


class FromTheResetVector(unittest.TestCase):
    def setUp(self):
        self.guest = GuestAtReset()
        self.addCleanup(self.guest.destroy)
        self.guest.begin_at_reset()

    def test_memory_is_found_when_the_guest_shows_it(self):
        self.assertIn(f'remark: guest memory: no vCPU has paging on, and {NOT_FOUND}', server.run('info', self.guest.target).stdout)
        with server.Server(self.guest.target, '--log', 'info') as serving, gdb.Session(serving.socket, limit=300) as session:
            self.assertEqual(serving.log().count(NOT_FOUND), 1, serving.log())
            self.assertEqual(session.value('$rip'), 0xfff0)
            self.assertIn('no memory at physical address', session.console('monitor phys 0x100000 16'))
            session.resume()
            self.guest.unpause()
            self.guest.wait_up(BOOT_LIMIT)
            session.control_c()
            session.wait_stop()
            threads = session.console('info threads')
            self.assertIn('"kthreadd"', threads)
            self.assertNotIn('not verified', serving.log())
            # Both parts of it, to the last page, which no task needs to lie in.
            for address in (0x100000, BELOW - 4096, 1 << 32, (1 << 32) + 640 * MIB - BELOW - 4096):
                self.assertNotIn('no memory', session.console(f'monitor phys {address:#x} 16'))
            for address in (BELOW, (1 << 32) + 640 * MIB - BELOW):
                self.assertIn('no memory', session.console(f'monitor phys {address:#x} 16'))
            self.assertRegex(session.console('thread apply all -s bt 1'), r'schedule')
            self.guest_goes_on(session)
        self.assertFalse(re.findall('remark: .*', server.run('info', self.guest.target).stdout))

    def guest_goes_on(self, session):
        session.command('-target-detach')
        self.guest.alive()


if __name__ == '__main__':
    case.main()
