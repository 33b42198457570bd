"""A guest of stock QEMU that is in its firmware yet: it is debugged with nothing of its memory known."""
import struct
import time
import unittest

from harness import case, packets, server
from harness.firmware import COUNTERS, FirmwareVm
from harness.patience import until

NOT_FOUND = 'no memory of the monitor has code where one executes it'
NOT_VERIFIED = 'that guest memory begins where the monitor\'s largest mapping has code that the vCPU executes is not verified'
RIP, RBP = '10', '6'  # their numbers in gdb's x86-64 description


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

    def test_it_is_debugged_without_its_memory(self):
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
            self.assertEqual(serving.log().count(NOT_FOUND), 1, serving.log())
            self.assertEqual(client.ask('D'), 'OK')
        self.assertIn(f'remark: guest memory: no vCPU has paging on, and {NOT_FOUND}', server.run('info', self.guest.target).stdout)
        self.guest.alive()

    def test_its_memory_is_found_once_it_is_in_it(self):
        with server.Server(self.guest.target) as serving, packets.Client(serving.socket) as client:
            client.greet()
            self.assertRegex(client.ask(f'm{COUNTERS:x},10'), '^E')
            self.assertEqual(client.ask(f'P{RBP}=0100000000000000'), 'OK')

            def counters():
                client.send('vCont;c')
                time.sleep(0.05)
                self.stop(client)
                memory = client.ask(f'm{COUNTERS:x},10')
                return None if memory.startswith('E') else struct.unpack('<QQ', bytes.fromhex(memory))

            until(lambda: all(counters() or (0,)), 'the memory that both vCPUs count in')
            first = counters()
            self.assertTrue(all(a < b for a, b in zip(first, counters())))
            self.assertIn(NOT_VERIFIED, serving.log())
            client.ask('D')
        self.guest.alive()


if __name__ == '__main__':
    case.main()
