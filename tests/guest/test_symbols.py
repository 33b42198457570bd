"""The symbol file: what gdb knows of the kernel after `target remote` alone. And what the server itself tells of the
kernel's stacks, log and variables."""
import hashlib
import pathlib
import re
import subprocess

from harness import case, gdb, server

# Where a kernel stack begins: a system call, a fork, the boot of a processor, or user mode.
ROOTS = re.compile(r'entry_SYSCALL_64\w*|ret_from_fork\w*|(?:secondary_)?startup_64\w*|common_startup_64|start_cpu0|user_mode')
THREAD = re.compile(r'^Thread \d+ \(Thread \d+\.(\d+) "(.*?)" \((.*)\)\):$')
FRAME = re.compile(r'^#(\d+) +(?:0x[0-9a-f]+ in )?(\S+|<signal handler called>|<unavailable> in \S+) ?')
SERVER_FRAME = re.compile(r'^#(\d+) +(0x[0-9a-f]+)(?: (\S+)\+0x[0-9a-f]+(?: \[\S+\])?| in user mode)?$')
SCRIPT = pathlib.Path(__file__).resolve().parents[2] / 'gdb-scripts' / 'exogdb.py'
IDLE_TID = 0x500001
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


def server_backtraces(text: str) -> dict:
    """{tid: ([(pc, function) of each frame], what is said where it breaks off)} of `monitor bt-all`"""
    stacks = {}
    for block in text.split('\n\n'):
        head = re.match(r'\s*thread (\d+) "', block)
        if head:
            frames = [match for match in map(SERVER_FRAME.match, block.splitlines()) if match]
            stacks[int(head.group(1))] = ([(int(frame.group(2), 16), frame.group(3) or 'user_mode') for frame in frames],
                                          re.findall('broken off: (.*)', block))
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

    def test_the_servers_backtraces_are_those_of_gdb(self):
        """Of one stop: `monitor bt-all` has every task, each up to a true root, and the frames that gdb finds."""
        output = gdb.batch(f'target remote {self.serve().socket}', 'thread apply all bt', 'echo \\n@@@\\n', 'monitor bt-all',
                           'echo \\n@@@\\n', 'monitor bt 1', 'monitor bt 999999')
        by_gdb, all_stacks, of_init = output.split('\n@@@\n')
        stacks = server_backtraces(all_stacks)
        zombies = {task.tid for task in self.guest.tasks() if task.state in 'ZX'}
        theirs = {}
        for line in by_gdb.splitlines():
            # Not THREAD: a name may be empty.
            thread, frame = re.match(r'Thread \d+ \(Thread \d+\.(\d+) ', line), re.match(r'#\d+ +(0x[0-9a-f]+) in (\S+)', line)
            if thread:
                current = theirs.setdefault(int(thread.group(1)), [])
            elif frame and frame.group(2) not in MARKS:
                current.append(int(frame.group(1), 16))
        self.assertEqual(set(stacks), set(theirs))
        for tid, (frames, broken) in stacks.items():
            if tid in zombies:
                continue
            self.assertEqual(broken, [], (tid, frames))
            self.assertRegex(frames[-1][1], ROOTS)
            if frames[0][1] != 'user_mode':
                self.assertEqual([pc for pc, _ in frames], theirs[tid], (tid, frames))
        self.assertIn(hex(stacks[1][0][-1][0]), of_init)
        self.assertIn('no task with the TID 999999', of_init)

    def test_the_log_is_what_the_guest_prints(self):
        theirs = self.guest.channel.ask('run dmesg -s 4000000', limit=200)
        log = server.run_json('dmesg', self.guest.target)
        self.assertEqual(log['missing'], [])
        ours = [f"[{record['time_ns'] // 10**9:5}.{record['time_ns'] % 10**9 // 1000:06}] {line}"
                for record in log['records'] for line in record['text'].split('\n')]
        self.assertGreater(len(theirs), 100)
        self.assertEqual(ours[:len(theirs)], theirs)
        plain = server.run('dmesg', self.guest.target).stdout.splitlines()
        self.assertEqual(plain[0], theirs[0])
        self.assertGreaterEqual(len(plain), len(theirs))
        whole, last, _ = gdb.batch(f'target remote {self.serve().socket}', 'monitor dmesg', 'echo \\n@@@\\n', 'monitor dmesg 2',
                                   'echo \\n@@@\\n').split('\n@@@\n')
        self.assertIn('\n'.join(theirs[:3]), whole)
        self.assertEqual(len(re.findall(r'(?m)^\[ *\d+\.\d{6}\] ', last)), 2)
        self.assertTrue(whole.strip().endswith(last.strip()), last)

    def test_functions_of_the_script_for_expressions(self):
        rows, one, per_cpu, errors = gdb.evaluate(self.serve().socket, f'''
gdb.execute("source {SCRIPT}")
rows = []
for thread in gdb.selected_inferior().threads():
    thread.switch()
    task = gdb.parse_and_eval("$current()")
    rows.append([thread.ptid[1], thread.name or "", int(task["pid"]), str(task.type)])
one = gdb.parse_and_eval("((struct task_struct *)$task(1))->comm").string()
per_cpu = []
for cpu in range({self.guest.config.vcpus}):
    def value(text):
        return gdb.parse_and_eval(text.replace("CPU", str(cpu)))
    per_cpu.append([int(value('$per_cpu("runqueues", CPU).cpu')), int(value('$per_cpu(runqueues, CPU).cpu')),
                    int(value('$per_cpu(&runqueues, CPU)->cpu')), value('$per_cpu("runqueues", CPU).idle->comm').string(),
                    int(value('(long)&$per_cpu("runqueues", CPU) - (long)&$per_cpu("runqueues", 0)'
                              ' == __per_cpu_offset[CPU] - __per_cpu_offset[0]'))])
errors = []
for text in ('$task(999999)', '$per_cpu("runqueues", 99)', '$per_cpu("init_task", 0)', '$per_cpu("no_such_thing", 0)'):
    try:
        errors.append(str(gdb.parse_and_eval(text)))
    except gdb.error as error:
        errors.append(str(error))
result = [rows, one, per_cpu, errors]
''')
        self.assertGreater(len(rows), 50)
        for tid, name, pid, kind in rows:
            self.assertEqual(kind, 'struct task_struct *')
            self.assertEqual(pid, tid if tid < IDLE_TID else 0, name)
        self.assertEqual(one, next(task.comm.decode() for task in self.guest.tasks() if task.tid == 1))
        self.assertEqual(per_cpu, [[cpu, cpu, cpu, f'swapper/{cpu}', 1] for cpu in range(self.guest.config.vcpus)])
        for error, wanted in zip(errors, ('no task with the TID 999999', 'no CPU 99', 'no per-CPU variable', 'no symbol no_such_thing')):
            self.assertIn(wanted, error)

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

    @case.needs('breakpoints')
    def test_a_breakpoint_by_name_and_what_led_there(self):
        """And on, in the same task, across its sleep."""
        with gdb.Session(self.serve().socket) as session:
            self.run_into(session, 'hrtimer_nanosleep', 'run /bin/busybox sleep 1')
            task = session.console('thread')
            stack = session.console('bt')
            names = [frame.group(2) for frame in map(FRAME.match, stack.splitlines()) if frame]
            self.assertEqual(names[0], 'hrtimer_nanosleep', stack)
            self.assertRegex(names[-1], ROOTS, stack)
            self.assertNotIn('??', stack)
            session.console('delete')
            session.resume('-exec-step-instruction')
            self.assertEqual(gdb.stop_reason(session.wait_stop()), 'end-stepping-range')
            session.resume('-exec-finish')
            self.assertEqual(gdb.stop_reason(session.wait_stop()), 'function-finished')
            self.assertEqual(session.console('thread').split(' (')[0], task.split(' (')[0])
            self.assertRegex(session.console('frame'), rf'#0 +0x[0-9a-f]+ in {names[1]} ')
            session.command('-target-detach')
        self.guest.channel.receive('run')

    @case.needs('breakpoints')
    def test_a_system_call_stepped_and_finished(self):
        with gdb.Session(self.serve().socket) as session:
            self.run_into(session, 'do_sys_openat2', 'open /dev/null')
            self.assertRegex(session.console('info args'), r'(?s)dfd = .*filename = .*how = ')
            self.assertRegex(session.console('ptype filename'), r'type = const char \*')
            session.console('delete')
            before = session.value('$pc')
            session.resume('-exec-step-instruction')
            self.assertEqual(gdb.stop_reason(session.wait_stop()), 'end-stepping-range')
            self.assertNotEqual(session.value('$pc'), before)
            caller = session.console('up')
            self.assertRegex(caller, r'#1 +0x[0-9a-f]+ in \w*open\w* \(')
            returns_to = session.value('$pc')
            session.console('down')
            session.resume('-exec-finish')
            self.assertEqual(gdb.stop_reason(session.wait_stop()), 'function-finished')
            self.assertEqual(session.value('$pc'), returns_to)
            session.command('-target-detach')
        self.guest.channel.receive('open')

    @case.needs('breakpoints')
    def test_a_stack_crosses_the_interrupt(self):
        output = gdb.batch(f'target remote {self.serve().socket}', 'break hrtimer_interrupt', 'continue', 'bt', 'delete', 'detach')
        names = [frame.group(2) for frame in map(FRAME.match, output.splitlines()) if frame]
        self.assertEqual(names[:1], ['hrtimer_interrupt'], output)
        entry = names.index('asm_sysvec_apic_timer_interrupt')
        self.assertGreater(len(names), entry + 1, output)  # what was interrupted
        self.assertRegex(names[-1], ROOTS, output)
        self.assertNotIn('??', output)


if __name__ == '__main__':
    case.main()
