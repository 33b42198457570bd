"""Hits of a breakpoint whose condition is false, on two vCPUs that come by as fast as they can: exogdb lets each go on while the
other runs. On small guests, which count themselves how often they come by."""
import signal
import time
import unittest

from harness import case, packets, server
from harness.small_vmm import Bare, bare_program, symbol

RECORDS, RECORD_SIZE = 0x8000, 0x80  # tests/lab/vmm/bare/record.inc: the first word counts rounds
FALSE, PRINTS = 'X3,220027', 'cmds:0,Xb,2200220034000002780027'  # 0; printf("x")
NOP, OTHER = 3, 0  # what stands at `shared`: inc %r12; nop
VCPUS = (0, 1)


class Hits(unittest.TestCase):
    def setUp(self):
        self.guest = Bare(['--bare', bare_program('counter'), '--vcpus', '2'])
        self.guest.__enter__()
        self.addCleanup(self.guest.__exit__)
        self.guest.wait_rounds(vcpus=2)
        self.serving = server.Server(f'kvm:{self.guest.pid}', '--os', 'none')
        self.serving.__enter__()
        self.addCleanup(self.serving.__exit__)
        self.client = packets.Client(self.serving.socket)
        self.addCleanup(self.client.__exit__)
        self.client.greet()

    def rounds(self) -> list:
        read = (self.client.ask(f'm{RECORDS + RECORD_SIZE * vcpu:x},8') for vcpu in VCPUS)
        return [int.from_bytes(bytes.fromhex(answer), 'little') for answer in read]

    def went_on(self) -> int:
        told = bytes.fromhex(self.client.ask('qRcmd,' + b'breakpoints'.hex())[1:]).decode()
        self.assertEqual(self.client.receive(), 'OK')
        return sum(int(line.split()[-2]) for line in told.splitlines() if 'went on' in line)

    def set(self, kind: int, offset: int, program: str):
        self.place = f'{kind},{symbol("counter", "shared") + offset:x},1'
        self.assertEqual(self.client.ask(f'Z{self.place};{program}'), 'OK')

    def run_until(self, hits: int) -> str:
        """What was printed meanwhile. As long as it takes: how fast is not asked."""
        printed, until, before = '', time.monotonic() + 120, self.went_on()
        while self.went_on() < before + hits and time.monotonic() < until:
            self.client.send('vCont;c')
            time.sleep(0.2)
            self.client.interrupt()
            while (packet := self.client.receive())[:1] == 'O':
                printed += bytes.fromhex(packet[1:]).decode()
            self.assertEqual(packet[:3], 'T02')
        return printed

    def assert_each_counted(self, kind: int, offset: int, hits: int):
        self.set(kind, offset, FALSE)
        before = self.rounds()
        self.run_until(hits)
        made = sum(self.rounds()) - sum(before)
        self.assertGreaterEqual(self.went_on(), hits)
        self.assertAlmostEqual(self.went_on(), made, delta=len(VCPUS))  # where each stood at the ends
        self.assertEqual(self.client.ask(f'z{self.place}'), 'OK')
        self.assertEqual(self.client.ask('D'), 'OK')
        self.guest.wait_rounds(vcpus=2)

    def test_hardware_breakpoint_at_a_nop(self):
        self.assert_each_counted(1, NOP, 2000)

    def test_hardware_breakpoint_at_another_instruction(self):
        self.assert_each_counted(1, OTHER, 200)

    @case.needs('breakpoints')
    def test_software_breakpoint_at_a_nop(self):
        self.assert_each_counted(0, NOP, 2000)

    def test_what_commands_print_is_printed_once_for_each_hit(self):
        for offset in (NOP, OTHER):
            self.set(1, offset, PRINTS)
            before = self.went_on()
            printed = self.run_until(100)
            self.assertEqual(printed, 'x' * (self.went_on() - before))
            self.assertEqual(self.client.ask(f'z{self.place}'), 'OK')

    def test_the_vmm_stops_its_vcpus_amid_hits(self):
        """By its signals, which are kept waiting for a moment only."""
        self.set(1, NOP, FALSE)
        self.run_until(100)
        self.client.send('vCont;c')
        self.guest.signal(signal.SIGUSR2)
        self.guest.wait(lambda: 'all vCPUs wait' in self.guest.log(), 60, 'the vCPUs do not leave the guest')
        self.guest.signal(signal.SIGUSR1)
        self.guest.wait_rounds(vcpus=2)
        self.client.interrupt()
        self.assertEqual(self.client.stop_reply()[:3], 'T02')

    def test_killed_amid_hits(self):
        self.set(1, NOP, FALSE)
        self.run_until(100)
        self.client.send('vCont;c')
        time.sleep(0.2)
        self.serving.kill()
        self.guest.wait_rounds(vcpus=2)
        self.assertIn('nothing', server.run('recover', f'kvm:{self.guest.pid}').stdout)


if __name__ == '__main__':
    case.main()
