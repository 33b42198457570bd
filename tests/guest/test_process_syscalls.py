"""System calls of a guest's process, as gdb catches them."""
import re

import test_process
from harness import case, gdb

ENOSYS = 38
# arch/x86/entry/syscalls/syscall_64.tbl
SIGRETURN, MADVISE, VFORK, EXECVE, GETUID, GETPPID, TGKILL = 15, 28, 58, 59, 102, 110, 234
NO_CALL = -1  # rt_sigreturn(2) has restored what was no system call
ENTRY, RETURN = 'syscall-entry', 'syscall-return'
MOST_STOPS = 200  # within which each call has come several times


class SystemCalls(test_process.ProcessCase):
    def call(self, session, reason: str, number: int):
        """Continues to that stop, which is behind a `syscall` instruction."""
        record = self.go(session, reason=reason)
        self.assertEqual(int(re.search(r'syscall-number="(-?\d+)"', record).group(1)), number, record)

    def next_call(self, session) -> tuple:
        """(PID, TID, reason, number) of the stop to continue to."""
        session.console('continue')
        record = self.stopped(session)
        number = re.search(r'syscall-number="(-?\d+)"', record)
        self.assertTrue(number, record)
        pid, tid = re.search(r'Thread (\d+)\.(\d+)', session.console('thread')).groups()
        return int(pid), int(tid), gdb.stop_reason(record), int(number.group(1))

    def assert_behind_syscall(self, session):
        self.assertEqual(session.value('*(unsigned short *) ($pc - 2)'), 0x050f)

    def test_entry_and_return(self):
        """`catch syscall NAME`: its entry and its return, with the registers of user mode; then `delete`, and none"""
        session = self.plain('first')
        session.console('catch syscall getppid')
        for _ in range(2):
            self.call(session, ENTRY, GETPPID)
            self.assert_behind_syscall(session)
            self.assertEqual(session.value('$rax'), (1 << 64) - ENOSYS)
            self.assertEqual(session.value('$orig_rax'), GETPPID)
            self.assertRegex(session.console('bt'), r'(?s)syscall \(.*middle \(number=7\).*calls \(')
            self.call(session, RETURN, GETPPID)
            self.assert_behind_syscall(session)
            self.assertEqual(session.value('$rax'), session.value('parent'))
            self.assertIn('caller', self.current(session))
        session.console('delete')
        session.console('break leaf')
        self.go(session)
        self.go(session)

    def test_a_changed_number(self):
        """`set $orig_rax` at the entry: the other system call is made; `set $rax` at the return is what it gives"""
        session = self.plain('first')
        session.console('catch syscall getppid getuid')
        self.call(session, ENTRY, GETPPID)
        session.console(f'set $orig_rax = {GETUID}')
        self.call(session, RETURN, GETUID)
        self.assertEqual(session.value('$rax'), 0)
        session.console('set $rax = 4711')
        session.console('up')
        session.console('tbreak *$pc')
        self.go(session)
        self.assertEqual(session.value('$rax'), 4711)

    def test_all_in_turn(self):
        """`catch syscall`: what each thread calls returns before it calls again, but for rt_sigreturn; a call that a signal
        follows returns before the handler begins"""
        session = self.plain('first')
        session.console('catch syscall')
        open_calls, wanted = {}, {GETPPID, MADVISE, TGKILL, SIGRETURN}
        for _ in range(MOST_STOPS):
            _, thread, reason, number = self.next_call(session)
            if reason == ENTRY:
                self.assertNotIn(thread, open_calls)
                open_calls[thread] = number
                self.assert_behind_syscall(session)
                continue
            called = open_calls.pop(thread, number)
            self.assertEqual(number, NO_CALL if called == SIGRETURN else called)
            wanted.discard(called)
            if called == TGKILL:
                self.assert_behind_syscall(session)
                self.assertEqual(session.value('$rax'), 0)
            if not wanted:
                break
        self.assertFalse(wanted)

    def test_breakpoints_and_steps(self):
        """With a breakpoint that has a condition; `stepi` over the instruction is the step's end, and from an entry it ends
        behind the call"""
        session = self.plain('first')
        session.console('catch syscall getppid')
        session.console('break leaf if number == 7')
        session.console('break leaf if number == 8')
        self.go(session)
        self.call(session, ENTRY, GETPPID)
        pc = session.value('$pc')
        self.go(session, 'stepi', 'end-stepping-range')
        self.assertEqual(session.value('$pc'), pc)
        self.assertEqual(session.value('$rax'), session.value('parent'))
        self.go(session)
        session.console(f'tbreak *{pc - 2:#x} if $rax == {GETPPID}')
        self.go(session)
        self.go(session, 'stepi', 'end-stepping-range')
        self.assertEqual(session.value('$pc'), pc)
        self.assertIn('caller', self.current(session))
        self.go(session)
        self.call(session, ENTRY, GETPPID)
        self.call(session, RETURN, GETPPID)

    def test_two_processes(self):
        """`catch syscall` in one, which stops alone; in both, each with another call"""
        session = self.extended('first', 'second')
        session.console('set schedule-multiple on')
        session.console('catch syscall getppid')
        second = (self.pids['second'], GETPPID)
        for _ in range(4):
            pid, _, _, number = self.next_call(session)
            self.assertEqual((pid, number), second)
        session.console('inferior 2')
        session.console('catch syscall madvise')
        wanted = {second, (self.pids['first'], MADVISE)}
        for _ in range(MOST_STOPS):
            pid, _, _, number = self.next_call(session)
            wanted.discard((pid, number))
            if not wanted:
                break
        self.assertFalse(wanted)

    def test_the_child_of_a_fork(self):
        """`set follow-fork-mode child`: the child's end is caught, and told"""
        session = self.plain('first')
        session.console('set follow-fork-mode child')
        session.console('catch syscall exit_group')
        session.console("set var wish = 'f'")
        record = self.go(session, reason=ENTRY)
        self.assertIn('syscall-name="exit_group"', record)
        self.assertNotIn(f'process {self.pids["first"]}', session.console('info inferiors'))
        self.assertIn('exit-code="025"', self.go(session, reason='exited'))

    def test_vfork(self):
        """`catch syscall vfork`: it returns once its child has another program"""
        session = self.plain('first')
        session.console('catch syscall vfork')
        session.console("set var wish = 'v'")
        self.call(session, ENTRY, VFORK)
        self.call(session, RETURN, VFORK)
        child = session.value('$rax')
        session.console('delete')
        session.console('break fulfilled')
        self.go(session)
        self.assertEqual(session.value('pid'), child)

    def test_exec(self):
        """`catch syscall execve`: it returns to the new program's first instruction"""
        session = self.plain('first')
        session.console('set follow-fork-mode child')
        session.console('catch syscall execve')
        session.console("set var wish = 'x'")
        self.call(session, ENTRY, EXECVE)
        self.call(session, RETURN, EXECVE)
        self.assertEqual(session.value('$rax'), 0)
        self.assertEqual(session.value('$pc'), session.value('(long) &_start'))
        session.console('delete')
        self.assertIn('exit-code="02"', self.go(session, reason='exited'))


if __name__ == '__main__':
    case.main()
