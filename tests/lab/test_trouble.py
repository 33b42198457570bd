"""What goes wrong around a guest of KVM: its VMM ends in the middle of a session, or somebody else has its threads. On small
guests, whose VMM knows nothing of a debugger."""
import contextlib
import os
import signal
import subprocess
import sys
import time
import unittest

from harness import case, packets, server
from harness.patience import seconds
from harness.small_vmm import Bare, bare_program

NOWHERE = 0x100ff0  # behind the program, which never gets there
ENDED = ('W00', 'X09')
# Traces threads until its input ends. PTRACE_SEIZE, include/uapi/linux/ptrace.h.
TRACER = '''
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
for tid in sys.argv[1:]:
    if libc.ptrace(0x4206, int(tid), None, None):
        sys.exit(os.strerror(ctypes.get_errno()))
print('traced', flush=True)
sys.stdin.read()
'''


@contextlib.contextmanager
def tracer_of(pid: int):
    tids = os.listdir(f'/proc/{pid}/task')
    with subprocess.Popen([sys.executable, '-c', TRACER, *tids], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout.readline() == b'traced\n'
            yield process.pid
        finally:
            process.stdin.close()


class Trouble(unittest.TestCase):
    def setUp(self):
        self.guest = Bare(['--bare', bare_program('counter'), '--vcpus', '2'])
        self.guest.__enter__()
        self.addCleanup(self.guest.__exit__)
        self.target = f'kvm:{self.guest.pid}'
        self.guest.wait_rounds(vcpus=2)

    @contextlib.contextmanager
    def session(self):
        with server.Server(self.target, '--os', 'none') as self.serving, packets.Client(self.serving.socket) as client:
            client.greet()
            yield client

    def assert_session_ends(self):
        """The server has nothing left to do, says so, and leaves nothing behind."""
        process = self.serving.process
        self.assertIn(process.wait(seconds(20)), (0, 1))
        self.assertIn('the guest is gone', self.serving.log())
        self.assertIn('nothing to undo', server.run('recover', self.target).stdout)

    def assert_killed_while_it_runs(self, client: packets.Client):
        client.send('vCont;c')
        time.sleep(0.1)
        self.guest.signal(signal.SIGKILL)
        self.assert_ended(client)

    def assert_ended(self, client: packets.Client):
        self.assertIn(client.stop_reply().split(';')[0], ENDED)
        self.assert_session_ends()

    def test_vmm_killed_while_the_guest_stands(self):
        with self.session() as client:
            self.guest.signal(signal.SIGKILL)
            time.sleep(0.1)
            self.assertEqual(client.ask('m100000,10')[:1], 'E')
            client.send('vCont;c')
            self.assert_ended(client)

    def test_vmm_killed_while_the_guest_runs(self):
        with self.session() as client:
            self.assert_killed_while_it_runs(client)

    def test_vmm_killed_while_breakpoints_are_watched_for(self):
        with self.session() as client:
            self.assertEqual(client.ask(f'Z1,{NOWHERE:x},1'), 'OK')
            self.assert_killed_while_it_runs(client)

    def test_vmm_killed_between_steps(self):
        with self.session() as client:
            self.assertRegex(client.ask('vCont;s:p500000.1'), '^T05')
            self.guest.signal(signal.SIGKILL)
            client.send('vCont;s:p500000.1')
            self.assert_ended(client)

    def test_a_vcpus_thread_waits_for_a_lock_of_anothers(self):
        """Which is asked to stop while it holds that: both come to where they stop."""
        with Bare(['--bare', bare_program('counter'), '--vcpus', '2', '--lock', '3']) as guest:
            guest.wait_rounds(vcpus=2)
            with server.Server(f'kvm:{guest.pid}', '--os', 'none') as serving, packets.Client(serving.socket) as client:
                client.greet()
                for turn in range(40):
                    client.send('vCont;c')
                    time.sleep(turn % 8 / 1000)
                    client.interrupt()
                    self.assertRegex(client.stop_reply(), '^T02', serving.log())
                self.assertNotIn('does not stop', serving.log())
            guest.wait_rounds(vcpus=2)

    def test_somebody_else_traces_a_vcpu(self):
        with tracer_of(self.guest.pid) as pid:
            told = server.run('serve', self.target, check=False)
        self.assertEqual((told.returncode, len(told.stderr.strip().splitlines())), (1, 1), told.stderr)
        self.assertIn(f'process {pid} traces it', told.stderr)
        self.guest.wait_rounds(vcpus=2)
        with self.session() as client:
            self.assertRegex(client.ask('vCont;s:p500000.1'), '^T05')


if __name__ == '__main__':
    case.main()
