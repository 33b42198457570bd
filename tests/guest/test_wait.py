"""`serve --wait NAME`: the guest stands where a program begins, and only then can a debugger connect."""
import re
import signal
import threading
import unittest

from harness import case, gdb, initramfs, patience, server
from harness.errors import HarnessError
from harness.guest import Config
from harness.patience import seconds
from harness.vm import Vm

LONG_NAME = 'a-program-of-a-long-name'
SAME_FOR_THE_KERNEL = 'a-program-of-a-name'


class Waiting(unittest.TestCase):
    """What is the same whatever the guest is."""

    def waiting(self, name: str) -> server.Server:
        """A server that has begun to wait."""
        serving = server.Server(self.guest.target, '--log', 'trace', '--wait', name, limit=300)
        self.addCleanup(serving.stop)
        self.addCleanup(case.show_log, self, serving)
        self.ended = None
        self.beginning = threading.Thread(target=self.start, args=(serving,), daemon=True)
        self.beginning.start()
        self.until(lambda: self.waits(serving), 'it does not wait')
        return serving

    def start(self, serving):
        try:
            serving.start()
        except HarnessError as error:
            self.ended = f'it has ended: {error}'

    @staticmethod
    def waits(serving) -> int:
        """Of how many kernels it has told that it waits in them."""
        return serving.log().count('waiting for') if serving.folder else 0

    def until(self, condition, otherwise: str, limit: float = 60):
        patience.until(lambda: self.ended is not None or condition(), otherwise, limit, pause=0.05)
        self.assertIsNone(self.ended)

    def begun(self, serving) -> gdb.Session:
        """A debugger, at the beginning of what was waited for."""
        self.beginning.join(seconds(300))
        self.assertIn('the guest stands', serving.log())
        self.addCleanup((session := gdb.Session(serving.socket)).close)
        return session

    def go(self, session, reason: str) -> str:
        session.resume()
        record = session.wait_stop(120)
        self.assertEqual(gdb.stop_reason(record), reason, record)
        return record

    def at_first_instruction(self, session, serving, symbol: str):
        pid = int(re.search(r'begins as process (\d+)', serving.log()).group(1))
        self.assertRegex(session.console('info inferiors'), rf'(?m)^\* 1 +process {pid} ')
        self.assertEqual(len(re.findall(r'Thread ', session.console('info threads'))), 1)
        self.assertRegex(session.console('info registers rip'), rf'<_start>')
        self.assertRegex(session.console('info symbol $pc'), symbol)
        before = session.value('$pc')
        session.console('stepi')
        session.wait_stop(120)
        self.assertLess(before, session.value('$pc'))

    def to_its_end(self, session):
        session.console('break main')
        self.go(session, 'breakpoint-hit')
        self.assertRegex(session.console('bt'), r'#0 +main \(count=1')
        self.assertIn('exit-code="02"', self.go(session, 'exited'))


class WaitCase(Waiting, case.SessionCase, case.AskingCase):
    config = {'programs': ('process',)}

    def begun(self, serving) -> gdb.Session:
        self.sessions.append(super().begun(serving))
        return self.sessions[-1]


class OfAStaticProgram(WaitCase):
    def test_after_others(self):
        """`--wait` for a name of more than 15 bytes, past one that differs in what the kernel cuts off; `break main`, and on to its end"""
        for name in (LONG_NAME, SAME_FOR_THE_KERNEL):
            self.guest.channel.ask(f'run cp /bin/process /{name}')
        serving = self.waiting(LONG_NAME)
        self.ask(f'run /{SAME_FOR_THE_KERNEL}; /{LONG_NAME}; true')
        session = self.begun(serving)
        self.at_first_instruction(session, serving, '_start in section .text')
        self.assertIn(f'/{LONG_NAME}', session.console('info proc exe'))
        self.to_its_end(session)

    def test_what_never_begins(self):
        """`--wait` for what never begins, and SIGTERM: nothing is left in the guest; what is there already is named and does not count"""
        serving = self.waiting('init')
        self.assertIn('init is there already, which is not what is waited for: 1;', serving.log())
        self.guest.channel.ask('run true; /bin/busybox true')
        self.assertIsNone(serving.process.poll())
        serving.process.send_signal(signal.SIGTERM)
        self.assertEqual(serving.process.wait(seconds(60)), 0)

    def test_no_client_comes(self):
        """After `--wait` the server is ended before a client has come: the process goes on"""
        serving = self.waiting('process')
        self.ask('run process || echo $? >/status')
        self.beginning.join(seconds(120))
        serving.process.send_signal(signal.SIGINT)
        self.assertEqual(serving.process.wait(seconds(60)), 0)
        self.asked.pop().join(seconds(60))
        self.assertEqual(self.guest.channel.ask('file /status'), ['2'])


class OfADynamicProgram(WaitCase):
    config = {'programs': ('process',), 'dynamic': True}

    def test_through_a_shell(self):
        """`--wait` for what a shell executes: it stands at the dynamic linker's first instruction; `break main` of a PIE"""
        serving = self.waiting('process')
        self.ask("run sh -c 'exec process'; true")
        session = self.begun(serving)
        self.at_first_instruction(session, serving, r'_start in section .text of \S*/ld-')
        self.to_its_end(session)

    def test_a_second_client(self):
        """After `--wait` a second client has the same process while that lives, and is told when it does not"""
        serving = self.waiting('process')
        self.ask('run process /waited >/dev/null 2>&1 &')
        with self.begun(serving) as session:
            pid = re.search(r'process (\d+)', session.console('info inferiors')).group(1)
            session.console('detach')
        self.asked.pop().join(seconds(60))
        self.until(lambda: any(task.comm == b'spinner' for task in self.guest.tasks()), 'it does not go on')
        with gdb.Session() as session:
            session.console(f'file {initramfs.program("process", True)}')
            session.connect(serving.socket)
            self.assertIn(f'process {pid} ', session.console('info inferiors'))
            session.console('set var quit = 3')
            self.assertIn('exit-code="03"', self.go(session, 'exited'))
        with self.assertRaisesRegex(HarnessError, f'no process {pid}|process {pid} .* has exited'):
            gdb.Session(serving.socket)


class InAGuestThatBoots(Waiting):
    def test_the_kernel_is_waited_for(self):
        """`--wait` in a guest that is paused is refused; in one that boots, or boots anew, its kernel is waited for"""
        self.guest = Vm(Config(case.kernel(), programs=('process',)), extra=('-S', '-action', 'reboot=reset'))
        self.addCleanup(self.guest.destroy)
        self.guest.begin_at_reset()
        ended = server.run('serve', self.guest.target, '--listen', '127.0.0.1:0', '--wait', 'process', check=False)
        self.assertEqual((ended.returncode, ended.stdout), (1, ''))
        self.assertRegex(ended.stderr, r'^exogdb: cannot wait for process: the guest is paused, [^\n]+\n$')
        self.guest.unpause()
        serving = self.waiting('process')
        self.guest.wait_up(300)
        before = self.waits(serving)
        self.guest.channel.send('reboot')
        self.until(lambda: self.waits(serving) > before, 'the new kernel is not seen', 300)
        self.guest.wait_up(300)
        self.guest.channel.send('run process; true')
        session = self.begun(serving)
        self.at_first_instruction(session, serving, '_start in section .text')
        self.to_its_end(session)


if __name__ == '__main__':
    case.main()
