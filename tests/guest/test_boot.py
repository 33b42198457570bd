"""One session from the reset vector on: firmware, boot loader, decompressor, kernel, first process. And again after a reset."""
import re
import unittest

from harness import case, gdb, server
from harness.guest import Config
from harness.vm import Vm

# Of a bzImage, where boot loaders have always put and entered them (Documentation/arch/x86/boot.rst, "32-bit boot protocol"
# and "64-bit boot protocol"); QEMU's loader enters its real-mode part at 0x1020:0 (hw/i386/x86.c, x86_load_linux()).
REAL_MODE_ENTRY = 0x10200
PROTECTED_MODE_ENTRY = 0x100000
LONG_MODE_ENTRY = 0x100200

RESET_VECTOR = 'cs:ip f000:fff0, at 0xfffffff0'


class BootCase(unittest.TestCase):
    """Each test has a machine of its own, which stands before its first instruction, and a debugger that is there."""
    arguments = ()

    def setUp(self):
        self.guest = Vm(Config(case.kernel(), arguments=self.arguments), extra=('-S',))
        self.addCleanup(self.guest.destroy)
        self.guest.begin_at_reset()
        self.serving = server.Server(self.guest.target, '--log', 'trace')
        self.serving.start()
        self.addCleanup(self.serving.stop)
        self.addCleanup(case.show_log, self, self.serving)
        self.session = gdb.Session(self.serving.socket, limit=120)
        self.addCleanup(self.session.close)

    def go(self, how: str = '-exec-continue') -> str:
        self.session.resume(how)
        return gdb.stop_reason(self.session.wait_stop())

    def vcpus(self) -> list:
        """What is said of each."""
        return re.split(r'^(?=vCPU )', self.session.console('monitor vcpus'), flags=re.M)[1:]

    def address_of(self, function: str) -> int:
        return int(re.search(r'0x[0-9a-f]+', self.session.console(f'info address {function}'))[0], 16)

    def select_vcpu(self):
        """The first one: gdb has none selected where the one that it had is gone."""
        threads = self.session.console('info threads')
        self.session.console('thread ' + re.search(r'(?m)^[* ] +(\d+) +Thread \S+ "vCPU 0"', threads)[1])

    def assert_register_file(self):
        """The register packet has one form in every mode of the CPU: gdb reads all of it and complains of nothing."""
        self.assertIn('i386:x86-64', self.session.console('show architecture'))
        self.session.console('maintenance flush register-cache')
        for name in ('rip', 'r15', 'eflags', 'cs', 'mxcsr', 'gs_base', 'cr0', 'cs_base'):
            self.assertRegex(self.session.console(f'info registers {name}'), rf'^{name} +0x[0-9a-f]+')

    def run_to(self, address: int):
        """By a hardware breakpoint; where $pc is relative to a segment gdb does not know it for its own."""
        self.session.console(f'hbreak *{address:#x}')
        self.go()
        self.session.console('delete')

    def at_function(self, name: str, thread: str):
        """A breakpoint was hit there, in that thread; gdb sees tasks, and steps in the one that it stopped in."""
        session = self.session
        self.assertEqual(session.value('$pc'), self.address_of(name))
        before = session.console('thread')
        self.assertRegex(session.console('info threads'), rf'(?m)^\* .*"{thread}" .*on vCPU 0')
        self.assertEqual(self.go('-exec-step-instruction'), 'end-stepping-range')
        self.assertEqual(self.go('-exec-next-instruction'), 'end-stepping-range')
        self.assertEqual(session.console('thread').split(']')[0], before.split(']')[0])
        self.assert_register_file()

    def boot_to_the_end(self):
        """The guest's own program answers, and is seen."""
        self.session.console('delete')
        self.session.resume()
        self.guest.wait_up(300)
        self.session.control_c()
        self.assertEqual(gdb.stop_reason(self.session.wait_stop()), 'signal-received')
        self.assertRegex(self.session.console('info threads'), r'\.1 "init"')


class FromTheResetVector(BootCase):
    def test_firmware_loader_decompressor_kernel_first_process(self):
        """One session from the reset vector to the first process, KASLR on: 16, 32 and 64-bit code, then tasks"""
        session = self.session
        self.assertIn(RESET_VECTOR, self.vcpus()[0])
        self.assertIn('16-bit code, real mode, no paging', self.vcpus()[0])
        self.assertIn('halted', self.vcpus()[1])
        self.assertIn('"vCPU 1"', session.console('info threads'))
        self.assert_register_file()
        self.assertEqual(self.go('-exec-step-instruction'), 'end-stepping-range')  # the jump into the firmware
        self.assertIn('cs:ip f000:', self.vcpus()[0])
        self.run_to(REAL_MODE_ENTRY)
        self.assertIn('cs:ip 1020:0000, at 0x10200', self.vcpus()[0])
        self.assertIn('the breakpoint at 0x10200 was hit', session.said() + self.log_of_output())
        self.run_to(PROTECTED_MODE_ENTRY)
        self.assertIn('32-bit code, protected mode, no paging', self.vcpus()[0])
        self.assert_register_file()
        self.run_to(LONG_MODE_ENTRY)
        self.assertRegex(self.vcpus()[0], '64-bit code, long mode, [45]-level paging')
        self.assert_register_file()
        session.console('set breakpoint pending on')
        session.console('break start_kernel')
        session.console('break kernel_init')
        self.assertEqual(self.go(), 'breakpoint-hit')
        self.at_function('start_kernel', 'swapper')
        self.assertEqual(self.go(), 'breakpoint-hit')
        self.at_function('kernel_init', 'swapper/0')
        self.boot_to_the_end()

    def log_of_output(self) -> str:
        """What the server sent for the user to read."""
        return ''.join(bytes.fromhex(found).decode() for found in
                       re.findall(r'<- O((?:[0-9a-f]{2})+)$', self.serving.log(), re.M))

    def test_a_breakpoint_is_passed_where_pc_is_relative_to_a_segment(self):
        """A breakpoint in real mode is hit, and left by continue, though gdb cannot see that it is where $pc is"""
        session = self.session
        session.console(f'hbreak *{REAL_MODE_ENTRY:#x}')
        session.console(f'hbreak *{PROTECTED_MODE_ENTRY:#x}')
        self.go()
        self.assertIn('at 0x10200', self.vcpus()[0])
        self.assertEqual(self.go(), 'breakpoint-hit')
        self.assertIn('32-bit code', self.vcpus()[0])

    def test_reset_in_a_session(self):
        """monitor reset: vCPUs again, then the new kernel's tasks; a pending breakpoint is hit in each boot"""
        session = self.session
        session.console('set breakpoint pending on')
        session.console('break start_kernel')
        self.assertEqual(self.go(), 'breakpoint-hit')
        first = session.value('$pc')
        self.assertIn('the guest stands at its reset vector', session.console('monitor reset'))
        session.console('maintenance flush register-cache')
        self.assertIn(RESET_VECTOR, self.vcpus()[0])
        threads = session.console('info threads')
        self.assertIn('"vCPU 0"', threads)
        self.assertNotIn('swapper', threads)
        self.select_vcpu()
        self.assertEqual(self.go(), 'breakpoint-hit')
        self.assertEqual(session.value('$pc'), self.address_of('start_kernel'), f'the first boot had it at {first:#x}')
        self.at_function('start_kernel', 'swapper')
        self.boot_to_the_end()


class WithoutKaslr(BootCase):
    arguments = ('nokaslr',)

    def test_an_address_that_is_known(self):
        """nokaslr: break and hbreak at addresses of the kernel, set at the reset vector, are hit"""
        session = self.session
        # Where it is linked is what another boot of the same kernel tells.
        session.console('set breakpoint pending on')
        session.console('tbreak start_kernel')
        self.assertEqual(self.go(), 'breakpoint-hit')
        start, init = (self.address_of(name) for name in ('start_kernel', 'rest_init'))
        session.console('monitor reset')
        self.select_vcpu()
        session.console(f'break *{start:#x}')
        session.console(f'hbreak *{init:#x}')
        self.assertEqual(self.go(), 'breakpoint-hit')
        self.assertEqual(session.value('$pc'), start)
        self.assertEqual(self.go(), 'breakpoint-hit')
        self.assertEqual(session.value('$pc'), init)
        self.boot_to_the_end()


if __name__ == '__main__':
    case.main()
