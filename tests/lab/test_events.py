"""Breakpoints, watchpoints and steps of a real gdb on `kvm:PID`, on two vCPUs: in Bochs, where KVM reports them."""
import io
import os
import re
import unittest

import bochs_machine
from harness import case, server
from harness.small_vmm import bare_program, program

HITS = int(os.environ.get('EXOGDB_LAB_HITS', '40'))
CHECKS = os.path.join(os.path.dirname(__file__), 'debug_events.py')
SCRIPT = '''
touch /serial /log
{vmm} --vcpus 2 --bare {bare}.bin --serial /serial &
vmm=$!
until grep -q 'vcpu 00000000.*text' /serial; do sleep 0.1; kill -0 $vmm || exit 1; done
{exogdb} serve kvm:$vmm --listen unix:/socket >/log 2>&1 &
server=$!
until grep -q listening /log; do sleep 0.1; kill -0 $server || {{ cat /log; exit 1; }}; done
EXOGDB_LAB_HITS={hits} gdb -nx -batch -ex 'set pagination off' -ex 'file {bare}.elf' -ex 'target remote /socket' \\
    -x {checks} -ex detach
cat /log
# unharmed, and going on
lines=$(grep -c . /serial)
until [ "$(grep -c . /serial)" -gt $((lines + 1)) ]; do sleep 0.1; kill -0 $vmm || exit 1; done
tail -2 /serial
kill $server; wait $server
{exogdb} recover kvm:$vmm
kill $vmm
'''


class Events(unittest.TestCase):
    def test_every_kind_of_debug_event(self):
        bare = os.path.splitext(bare_program('traps'))[0]
        script = SCRIPT.format(vmm=program(), bare=bare, exogdb=server.program(), checks=CHECKS, hits=HITS)
        files = (program(), server.program(), f'{bare}.bin', f'{bare}.elf', CHECKS, *bochs_machine.gdb_files())
        sink = io.BytesIO()
        status = bochs_machine.run(script, files, limit=900 + HITS, sink=sink)
        output = sink.getvalue().decode()
        print(output)
        self.assertEqual(status, 0)
        told = re.search(r'^checks: (\d+) ok, (\d+) failed$', output, re.M)
        self.assertIsNotNone(told, 'gdb did not come to the end of its checks')
        self.assertEqual((int(told[1]), int(told[2])), (21, 0), re.findall('^check FAIL.*', output, re.M))
        self.assertIn('wrong 00000000 stray 00000000 text 00000000', output.split('checks:')[1])
        self.assertIn('nothing to undo', output)


if __name__ == '__main__':
    case.main()
