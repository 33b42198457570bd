"""Many breakpoints on functions that every processor calls all the time: what the guest has counted is what was told."""
import collections
import os
import re
import threading
import time

from harness import case, packets

SECONDS = float(os.environ.get('EXOGDB_BREAKPOINT_SECONDS', '60'))
BREAKPOINTS, SIGINT = 64, 2
# What a kernel prints when something took too long or went wrong: include/asm-generic/bug.h, kernel/watchdog.c,
# kernel/rcu/tree_stall.h, kernel/hung_task.c, arch/x86/kernel/traps.c.
WARNING = re.compile(r'WARNING:|BUG:|Oops|soft lockup|hard LOCKUP|detected stalls|blocked for more than|int3:|general protection')


class Stop:
    """A stop reply's thread and rip (gdb manual, "Stop Reply Packets"); number 16 is rip, little endian."""

    def __init__(self, packet: str):
        found = re.match(r'T(..)', packet)
        fields = dict(pair.split(':', 1) for pair in packet[3:].split(';') if ':' in pair)
        self.signal = int(found[1], 16)
        self.thread = fields['thread']
        self.tid = int(self.thread.rsplit('.', 1)[-1], 16)
        self.pc = int.from_bytes(bytes.fromhex(fields['10']), 'little')


class ManyBreakpoints(case.GuestCase):
    config = {'scenario': 'busy', 'vcpus': 4}

    def functions(self) -> dict:
        """{address: name} of the system calls that the guest's callers make."""
        names = self.guest.channel.ask('calls names')
        found = self.guest.symbols(*(f'__x64_sys_{name}' for name in names[:BREAKPOINTS]))
        addresses = {found[f'__x64_sys_{name}'][0]: name for name in names[:BREAKPOINTS]}
        self.assertEqual(len(addresses), BREAKPOINTS)
        return addresses

    def step_off(self, client, stop: Stop):
        """As gdb leaves a breakpoint: one step of that thread alone, without it."""
        self.assertEqual(client.ask(f'z0,{stop.pc:x},1'), 'OK')
        stepped = Stop(client.ask(f'vCont;s:{stop.thread}'))
        self.assertEqual((stepped.signal, stepped.thread), (5, stop.thread))
        self.assertNotEqual(stepped.pc, stop.pc)
        self.assertEqual(client.ask(f'Z0,{stop.pc:x},1'), 'OK')

    def take_hits(self, client, functions: dict, ended) -> collections.Counter:
        """{(tid, name): hits} until `ended` says so; the guest stands then."""
        hits = collections.Counter()
        while True:
            client.send('vCont;c')
            answer = None
            while answer is None and not ended():
                answer = client.wait(0.1)
            if answer is None:
                client.interrupt()
                answer = client.receive()
            stop = Stop(answer)
            if stop.signal == SIGINT:
                return hits
            self.assertIn(stop.pc, functions, f'a stop where there is no breakpoint: {answer}')
            hits[stop.tid, functions[stop.pc]] += 1
            self.step_off(client, stop)

    def count(self, counted: dict):
        """The guest's own: {(tid, name): calls}, of so many seconds."""
        self.guest.channel.receive('calls begin', 120)
        time.sleep(SECONDS)
        for row in self.guest.channel.ask('calls end', 240):
            tid, name, count = row.split(' ')
            counted[int(tid), name] = int(count)

    def test_each_hit_of_64_breakpoints_is_told_once(self):
        """64 software breakpoints on system calls that 4 vCPUs make at once: none lost, none spurious, no warning of the guest's"""
        functions, counted = self.functions(), {}
        callers = {int(tid) for tid in self.guest.channel.ask('calls prepare')}
        with packets.Client(self.serve().socket, limit=60) as client:
            client.greet()
            for address in functions:
                self.assertEqual(client.ask(f'Z0,{address:x},1'), 'OK')
            self.guest.channel.send('calls begin')
            counting = threading.Thread(target=self.count, args=(counted,), daemon=True)
            counting.start()
            hits = self.take_hits(client, functions, lambda: not counting.is_alive())
            self.assertEqual(client.ask('D'), 'OK')
        print(sum(hits.values()), 'hits', flush=True)
        self.assertEqual({tid for tid, _ in counted}, callers)
        self.assertGreater(min(counted.values()), 0, counted)
        self.assertEqual({key: count for key, count in hits.items() if key[0] in callers}, counted)
        self.assertEqual(WARNING.findall(self.guest.console()), [])


if __name__ == '__main__':
    case.main()
