"""Guest memory found from outside its monitor (backends/kvm): the layouts that QEMU has, each with a stock kernel. QEMU's
own page walks stand in for KVM's, so that this runs where there is no KVM."""
import os
import subprocess
import unittest

from harness import case
from harness.errors import MissingPrerequisite
from harness.guest import Config
from harness.vm import Vm

CHECK_LIMIT = 120  # seconds: a walk is a question on QEMU's monitor

# Page tables that are met at the least: a kernel that has just booted has some hundreds.
LEAST_TABLES = '20'


def node(number: int, mib: int) -> list:
    return ['-object', f'memory-backend-ram,id=node{number},size={mib}M',
            '-numa', f'node,nodeid={number},memdev=node{number}']


# Name: the guest, more arguments of QEMU, and of slots_check.
LAYOUTS = {
    'pc, 512 MiB': (dict(memory_mib=512), (), ()),
    'pc, 3.5 GiB': (dict(memory_mib=3584), (), ()),
    'q35, 3.5 GiB, all in user mode':
        (dict(memory_mib=3584, machine='q35', scenario='spin', arguments=('pti=on',)), (), ()),
    'pc, 6 GiB in a memfd': (dict(memory_mib=6144, shared_memory=True), (), ()),
    'q35, 6 GiB, four levels': (dict(memory_mib=6144, machine='q35', arguments=('no5lvl',)), (), ()),
    'q35, a split that no table knows': (dict(memory_mib=3072, machine='q35,max-ram-below-4g=1311M'), (), ()),
    # A part of a node may have no page table at all: then it is not found.
    'pc, two nodes': (dict(memory_mib=4608), (*node(0, 1536), *node(1, 3072)), ('may-miss',)),
}


class Layouts(unittest.TestCase):
    def test_each_is_found_and_verified(self):
        program = os.environ.get('SLOTS_CHECK')
        if not program:
            raise MissingPrerequisite('slots_check (the target of that name; name it in SLOTS_CHECK)')
        wanted = os.environ.get('SLOTS_LAYOUT', '')
        for name, (config, extra, options) in LAYOUTS.items():
            if wanted not in name:
                continue
            with self.subTest(name), Vm(Config(case.kernel(), **config), 'tcg', extra) as guest:
                result = subprocess.run([program, guest.qmp_path, LEAST_TABLES, *options], capture_output=True, text=True,
                                        timeout=CHECK_LIMIT, check=False)
                print(f'\n{name}\n{result.stdout}{result.stderr}', flush=True)
                self.assertEqual(result.returncode, 0, result.stdout)


if __name__ == '__main__':
    case.main()
