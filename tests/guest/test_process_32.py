"""32-bit programs on a 64-bit kernel, as they are: registers, calls, steps, signals."""
import re
import subprocess
import time

import test_process
from harness import case

NANOSLEEP = 162  # arch/x86/entry/syscalls/syscall_32.tbl


class Bits32(test_process.ProcessCase):
    config = {'scenario': 'idle', 'programs': ('bits32',)}
    names = ()

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.guest.channel.ask('run setsid /bin/bits32 >/dev/null 2>&1 &')
        found, until = [], time.monotonic() + 60
        while not found and time.monotonic() < until:
            found = [task.tid for task in cls.guest.tasks() if task.comm == b'bits32']
        cls.pids = {'bits32': found[0]}

    def tearDown(self):
        super().tearDown()
        at = int(re.search(r'(?m)^(\w+) \w wrong$', subprocess.run(
            ['nm', self.program], capture_output=True, text=True, check=True).stdout)[1], 16)
        answer = self.guest.channel.ask(f"run dd if=/proc/{self.pids['bits32']}/mem bs=4 skip={at // 4} count=1 2>/dev/null"
                                        " | hexdump -e '1/4 \"%u\\n\"'")
        self.assertEqual(answer, ['0'], 'it has found something changed')

    def until(self, there, advance, times: int, otherwise: str):
        for _ in range(times):
            if there():
                return
            advance()
        self.fail(otherwise)

    def interrupted(self, session):
        session.console('continue')
        self.stop(session)

    def stepped(self, session):
        session.console('stepi')
        self.stopped(session)

    def test_registers_and_calls(self):
        """A program that sleeps: i386's registers, `$orig_eax`, FPU and SSE, the calls with their lines; memory of 32 bits"""
        with self.plain('bits32') as session:
            self.assertIn('i386', session.console('show architecture'))
            session.console('break sleep_for')
            self.go(session)
            session.console('delete')
            self.assertRegex(session.console('bt'), r'^#0 +sleep_for \(time=[^\n]*bits32\.c:\d+\n#1 .* in _start \(\)')
            registers = session.console('info registers')
            self.assertRegex(registers, r'(?m)^eip +0x[0-9a-f]{1,8} ')
            self.assertNotIn('rip', registers)
            self.assertEqual(session.value('$cs'), 0x23)
            self.assertEqual(session.value('$xmm3.v4_int32[0]'), 0x18181818)
            self.assertIn('a program of 32 bits', session.console('print greeting'))
            self.assertEqual(session.value('sizeof(char*)'), 4)
            self.assertIn('AT_ENTRY', session.console('info auxv'))
            self.assertEqual(session.value('answer'), 42)

    def test_in_a_system_call(self):
        """^C: it sleeps in a system call, whose number and result registers are told"""
        with self.plain('bits32') as session:
            self.until(lambda: session.value('(unsigned) $orig_eax') == NANOSLEEP, lambda: self.interrupted(session),
                       20, 'it is never seen asleep')
            self.assertIn('3.14159', session.console('print $st0'))
            self.assertRegex(session.console('bt'), r'#0 .*call \(number=162.*\n#1 .* in sleep_for ')

    def test_its_system_calls_are_not_caught(self):
        """`catch syscall` is refused: gdb disables it"""
        with self.plain('bits32') as session:
            session.console('catch syscall nanosleep')
            session.console('break sleep_for')
            self.go(session)
            self.assertRegex(session.console('info breakpoints'), r'(?m)^1 +catchpoint +keep n ')

    def test_where_it_runs(self):
        """In user mode on a vCPU: its registers, written there too"""
        with self.plain('bits32') as session:
            session.console('set var spin = 1')
            self.until(lambda: 'turns (' in session.console('bt 1'), lambda: self.interrupted(session),
                       20, 'it is never seen in its loop')
            self.assertEqual((session.value('$esi'), session.value('$edi')), (0x16161616, 0x17171717))
            session.console('set var $esi = 0x26262626')
            self.stepped(session)
            self.assertEqual(session.value('$esi'), 0x26262626)
            session.console('set var spin = 0')
            session.console('tbreak sleep_for')
            self.go(session)

    def test_steps_over_system_calls(self):
        """`next`, `finish`, `stepi` over `int $0x80`; a call of a function; `watch`"""
        with self.plain('bits32') as session:
            session.console('tbreak middle')
            self.go(session)
            for expected in ('getppid', 'return result'):
                record = self.go(session, 'next', 'end-stepping-range')
                self.assertIn('func="middle"', record)
                self.assertIn(expected, session.console('list *$pc,+0'))
            self.assertIn('= 12', session.console('print middle(5)'))
            session.console('tbreak call')
            self.go(session)
            self.until(lambda: 'int    $0x80' in session.console('x/i $pc'), lambda: self.stepped(session),
                       30, 'it does not come to its system call')
            before = session.value('$pc')
            self.stepped(session)
            self.assertEqual(session.value('$pc'), before + 2)
            self.go(session, 'finish', 'function-finished')
            session.console('watch calls')
            record = self.go(session, 'continue', 'watchpoint-trigger')
            self.assertIn('func="leaf"', record)

    def test_through_a_signal(self):
        """Instruction by instruction into a signal's handler, and out of it by sigreturn(2)"""
        with self.plain('bits32') as session:
            session.console('tbreak signalled')
            self.go(session)
            self.assertIn('<signal handler called>', session.console('bt'))
            before = session.value('signals')
            self.until(lambda: 'func="call"' in session.command('-stack-info-frame'), lambda: self.stepped(session),
                       40, 'it does not come back from the handler')
            self.assertEqual(session.value('signals'), before + 10)
            self.assertIn('call (number=37', session.console('bt 1'))

    def test_a_condition(self):
        """`break leaf if number == 50`, told by the server: numbers of registers are those of i386"""
        with self.plain('bits32') as session:
            session.console('set breakpoint condition-evaluation target')
            session.console('break leaf if number == 50')
            self.go(session)
            self.assertEqual(session.value('number'), 50)
            self.go(session)
            self.assertEqual(session.value('number'), 50)

    def test_beside_the_kernel(self):
        """`attach` beside the kernel: each inferior has registers of its own kind"""
        with self.extended('bits32') as session:
            self.assertIn('i386', session.console('show architecture'))
            self.assertLess(session.value('$esp'), 1 << 32)
            session.console('inferior 1')
            self.assertIn('x86-64', session.console('show architecture'))
            self.assertGreater(session.value('$rsp'), 0)


if __name__ == '__main__':
    case.main()
