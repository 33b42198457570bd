"""`monitor` commands about the machine: what they print is what the guest is."""
import re

from harness import case, gdb
from harness.vm import Vm


class Machine(case.GuestCase):
    config = {'scenario': 'spin'}
    guest_type = Vm

    def monitor(self, session, command: str) -> str:
        return session.console(f'monitor {command}')

    def test_vcpus(self):
        """monitor vcpus: mode, paging, privilege, interrupts, place and task of each, as registers and threads say"""
        with gdb.Session(self.serve().socket) as session:
            vcpus = re.split(r'^(?=vCPU )', self.monitor(session, 'vcpus'), flags=re.M)[1:]
            self.assertEqual(len(vcpus), self.guest.config.vcpus)
            for number, text in enumerate(vcpus):
                thread = int(re.search(r', thread (\d+)', text)[1])
                number_of_gdb = re.search(r'Thread (\d+) has', session.console(f'thread find [.]{thread}$'))
                session.console(f'thread {number_of_gdb[1]}')
                self.assertRegex(text, rf'^vCPU {number}: 64-bit code, long mode, [45]-level paging')
                self.assertIn(f'privilege level {session.value("$cs") & 3}', text)
                self.assertIn('interrupts on' if int(session.console('output/x $eflags'), 16) & 0x200 else 'interrupts off', text)
                self.assertIn(f'rip {session.value("$pc"):#x}', text)

    def test_physical_memory(self):
        """monitor phys: the firmware's date and jump at the reset vector, and the same bytes that gdb has of the kernel"""
        with gdb.Session(self.serve().socket) as session:
            self.assertRegex(self.monitor(session, 'phys 0xfffffff0 16'), r'^0xfffffff0: ea 5b e0 00 f0 .*/')
            info = self.monitor(session, 'info')
            physical = re.search(r'kernel_image.* at (0x[0-9a-f]+)', info)[1]
            text = self.monitor(session, f'phys {physical} 8').split('  ')[0].split(': ')[1].split()
            self.assertEqual(int.from_bytes(bytes.fromhex(''.join(text)), 'little'), session.value('*(long*)&_text'))
            self.assertIn('0xfffffffffffff000', self.monitor(session, 'phys 0xfffffffffffff000'))

    def test_model_specific_registers(self):
        """monitor msr: by name and by number; what QEMU shows no debugger is refused with the reason"""
        with gdb.Session(self.serve().socket) as session:
            efer = int(self.monitor(session, 'msr efer'), 16)
            self.assertEqual(efer, session.value('$efer'))
            self.assertEqual(efer & 0xd01, 0xd01)  # SCE, LME, LMA, NX
            self.assertEqual(int(self.monitor(session, 'msr 0xc0000080'), 16), efer)
            self.assertIn('efer', self.monitor(session, 'msr'))
            self.assertIn('QEMU shows a debugger no other MSR', self.monitor(session, 'msr lstar'))

    def test_help(self):
        """monitor help: each command with a line"""
        with gdb.Session(self.serve().socket) as session:
            listed = dict(re.findall(r'^(\S+) {2,}(\S.*)$', self.monitor(session, 'help'), re.M))
            for name in ('help', 'vcpus', 'phys', 'msr', 'nmi', 'reset', 'breakpoints', 'dmesg'):
                self.assertIn(name, listed)


class Reset(case.GuestCase):
    config = {'scenario': 'idle'}
    guest_type = Vm

    def test_reset_of_a_guest_that_runs_a_kernel(self):
        """monitor reset in a kernel's session, of a QEMU that was told -no-reboot: it boots again, and tasks come again"""
        with gdb.Session(self.serve().socket) as session:
            self.assertIn('reset vector', self.monitor(session))
            session.console('maintenance flush register-cache')
            self.assertEqual(session.value('$pc'), 0xfff0)
            threads = session.console('info threads')
            self.assertNotIn('kthreadd', threads)
            session.console('thread ' + re.search(r'(?m)^[* ] +(\d+) +Thread \S+ "vCPU 0"', threads)[1])
            session.resume()
            self.guest.channel.close()
            self.guest.wait_up(300)
            session.control_c()
            session.wait_stop()
            self.assertIn('kthreadd', session.console('info threads'))
        self.guest.save_text()

    def monitor(self, session) -> str:
        return session.console('monitor reset')


if __name__ == '__main__':
    case.main()
