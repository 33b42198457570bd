"""A guest of stock QEMU that is in its firmware yet: it is debugged with nothing of its memory known, and with that once it shows it."""
import struct
import time
import unittest

from harness import case, packets, server
from harness.firmware import COUNTERS, FirmwareVm
from harness.patience import seconds

NOT_FOUND = 'no memory of the monitor has code where one executes it'
RIP, RBP = '10', '6'  # numbers of registers in gdb's x86-64 description


class Firmware(unittest.TestCase):
    def setUp(self):
        self.guest = FirmwareVm(in_ram=False)
        self.guest.__enter__()
        self.addCleanup(self.guest.__exit__)

    def stop(self, client: packets.Client):
        client.interrupt()
        self.assertRegex(client.stop_reply(), '^T02')

    @staticmethod
    def rip(client: packets.Client) -> int:
        return struct.unpack('<Q', bytes.fromhex(client.ask(f'p{RIP}')))[0]

    @staticmethod
    def counters(client: packets.Client) -> tuple:
        return struct.unpack('<2Q', bytes.fromhex(client.ask(f'm{COUNTERS:x},10')))

    def test_its_memory_is_found_when_it_shows_it(self):
        with server.Server(self.guest.target) as serving, packets.Client(serving.socket) as client:
            client.greet()
            self.assertEqual(serving.log().count(NOT_FOUND), 1, serving.log())
            self.assertRegex(client.ask(f'm{COUNTERS:x},10'), '^E')
            in_rom = set()
            for _ in range(12):
                self.assertRegex(client.ask('vCont;s:p500000.1'), '^T05')
                in_rom.add(self.rip(client))
            self.assertEqual(len(in_rom), 4, in_rom)  # cmpb, jne, test, jz
            for _ in range(5):
                client.send('vCont;c')
                self.stop(client)
                self.assertIn(self.rip(client), in_rom)
            self.assertEqual(client.ask(f'P{RBP}=0100000000000000'), 'OK')
            end = time.monotonic() + seconds(30)  # it is not looked for at each stop
            while client.ask(f'm{COUNTERS:x},10').startswith('E') and time.monotonic() < end:
                client.send('vCont;c')
                time.sleep(0.1)
                self.stop(client)
            self.assertNotIn(self.rip(client), in_rom)
            before = self.counters(client)
            for _ in range(3):
                client.send('vCont;c')
                time.sleep(0.05)
                self.stop(client)
            self.assertTrue(all(now > then for now, then in zip(self.counters(client), before, strict=True)))
            self.assertEqual(serving.log().count(NOT_FOUND), 1, serving.log())
            self.assertIn('is not verified', serving.log())
            self.assertEqual(client.ask('D'), 'OK')
        self.assertIn('is not verified', server.run('info', self.guest.target).stdout)
        self.guest.alive()


if __name__ == '__main__':
    case.main()
