"""A guest of KVM that QEMU's monitor tells of can be served by either of two backends: by KVM's if it can be, by QEMU's stub if it
is paused or somebody asks for that. Whichever was killed, the next one finds and undoes what it left.

QEMU says which it is: to a guest that KVM's backend has stopped it says "running"."""
import json
import os
import pathlib
import re
import signal
import socket

from harness import case, packets, patience, processes, server
from harness.channel import GuestSilent
from harness.patience import seconds
from harness.vm import Vm


class TwoMonitors(Vm):
    """One for exogdb, which QEMU's stub needs for as long as it is used, and one for the test."""

    def __init__(self, config):
        super().__init__(config, 'kvm', ('-qmp', 'unix:{folder}/second,server=on,wait=off'))

    @property
    def target(self) -> str:
        return f'qemu:{self.folder}/second'

    def state(self) -> str:
        return self.qmp('query-status')['status']


def guardian_of(serving: server.Server) -> int:
    pid = serving.process.pid
    return int(pathlib.Path(f'/proc/{pid}/task/{pid}/children').read_text().split()[0])


class Backends(case.GuestCase):
    config = {'scenario': 'idle'}
    guest_type = TwoMonitors

    def begin(self, *options: str) -> tuple:
        """(server, client that has stopped the guest, what the log says of the backend)"""
        serving = self.serve('--os', 'none', *options)
        client = packets.Client(serving.socket)
        self.addCleanup(client.__exit__)
        self.assertRegex(client.greet(), '^T')
        with self.assertRaises(GuestSilent):
            self.guest.alive(1)
        return serving, client, re.findall(r': backend (\w+)', serving.log())

    def wait_state(self, wanted: str):
        patience.until(lambda: self.guest.state() == wanted, f'the guest is not {wanted}', 20)

    def kill(self, serving: server.Server, guardian: bool):
        if guardian:
            os.kill(guardian_of(serving), signal.SIGKILL)
        serving.kill()

    def assert_clean(self):
        self.guest.alive()
        self.wait_state('running')
        self.assertIn('nothing', server.run('recover', self.guest.target).stdout)
        self.assertIn('nothing', server.run('recover', f'kvm:{self.guest.pid()}').stdout)

    def backend_of_doctor(self, *options: str) -> dict:
        rows = json.loads(server.run('doctor', self.guest.target, '--json', *options, check=False).stdout)
        return next(row for row in rows if row['check'] == 'backend')

    def test_kvm_serves_a_guest_that_runs(self):
        serving, client, told = self.begin()
        self.assertEqual((told, self.guest.state()), (['kvm'], 'running'))
        for options in ((), ('--backend', 'qemu')):  # whose look at the registers would wait for those that stand
            refused = server.run('ps', self.guest.target, *options, check=False)
            self.assertIn(f'exogdb process {serving.process.pid} has this guest', refused.stderr)
        told = client.ask('qRcmd,' + b'help'.hex())
        self.assertIn('--backend qemu', bytes.fromhex(told[1:]).decode())
        self.assertEqual(client.receive(), 'OK')
        client.send('vCont;c')
        self.guest.alive()
        self.assertTrue(self.backend_of_doctor()['detail'].startswith('kvm: '))

    def test_the_stub_serves_it_if_asked(self):
        _, client, told = self.begin('--backend', 'qemu')
        self.assertEqual((told, self.guest.state()), (['qemu'], 'paused'))
        client.send('vCont;c')
        self.guest.alive()

    def test_the_stub_serves_one_that_is_paused(self):
        self.guest.pause()
        try:
            self.assertIn('paused', self.backend_of_doctor()['detail'])
            self.assertTrue(self.backend_of_doctor('--backend', 'kvm')['detail'].startswith('kvm: '))
            _, client, told = self.begin()
            self.assertEqual(told, ['qemu'])
            client.send('vCont;c')
            self.guest.alive()
            client.__exit__()
            self.wait_state('paused')
        finally:
            self.guest.unpause()

    def test_kvm_is_not_used_beside_a_client_of_the_stub(self):
        with server.Server(self.guest.target, '--os', 'none', '--backend', 'qemu') as serving, \
                packets.Client(serving.socket) as client:
            client.ask('?')
            refused = server.run('ps', f'kvm:{self.guest.pid()}', check=False)
            self.assertEqual(refused.returncode, 1)
            self.assertIn(f'exogdb process {serving.process.pid} has this guest', refused.stderr)
        self.wait_state('running')

    def test_kvm_killed(self):
        """QEMU's monitor is not needed to put the guest right: somebody else has it."""
        serving, _, _ = self.begin()
        with socket.socket(socket.AF_UNIX) as other:
            other.settimeout(seconds(10))
            other.connect(self.guest.target.partition(':')[2])
            self.assertIn(b'"QMP"', other.recv(4096))
            self.kill(serving, guardian=False)
            self.guest.alive(30)
            self.assert_clean()

    def test_kvm_and_its_guardian_killed(self):
        for undo in (self.guest.target, f'kvm:{self.guest.pid()}'):
            with self.subTest(undo=undo):
                serving, _, _ = self.begin()
                self.kill(serving, guardian=True)
                self.assertIn('put 2 threads', server.run('recover', undo).stdout)
                self.assert_clean()

    def test_the_stub_and_its_guardian_killed(self):
        for undo in (self.guest.target, f'kvm:{self.guest.pid()}'):
            with self.subTest(undo=undo):
                serving, _, _ = self.begin('--backend', 'qemu')
                self.kill(serving, guardian=True)
                self.assertIn('let the guest run', server.run('recover', undo).stdout)
                self.assert_clean()

    def test_the_next_undoes_what_the_other_left(self):
        for first, then, told in (('qemu', 'auto', 'kvm'), ('kvm', 'qemu', 'qemu')):
            with self.subTest(first=first):
                serving, _, _ = self.begin('--backend', first)
                self.kill(serving, guardian=True)
                serving, client, said = self.begin('--backend', then)
                self.assertEqual(said, [told])
                client.__exit__()
                self.guest.alive()
                processes.end(serving.process)  # and with it its hold of the monitor's socket
                self.assert_clean()


if __name__ == '__main__':
    case.main()
