"""Breakpoints, steps and stops, as a debugger's user has them with a native program."""
import re

from harness import case, gdb
from harness.run_control import GETPID, SIGNAL, STEPPED, RunControlCase


class RunControl(RunControlCase):
    config = {'scenario': 'busy'}

    # Breakpoints.

    def test_a_temporary_breakpoint_is_hit_once(self):
        """`tbreak`: the second call passes"""
        with self.connected() as session:
            self.at_getpid(session)
            self.assertEqual(session.value('$pc'), self.symbols[GETPID])
            session.resume()
            self.asked.pop().join(60)
            self.guest.channel.ask('getpid 3')
            self.stop(session)

    def test_ignore_counts_hits(self):
        """`ignore N 5`: the stop is the sixth hit's"""
        with self.connected() as session:
            session.console(f'break *&{GETPID}')
            session.console('ignore 1 5')
            self.ask('getpid 6')
            self.go(session)
            self.assertIn('already hit 6 times', session.console('info breakpoints'))

    def test_commands_of_a_breakpoint(self):
        """`commands`: run at each hit, and the guest goes on"""
        with self.connected() as session:
            session.console(f'break *&{GETPID}')
            session.command('-break-commands 1 "silent" "set $hits = $hits + 1" "continue"')
            session.console('set $hits = 0')
            session.resume()
            self.guest.channel.ask('getpid 4', 120)
            session.control_c()
            while gdb.stop_reason(session.wait_stop()) != SIGNAL:
                continue
            self.assertGreaterEqual(session.value('$hits'), 4)

    def test_a_disabled_breakpoint_is_not_hit(self):
        """`disable`, `enable`"""
        with self.connected() as session:
            session.console(f'break *&{GETPID}')
            session.console('disable 1')
            session.resume()
            self.guest.channel.ask('getpid 3')
            self.stop(session)
            session.console('enable 1')
            self.ask('getpid 1')
            self.go(session)

    def test_a_breakpoint_behind_a_breakpoint(self):
        """A step, and `continue`, from one breakpoint to the one on the next instruction"""
        with self.connected() as session:
            self.at_getpid(session)
            following = self.go(session, 'stepi', STEPPED) and session.value('$pc')
            session.console(f'break *&{GETPID}')
            session.console(f'break *{following:#x}')
            for command in ('continue', 'stepi'):
                self.ask('getpid 1')
                self.go(session)
                self.assertEqual(session.value('$pc'), self.symbols[GETPID])
                self.go(session, command)
                self.assertEqual(session.value('$pc'), following)

    def test_a_breakpoint_for_one_thread(self):
        """`break F thread N`: the same function called by others passes"""
        with self.connected() as session:
            session.console(f'thread {self.thread_named(session, "sleeper")}')
            thread = self.thread(session)
            session.console(f'break *&do_nanosleep thread {session.value("$_thread")}')
            for _ in range(3):
                self.go(session)
                self.assertEqual(self.thread(session), thread)

    def test_a_breakpoint_in_the_scheduler(self):
        """`break __schedule`, hit again and again, in whatever task"""
        with self.connected() as session:
            session.console('break *&__schedule')
            seen = set()
            for _ in range(20):
                self.go(session)
                self.assertEqual(session.value('$pc'), self.symbols['__schedule'])
                seen.add(self.thread(session))
            self.assertGreater(len(seen), 2)

    def test_a_breakpoint_in_an_interrupt_handler(self):
        """`break hrtimer_interrupt`: the backtrace leads through the interrupt to what was interrupted; `finish`"""
        with self.connected() as session:
            session.console('break *&hrtimer_interrupt')
            for _ in range(3):
                self.go(session)
                self.assertRegex(session.console('bt'), r'(?s)hrtimer_interrupt.*asm_sysvec_apic_timer_interrupt')
            session.console('delete')
            self.go(session, 'finish', 'function-finished')

    @case.needs('hardware-breakpoints')
    def test_a_hardware_breakpoint(self):
        """`hbreak`"""
        with self.connected() as session:
            session.console(f'hbreak *&{GETPID}')
            for _ in range(2):
                self.ask('getpid 1')
                self.go(session)
                self.assertEqual(session.value('$pc'), self.symbols[GETPID])

    def test_next_stops_at_a_breakpoint_in_what_is_called(self):
        """`next` over a call whose function has a breakpoint"""
        called = self.guest.symbols('__task_pid_nr_ns')['__task_pid_nr_ns'][0]
        with self.connected() as session:
            self.at_getpid(session)
            thread = self.thread(session)
            session.console(f'break *{called:#x}')
            self.go(session, 'next')
            self.assertEqual((session.value('$pc'), self.thread(session)), (called, thread))

    # Steps.

    def test_a_hundred_steps_by_one_command(self):
        """`stepi 100` is one command and one stop, in the same task"""
        with self.connected() as session:
            self.at_getpid(session)
            thread = self.thread(session)
            self.go(session, 'stepi 100', STEPPED)
            self.assertEqual(self.thread(session), thread)

    def test_until_and_advance(self):
        """`advance *ADDRESS`, `until *ADDRESS`: there, in the same task"""
        with self.connected() as session:
            for command in ('advance', 'until'):
                self.at_getpid(session)
                thread, caller = self.thread(session), session.value('*(long long *) $rsp')
                self.go(session, f'{command} *{caller:#x}', 'location-reached')
                self.assertEqual((session.value('$pc'), self.thread(session)), (caller, thread))

    def test_a_step_of_a_sleeping_task(self):
        """`stepi` of a task that sleeps ends when it runs again"""
        with self.connected() as session:
            for _ in range(5):
                session.console(f'thread {self.thread_named(session, "sleeper")}')
                thread = self.thread(session)
                self.go(session, 'stepi', STEPPED)
                self.assertEqual(self.thread(session), thread)
                session.resume()
                self.stop(session)

    def test_finish_of_a_sleeping_task(self):
        """`finish` of a task that sleeps: out of the scheduler, in the same task"""
        with self.connected() as session:
            session.console(f'thread {self.thread_named(session, "sleeper")}')
            thread = self.thread(session)
            self.go(session, 'finish', 'function-finished')
            self.assertEqual(self.thread(session), thread)

    def test_a_step_into_the_end_of_a_task(self):
        """`stepi` that never ends, since the task does: a stop says so"""
        with self.connected() as session:
            session.console('tbreak *&do_task_dead')
            self.go(session)
            thread = self.thread(session)
            record = ''
            for _ in range(3000):
                session.resume('-exec-step-instruction')
                record = session.wait_stop()
                if self.thread(session) != thread:
                    break
            self.assertNotEqual(self.thread(session), thread, record)

    def test_control_c_in_a_step_that_lasts(self):
        """^C while `stepi` waits for a task that does not run"""
        with self.connected() as session:
            session.console(f'thread {self.thread_named(session, "kthreadd")}')
            session.resume('-exec-step-instruction')
            self.stop(session)
            self.assertIn('kthreadd', session.console('info threads'))

    def test_a_breakpoint_of_another_task_ends_a_step_that_lasts(self):
        """A breakpoint is hit by another task while one steps: that is told"""
        with self.connected() as session:
            session.console(f'break *&{GETPID}')
            session.console(f'thread {self.thread_named(session, "kthreadd")}')
            thread = self.thread(session)
            self.ask('getpid 1')
            self.go(session, 'finish')
            self.assertEqual(session.value('$pc'), self.symbols[GETPID])
            self.assertNotEqual(self.thread(session), thread)

    # Watchpoints.

    def test_a_watchpoint_on_a_kernel_variable(self):
        """`watch`: the value before and after each store"""
        with self.connected() as session:
            session.console('watch *(unsigned long *) &jiffies_64')
            for _ in range(3):
                record = self.go(session, 'continue', 'watchpoint-trigger')
                old, new = map(int, re.search(r'old="(\d+)",new="(\d+)"', record).groups())
                self.assertGreater(new, old)
            session.console('delete')

    def test_a_watchpoint_with_a_condition(self):
        """`watch … if`: stores that do not meet it pass"""
        with self.connected() as session:
            begun = session.value('*(unsigned long *) &jiffies_64')
            session.console(f'watch *(unsigned long *) &jiffies_64 if *(unsigned long *) &jiffies_64 >= {begun + 20}')
            self.go(session, 'continue', 'watchpoint-trigger')
            self.assertGreaterEqual(session.value('*(unsigned long *) &jiffies_64'), begun + 20)
            session.console('delete')

    def test_an_access_watchpoint(self):
        """`awatch`"""
        with self.connected() as session:
            session.console('awatch *(unsigned long *) &jiffies_64')
            self.go(session, 'continue', 'access-watchpoint-trigger')
            session.console('delete')

    # Threads.

    def test_scheduler_locking_holds_the_others(self):
        """`set scheduler-locking on`: what the other processors do stands still, also over many steps"""
        with self.connected() as session:
            self.at_getpid(session)
            thread = self.thread(session)
            session.console('set scheduler-locking on')
            others = self.other_pcs(session)
            self.go(session, 'stepi 50', STEPPED)
            self.assertEqual(self.other_pcs(session), others)
            self.assertEqual(self.thread(session), thread)

    def other_pcs(self, session) -> dict:
        """{vCPU: where it stands} of the others."""
        rows = re.findall(r'^ +\d+ +Thread [^\n]*on vCPU (\d+)[^\n)]*\) +(\S+)', session.console('info threads'), re.M)
        self.assertEqual(len(rows), self.guest.config.vcpus - 1, rows)
        return dict(rows)

    # Registers and memory.

    @case.needs('breakpoints')  # gdb takes one of memory for the return
    def test_a_function_is_called(self):
        """`print f(…)`: gdb calls a function of the kernel and takes back all that it has changed"""
        with self.connected() as session:
            self.at_getpid(session)
            thread, before = self.thread(session), session.console('info registers')
            self.assertEqual(session.value("((int (*)(unsigned char)) hex_to_bin)('c')"), 12)
            self.assertEqual((self.thread(session), session.console('info registers')), (thread, before))

    def test_return_and_jump(self):
        """`return` leaves a function at once, `jump` goes on elsewhere"""
        with self.connected() as session:
            self.at_getpid(session)
            caller = session.value('*(long long *) $rsp')
            session.console('return (long) 4711')
            self.assertEqual((session.value('$pc'), session.value('$rax')), (caller, 4711))
            session.console(f'tbreak *{caller:#x}')
            self.go(session, f'jump *{caller:#x}')

    # Leaving.

    def test_detach_in_the_middle(self):
        """`detach` while a step waits for its task"""
        with self.connected() as session:
            session.console(f'thread {self.thread_named(session, "kthreadd")}')
            session.resume('-exec-step-instruction')
            self.stop(session)
            session.command('-target-detach')
        self.guest.alive()

    def test_kill_leaves_the_guest_alone(self):
        """`kill` ends the session, not the guest"""
        with self.connected() as session:
            session.console('kill')
        self.guest.alive()

    def test_a_second_session_begins_clean(self):
        """`disconnect`, and connect again: no breakpoint of the first is left"""
        serving = self.serve()
        with gdb.Session(serving.socket) as session:
            session.console(f'break *&{GETPID}')
            session.console('disconnect')
        with gdb.Session(serving.socket) as session:
            session.resume()
            self.guest.channel.ask('getpid 3')
            self.stop(session)


if __name__ == '__main__':
    case.main()
