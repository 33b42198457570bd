"""Forks of a guest's process, programs that it begins, as gdb follows them."""
import re

import test_process
from harness import case, gdb
from harness.errors import HarnessError

CHILD_EXIT = 21  # of guest_programs/process.c


class Events(test_process.ProcessCase):
    def tearDown(self):
        super().tearDown()
        self.assertFalse([task for task in self.guest.tasks() if task.comm == b'again' and task.state != 'Z'])

    def wish(self, session, what: str):
        session.console(f"set var wish = '{what}'")

    def fulfilled(self, session) -> int:
        """The child's status, once the process has waited for it."""
        session.console('break fulfilled')
        self.go(session)
        session.console('delete')
        self.assertGreater(session.value('pid'), 1)
        return session.value('status')

    def inferiors(self, session) -> set:
        """The PIDs of the attached processes."""
        return {int(pid) for pid in re.findall(r'process (\d+)', session.console('info inferiors'))} - {5242880}

    def test_catch_fork(self):
        """`catch fork`: a stop that names the child; it goes its way, and the parent is followed"""
        session = self.plain('first')
        session.console('break in_child')
        session.console('catch fork')
        self.wish(session, 'f')
        record = self.go(session, reason='fork')
        child = int(re.search(r'newpid="(\d+)"', record).group(1))
        self.assertRegex(session.console('info os processes'), rf'(?m)^{child} ')
        self.assertEqual(self.fulfilled(session), CHILD_EXIT << 8)
        self.assertEqual(session.value('pid'), child)
        self.assertEqual(self.inferiors(session), {self.pids['first']})

    def test_a_fork_that_is_not_caught(self):
        """No stop: a breakpoint of the parent's is none of its child's"""
        session = self.plain('first')
        session.console('break in_child')
        self.wish(session, 'f')
        self.assertEqual(self.fulfilled(session), CHILD_EXIT << 8)

    def test_writes_after_a_fork(self):
        """`set var` in a page that parent and child share is refused, and made once the child has gone"""
        session = self.plain('first')
        session.console('catch fork')
        self.wish(session, 'f')
        self.go(session, reason='fork')
        # In a stack that nobody touches. By its address, since gdb goes on only if the thread that forked is selected.
        with self.assertRaisesRegex(HarnessError, 'Cannot access memory'):
            session.console('set var *owns[2] = 301')
        self.fulfilled(session)
        session.console('set var *owns[2] = 301')
        self.assertEqual(session.value('*owns[2]'), 301)
        session.console('set var *owns[2] = 300')

    def test_the_child_is_followed(self):
        """`set follow-fork-mode child`: the parent is let go; the child stops at its breakpoints, and its exit is told"""
        session = self.plain('first')
        session.console('set follow-fork-mode child')
        session.console('break in_child')
        self.wish(session, 'f')
        self.go(session)
        self.assertEqual(session.value('number'), 20)
        inferiors = self.inferiors(session)
        self.assertEqual(len(inferiors), 1)
        self.assertNotIn(self.pids['first'], inferiors)
        self.assertRegex(session.console('bt'), r'(?s)in_child \(.*fulfil \(.*main \(')
        session.console('delete')
        record = self.go(session, reason='exited')
        self.assertIn(f'exit-code="0{CHILD_EXIT:o}"', record)

    def test_both_are_kept(self):
        """`set detach-on-fork off`: parent and child are inferiors, each with its breakpoints"""
        session = self.plain('first')
        session.console('set detach-on-fork off')
        session.console('set schedule-multiple on')
        session.console('break in_child')
        self.wish(session, 'f')
        self.go(session)
        self.assertEqual(len(self.inferiors(session)), 2)
        self.assertIn('in_child (number=20)', session.console('bt 1'))
        session.console('delete')
        self.assertEqual(gdb.stop_reason(self.resumed(session)), 'exited')
        session.console('inferior 1')
        self.assertEqual(self.fulfilled(session), CHILD_EXIT << 8)

    def resumed(self, session) -> str:
        session.console('continue')
        return self.stopped(session)

    def test_catch_exec(self):
        """`catch exec`, and a breakpoint in the new program: what its process had before is gone"""
        session = self.plain('first')
        session.console('set follow-fork-mode child')
        session.console('catch exec')
        self.wish(session, 'x')
        record = self.go(session, reason='exec')
        self.assertIn('/bin/process', record)
        session.console('delete')
        session.console('break main')
        self.go(session)
        self.assertEqual(session.value('count'), 1)
        self.assertIn('again', session.console('print words[0]'))
        record = self.go(session, reason='exited')
        self.assertIn('exit-code="02"', record)

    def test_vfork(self):
        """`catch vfork`: the parent has its breakpoints back when the child has another program"""
        session = self.plain('first')
        session.console('break leaf')
        session.console('catch vfork')
        self.wish(session, 'v')
        while gdb.stop_reason(self.resumed(session)) != 'vfork':
            continue
        session.console('delete 2')
        session.console('break fulfilled')  # the child may be through before its parent's thread has come by five times
        calls, status = 0, None
        while calls < 5 or status is None:
            self.go(session)
            if 'fulfilled (' in session.console('bt 1'):
                status = session.value('status')
                continue
            self.assertIn('leaf (', session.console('bt 1'))
            self.assertIn('caller', self.current(session))
            calls += 1
        self.assertEqual(status, 2 << 8)

    def test_vfork_child_is_followed(self):
        """`set follow-fork-mode child` over vfork(2) and exec"""
        session = self.plain('first')
        session.console('set follow-fork-mode child')
        session.console('catch exec')
        self.wish(session, 'v')
        self.go(session, reason='exec')
        session.console('delete')
        self.assertIn('exit-code="02"', self.go(session, reason='exited'))

    def test_detach_before_a_vfork_ends(self):
        """`detach` in the vfork: nothing is left of it"""
        session = self.plain('first')
        session.console('catch vfork')
        self.wish(session, 'v')
        self.go(session, reason='vfork')
        session.console('detach')


if __name__ == '__main__':
    case.main()
