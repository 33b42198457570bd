"""What tests of breakpoints, steps and stops have in common."""
import re

from . import case, gdb

HIT, STEPPED, SIGNAL = 'breakpoint-hit', 'end-stepping-range', 'signal-received'
GETPID = '__x64_sys_getpid'


class RunControlCase(case.AskingCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        names = (GETPID, '__schedule')
        cls.symbols = {name: found[0] for name, found in cls.guest.symbols(*names).items()}

    def connected(self):
        return gdb.Session(self.serve().socket, limit=120)

    def go(self, session, command: str = 'continue', reason: str = HIT) -> str:
        """gdb's record of the stop behind that command, which is for that reason."""
        session.resume(f'-interpreter-exec console "{command}"')
        record = session.wait_stop()
        self.assertEqual(gdb.stop_reason(record), reason, record)
        return record

    @staticmethod
    def thread(session) -> str:
        return re.search(r'Thread (?:\d+\.)?(\d+)', session.console('thread'))[1]

    def at_getpid(self, session):
        """Stopped there, without a breakpoint."""
        session.console(f'tbreak *&{GETPID}')
        self.ask('getpid 1')
        self.go(session)

    def thread_named(self, session, name: str) -> int:
        """gdb's number of a thread of that name that sleeps."""
        threads = session.console('info threads')
        return int(re.search(rf'^[* ]*(\d+) +Thread [^\n]*"{name}"[^\n]*\(S ', threads, re.M)[1])

    def stop(self, session):
        session.control_c()
        self.assertEqual(gdb.stop_reason(session.wait_stop()), SIGNAL)
