"""gdb-scripts/exogdb.py in a real gdb, and the `qemu:` backend by the way: this guest is QEMU's own, without libvirt."""
import pathlib
import re

from harness import case, gdb, server, vm

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / 'gdb-scripts' / 'exogdb.py'
COMMANDS = ('breakpoints', 'bt-all', 'dmesg', 'info', 'lsmod', 'problems', 'ps', 'reset', 'symbol', 'vcpus',
            'x16')


class Scripts(case.GuestCase):
    config = {'scenario': 'idle'}
    guest_type = vm.Vm

    def in_gdb(self, *commands: str, connected: bool = True) -> list:
        """What each command prints."""
        words = [f'source {SCRIPT}']
        if connected:
            words.append(f'target remote {self.serve().socket}')
        for command in commands:
            words += ['echo \\n@@@\\n', command]
        words += ['echo \\n@@@\\n']
        # gdb ends a batch at the first error; python goes on.
        script = 'python\nfor word in ' + repr(words) + ''':
    try:
        gdb.execute(word)
    except gdb.error as error:
        print("error:", error)
end
'''
        path = pathlib.Path(self.guest.folder, 'commands.gdb')
        path.write_text(script)
        return gdb.batch(f'source {path}').split('\n@@@\n')[1:-1]

    def test_help_names_each_command(self):
        overview, *texts = self.in_gdb('help exo', *(f'help exo {name}' for name in COMMANDS), connected=False)
        self.assertEqual(tuple(re.findall(r'^exo ([\w-]+) -- \S', overview, re.M)), COMMANDS)
        for name, text in zip(COMMANDS, texts):
            self.assertNotIn('not documented', text, name)

    def test_without_a_server_it_says_so(self):
        commands = [f'exo {name} x' if name == 'symbol' else f'exo {name}' for name in COMMANDS]
        for name, text in zip(COMMANDS, self.in_gdb(*commands, connected=False)):
            self.assertIn('target remote', text, name)

    def test_ps_lists_the_guests_tasks(self):
        before = {task.tid for task in self.guest.tasks()}
        everything, some, none = self.in_gdb('exo ps', 'exo ps KTHREADD', 'exo ps no-such-task')
        after = {task.tid for task in self.guest.tasks()}
        shown = [int(tid) for tid in re.findall(r'^ *(\d+) +\d+ +\S', everything, re.M)]
        self.assertEqual(shown.count(0), self.guest.config.vcpus)
        self.assertLessEqual(before & after, set(shown))
        self.assertLessEqual(set(shown), {0} | before | after)
        self.assertEqual(len(some.strip().splitlines()), 2, some)
        self.assertRegex(some, r'\n +2 +2 +\S\*? +\d+  \[kthreadd\]')
        self.assertEqual(none.split(), ['TID', 'TGID', 'S', 'CPU', 'COMM'])

    def test_vcpus_give_the_numbers_of_gdbs_threads(self):
        listed, threads, wrong = self.in_gdb('exo vcpus', 'info threads', 'exo vcpus 1')
        rows = re.findall(r'^ *(\d+) +(\d+) +\d+  \S', listed, re.M)
        self.assertEqual([int(cpu) for cpu, _ in rows], list(range(self.guest.config.vcpus)), listed)
        for cpu, number in rows:
            self.assertRegex(threads, rf'(?m)^[* ] {number} +Thread .*, on vCPU {cpu}\b')
        self.assertIn('takes no argument', wrong)

    def test_dmesg_is_the_guests_log(self):
        whole, last, wrong = self.in_gdb('exo dmesg', 'exo dmesg 1', 'exo dmesg x')
        self.assertIn(f'Linux version {self.guest.config.kernel.release} ', whole)
        self.assertTrue(whole.strip().endswith(last.strip()), last)
        self.assertRegex(last.strip(), r'^\[ *\d+\.\d{6}\] ')
        self.assertIn('not a number of records: x', wrong)

    def test_bt_all_has_each_task_and_can_group_them(self):
        before = {task.tid for task in self.guest.tasks()}
        single, grouped, wrong = self.in_gdb('exo bt-all', 'exo bt-all -g', 'exo bt-all 1')
        after = {task.tid for task in self.guest.tasks()}
        for text in (single, grouped):
            tids = [int(tid) for tid in re.findall(r'(?m)^thread (\d+) "', text)]
            self.assertEqual(len(tids), len(set(tids)))
            self.assertLessEqual(before & after, set(tids))
            self.assertNotIn('broken off', text)
        self.assertGreater(single.count('\n#0 '), grouped.count('\n#0 '))
        self.assertIn('takes no argument but -g', wrong)

    def test_functions_for_expressions(self):
        """More of them on every kernel: tests/guest/test_symbols.py."""
        contract, by_tid, listed = self.in_gdb('print ((struct task_struct *)$current())->comm', 'print $task(2)->comm',
                                               'help function')
        self.assertRegex(contract, r'= "swapper/0|= "\w')
        self.assertIn('"kthreadd', by_tid)
        for name in ('current', 'task', 'per_cpu'):
            self.assertRegex(listed, rf'(?m)^function {name} -- \S')

    def test_lsmod_of_a_kernel_that_has_loaded_none(self):
        self.assertEqual(self.in_gdb('exo lsmod')[0].split(), ['MODULE', 'SIZE', 'USERS', 'ADDRESS'])

    def test_info_and_problems(self):
        info, problems = self.in_gdb('exo info', 'exo problems')
        self.assertRegex(info, rf'(?m)^version +{re.escape(self.guest.config.kernel.release)} ')
        self.assertEqual(problems.strip(), 'none')

    def test_symbols_are_the_guests(self):
        theirs = self.guest.symbols('__x64_sys_getpid')['__x64_sys_getpid'][0]
        address, name, without = self.in_gdb('exo symbol __x64_sys_getpid', f'exo symbol {theirs + 1:#x}', 'exo symbol')
        self.assertEqual(address.strip(), f'{theirs:#x}')
        self.assertIn('_sys_getpid+0x1', name)  # its address has several names
        self.assertIn('which symbol', without)

    def test_breakpoints_are_shown_while_gdb_has_them_inserted(self):
        getpid = self.guest.symbols('__x64_sys_getpid')['__x64_sys_getpid'][0]
        before, _, _, _, after = self.in_gdb('exo breakpoints', 'set breakpoint always-inserted on', f'break *{getpid:#x}',
                                             f'hbreak *{getpid + 1:#x}', 'exo breakpoints')
        self.assertEqual(before.strip(), 'none')
        self.assertEqual(sorted(after.strip().splitlines()), [f'{getpid:#x}  software', f'{getpid + 1:#x}  hardware'])

    def test_doctor_finds_nothing_in_the_way(self):
        checks = server.run_json('doctor', self.guest.target)
        self.assertEqual([check for check in checks if not check['ok']], [])


if __name__ == '__main__':
    case.main()
