"""The server is killed at random moments of its work on a guest whose VMM takes no debug exit: the guest goes on by itself each
time, and its text is as it was. A VMM that sees what was the debugger's ends, and the test fails."""
import os
import random
import threading
import time
import unittest

from harness import case, packets, server
from harness.small_vmm import Bare, bare_program, symbol

KILLS = int(os.environ.get('EXOGDB_LAB_KILLS', '30'))
SEED = int(os.environ.get('EXOGDB_LAB_SEED', str(time.time_ns())))
TEXT, TEXT_SIZE = 0x100000, 0x200


def steps(client: packets.Client):
    while True:
        for thread in (1, 2):
            client.ask(f'vCont;s:p500000.{thread}')


def hits(client: packets.Client):
    client.ask(f'Z0,{symbol("counter", "shared"):x},1')
    while True:
        client.ask('vCont;c')


def stops(client: packets.Client):
    while True:
        client.send('vCont;c')
        time.sleep(0.01)
        client.interrupt()
        client.stop_reply()


class Kills(unittest.TestCase):
    def setUp(self):
        self.guest = Bare(['--bare', bare_program('counter'), '--vcpus', '2'])
        self.guest.__enter__()
        self.addCleanup(self.guest.__exit__)
        self.target = f'kvm:{self.guest.pid}'
        self.text = bare_program('counter').read_bytes()[:TEXT_SIZE]
        self.guest.wait_rounds(vcpus=2)

    def kill_once(self, work, delay: float):
        serving = server.Server(self.target, '--os', 'none')
        serving.start()
        self.addCleanup(serving.stop)
        begun = threading.Event()

        def use():
            try:
                with packets.Client(serving.socket) as client:
                    client.greet()
                    begun.set()
                    work(client)
            except OSError:
                pass
        user = threading.Thread(target=use, daemon=True)
        user.start()
        self.assertTrue(begun.wait(60))
        time.sleep(delay)
        serving.kill()
        user.join(30)

    def assert_unharmed(self):
        """It goes on; nothing is left for `recover`, and none of the program's bytes has changed."""
        self.guest.wait_rounds(vcpus=2)
        server.run('recover', self.target)
        self.assertIn('nothing', server.run('recover', self.target).stdout)
        with server.Server(self.target, '--os', 'none') as serving, packets.Client(serving.socket) as client:
            client.ask('qSupported:multiprocess+')
            read = client.ask(f'm{TEXT:x},{TEXT_SIZE:x}')
        self.assertEqual(bytes.fromhex(read)[:len(self.text)], self.text)
        self.guest.wait_rounds(vcpus=2)

    def kill_again_and_again(self, work):
        chance = random.Random(SEED)
        print(f'EXOGDB_LAB_SEED={SEED}', flush=True)
        for index in range(KILLS):
            delay = chance.uniform(0, 0.3)
            with self.subTest(kill=index, delay=delay):
                self.kill_once(work, delay)
                self.guest.wait_rounds(vcpus=2)
        self.assert_unharmed()

    def test_while_it_steps(self):
        self.kill_again_and_again(steps)

    def test_while_it_stops_and_goes_on(self):
        self.kill_again_and_again(stops)

    @case.needs('breakpoints')
    def test_on_a_breakpoint_that_is_hit_all_the_time(self):
        self.kill_again_and_again(hits)


if __name__ == '__main__':
    case.main()
