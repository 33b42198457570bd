"""What a KVM guest shows and suffers through `kvm:PID`: its VMM knows nothing of a debugger, has no stub and is asked
nothing. The tests of tests/guest run on such guests as well; here is what only they have.

EXOGDB_GUEST says which VMM: kvm (QEMU, without it too) or small_vmm. The guest has a program that looks for what is done to it
(guest_init/witness.c), and each test ends with what that has found."""
import contextlib
import os
import re
import time

from harness import case, gdb, server
from harness.channel import GuestSilent
from harness.patience import seconds

import served

STEPS = int(os.environ.get('EXOGDB_LAB_STEPS', '200'))
USER, RPL = 3, 3
SYSCALL = b'\x0f\x05'
FAR = 1 << 40  # further than a spinner counts
LISTED = 'result = [(thread.ptid[1], thread.name) for thread in gdb.selected_inferior().threads()]'


# What a witness counts that is nobody's but a debugger's doing.
HARM = ('stray', 'backwards', 'memory', 'registers', 'trap_flag')
DRIFT = 0.02  # of the guest's clock and this machine's, which an emulated machine has measured


class KvmGuest(served.Served, case.GuestCase):
    config = {'scenario': 'witness'}
    guest_type = case.GUEST_TYPES[os.environ.get('EXOGDB_GUEST', 'kvm')]

    def vcpus(self) -> gdb.Session:
        """gdb on the bare vCPUs, and no symbols, which it would take long to read."""
        self.session = gdb.Session(self.serve('--os', 'none').socket)
        return self.session

    def setUp(self):
        super().setUp()
        self.session = None
        self.stood = 0.0  # seconds that the VMM's own pause took from the guest's clock
        self.witnessed, self.clock = self.guest.witness(), self.read_clock()

    def tearDown(self):
        if self.session:
            self.session.close()
        super().tearDown()
        self.assert_time_is_right()
        self.assert_witnesses_content()

    def read_clock(self):
        """(before, after, the guest's clock in between), in seconds."""
        before = time.monotonic()
        milliseconds = self.guest.alive()[0][1]
        return before, time.monotonic(), milliseconds / 1000

    def assert_time_is_right(self):
        """As much time has gone by in the guest as out here."""
        began, now = self.clock, self.read_clock()
        passed = now[2] - began[2]
        least, most = now[0] - began[1] - self.stood, now[1] - began[0]
        tolerance = 0.5 + DRIFT * most
        self.assertTrue(least - tolerance <= passed <= most + tolerance, f'{passed} s passed in the guest, {least} to {most} here')

    def assert_witnesses_content(self):
        """The guest's program went on, got each int3 of its own, and found nothing that is not as it should be."""
        until = time.monotonic() + seconds(30)
        while True:
            now = self.guest.witness()
            if all(now[cpu]['rounds'] > self.witnessed[cpu]['rounds'] + 2 for cpu in now):
                break
            self.assertLess(time.monotonic(), until, f'a witness does not go on: {now}')
            time.sleep(0.2)
        for of in now.values():
            self.assertEqual({name: of[name] for name in HARM}, dict.fromkeys(HARM, 0), now)
            self.assertIn(of['int3'] - of['traps'], (0, 1), now)  # it may be about to execute one

    # Looking at it.

    def test_list_shows_it(self):
        found = [row for row in server.run_json('list') if row['target'] == self.guest.target]
        self.assertEqual([(row['pid'], row['accelerator'], row['vcpus']) for row in found],
                         [(self.guest.pid(), 'kvm', self.guest.config.vcpus)])

    def test_info_and_ps(self):
        info = server.run_json('info', self.guest.target)
        self.assertEqual((info['version'], info['vcpus']), (self.guest.config.kernel.release, self.guest.config.vcpus))
        shown = server.run_json('ps', self.guest.target)
        self.assertEqual(shown['problems'], [])
        names = {task['comm'] for task in shown['tasks']}
        self.assertLessEqual({f'spinner-{cpu}' for cpu in range(self.guest.config.vcpus)} | {'kthreadd'}, names)

    def test_gdb_lists_the_tasks_of_the_guest(self):
        listed = gdb.evaluate(self.serve().socket, LISTED, limit=300)
        # /proc has longer names of kernel threads than their task_struct (get_kthread_comm(), kernel/kthread.c).
        tasks = {task.tid: task.comm.decode()[:15] for task in self.guest.tasks()}
        # Kernel workers come and go, and are renamed by what they work at.
        lasting = {tid: name for tid, name in tasks.items() if not name.startswith('kworker')}
        self.assertGreater(len(lasting), 30)
        self.assertEqual(set(lasting.items()) - {tuple(row) for row in listed}, set())

    def test_every_thread_has_a_backtrace(self):
        output = gdb.batch(f'target remote {self.serve().socket}', 'thread apply all -s bt', limit=300)
        threads = re.findall(r'^Thread \d+ \(', output, re.M)
        innermost = re.findall(r'^#0 ', output, re.M)
        self.assertGreater(len(threads), 40)
        self.assertEqual(len(innermost), len(threads), output[-3000:])
        self.assertNotIn('Cannot access memory', output)

    def test_a_process_without_a_guest(self):
        result = server.run('serve', f'kvm:{os.getpid()}', check=False)
        self.assertEqual(result.returncode, 1, result.stderr)
        self.assertEqual(len(result.stderr.strip().splitlines()), 1, result.stderr)

    # Run control.

    def reach_loop(self, session, thread: int = 1):
        """That thread of gdb's is stopped, and selected, in the loop of the spinners. On a busy machine it is seldom there: the
        clock's interrupts take most of an emulated processor."""
        end = time.monotonic() + seconds(120)
        while time.monotonic() < end:
            session.console(f'thread {thread}')
            if self.loop[0] <= session.value('$rip') < self.loop[1]:
                return
            session.resume()
            session.control_c()
            session.wait_stop()
        self.fail(f'thread {thread} was never caught in the loop')

    def in_the_loop(self):
        session = self.vcpus()
        self.reach_loop(session)
        return session

    def run_to(self, session, address: int):
        session.console(f'thbreak *{address:#x}')
        session.resume()
        self.assertEqual(gdb.stop_reason(session.wait_stop()), 'breakpoint-hit')
        self.assertEqual(session.value('$rip'), address)

    def test_a_register_that_is_written_stays_written(self):
        session = self.in_the_loop()
        was, written = session.value('$r12'), 0x0123456789abcdef
        session.console(f'set $r12 = {written:#x}')
        self.assertEqual(session.value('$r12'), written)
        session.resume()
        session.control_c()
        session.wait_stop()
        self.reach_loop(session)
        self.assertEqual(session.value('$r12'), written)  # the loop does not touch it
        session.console(f'set $r12 = {was:#x}')
        self.assertEqual(session.value('$r12'), was)

    def test_memory_that_is_written_stays_written(self):
        session = self.in_the_loop()
        was = session.value('*(long long *) $rdi')  # the loop counts there
        session.console(f'set var *(long long *) $rdi = {was + FAR}')
        session.command('-target-detach')
        self.assertGreaterEqual({cpu: count for cpu, _, count in self.guest.alive()}[0], was + FAR)

    @case.needs('hardware-breakpoints')
    def test_hardware_breakpoint_and_watchpoint(self):
        session = self.in_the_loop()
        self.run_to(session, self.loop[0])
        counted = session.value('*(long long *) $rdi')
        session.console(f'watch *(long long *) {session.value("$rdi"):#x}')
        for _ in range(3):
            session.resume()
            self.assertEqual(gdb.stop_reason(session.wait_stop()), 'watchpoint-trigger')
            counted += 1
            self.assertEqual(session.value('*(long long *) $rdi'), counted)
        session.console('delete')

    @case.needs('hardware-breakpoints')
    def test_a_step_of_a_system_call_ends_at_the_kernels_entry(self):
        entry = self.guest.symbols('entry_SYSCALL_64')['entry_SYSCALL_64'][0]
        session = self.vcpus()
        self.run_to(session, entry)
        call = session.value('$rcx') - len(SYSCALL)  # which has left there where to return to
        self.run_to(session, call)
        self.assertEqual(session.value(f'*(unsigned short *) {call:#x}'), int.from_bytes(SYSCALL, 'little'))
        session.command('-exec-step-instruction')
        self.assertEqual(gdb.stop_reason(session.wait_stop()), 'end-stepping-range')
        self.assertEqual((session.value('$rip'), session.value('$rcx')), (entry, call + len(SYSCALL)))

    def test_control_c_again_and_again(self):
        with self.vcpus() as session:
            for _ in range(10):
                session.resume()
                self.guest.alive()
                session.control_c()
                self.assertEqual(gdb.stop_reason(session.wait_stop()), 'signal-received')

    def walk(self, session):
        """STEPS instructions, each of which must lead where it says."""
        walked = session.walk(STEPS)
        self.assertEqual(walked['wrong'], [], f'{len(walked["wrong"])} of {STEPS} steps went elsewhere')
        self.assertEqual(sum(walked['names'].values()), STEPS)
        return walked['names']

    def test_steps_in_user_mode(self):
        names = self.walk(self.in_the_loop())
        self.assertLessEqual({'incq', 'pause'}, set(names))

    @case.needs('hardware-breakpoints')
    def test_steps_in_the_kernel(self):
        begin = self.guest.symbols('do_syscall_64')['do_syscall_64'][0]
        session = self.vcpus()
        self.run_to(session, begin)
        self.assertNotEqual(session.value('$cs') & RPL, USER)
        names = self.walk(session)
        self.assertGreater(len(names), 5, names)

    def test_a_session_from_beginning_to_end(self):
        """What a user does, with the guest's kernel known: one after the other in one session."""
        with gdb.Session(self.serve().socket, limit=120) as session:
            threads = session.console('info threads')
            for name in ('spinner-0', 'spinner-1', 'witness-0', 'kthreadd'):
                self.assertIn(name, threads)
            session.console(f'thread {self.number(threads, "kthreadd")}')
            self.assertRegex(session.console('bt'), r'(?s)schedule.*kthreadd.*ret_from_fork')
            self.reach_loop(session, self.number(threads, 'spinner-1'))
            counted = session.value('*(long long *) $rdi')
            session.console(f'set var *(long long *) $rdi = {counted + FAR}')
            for _ in range(6):
                session.command('-exec-step-instruction')
                self.assertEqual(gdb.stop_reason(session.wait_stop()), 'end-stepping-range')
                self.assertTrue(self.loop[0] <= session.value('$rip') < self.loop[1])
            self.assertGreater(session.value('*(long long *) $rdi'), counted + FAR)
            for _ in range(3):
                session.resume()
                self.guest.alive()
                session.control_c()
                self.assertEqual(gdb.stop_reason(session.wait_stop()), 'signal-received')
            self.assertIn('witness-1', session.console('info threads'))
            session.command('-target-detach')
            self.assertGreater({cpu: count for cpu, _, count in self.guest.alive()}[1], counted + FAR)

    # Its monitor holds it: what is not running is not made to run.

    @contextlib.contextmanager
    def paused(self):
        began = time.monotonic()
        self.guest.pause()
        try:
            self.assert_silent()
            yield
            self.assert_silent()
        finally:
            self.guest.unpause()
            self.stood = time.monotonic() - began

    def assert_silent(self):
        with self.assertRaises(GuestSilent, msg='the guest runs while its monitor has paused it'):
            self.guest.alive(1)

    def test_a_paused_guest_is_shown_and_stays_paused(self):
        with self.paused(), gdb.Session(self.serve().socket) as session:
            self.assertIn('spinner-1', session.console('info threads'))
            self.assertNotEqual(session.value('$rip'), 0)
            session.command('-target-detach')

    def test_ps_of_a_paused_guest(self):
        with self.paused():
            names = {task['comm'] for task in server.run_json('ps', self.guest.target)['tasks']}
        self.assertIn('spinner-1', names)


if __name__ == '__main__':
    case.main()
