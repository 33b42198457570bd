"""The lab in Bochs shows what it is there for: KVM reports every kind of debug event, and a guest goes on unharmed."""
import io
import os
import re
import unittest

import bochs_machine
from harness import case
from harness.small_vmm import RECORD, bare_program, program

EVENTS = ('software breakpoint', 'hardware breakpoint', 'watchpoint', 'single step', 'single step, interrupts blocked')
SCRIPT = '''
{check}
touch /serial
{vmm} --vcpus 2 --bare {bare} >/serial &
vmm=$!
# until vCPU 0 has printed itself a second time
while ! [ "$(grep -c 'vcpu 00000000.*text' /serial)" -ge 2 ]; do sleep 0.1; kill -0 $vmm || exit 1; done
kill $vmm
cat /serial
'''


class Bochs(unittest.TestCase):
    def test_events_and_a_guest_of_two_vcpus(self):
        check = os.path.join(os.path.dirname(program()), 'debug_check')
        script = SCRIPT.format(check=check, vmm=program(), bare=bare_program('traps'))
        sink = io.BytesIO()
        status = bochs_machine.run(script, (check, program(), bare_program('traps')), sink=sink)
        output = sink.getvalue().decode()
        print(output)
        self.assertEqual(status, 0, output)
        for event in EVENTS:
            self.assertIn(f'{event} yes\n', output)
        records = {int(index, 16): re.findall(r'(\w+) (\w+)', fields) for index, fields in RECORD.findall(output)}
        self.assertEqual(sorted(records), [0, 1])
        for record in records.values():
            numbers = {name: int(number, 16) for name, number in record}
            self.assertEqual((numbers['wrong'], numbers['stray'], numbers['text']), (0, 0, 0))
            self.assertGreater(numbers['int3'], 0)


if __name__ == '__main__':
    case.main()
