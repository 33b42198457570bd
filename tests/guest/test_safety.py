"""Whatever a client or the server does, the guest runs on and its kernel's text is as it was. Each test ends with that
check (GuestCase.tearDown); here are the ways to get there."""
import time

from harness import case, gdb, server
from harness.errors import HarnessError


class Safety(case.AskingCase):
    config = {'scenario': 'spin'}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        # Once: beside its spinners the guest takes long to read all of /proc/kallsyms.
        cls.getpid = cls.guest.symbols('__x64_sys_getpid')['__x64_sys_getpid'][0]

    def breakpoint(self, session, kind: str = ''):
        session.command(f'-break-insert {kind} *{self.getpid:#x}')

    def stop_at_getpid(self, session):
        self.assertEqual(gdb.stop_reason(session.wait_stop()), 'breakpoint-hit')
        self.assertEqual(session.value('$pc'), self.getpid)

    def test_connecting_stops_and_leaving_resumes(self):
        serving = self.serve()
        self.guest.alive()
        with gdb.Session(serving.socket):
            self.assertRaises(HarnessError, self.guest.alive, 3)
            self.guest.channel.close()
        self.guest.wait_up(60)

    def test_control_c_stops_and_continue_goes_on(self):
        with gdb.Session(self.serve().socket) as session:
            for _ in range(5):
                session.resume()
                self.guest.alive()
                session.control_c()
                record = session.wait_stop()
                self.assertEqual(gdb.stop_reason(record), 'signal-received', record)

    @case.needs('breakpoints')
    def test_software_breakpoint_hits_and_goes(self):
        with gdb.Session(self.serve().socket) as session:
            self.breakpoint(session)
            for _ in range(3):
                session.resume()
                call = self.ask('getpid 1')
                self.stop_at_getpid(session)
                session.resume()
                call.join(60)
                self.assertFalse(call.is_alive(), 'the guest did not come out of the breakpoint')
                session.control_c()
                session.wait_stop()

    @case.needs('hardware-breakpoints')
    def test_hardware_breakpoint_hits_and_leaves_the_text_alone(self):
        with gdb.Session(self.serve().socket) as session:
            self.breakpoint(session, '-h')
            session.resume()
            self.assertEqual(self.guest.text_changes(), [])
            self.ask('getpid 1')
            self.stop_at_getpid(session)

    def test_a_write_into_the_text_is_seen_by_the_guest(self):
        """Also shows that the check which ends each test can fail."""
        padding = self.guest.symbols('__x64_sys_getpid')['__x64_sys_getpid'][1] - 1  # behind the function's end
        serving = self.serve()
        with gdb.Session(serving.socket) as session:
            was = session.value(f'*(unsigned char *) {padding:#x}')
            session.console(f'set var *(unsigned char *) {padding:#x} = {was ^ 0xff}')
        self.assertEqual(self.guest.text_changes(), [f'{padding:x} was {was:02x} is {was ^ 0xff:02x}'])
        with gdb.Session(serving.socket) as session:
            session.console(f'set var *(unsigned char *) {padding:#x} = {was}')

    @case.needs('breakpoints')
    def test_memory_reads_show_no_breakpoint(self):
        with gdb.Session(self.serve().socket) as session:
            before = session.console(f'x/16xb {self.getpid:#x}')
            self.breakpoint(session)
            session.resume()
            self.ask('getpid 1')
            self.stop_at_getpid(session)
            self.assertEqual(session.console(f'x/16xb {self.getpid:#x}'), before)

    @case.needs('breakpoints')
    def test_steps_move_one_instruction_and_stay_in_the_task(self):
        with gdb.Session(self.serve().socket) as session:
            self.breakpoint(session)
            session.resume()
            self.ask('getpid 1')
            self.stop_at_getpid(session)
            thread = session.console('thread').split('(')[0]
            seen = [self.getpid]
            for _ in range(20):
                session.resume('-exec-step-instruction')
                self.assertEqual(gdb.stop_reason(session.wait_stop()), 'end-stepping-range')
                self.assertEqual(session.console('thread').split('(')[0], thread)
                seen.append(session.value('$pc'))
            self.assertNotEqual(seen[1], self.getpid)
            self.assertEqual(len([1 for a, b in zip(seen, seen[1:]) if a == b]), 0, [hex(pc) for pc in seen])

    @case.needs('breakpoints')
    def test_detach_takes_breakpoints_out(self):
        serving = self.serve()
        with gdb.Session(serving.socket) as session:
            self.breakpoint(session)
            session.resume()
            self.ask('getpid 1')
            self.stop_at_getpid(session)
            session.command('-target-detach')

    @case.needs('breakpoints')
    def test_gdb_killed_while_stopped_at_a_breakpoint(self):
        with gdb.Session(self.serve().socket) as session:
            self.breakpoint(session)
            session.resume()
            self.ask('getpid 1')
            self.stop_at_getpid(session)
            session.kill()

    def test_gdb_killed_while_the_guest_runs_with_breakpoints(self):
        serving = self.serve()
        with gdb.Session(serving.socket) as session:
            self.breakpoint(session)
            session.resume()
            self.guest.alive()
            session.kill()
        self.wait_clean()
        self.guest.channel.ask('getpid 3')
        with gdb.Session(serving.socket) as session:  # the server serves the next one
            self.assertIn('swapper/0', session.console('info threads'))

    def wait_clean(self, limit: float = 30):
        """What a client left is undone at once, but not before it is noticed that the client is gone."""
        until = time.monotonic() + limit
        while self.guest.text_changes() and time.monotonic() < until:
            time.sleep(0.2)

    def kill_server_with_a_breakpoint(self):
        serving = self.serve()
        session = gdb.Session(serving.socket)
        self.addCleanup(session.close)
        self.breakpoint(session)
        session.resume()
        self.guest.alive()
        serving.kill()
        session.kill()

    def test_server_killed_and_recovered_by_command(self):
        self.kill_server_with_a_breakpoint()
        server.run('recover', self.guest.target)
        self.assertEqual(self.guest.text_changes(), [])
        self.guest.channel.ask('getpid 3')

    def test_server_killed_and_recovered_by_the_next_serve(self):
        self.kill_server_with_a_breakpoint()
        with gdb.Session(self.serve().socket) as session:
            self.assertIn('swapper/0', session.console('info threads'))
        self.assertEqual(self.guest.text_changes(), [])
        self.guest.channel.ask('getpid 3')

    def test_server_killed_while_the_guest_is_stopped(self):
        serving = self.serve()
        session = gdb.Session(serving.socket)
        self.addCleanup(session.close)
        self.breakpoint(session)
        serving.kill()
        session.kill()
        server.run('recover', self.guest.target)
        self.guest.alive()

    def test_a_guest_that_was_paused_stays_paused(self):
        serving = self.serve()
        with self.suspended(), gdb.Session(serving.socket) as session:
            session.console('info threads')


if __name__ == '__main__':
    case.main()
