"""Conditions, commands and thread filters of breakpoints that the server evaluates, with a real gdb. Each vCPU of the
guest makes one system call after the other (guest_init/scenarios.c)."""
import re
import time

from harness import case, gdb, patience

HOT = '__x64_sys_getppid'  # what the guest calls over and over again
OPEN = 'do_sys_openat2'    # rsi: the path, in user memory (fs/open.c)


def went_on(session) -> int:
    """How often the server let the guest go on at its breakpoints."""
    return sum(int(count) for count in re.findall(r'went on (\d+) times', session.console('monitor breakpoints')))


class Conditions(case.SessionCase):
    config = {'scenario': 'syscalls'}

    def run_for(self, session, seconds: float) -> str:
        """The stop that ^C makes then."""
        session.resume()
        time.sleep(patience.seconds(seconds))
        session.control_c()
        return session.wait_stop()

    def test_a_false_condition_does_not_stop(self):
        """A breakpoint with a false condition on a hot function never stops; the server lets the guest go on."""
        session = self.session()
        session.console(f'break {HOT} if $rdi == 0x1234')
        self.assertIn('SIGINT', self.run_for(session, 2))
        self.assertIn('target evals', session.console('info breakpoints'))
        self.assertGreater(went_on(session), 10)

    def test_a_condition_that_is_changed(self):
        """`condition N` replaces what was sent: a false condition made true stops at the next hit, and no other way."""
        session = self.session()
        session.console(f'break {HOT} if $rdi == 0x1234')
        self.assertIn('SIGINT', self.run_for(session, 1))
        session.console('condition 1 $rdi != 0x1234')
        session.resume()
        self.assertEqual(gdb.stop_reason(session.wait_stop()), 'breakpoint-hit')
        session.console('condition 1 $rdi == 0x1234')
        self.assertIn('SIGINT', self.run_for(session, 1))

    def test_one_of_several_conditions_is_enough(self):
        """Two breakpoints at one place: it stops if either condition is true, and gdb says which of them it was."""
        session = self.session()
        session.console(f'break {HOT} if $rdi == 0x1234')
        session.console(f'break {HOT} if $rdi != 0x1234')
        session.resume()
        stop = session.wait_stop()
        self.assertEqual(gdb.stop_reason(stop), 'breakpoint-hit')
        self.assertIn('bkptno="2"', stop)

    def test_a_condition_on_a_hardware_breakpoint(self):
        """A hardware breakpoint has its condition evaluated in the server as well."""
        session = self.session()
        session.console(f'hbreak {HOT} if $rdi == 0x1234')
        self.assertIn('SIGINT', self.run_for(session, 2))
        self.assertGreater(went_on(session), 10)

    def test_a_condition_on_the_memory_of_the_task(self):
        """A condition that reads user memory sees that of the task that runs there: only one path opened stops."""
        session = self.session()
        session.console(f'break {OPEN} if ((char *) $rsi)[6] == 118')  # /proc/v…
        self.guest.channel.send('file /proc/uptime')
        self.guest.channel.send('file /proc/version')
        session.resume()
        self.assertEqual(gdb.stop_reason(session.wait_stop()), 'breakpoint-hit')
        self.assertIn('/proc/version', session.console('x/s $rsi'))
        self.assertGreaterEqual(went_on(session), 1)
        session.console('delete')
        session.resume()
        self.guest.channel.receive('file /proc/uptime')
        self.guest.channel.receive('file /proc/version')
        session.control_c()
        session.wait_stop()

    def test_a_condition_that_cannot_be_evaluated(self):
        """A condition that reads what cannot be read stops the guest, and the server says why."""
        session = self.session()
        session.console(f'break {HOT} if *(char *) 8 == 1')
        session.console('echo')
        session.resume()
        session.wait_stop()
        self.assertIn('cannot access memory at 0x8', session.shown())

    def test_dprintf_in_the_server(self):
        """`dprintf-style agent`: the output comes while the guest runs, with numbers and strings, and nothing stops."""
        session = self.session()
        session.console('set dprintf-style agent')
        session.console(f'dprintf {HOT},"regs=%lx %.13s %d\\n",$rdi,(char *) &linux_banner,7')
        session.console('echo')
        self.assertIn('SIGINT', self.run_for(session, 2))
        lines = re.findall(r'^regs=ff[0-9a-f]{14} Linux version 7$', session.shown(), re.MULTILINE)
        self.assertGreater(len(lines), 10)

    def test_dprintf_with_a_condition(self):
        """Of a dprintf with a condition only the hits at which it holds are printed."""
        session = self.session()
        session.console('set dprintf-style agent')
        session.console(f'dprintf {HOT},"never\\n"')
        session.console('condition 1 $rdi == 0x1234')
        session.console('echo')
        self.assertIn('SIGINT', self.run_for(session, 1))
        self.assertNotIn('never', session.shown())
        self.assertGreater(went_on(session), 10)

    def filtered_stops(self, words: str) -> set:
        """The names of the threads in which a breakpoint with that filter stops."""
        session = self.session()
        session.console(f'break {HOT}')
        where = re.search(r'0x[0-9a-f]+', session.console('info breakpoints')).group(0)
        self.assertIn('only', session.console(f'monitor filter {where} {words}'))
        names = set()
        for _ in range(4):
            session.resume()
            self.assertEqual(gdb.stop_reason(session.wait_stop()), 'breakpoint-hit')
            names.add(session.console('python print(gdb.selected_thread().name)').strip())
        return names

    def test_a_filter_by_tid(self):
        """`monitor filter ADDRESS tid N`: of two threads that come by all the time only that one stops."""
        tid = next(task.tid for task in self.guest.tasks() if task.comm == b'spinner-1')
        self.assertEqual(self.filtered_stops(f'tid {tid}'), {'spinner-1'})

    def test_a_filter_by_name(self):
        """`monitor filter ADDRESS comm NAME`: only tasks of that name stop."""
        self.assertEqual(self.filtered_stops('comm spinner-0'), {'spinner-0'})

    def test_a_filter_that_no_thread_passes(self):
        """A filter by the name of no task that comes by: the breakpoint never stops."""
        session = self.session()
        session.console(f'break {HOT}')
        session.console(f'monitor filter {HOT} comm nobody')
        self.assertIn('SIGINT', self.run_for(session, 1))
        self.assertGreater(went_on(session), 10)
        session.console(f'monitor filter {HOT} off')
        session.resume()
        self.assertEqual(gdb.stop_reason(session.wait_stop()), 'breakpoint-hit')

    def test_a_client_that_is_killed_amid_hits(self):
        """gdb killed while the server lets the guest go on at each hit: the guest runs on with no changed byte."""
        session = self.session()
        session.console(f'break {HOT} if $rdi == 0x1234')
        session.resume()
        time.sleep(patience.seconds(1))
        session.kill()  # tearDown() looks at the guest


if __name__ == '__main__':
    case.main()
