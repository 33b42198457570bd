"""Guests of a stock Debian's Xen, a PVH and a PV domain, each with a stock kernel. exogdb is in dom0, gdb on this machine.

Run by `tests/lab/run-xen --outside`."""
import contextlib
import os
import re
import subprocess
import sys
import time

from harness import case, gdb, packets, server
from harness.guest import Config
from harness.patience import seconds, until
from harness.xen_domain import XenPv, XenPvh

import served

FAR = 1 << 40  # further than a spinner counts
NOBODY = 65534
RUN_STATES = str.maketrans('rb', '--')  # of `xl list`: whether it runs or waits at that moment


class XenGuest(served.Served):
    """What is the same of both kinds."""

    config = {'scenario': 'spin', 'vcpus': 1, 'memory_mib': 256}
    steps, run_for, longest, answers, goes_on = 0, 0.2, 3.0, seconds(20), 60.0

    def setUp(self):
        super().setUp()
        self.listed = self.xl_list()

    def tearDown(self):
        super().tearDown()
        self.assertEqual(self.xl_list(), self.listed, 'the toolstack sees another domain than before')

    def xl_list(self) -> list:
        """Without the time that it has used, and without what changes from moment to moment in its state."""
        rows = self.guest.dom0.run('xl', 'list').stdout.splitlines()[1:]
        return [[*words[:-2], words[-2].translate(RUN_STATES)] for words in map(str.split, rows)]

    def assert_refused(self, told: subprocess.CompletedProcess, *words: str):
        """One line, which says why."""
        self.assertEqual((told.returncode, len(told.stderr.strip().splitlines())), (1, 1), told.stderr + told.stdout)
        for word in words:
            self.assertIn(word, told.stderr)

    # Looking at it.

    def test_list_shows_it(self):
        found = [row for row in server.run_json('list') if row['name'] == self.guest.name]
        self.assertEqual([(row['target'], row['accelerator'], row['vcpus']) for row in found],
                         [(self.guest.target, 'xen', self.guest.config.vcpus)])

    def test_info_and_ps(self):
        info = server.run_json('info', self.guest.target)
        self.assertEqual((info['version'], info['vcpus']), (self.guest.config.kernel.release, self.guest.config.vcpus))
        shown = server.run_json('ps', self.guest.target)
        self.assertEqual(shown['problems'], [])
        # /proc has longer names of kernel threads than their task_struct (get_kthread_comm(), kernel/kthread.c).
        lasting = {(task.tid, task.comm.decode()[:15]) for task in self.guest.tasks() if not task.comm.startswith(b'kworker')}
        self.assertGreater(len(lasting), 15)
        self.assertEqual(lasting - {(task['tid'], task['comm']) for task in shown['tasks']}, set())

    def test_it_is_found_by_its_number(self):
        info = server.run_json('info', f'xen:{self.guest.domid}')
        self.assertEqual(info['version'], self.guest.config.kernel.release)

    # gdb, as a user has it.

    def test_a_session_from_beginning_to_end(self):
        with gdb.Session(self.serve().socket, limit=30) as session:
            threads = session.console('info threads')
            for name in ('spinner-0', 'kthreadd', 'swapper/0'):
                self.assertIn(name, threads)
            session.console(f'thread {self.number(threads, "kthreadd")}')
            self.assertRegex(session.console('bt'), r'(?s)schedule.*kthreadd.*ret_from_fork')
            backtraces = session.console('thread apply all -s bt')
            self.assertEqual(len(re.findall(r'^#0 ', backtraces, re.M)), len(re.findall(r'^Thread \d+ \(', backtraces, re.M)))
            self.assertNotIn('Cannot access memory', backtraces)
            self.reach_loop(session, self.number(threads, 'spinner-0'))
            self.write_a_register(session)
            self.reach_loop(session, self.number(threads, 'spinner-0'))
            counted = session.value('*(long long *) $rdi')
            session.console(f'set var *(long long *) $rdi = {counted + FAR}')
            self.assertEqual(session.value('*(long long *) $rdi'), counted + FAR)
            for _ in range(3):
                session.resume()
                self.guest.alive()
                session.control_c()
                self.assertEqual(gdb.stop_reason(session.wait_stop()), 'signal-received')
            session.command('-target-detach')
            self.assertGreater({cpu: count for cpu, _, count in self.guest.alive()}[0], counted + FAR)

    def write_a_register(self, session):
        """It is there when the guest has run on, since the loop does not touch it."""
        was, written = session.value('$r12'), 0x0123456789abcdef
        session.console(f'set $r12 = {written:#x}')
        self.assertEqual(session.value('$r12'), written)
        session.resume()
        self.guest.alive()
        session.control_c()
        session.wait_stop()
        self.reach_loop(session, session.value('$_thread'))
        self.assertEqual(session.value('$r12'), written)
        session.console(f'set $r12 = {was:#x}')
        self.assertEqual(session.value('$r12'), was)

    def reach_loop(self, session, thread: int):
        """That thread of gdb's is stopped, and selected, in the loop of the spinners. On a busy machine it is seldom there: the
        clock's interrupts take most of an emulated processor."""
        end = time.monotonic() + seconds(300)
        while time.monotonic() < end:
            session.console(f'thread {thread}')
            if self.loop[0] <= session.value('$rip') < self.loop[1]:
                return
            session.resume()
            time.sleep(0.3)
            session.control_c()
            session.wait_stop()
        self.fail(f'thread {thread} was never caught in the loop')

    # What others do with it.

    def test_a_paused_domain_is_shown_and_stays_paused(self):
        self.guest.pause()
        try:
            paused = self.xl_list()
            names = {task['comm'] for task in server.run_json('ps', self.guest.target)['tasks']}
            with packets.Client(self.serve('--os', 'none').socket) as client:
                self.assertRegex(client.greet(), '^[ST]')
                client.ask('D;1')
            self.assertEqual(self.xl_list(), paused)
            self.assertIn('spinner-0', names)
        finally:
            self.guest.unpause()

    @contextlib.contextmanager
    def served_while_gone(self):
        """Another domain, which runs, and is gone for exogdb at the end of the block."""
        with self.guest_type(Config(self.guest.config.kernel, vcpus=1, memory_mib=128)) as other:
            other.save_text()
            serving = server.Server(other.target, '--os', 'none')
            serving.start()
            self.addCleanup(serving.stop)
            with packets.Client(serving.socket) as client:
                client.greet()
                client.send('vCont;c')
                yield other
                self.assertRegex(client.stop_reply(), '^[WX]')
            self.assertIn(serving.process.wait(seconds(20)), (0, 1))
            self.assertIn('the guest is gone', serving.log())

    def test_a_domain_that_is_destroyed_while_it_is_served(self):
        with self.served_while_gone() as other:
            other.dom0.run('xl', 'destroy', other.name)

    def test_a_server_that_was_asked_nothing_keeps_no_page_of_a_domain(self):
        with self.guest_type(Config(self.guest.config.kernel, vcpus=1, memory_mib=128)) as other:
            serving = server.Server(other.target)
            serving.start()
            self.addCleanup(serving.stop)
            other.dom0.run('xl', 'destroy', other.name)
            until(lambda: str(other.domid) not in [row[1] for row in self.xl_list()], 'Xen keeps the domain')

    def test_a_domain_that_is_saved_while_it_is_served(self):
        with self.served_while_gone() as other:
            other.save()
            other.restore()  # a domain of the same name is not the one that was served
            other.alive()
            self.assertEqual(other.text_changes(), [])

    # What cannot be.

    def test_no_such_domain(self):
        for target in ('xen:no-such-domain', 'xen:4711'):
            self.assert_refused(server.run('info', target, check=False), target.split(':')[1])

    def test_no_privilege(self):
        program = os.environ['EXOGDB_IN_DOM0']
        told = self.guest.dom0.run('setpriv', f'--reuid={NOBODY}', f'--regid={NOBODY}', '--clear-groups', program, 'info',
                                   self.guest.target, check=False)
        self.assert_refused(told, 'root')

    def test_a_machine_without_xen(self):
        told = subprocess.run([os.environ['EXOGDB_IN_DOM0'], 'info', 'xen:1'], stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, timeout=60, check=False)
        self.assert_refused(told, 'dom0')


class Pvh(XenGuest, case.GuestCase):
    guest_type = XenPvh


class Pv(XenGuest, case.GuestCase):
    guest_type = XenPv


if __name__ == '__main__':
    if 'EXOGDB_IN_DOM0' not in os.environ:
        sys.exit('run by tests/lab/run-xen --outside')
    case.main()
