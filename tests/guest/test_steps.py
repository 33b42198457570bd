"""Steps on a busy guest: a step belongs to the task that it is of, whatever else the processors do meanwhile."""
import re

from harness import case, gdb

STEPS = 1000


class Steps(case.GuestCase):
    config = {'scenario': 'busy'}

    def connected(self):
        return gdb.Session(self.serve().socket, limit=120)

    def pipe_read(self) -> str:
        """What reads a pipe, which the pingers sleep in; Linux 6.15 has it under another name than 6.12."""
        return next(name for name in ('pipe_read', 'anon_pipe_read') if self.guest.symbols(name))

    def stopped_in(self, session, function: str) -> str:
        """The thread that has come to the beginning of `function`, and is selected; no breakpoint is left."""
        session.console(f'tbreak *&{function}')
        session.resume()
        record = session.wait_stop()
        self.assertEqual(gdb.stop_reason(record), 'breakpoint-hit', record)
        return self.thread(session)

    @staticmethod
    def thread(session) -> str:
        return re.search(r'Thread (?:\d+\.)?(\d+)', session.console('thread'))[1]

    def move(self, session, command: str, limit: float = None) -> str:
        """gdb's record of the stop behind that command of its."""
        session.resume(f'-interpreter-exec console "{command}"')
        return session.wait_stop(limit)

    def walk_from(self, function: str) -> dict:
        with self.connected() as session:
            self.stopped_in(session, function)
            walked = session.walk(STEPS)
        self.assertEqual(walked['wrong'], [])
        self.assertEqual(sum(walked['names'].values()), STEPS)
        return walked

    def test_a_thousand_steps(self):
        """`stepi` 1000 times from pipe_read: each leads where its instruction says, in the same task"""
        self.assertGreater(len(self.walk_from(self.pipe_read())['names']), 10)

    def test_a_thousand_steps_of_a_task_that_is_switched_away(self):
        """`stepi` 1000 times through __switch_to_asm: the step ends when that task runs again"""
        self.assertGreater(self.walk_from('__switch_to_asm')['switches'], 0)

    def test_next_instruction_over_a_function_that_sleeps(self):
        """`nexti` 200 times in pipe_read, over schedule() among others: always the same task"""
        pipe_read = self.pipe_read()
        with self.connected() as session:
            thread = self.stopped_in(session, pipe_read)
            for _ in range(200):
                record = self.move(session, 'nexti')
                self.assertEqual(gdb.stop_reason(record), 'end-stepping-range', record)
                self.assertEqual(self.thread(session), thread, record)

    def test_next_and_finish_leave_the_function_in_the_same_task(self):
        """`next` and `finish` out of pipe_read, which sleeps: in its caller, in the same task"""
        pipe_read = self.pipe_read()
        with self.connected() as session:
            for command in ('next', 'finish', 'next', 'finish'):
                thread = self.stopped_in(session, pipe_read)
                caller = re.search(r'func="([^"]+)"', session.command('-stack-list-frames 1 1'))[1]
                record = self.move(session, command)
                self.assertIn(gdb.stop_reason(record), ('end-stepping-range', 'function-finished'), record)
                self.assertIn(f'func="{caller}"', record)
                self.assertEqual(self.thread(session), thread, record)


if __name__ == '__main__':
    case.main()
