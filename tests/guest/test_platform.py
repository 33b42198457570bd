"""`serve --multi`: a client has nothing at connect. lldb's platform lists the guest's processes and attaches one; gdb does by `info os`."""
import re

import test_process
from harness import case, gdb, initramfs, lldb, ports


class Platform(test_process.ProcessCase):
    config = {'scenario': 'process', 'programs': ('process',), 'dynamic': True}

    def lldb(self, version: int, *commands: str) -> list:
        """What each command prints, in a session that begins by `platform connect`."""
        port = ports.free()
        self.serve('--multi', listen=f'127.0.0.1:{port}')
        output = lldb.batch(version, 'platform select remote-linux', f'platform connect connect://127.0.0.1:{port}', *commands)
        self.assertNotIn('error:', output)
        answers = re.split(r'^\(lldb\) ', output, flags=re.M)[3:]
        self.assertEqual(len(answers), len(commands), output)
        return answers

    def attached(self, version: int):
        pid = self.pids['first']
        listed, *rest = self.lldb(version, 'platform process list', f'process attach -p {pid}', 'thread list', 'process detach')
        for name in ('init', *self.names):
            task = next(task for task in self.guest.tasks() if task.comm.decode() == name and task.tid == task.tgid)
            self.assertRegex(listed, rf'(?m)^{task.tid} +\d+ .* {name}$')
        self.assertNotIn('kthreadd', listed)
        self.assertEqual({int(tid, 0) for tid in re.findall(r'tid = (0x[0-9a-f]+|\d+)', rest[1])}, self.guest_tids('first'))

    def by_name(self, version: int):
        program = initramfs.program('process', True)
        answers = self.lldb(version, f'target create {program}', 'process attach -n second', 'breakpoint set -n leaf',
                            'process continue', 'bt', 'process detach')
        self.assertIn(f'Process {self.pids["second"]} stopped', answers[1])
        self.assertRegex(answers[4], r'(?s)leaf\(number=7\).*middle\(.*calls\(')

    def waited_for(self, version: int):
        self.guest.channel.ask('run rm -f /enough; while [ ! -e /enough ]; do process; sleep 1; done >/dev/null 2>&1 &')
        answers = self.lldb(version, 'process attach -n process --waitfor', 'thread list', 'process detach')
        self.assertRegex(answers[1], r"thread #1: tid = \d+, 0x\w+, name = 'process'")
        self.assertEqual(answers[1].count('tid = '), 1)
        self.guest.channel.ask('run touch /enough')

    def test_lldb_14_lists_and_attaches(self):
        """`serve --multi`, lldb 14: `platform process list`, `process attach -p`"""
        self.attached(14)

    def test_lldb_19_lists_and_attaches(self):
        """`serve --multi`, lldb 19: `platform process list`, `process attach -p`"""
        self.attached(19)

    def test_lldb_14_by_name(self):
        """`serve --multi`, lldb 14: `process attach -n`, and a breakpoint in the program"""
        self.by_name(14)

    def test_lldb_19_by_name(self):
        """`serve --multi`, lldb 19: `process attach -n`, and a breakpoint in the program"""
        self.by_name(19)

    def test_lldb_14_waits(self):
        """`serve --multi`, lldb 14: `process attach -n --waitfor`: at the first instruction of a program that begins"""
        self.waited_for(14)

    def test_lldb_19_waits(self):
        """`serve --multi`, lldb 19: `process attach -n --waitfor`: at the first instruction of a program that begins"""
        self.waited_for(19)

    def test_gdb(self):
        """`serve --multi`, gdb: `info os processes` while the guest runs; `attach`, `detach`, and the list again"""
        tids = self.guest_tids('first')
        with gdb.Session() as session:
            session.command(f'-target-select extended-remote {self.serve("--multi").socket}')
            self.guest.alive()
            self.assertRegex(session.console('info os processes'), rf'(?m)^{self.pids["first"]} .*first')
            session.console(f'attach {self.pids["first"]}')
            self.assertEqual(self.tids(session), tids)
            session.console('detach')
            self.guest.alive()
            self.assertRegex(session.console('info os processes'), rf'(?m)^{self.pids["second"]} .*second')


if __name__ == '__main__':
    case.main()
