"""Two generations of lldb connect, list the tasks, step, and leave without harm."""
import re

from harness import case, lldb, ports


class Lldb(case.GuestCase):
    config = {'scenario': 'spin'}

    def session(self, version: int):
        port = ports.free()
        self.serve(listen=f'127.0.0.1:{port}')
        output = lldb.batch(version, f'gdb-remote {port}', 'thread list', 'register read rip', 'thread step-inst',
                            'register read rip', 'thread list', 'process detach')
        self.assertNotIn('error:', output)
        answers = re.split(r'^\(lldb\) ', output, flags=re.M)
        before, first, second = answers[2], answers[3], answers[5]
        listed = {int(tid, 0) for tid in re.findall(r'tid = (0x[0-9a-f]+|\d+)', before)}
        theirs = {task.tid for task in self.guest.tasks()}
        self.assertGreaterEqual(len(listed & theirs), len(theirs) - 5, before)  # workers come and go
        for name in ('kthreadd', 'swapper/0', 'swapper/1', 'spinner-0', 'init'):
            self.assertIn(name, before)
        counters = [int(re.search(r'rip = (0x[0-9a-f]+)', answer).group(1), 16) for answer in (first, second)]
        self.assertNotEqual(counters[0], counters[1], output)

    def test_lldb_14(self):
        self.session(14)

    def test_lldb_19(self):
        self.session(19)


if __name__ == '__main__':
    case.main()
