"""Kernel memory is readable whatever the vCPUs do: here all of them spin in user mode with page tables that map next
to nothing of the kernel (page-table isolation)."""
import re

from harness import case, gdb, server
from harness.errors import HarnessError


class Isolated:
    """The test itself, for each of the memory sizes and paging modes below."""

    def test_the_banner_reads_while_every_vcpu_is_in_user_mode(self):
        version = self.guest.channel.ask('file /proc/version')[0]
        banner = server.run_json('info', self.guest.target)['linux_banner']
        serving = self.serve()
        with gdb.Session(serving.socket) as session:
            self.assertTrue(self.in_user_mode(session), 'not all vCPUs were caught in user mode')
            session.console('set print elements 0')
            self.assertIn(version, session.console(f'x/s {banner}'))

    def in_user_mode(self, session, attempts: int = 10) -> bool:
        """Lets the guest run and stops it until the spinners have all vCPUs."""
        spinners = [int(line.split()[0]) for line in self.spinner_lines]
        for _ in range(attempts):
            rows = re.findall(r'^([* ]) (\d+) +Thread (?:\d+\.)?(\d+) ', session.console('info threads'), re.M)
            numbers = {int(tid): number for _, number, tid in rows}
            selectors = []
            for tid in spinners:
                session.command(f'-thread-select {numbers[tid]}')
                try:
                    selectors.append(session.value('$cs'))
                except HarnessError:  # it does not run: its registers are not known
                    selectors.append(None)
            if selectors == [0x33] * len(spinners):  # __USER_CS, arch/x86/include/asm/segment.h
                return True
            session.resume()
            session.control_c()
            session.wait_stop()
        return False

    def setUp(self):
        super().setUp()
        self.assertIn('pti=on', self.guest.channel.ask('file /proc/cmdline')[0])
        self.spinner_lines = self.guest.channel.ask('spinners')
        self.assertEqual(len(self.spinner_lines), self.guest.config.vcpus)

    def assert_paging(self, levels: int):
        self.assertEqual(server.run_json('info', self.guest.target)['paging_levels'], levels)


class Ram2GiB(Isolated, case.GuestCase):
    config = {'scenario': 'spin', 'memory_mib': 2048, 'arguments': ('pti=on',)}

    def test_five_levels(self):
        flags = self.guest.channel.ask("run grep -m1 -o -w la57 /proc/cpuinfo || true")
        self.assert_paging(5 if 'la57' in flags else 4)


class Ram3500MiBFourLevels(Isolated, case.GuestCase):
    config = {'scenario': 'spin', 'memory_mib': 3584, 'arguments': ('pti=on', 'no5lvl')}

    def test_four_levels(self):
        self.assert_paging(4)


class Ram6GiBShared(Isolated, case.GuestCase):
    config = {'scenario': 'spin', 'memory_mib': 6144, 'arguments': ('pti=on',), 'shared_memory': True}


if __name__ == '__main__':
    case.main()
