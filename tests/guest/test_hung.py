"""Guests that do nothing of themselves any more: ^C stops them, and what there is to see is seen."""
import re
import time

from harness import case, gdb
from harness.channel import GuestSilent
from harness.vm import Vm

INTERRUPT_FLAG = 0x200  # of EFLAGS
STOP_LIMIT = 10  # seconds; QEMU alone needs part of a second on a busy machine


class HungCase(case.GuestCase):
    guest_type = Vm

    def stopped(self, session, limit: float = STOP_LIMIT) -> str:
        """^C, and the record of the stop."""
        session.control_c()
        return session.wait_stop(limit)

    def running_threads(self, session) -> dict:
        """{vCPU: gdb's number of the thread that it runs}."""
        text = session.console('info threads')
        return {int(vcpu): int(number) for number, vcpu in
                re.findall(r'^[* ] +(\d+) +Thread .*on vCPU (\d+)', text, re.M)}

    def let_interrupts(self, session, on: bool):
        """Of the selected thread's vCPU."""
        flags = int(session.console('output/x $eflags'), 16)
        session.console(f'set $eflags = {flags | INTERRUPT_FLAG if on else flags & ~INTERRUPT_FLAG:#x}')

    def let_interrupts_everywhere(self, session, on: bool):
        threads = self.running_threads(session)
        for vcpu in range(self.guest.config.vcpus):
            session.console(f'thread {threads[vcpu]}')
            self.let_interrupts(session, on)

    def assert_hung(self):
        with self.assertRaises(GuestSilent):
            self.guest.channel.ask('getpid 1', 3)


class Spinning(HungCase):
    config = {'scenario': 'spin'}

    def test_every_vcpu_spins_with_interrupts_off(self):
        """Interrupts off on each vCPU, which spin in user mode: ^C stops them, registers and threads are right"""
        with gdb.Session(self.serve().socket) as session:
            self.run_spinners(session)
            self.let_interrupts_everywhere(session, False)
            session.resume()
            self.assert_hung()
            for _ in range(3):
                self.assertEqual(gdb.stop_reason(self.stopped(session)), 'signal-received')
                threads = session.console('info threads')
                for vcpu in range(self.guest.config.vcpus):
                    self.assertRegex(threads, rf'spinner-{vcpu}".*on vCPU {vcpu}')
                self.assertEqual(session.console('monitor vcpus').count('privilege level 3, interrupts off'),
                                 self.guest.config.vcpus)
                session.resume()
            self.stopped(session)
            self.let_interrupts_everywhere(session, True)

    def run_spinners(self, session):
        """Until each vCPU runs its spinner, in user mode: what an interrupt's handler has in its flags ends with it."""
        for _ in range(60):
            threads = session.console('info threads')
            if (all(re.search(rf'spinner-{vcpu}".*on vCPU {vcpu}', threads) for vcpu in range(self.guest.config.vcpus))
                    and session.console('monitor vcpus').count('privilege level 3') == self.guest.config.vcpus):
                return
            session.resume()
            self.stopped(session)
        self.fail('the spinners do not run at one time')

    def test_one_vcpu_spins_in_the_kernel_with_interrupts_off(self):
        """Interrupts off in the kernel on one vCPU: the other goes on, ^C stops both, and the backtrace is of the spin"""
        with gdb.Session(self.serve().socket) as session:
            self.run_into(session, '__x64_sys_getpid', 'getpid 1')
            session.console('delete')
            before = session.value('$pc')
            found = re.search(r'^(0x[0-9a-f]+)', session.console('find /b &_stext, &_etext, 0xeb, 0xfe', 120), re.M)
            self.assertIsNotNone(found, 'no jump to itself in the kernel')
            self.let_interrupts(session, False)
            session.console(f'set $pc = {found[1]}')
            thread = session.console('thread')
            session.resume()
            time.sleep(1)
            self.assertEqual(gdb.stop_reason(self.stopped(session)), 'signal-received')
            session.console(f'thread {re.search(r"thread is ([0-9]+)", thread)[1]}')
            self.assertEqual(session.value('$pc'), int(found[1], 16))
            self.assertIn('privilege level 0, interrupts off', session.console('monitor vcpus'))
            session.console(f'set $pc = {before}')
            self.let_interrupts(session, True)
            self.assertIn('entry_SYSCALL_64', session.console('bt'))
        self.guest.channel.receive('getpid 1')


class Halted(HungCase):
    config = {'scenario': 'idle'}

    def test_every_vcpu_is_halted_for_ever(self):
        """HLT with interrupts off on each vCPU: ^C stops, each is shown as halted, in its idle task"""
        with gdb.Session(self.serve().socket) as session:
            for _ in range(60):
                if session.console('monitor vcpus').count('interrupts on, halted') == self.guest.config.vcpus:
                    break
                session.resume()
                self.stopped(session)
            else:
                self.fail('the vCPUs are not halted at one time')
            self.let_interrupts_everywhere(session, False)
            session.resume()
            self.assert_hung()
            self.assertEqual(gdb.stop_reason(self.stopped(session)), 'signal-received')
            vcpus = session.console('monitor vcpus')
            self.assertEqual(vcpus.count('interrupts off, halted'), self.guest.config.vcpus, vcpus)
            self.assertIn('[swapper/0], thread', vcpus)
            self.assertIn('idle', session.console('bt'))
            self.let_interrupts_everywhere(session, True)

    def test_in_an_nmi_handler(self):
        """monitor nmi: a breakpoint in the handler is hit, the stack goes back through the NMI's entry, the guest goes on"""
        with gdb.Session(self.serve().socket) as session:
            session.console('break default_do_nmi')
            self.assertIn('sent', session.console('monitor nmi'))
            session.resume()
            self.assertEqual(gdb.stop_reason(session.wait_stop()), 'breakpoint-hit')
            stack = session.console('bt')
            self.assertRegex(stack, 'default_do_nmi')
            self.assertRegex(stack, 'asm_exc_nmi|end_repeat_nmi')
            self.assertRegex(session.console('monitor bt'), r'(asm_exc_nmi|end_repeat_nmi)[\s\S]*idle')
            session.resume('-exec-step-instruction')
            self.assertEqual(gdb.stop_reason(session.wait_stop()), 'end-stepping-range')
            session.console('delete')
            session.resume()
            self.guest.alive()
            self.stopped(session)
            self.assertIn('NMI', session.console('monitor dmesg 5'))


class Panicked(HungCase):
    config = {'scenario': 'idle', 'arguments': ('panic=0',)}

    def tearDown(self):
        pass  # it is dead

    def test_a_panic(self):
        """A guest that has panicked: ^C stops it, the stack says where, the log is there, every task is listed"""
        with gdb.Session(self.serve().socket) as session:
            tasks = session.console('info threads').count('Thread ')
            session.resume()
            self.guest.channel.send('crash')
            until = time.monotonic() + 120
            while 'end Kernel panic' not in self.guest.console() and time.monotonic() < until:
                time.sleep(0.2)
            self.assertEqual(gdb.stop_reason(self.stopped(session)), 'signal-received')
            self.assertGreater(session.console('info threads').count('Thread '), tasks // 2)
            stacks = session.console('monitor bt-all')
            self.assertRegex(stacks, r'panic\+[\s\S]*sysrq_handle_crash\+')
            self.assertIn('sysrq triggered crash', session.console('monitor dmesg'))
            # Who panicked goes on waiting, and can be stepped; the other CPU is halted for good.
            session.console('thread ' + re.search(r'Thread (\d+) has', session.console('thread find ^init$'))[1])
            session.resume('-exec-step-instruction')
            self.assertEqual(gdb.stop_reason(session.wait_stop()), 'end-stepping-range')
            session.resume()
            self.assertEqual(gdb.stop_reason(self.stopped(session)), 'signal-received')


class TripleFault(HungCase):
    config = {'scenario': 'idle'}

    def setUp(self):
        self.guest.alive()

    def tearDown(self):
        pass

    def fault(self, session):
        """No page is mapped at address 0's tables, and no handler can be reached."""
        session.console('set $cr3 = 0')
        session.resume()

    def test_it_ends_the_guest(self):
        """A triple fault where QEMU ends at a reset (-no-reboot): the session is told that the guest is gone"""
        serving = self.serve()
        with gdb.Session(serving.socket) as session:
            self.fault(session)
            self.assertIn('exited', gdb.stop_reason(session.wait_stop()))


class TripleFaultKept(TripleFault):
    @staticmethod
    def guest_type(config):
        return Vm(config, extra=('-no-shutdown',))

    def test_it_ends_the_guest(self):
        """A triple fault where QEMU keeps the guest (-no-shutdown): the stop says so, and memory is there to look at"""
        with gdb.Session(self.serve().socket) as session:
            self.fault(session)
            session.wait_stop(60)
            self.assertIn('QEMU keeps it as it was then', session.said())
            self.assertIn('linux', session.console('monitor info'))


class TripleFaultReset(TripleFault):
    @staticmethod
    def guest_type(config):
        return Vm(config, extra=('-action', 'reboot=reset'))

    def test_it_ends_the_guest(self):
        """A triple fault that resets the machine: it boots again, and tasks are there again"""
        with gdb.Session(self.serve().socket) as session:
            self.fault(session)
            self.guest.channel.close()
            self.guest.wait_up(300)
            self.stopped(session)
            self.assertIn('kthreadd', session.console('info threads'))


if __name__ == '__main__':
    case.main()
