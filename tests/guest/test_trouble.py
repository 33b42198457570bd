"""What goes wrong around a session: each gets one clear line or the right error, and the server does not die of it."""
import socket
import time

from harness import case, gdb, libvirtd, server, vm
from harness.domain import Domain
from harness.errors import HarnessError


class Refusals(case.GuestCase):
    config = {'scenario': 'idle'}

    def refused(self, *words: str, status: int = 1) -> str:
        result = server.run(*words, check=False)
        self.assertEqual(result.returncode, status, result.stderr)
        self.assertEqual(len(result.stderr.strip().splitlines()), 1, f'one line: {result.stderr}')
        return result.stderr

    def test_unknown_domain(self):
        self.assertIn('no-such-domain', self.refused('info', 'libvirt:no-such-domain'))
        self.assertIn('no-such-domain', self.refused('serve', 'no-such-domain'))

    def test_no_qemu_behind_a_socket(self):
        self.assertIn('/nowhere/qmp', self.refused('info', 'qemu:/nowhere/qmp'))

    def test_wrong_usage(self):
        result = server.run('serve', check=False)
        self.assertEqual(result.returncode, 2, result.stderr)

    def test_port_in_use(self):
        with socket.create_server(('127.0.0.1', 0)) as taken:
            port = taken.getsockname()[1]
            self.assertIn(str(port), self.refused('serve', self.guest.target, '--listen', f'127.0.0.1:{port}'))

    def test_a_second_server_for_the_same_guest(self):
        with gdb.Session(self.serve().socket) as session:
            session.console('info threads')
            try:
                with server.Server(self.guest.target, limit=30) as second:
                    output = gdb.batch(f'target remote {second.socket}', 'info threads', check=False)
                    self.assertNotIn('swapper/0', output)
            except HarnessError as error:
                self.assertIn('ended with 1', str(error))
            self.assertIn('swapper/0', session.console('info threads'))

    def test_malformed_packets_and_a_client_that_vanishes(self):
        serving = self.serve()
        for sent in (b'$g#00', b'$', b'$' + b'A' * 3_000_000 + b'#00', b'\x03\x03\x03', b'$vCont;c:p-1.-1#0f',
                     b'$m0,ffffffffffffffff#00', b'\0' * 1000, b'$}#7d'):
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(serving.socket)
                client.settimeout(1)
                try:
                    client.sendall(sent)
                    client.recv(100)
                except OSError:
                    pass
        with gdb.Session(serving.socket) as session:
            self.assertIn('swapper/0', session.console('info threads'))
        self.assertIsNone(serving.process.poll())


class Upheaval(case.GuestCase):
    config = {'scenario': 'idle'}
    guest_type = Domain

    def test_reboot_in_a_session(self):
        """The old kernel's tasks go, the new one's come."""
        serving = self.serve()
        boots = self.guest.console().count('Linux version')
        with gdb.Session(serving.socket) as session:
            before = session.console('info threads')
            self.assertIn('swapper/0', before)
            session.resume()
            libvirtd.virsh('reset', self.guest.name)
            self.guest.channel.close()
            self.guest.channel.wait_ready(300)
            self.guest.save_text()
            session.control_c()
            session.wait_stop()
            self.assertIn('kthreadd', session.console('info threads'))
        self.assertGreaterEqual(self.guest.console().count('Linux version'), boots)

    def test_stop_in_firmware(self):
        """No kernel yet: the threads are the vCPUs, and they run on."""
        serving = self.serve()
        with gdb.Session(serving.socket) as session:
            session.resume()
            libvirtd.virsh('reset', self.guest.name)
            session.control_c()
            session.wait_stop()
            self.assertIn('vCPU 0', session.console('info threads'))
        self.guest.channel.close()
        self.guest.channel.wait_ready(300)
        self.guest.save_text()

    def tearDown(self):
        self.guest.alive()


class Destroyed(case.GuestCase):
    config = {'scenario': 'idle'}
    guest_type = vm.Vm

    def test_the_guest_goes_away_in_a_session(self):
        serving = self.serve()
        with gdb.Session(serving.socket) as session:
            session.resume()
            self.guest._process.kill()
            record = session.wait_stop()
            self.assertRegex(gdb.stop_reason(record), 'exited|^$')
        until = time.monotonic() + 10
        while serving.process.poll() is None and time.monotonic() < until:
            time.sleep(0.1)
        self.assertNotIn(serving.process.poll(), (-6, -11), serving.log())

    def tearDown(self):
        pass


if __name__ == '__main__':
    case.main()
