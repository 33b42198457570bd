"""The tests' own VMM runs its guests. Where nothing but KVM is at fault, a test of exogdb can count on it."""
import os
import signal
import time
import unittest

from harness import case
from harness.guest import Config
from harness.small_vmm import Bare, SmallVmm, bare_program


def machine(name: str, *options: str) -> list:
    return ['--bare', bare_program(name), '--vcpus', '2', *options]


class BareCode(unittest.TestCase):
    def assert_sound(self, records: dict):
        for record in records.values():
            self.assertEqual((record['wrong'], record['stray'], record['text']), (0, 0, 0), records)

    def test_counters(self):
        with Bare(machine('counter')) as guest:
            self.assert_sound(guest.wait_rounds(1000, vcpus=2))

    def test_traps(self):
        with Bare(machine('traps')) as guest:
            records = guest.wait_rounds(32, vcpus=2)
            self.assert_sound(records)
            first = records[0]
            # printed by vCPU 0 itself, at the end of a round
            self.assertEqual((first['int3'], first['right']), (first['rounds'], 3 * first['rounds']))
            self.assertGreaterEqual(first['ticks'], first['rounds'])

    def test_real_mode(self):
        with Bare(machine('real', '--mode', 'real')) as guest:
            guest.wait(lambda: guest.serial().count('.') > 3, 60, 'no dots')

    def test_two_machines_paused_and_resumed(self):
        split = ('--memory', '64', '--low', '16', '--memory-kind', 'memfd', '--mappings', 'each')
        with Bare(machine('traps', *split), machine('counter', '--memory', '32', '--low', '16'), paused=True) as guests:
            time.sleep(0.5)
            self.assertEqual((guests.serial(0), guests.serial(1)), ('', ''))
            guests.signal(signal.SIGUSR1)
            for number in (0, 1):
                self.assert_sound(guests.wait_rounds(16, number, 2))
            guests.signal(signal.SIGUSR2)
            time.sleep(1)
            paused = guests.serial(0), guests.serial(1)
            time.sleep(1)
            self.assertEqual((guests.serial(0), guests.serial(1)), paused)
            guests.signal(signal.SIGUSR1)
            for number in (0, 1):
                self.assert_sound(guests.wait_rounds(16, number, 2))

    def test_threads_are_not_named_as_those_of_qemu(self):
        with Bare(machine('counter')) as guest:
            guest.wait_rounds()
            folder = f'/proc/{guest.pid}/task'
            names = sorted(open(f'{folder}/{thread}/comm', encoding='ascii').read().strip() for thread in os.listdir(folder))
            self.assertEqual(names, ['guest0.core0', 'guest0.core1', 'small_vmm'])


class LinuxKernel(unittest.TestCase):
    def test_two_cpus_a_channel_and_power_off(self):
        config = Config(case.kernel(), memory_mib=256, arguments=('quiet', 'mitigations=off'))
        with SmallVmm(config) as guest:
            self.assertEqual([cpu for cpu, _, _ in guest.alive()], [0, 1])
            self.assertIn('exo-guest-ready', guest.console())
            guest.channel.send('poweroff')
            self.assertEqual(guest.wait_end(60), 0)


if __name__ == '__main__':
    case.main()
