"""What goes wrong around a session: each gets one clear line or the right error, and the server does not die of it."""
import os
import shutil
import signal
import socket
import subprocess
import time

from harness import case, gdb, libvirtd, server, vm
from harness.domain import Domain, domain_xml
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


class Busy(case.GuestCase):
    """QEMU's stub is there, and somebody uses it."""
    config = {'scenario': 'idle'}

    @staticmethod
    def guest_type(config):
        return vm.Vm(config, extra=('-gdb', 'unix:{folder}/stub,server=on,wait=off'))

    def test_gdb_is_told_who_has_the_guest(self):
        serving = self.serve()
        with gdb.Session(f'{self.guest.folder}/stub'):
            output = gdb.batch(f'target remote {serving.socket}', 'info threads', check=False)
            self.assertIn(f'QEMU already has a gdb client, on unix:{self.guest.folder}/stub; disconnect it', output)
        # The other has let it run again, and its place is free.
        self.assertIn('swapper/0', gdb.batch(f'target remote {serving.socket}', 'info threads'))
        # QEMU's own stub is back where its user had it.
        with gdb.Session(f'{self.guest.folder}/stub') as session:
            self.assertIn('CPU#1', session.console('info threads'))

    def test_a_second_debugger_is_turned_away_while_there_is_one(self):
        serving = self.serve()
        with gdb.Session(serving.socket) as session:
            begin = time.monotonic()
            output = gdb.batch(f'target remote {serving.socket}', 'info threads', check=False)
            self.assertLess(time.monotonic() - begin, 30)
            self.assertNotIn('swapper/0', output)
            self.assertIn('a second debugger was turned away', serving.log())
            self.assertIn('swapper/0', session.console('info threads'))

    def test_a_debugger_that_comes_right_behind_another(self):
        serving = self.serve()
        for _ in range(3):
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(serving.socket)
                client.sendall(b'$?#3f')
        self.assertIn('swapper/0', gdb.batch(f'target remote {serving.socket}', 'info threads'))


class Upheaval(case.GuestCase):
    config = {'scenario': 'idle'}
    guest_type = Domain

    def test_libvirtd_restarted_in_a_session(self):
        serving = self.serve()
        with gdb.Session(serving.socket) as session:
            libvirtd.restart()
            self.assertIn('swapper/0', session.console('info threads'))
            session.console('stepi')
            session.resume()
            session.control_c()
            session.wait_stop()
        self.guest.alive()
        self.assertEqual(self.guest.state(), 'running')
        self.assertIn('swapper/0', gdb.batch(f'target remote {serving.socket}', 'info threads'))

    def test_a_domain_that_is_shut_off(self):
        name = f'{self.guest.name}-off'
        definition = self.guest.folder / 'off.xml'
        definition.write_text(domain_xml(name, self.guest.config, self.guest.folder, 'tcg'))
        libvirtd.virsh('define', str(definition))
        try:
            result = server.run('serve', name, check=False)
        finally:
            libvirtd.virsh('undefine', name)
        self.assertEqual(result.returncode, 1)
        self.assertRegex(result.stderr, f'^exogdb: .*{name} is shut off; start it \\(virsh start {name}\\)\n$')

    def test_no_permission(self):
        """Neither for libvirt nor for QEMU's process: one line each."""
        program = self.guest.folder / 'exogdb'
        shutil.copy(server.program(), program)
        for target in (self.guest.target, f'qemu:{self.guest.folder}/qmp'):
            result = subprocess.run([str(program), 'info', target], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                                    user='nobody', cwd='/', env={'PATH': '/usr/bin:/bin'}, timeout=60, check=False)
            self.assertEqual(result.returncode, 1, result.stderr)
            self.assertEqual(len(result.stderr.strip().splitlines()), 1, result.stderr)

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
            self.guest.wait_up(300)
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
        self.guest.wait_up(300)
        self.guest.save_text()

    def tearDown(self):
        self.guest.alive()


class Destroyed(case.GuestCase):
    """While it runs, and while it stands."""
    config = {'scenario': 'idle'}
    guest_type = vm.Vm

    def kill(self):
        os.kill(self.guest.pid(), signal.SIGKILL)

    def test_it_goes_away(self):
        serving = self.serve()
        with gdb.Session(serving.socket) as session:
            session.resume()
            self.kill()
            record = session.wait_stop()
            self.assertRegex(gdb.stop_reason(record), 'exited|^$')
        self.assert_ended(serving)

    def assert_ended(self, serving):
        until = time.monotonic() + 10
        while serving.process.poll() is None and time.monotonic() < until:
            time.sleep(0.1)
        self.assertIn(serving.process.poll(), (0, 1), serving.log())
        self.assertIn('the guest is gone', serving.log())

    def tearDown(self):
        pass


class DestroyedDomain(Destroyed):
    guest_type = Domain

    def kill(self):
        libvirtd.virsh('destroy', self.guest.name)


class DestroyedWhileItStands(Destroyed):
    def test_it_goes_away(self):
        serving = self.serve()
        with gdb.Session(serving.socket) as session:
            self.kill()
            session.resume('-exec-step-instruction')
            self.assertIn('exited', gdb.stop_reason(session.wait_stop()))
        self.assert_ended(serving)


if __name__ == '__main__':
    case.main()
