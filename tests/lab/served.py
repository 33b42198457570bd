"""What is asked of each guest with spinners that the labs serve, whatever runs it; mixed into a harness.case.GuestCase.

EXOGDB_LAB_KILLS and EXOGDB_LAB_SEED choose how often, and when, the server is killed."""
import os
import random
import re
import threading
import time

from harness import packets, server
from harness.errors import HarnessError

KILLS = int(os.environ.get('EXOGDB_LAB_KILLS', '4'))
SEED = int(os.environ.get('EXOGDB_LAB_SEED', str(time.time_ns())))


class Served:
    steps = 3  # between two runs, of the debugger whose server is killed
    run_for = 0.05  # seconds that it then lets the guest run
    longest = 2.0  # seconds to a kill
    answers = 120.0  # seconds for the server's first answer
    goes_on = 30.0  # seconds for the guest's, after a kill

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.loop = [int(word, 16) for word in cls.guest.channel.ask('spinners')[0].split(' ')[2:4]]

    def test_doctor_finds_nothing_in_the_way(self):
        told = server.run('doctor', self.guest.target, check=False)
        self.assertEqual((told.returncode, re.findall('.*FAIL.*', told.stdout)), (0, []), told.stdout + told.stderr)

    @staticmethod
    def number(threads: str, name: str) -> int:
        """gdb's of the task of that name, in what `info threads` has printed."""
        return int(re.search(rf'^[* ]*(\d+) +Thread .*"{re.escape(name)}"', threads, re.M)[1])

    # The server ends as the kernel's out-of-memory killer would have it, at whatever moment.

    def exercise(self, path: str, begun: threading.Event):
        """What a debugger does, until there is no server any more."""
        try:
            with packets.Client(path) as client:
                client.greet()
                begun.set()
                while True:
                    client.ask('g')
                    client.ask('mffffffff81000000,100')
                    for _ in range(self.steps):
                        client.ask('vCont;s')
                    client.send('vCont;c')
                    time.sleep(self.run_for)
                    client.interrupt()
                    client.stop_reply()
        except OSError:
            pass

    def kill_once(self, delay: float):
        serving = self.serve('--os', 'none')
        begun = threading.Event()
        client = threading.Thread(target=self.exercise, args=(serving.socket, begun), daemon=True)
        client.start()
        if delay > 0:
            self.assertTrue(begun.wait(self.answers), 'the server did not answer')
        time.sleep(abs(delay))
        serving.kill()
        client.join(30)

    def test_server_killed_at_any_moment(self):
        chance = random.Random(SEED)
        print(f'EXOGDB_LAB_SEED={SEED}', flush=True)
        for index in range(KILLS):
            # Some while it attaches, the most while it works.
            delay = chance.uniform(-1, 0) if index % 4 == 3 else chance.uniform(0, self.longest)
            with self.subTest(kill=index, delay=delay):
                self.kill_once(delay)
                try:
                    self.guest.alive(self.goes_on)
                except HarnessError as error:  # recover may help, but is not to be needed for that the guest runs
                    server.run('recover', self.guest.target, check=False)
                    self.guest.alive()
                    self.fail(f'after the kill the guest stood: {error}')
                server.run('recover', self.guest.target)
                self.assert_unharmed('after recover')
                self.assertIn('nothing', server.run('recover', self.guest.target).stdout)
