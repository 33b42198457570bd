"""Breakpoints and steps in programs and in idle tasks, seen from the kernel's side."""
from harness import case, patience
from harness.run_control import STEPPED, RunControlCase


class Idle(RunControlCase):
    config = {'scenario': 'idle'}

    def test_a_step_over_a_halt(self):
        """`stepi` over the `hlt` of an idle processor: the next instruction of the idle task, in no interrupt handler"""
        with self.connected() as session:
            halt = session.value('$pc') - 1
            self.assertIn('\thlt', session.console(f'x/i {halt:#x}'))
            session.console(f'break *{halt:#x}')
            for _ in range(5):
                self.go(session)
                thread = self.thread(session)
                self.go(session, 'stepi', STEPPED)
                self.assertEqual((self.thread(session), session.value('$pc')), (thread, halt + 1))

    def test_control_c_while_everybody_sleeps(self):
        """^C of a guest in which nothing runs: the idle tasks are shown"""
        with self.connected() as session:
            for _ in range(3):
                session.resume()
                self.stop(session)
            self.assertRegex(session.console('info threads'), r'"swapper/0"[^\n]*on vCPU 0')


class UserMode(RunControlCase):
    """Seen from the kernel's side: one program of the guest's, with all of its threads in one loop."""
    config = {'scenario': 'spin'}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        rows = [line.split(' ') for line in cls.guest.channel.ask('spinners')]
        cls.begin = int(rows[0][2], 16)
        cls.counters = {int(tid): int(counter, 16) for tid, _, _, _, counter in rows}

    def test_a_breakpoint_in_a_loop_of_user_mode(self):
        """A software breakpoint in a program: each thread comes to it, each time around"""
        with self.connected() as session:
            session.console('thread 1')
            session.console(f'break *{self.begin:#x}')
            seen = set()
            for _ in range(20):
                self.go(session)
                self.assertEqual(session.value('$pc'), self.begin)
                seen.add(int(self.thread(session)))
            self.assertLessEqual(seen, set(self.counters))

    def test_steps_of_one_thread_while_the_others_run(self):
        """`stepi` in user mode: the loop's instructions in turn; the other thread counts on meanwhile"""
        with self.connected() as session:
            session.console(f'tbreak *{self.begin:#x}')
            self.go(session)
            stepped = int(self.thread(session))
            other = next(tid for tid in self.counters if tid != stepped)
            counted = f'*(long *) {self.counters[other]:#x}'
            before = session.value(counted)
            loop = [session.value('$pc')]

            def step():
                self.go(session, 'stepi', STEPPED)
                self.assertEqual(int(self.thread(session)), stepped)
                loop.append(session.value('$pc'))

            def other_counts() -> bool:
                step()
                return session.value(counted) > before

            for _ in range(30):
                step()
            # The other processor runs only while this one makes its step: on a busy machine that can be too short.
            patience.until(other_counts, 'the other thread counts no more', pause=0)
            # incq (%rdi); pause; jmp
            self.assertEqual(loop, ([self.begin, self.begin + 3, self.begin + 5] * len(loop))[:len(loop)])

    def test_scheduler_locking_in_user_mode(self):
        """`set scheduler-locking on`: the other thread counts no more"""
        with self.connected() as session:
            session.console(f'tbreak *{self.begin:#x}')
            self.go(session)
            session.console('set scheduler-locking on')
            other = next(tid for tid in self.counters if tid != int(self.thread(session)))
            before = session.value(f'*(long *) {self.counters[other]:#x}')
            for _ in range(10):
                self.go(session, 'stepi', STEPPED)
            self.assertEqual(session.value(f'*(long *) {self.counters[other]:#x}'), before)

    def test_a_watchpoint_in_user_mode(self):
        """`watch` on what one thread counts: each store, by that thread"""
        with self.connected() as session:
            session.console(f'tbreak *{self.begin:#x}')
            self.go(session)
            tid = int(self.thread(session))
            session.console(f'watch *(long *) {self.counters[tid]:#x}')
            value = session.value(f'*(long *) {self.counters[tid]:#x}')
            for count in range(1, 4):
                self.go(session, 'continue', 'watchpoint-trigger')
                self.assertEqual(int(self.thread(session)), tid)
                self.assertEqual(session.value(f'*(long *) {self.counters[tid]:#x}'), value + count)
            session.console('delete')

    def test_a_register_of_a_program_is_changed(self):
        """`set $r12`: the program goes on with it"""
        with self.connected() as session:
            session.console(f'tbreak *{self.begin:#x}')
            self.go(session)
            thread, was = self.thread(session), session.value('$r12')
            session.console('set $r12 = 4711')
            session.console(f'tbreak *{self.begin:#x} thread {session.value("$_thread")}')
            self.go(session)
            self.assertEqual((self.thread(session), session.value('$r12')), (thread, 4711))
            session.console(f'set $r12 = {was}')

    def test_control_c_finds_them_where_they_are(self):
        """^C while every processor spins in user mode"""
        with self.connected() as session:
            for _ in range(3):
                session.resume()
                self.stop(session)
            self.assertRegex(session.console('info threads'), r'"spinner-\d"')


if __name__ == '__main__':
    case.main()
