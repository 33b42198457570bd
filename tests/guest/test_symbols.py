"""The symbol file: what gdb knows of the kernel after `target remote` alone."""
import hashlib
import re
import subprocess

from harness import case, gdb, server

# Where a kernel stack begins: a system call, a fork, the boot of a processor, or user mode.
ROOTS = re.compile(r'entry_SYSCALL_64\w*|ret_from_fork\w*|(?:secondary_)?startup_64\w*|common_startup_64|start_cpu0|user_mode')
THREAD = re.compile(r'^Thread \d+ \(Thread \d+\.(\d+) "(.*?)" \((.*)\)\):$')
FRAME = re.compile(r'^#(\d+) +(?:0x[0-9a-f]+ in )?(\S+|<signal handler called>|<unavailable> in \S+) ?')
# What the file has of its own (os-awareness/linux/orc_frames.h).
MARKS = {'user_mode', 'interrupted_kernel', 'stack_switch'}


def backtraces(text: str) -> dict:
    """{tid: [name of each frame, or what gdb says where it gives up]}"""
    stacks, current = {}, None
    for line in text.splitlines():
        thread = THREAD.match(line)
        if thread:
            current = stacks.setdefault(int(thread.group(1)), [])
        elif FRAME.match(line) and current is not None:
            current.append(FRAME.match(line).group(2))
        elif 'Backtrace stopped' in line:
            current.append(line)
    return stacks


class Symbols(case.GuestCase):
    config = {'scenario': 'threads', 'arguments': ('exo.threads=8',)}

    def test_every_task_unwinds_to_a_true_root(self):
        output = gdb.batch(f'target remote {self.serve().socket}', 'thread apply all bt')
        stacks = backtraces(output)
        self.assertGreater(len(stacks), 50, output)
        zombies = {task.tid for task in self.guest.tasks() if task.state in 'ZX'}
        lost = {tid: stack for tid, stack in stacks.items()
                if tid not in zombies and (not stack or not ROOTS.fullmatch(stack[-1]) or '??' in stack)}
        self.assertEqual(lost, {}, output)
        self.assertGreater(sum(len(stack) for stack in stacks.values()), 4 * len(stacks), output)

    def test_the_stacks_are_those_that_the_guest_reports(self):
        """/proc/TID/stack leaves out the scheduler's frames, and what was inlined is in neither."""
        wanted = {}
        for task in self.guest.tasks():
            if task.state in 'SDTt' and not task.is_kernel_thread:
                lines = '\n'.join(self.guest.channel.ask(f'file /proc/{task.tid}/stack'))
                wanted[task.tid] = re.findall(r'\] ([\w.]+)\+0x', lines)
        stacks = backtraces(gdb.batch(f'target remote {self.serve().socket}', 'thread apply all bt'))
        compared = 0
        for tid, calls in wanted.items():
            if tid not in stacks or not calls:
                continue
            remaining = iter(stacks[tid])
            lost = [name for name in calls if name not in remaining]
            compared += not lost
        # A task may have gone on between the two looks: most have not.
        self.assertGreater(compared, 0.8 * len(wanted), (wanted, stacks))

    def test_every_symbol_is_there_and_no_other(self):
        """Compared by a digest: the channel is a serial line."""
        path = self.guest.folder / 'symbols'
        server.run('symbols', self.guest.target, '-o', str(path))
        slide = int(server.run_json('info', self.guest.target)['slide'], 16)
        lines = []
        for line in subprocess.run(['nm', str(path)], capture_output=True, text=True, check=True).stdout.splitlines():
            address, kind, name = line.split(' ', 2)
            if name not in MARKS:
                lines.append(f'{int(address, 16) + (0 if kind in "aA" else slide) & 2**64 - 1:016x} {name}\n')
        self.assertGreater(len(lines), 50000)
        digest = hashlib.md5(''.join(sorted(lines)).encode()).hexdigest()
        # A module's symbols have its name in brackets behind them.
        count, real = self.guest.channel.ask("run sed '/\\[/d' /proc/kallsyms | cut -d ' ' -f 1,3 | sort > /symbols; "
                                             "wc -l < /symbols; md5sum < /symbols; rm /symbols", limit=200)
        self.assertEqual((len(lines), digest), (int(count), real.split()[0]))

    def test_types_and_variables(self):
        output = gdb.batch(f'target remote {self.serve().socket}', 'print init_task.comm',
                           'print ((struct task_struct *)&init_task)->pid', 'print sizeof(struct task_struct) > 2000',
                           'whatis jiffies', 'info symbol schedule', 'ptype struct list_head',
                           'print (char)linux_banner[0]', 'whatis do_exit')
        for wanted in (r'\$1 = "swapper/0', r'\$2 = 0$', r'\$3 = 1$', r'type = (volatile )?unsigned long$', r'^schedule in section \.text',
                       r'struct list_head \*next;', r"\$4 = 76 'L'", r'type = void \(long\)'):
            self.assertRegex(output, re.compile(wanted, re.M))

    def test_info_says_what_a_symbol_file_will_have(self):
        info = server.run_json('info', self.guest.target)
        self.assertEqual((info['symbols'], info['types']), ('functions and data', 'yes'), info)
        self.assertRegex(info['frames'], r'^\d{6} rows of ORC, layout v\d$')
        self.assertRegex(info['build_id'], r'^[0-9a-f]{40}$')
        self.assertNotIn('boot', info)

    def test_a_vmlinux_of_the_users_own(self):
        """The made file stands for it: it has the kernel's build id."""
        own, other, copy = (self.guest.folder / name for name in ('own-vmlinux', 'other-vmlinux', 'copy'))
        server.run('symbols', self.guest.target, '-o', str(own))
        server.run('symbols', self.guest.target, '--vmlinux', str(own), '-o', str(copy))
        self.assertEqual(own.read_bytes(), copy.read_bytes())
        build_id = bytes.fromhex(server.run_json('info', self.guest.target)['build_id'])
        other.write_bytes(own.read_bytes().replace(build_id, bytes(len(build_id))))
        for command in (('serve',), ('symbols', '-o', str(copy))):
            refused = server.run(*command, self.guest.target, '--vmlinux', str(other), check=False)
            self.assertEqual((refused.returncode, refused.stdout, refused.stderr.count('\n')), (1, '', 1), refused)
            self.assertIn(f'is not the guest\'s kernel: its build id is {"00" * 20}', refused.stderr)
        # Last: a QMP socket takes one client at a time.
        output = gdb.batch(f'target remote {self.serve("--vmlinux", str(own)).socket}', 'info symbol schedule')
        self.assertIn('Reading symbols from target:/exogdb/own-vmlinux', output)
        self.assertRegex(output, '(?m)^schedule in section ')

    def test_a_breakpoint_by_name_and_what_led_there(self):
        output = gdb.batch(f'target remote {self.serve().socket}', 'break do_nanosleep', 'break schedule', 'continue', 'bt', 'stepi',
                           'delete', 'finish', 'info args', 'detach')
        self.assertRegex(output, r'hit Breakpoint \d, 0x[0-9a-f]+ in (schedule|do_nanosleep) \(')
        self.assertRegex(output, r'(?m)^#1 +0x[0-9a-f]+ in [a-z]\w+ \(')
        self.assertNotIn('??', output)


if __name__ == '__main__':
    case.main()
