"""Processes of the guest as a debugger's own: attached from outside, with no server in the guest."""
import re
import tempfile

from harness import case, gdb, initramfs
from harness.errors import HarnessError

NAMES = ('first', 'second')
THREADS = {'caller', 'spinner', 'sleeper'}
PAUSE = 34  # SYS_pause, arch/x86/entry/syscalls/syscall_64.tbl
PIECES = {'r14': 0x14 * 0x0101010101010101, 'r15': 0x15 * 0x0101010101010101}


class ProcessCase(case.SessionCase):
    config = {'scenario': 'process', 'programs': ('process',)}
    names = NAMES

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.pids = {task.comm.decode(): task.tid for task in cls.guest.tasks() if task.comm.decode() in cls.names}
        dynamic = cls.config.get('dynamic', False)
        name = cls.config['programs'][0]
        cls.program = initramfs.program(name, dynamic)
        cls.libraries = initramfs.libraries(cls.program) if dynamic else []
        cls.files = ' '.join((f'/bin/{name}', '/bin/busybox', *cls.libraries))
        cls.digest = cls.guest.channel.ask(f'run md5sum {cls.files}')

    def tearDown(self):
        super().tearDown()
        self.assertEqual(self.guest.channel.ask(f'run md5sum {self.files}'), self.digest)
        before = {name: self.counters(name) for name in self.names if self.lives(name)}
        self.guest.channel.ask('run sleep 1')
        for name, (calls, spins, wrong) in before.items():
            now = self.counters(name)
            self.assertEqual((wrong, now[2]), (0, 0), f'{name} has found something changed')
            self.assertGreater(now[0], calls, f'{name} does not call')
            self.assertGreater(now[1], spins, f'{name} does not spin')

    def lives(self, name: str) -> bool:
        return any(task.tid == self.pids[name] and task.state != 'Z' for task in self.guest.tasks())

    def counters(self, name: str) -> tuple:
        """What the process itself has counted: calls, turns of the loop, what it has found changed."""
        words = self.guest.channel.ask(f"run hexdump -v -e '6/4 \"%u \" \"\\n\"' /{name}")[0].split()
        return tuple(int(low) + (int(high) << 32) for low, high in zip(words[0:6:2], words[1:6:2]))

    program_given = True  # to gdb, from this machine

    def extended(self, *names: str) -> gdb.Session:
        """gdb with the kernel as its inferior 1 and the processes as 2 and on; the last is the current one."""
        session = gdb.Session()
        self.sessions.append(session)
        session.command(f'-target-select extended-remote {self.serve().socket}')
        for number, name in enumerate(names, 2):
            session.console('add-inferior')
            session.console(f'inferior {number}')
            if self.program_given:
                session.console(f'file {self.program}')
            session.console(f'attach {self.pids[name]}')
        return session

    def plain(self, process: str) -> gdb.Session:
        """`target remote` of a server that has that one process."""
        session = gdb.Session()
        self.sessions.append(session)
        if self.program_given:
            session.console(f'file {self.program}')
        session.connect(self.serve('--process', process).socket)
        return session

    @staticmethod
    def stopped(session) -> str:
        """The next stop that has a reason: one by `attach` has none, and may be told late."""
        while not gdb.stop_reason(record := session.wait_stop(120)):
            continue
        return record

    def go(self, session, command: str = 'continue', reason: str = 'breakpoint-hit') -> str:
        session.console(command)
        record = self.stopped(session)
        self.assertEqual(gdb.stop_reason(record), reason, record)
        return record

    def stop(self, session):
        session.control_c()
        self.assertEqual(gdb.stop_reason(self.stopped(session)), 'signal-received')

    def select(self, session, name: str):
        """A thread of a process, not of the kernel."""
        found = re.search(rf'(?m)^[* ] +([\d.]+) +Thread (?!5242880)\d+\.[^\n]*"{name}"', session.console('info threads'))
        self.assertTrue(found, name)
        session.console(f'thread {found.group(1)}')

    def current(self, session) -> str:
        """The line of the current thread, with its name."""
        return next(line for line in session.console('info threads').splitlines() if line.startswith('*'))

    def tids(self, session) -> set:
        return {int(tid) for tid in re.findall(rf'Thread \d+\.(\d+)', session.console('info threads'))}

    def guest_tids(self, name: str) -> set:
        return {task.tid for task in self.guest.tasks() if task.tgid == self.pids[name]}


class Process(ProcessCase):
    def test_threads_and_backtraces(self):
        """`attach PID` beside the kernel: the process' threads, each with its calls, lines and variables"""
        tids = self.guest_tids('first')
        with self.extended('first') as session:
            listed = session.console('info threads')
            own = {int(tid) for tid in re.findall(rf'Thread {self.pids["first"]}\.(\d+)', listed)}
            self.assertEqual(own, tids)
            self.assertRegex(listed, r'Thread 5242880\.')
            self.select(session, 'sleeper')
            self.assertRegex(session.console('bt'), r'(?s)sleep_with \(number=10\).*deeper \(number=9\).*sleeps \(')
            session.console('up')
            self.assertEqual(session.value('number'), 9)
            self.select(session, 'spinner')
            self.assertRegex(session.console('bt'), r'#0 [^\n]*spins \(')
            self.assertIn('a process of the guest', session.console('print greeting'))
            self.assertEqual(session.value('answer'), 42)

    def test_registers_of_a_thread_that_sleeps(self):
        """pt_regs, orig_rax, fs_base, and what the kernel has saved of the FPU; unavailable what nobody has"""
        with self.plain('first') as session:
            self.select(session, 'sleeper')
            for name, value in PIECES.items():
                self.assertEqual(session.value(f'${name}'), value)
            self.assertEqual(session.value('$orig_rax'), PAUSE)
            self.assertEqual(session.value('$cs'), 0x33)
            self.assertEqual([session.value(f'$xmm6.v2_int64[{half}]') for half in (0, 1)], list(PIECES.values()))
            self.assertIn('1.442695', session.console('print $st0'))  # fldl2e
            self.assertIn('[ IM DM ZM OM UM PM ]', session.console('print $mxcsr'))
            self.assertEqual(session.value('*owns[2]'), 300)
            self.assertLess(abs(session.value('$fs_base') - session.value('owns[2]')), 1 << 16)
            self.assertIn('<unavailable>', session.console('print $cr3'))

    def test_registers_of_a_thread_that_runs(self):
        """In user mode on a vCPU: its registers"""
        with self.plain(str(self.pids['first'])) as session:
            self.select(session, 'spinner')
            self.assertEqual(session.value('$r12'), 0x12 * 0x0101010101010101)
            self.assertEqual(session.value('$xmm3.v2_int64[1]'), 0x13 * 0x0101010101010101)
            self.assertTrue(session.value('&spin_begin') <= session.value('$pc') < session.value('&spin_end'))

    def test_only_the_process_is_there(self):
        """`--process NAME`: plain `target remote` has that process alone, and no memory but its own"""
        tids = self.guest_tids('second')
        kernel = self.guest.symbols('linux_banner')['linux_banner'][0]
        with self.plain('second') as session:
            self.assertEqual(self.tids(session), tids)
            with self.assertRaisesRegex(HarnessError, 'Cannot access memory'):
                session.console(f'x/bx {kernel:#x}')

    def test_a_write_changes_this_process_alone(self):
        """`set var`: of the process; its program's text, which others have too, is refused"""
        with self.extended('first', 'second') as session:
            session.console('set var answer = 4711')
            session.console('inferior 2')
            self.assertEqual(session.value('answer'), 42)
            session.console('inferior 3')
            self.assertEqual(session.value('answer'), 4711)
            session.console('set var answer = 42')
            with self.assertRaisesRegex(HarnessError, 'Cannot access memory'):
                session.console('set var *(char *) middle = 0')

    def test_what_cannot_be_attached(self):
        """A kernel thread, a PID that nobody has, a thread, a process that is attached: one line that says why"""
        kthread = next(task.tid for task in self.guest.tasks() if task.is_kernel_thread)
        thread = max(self.guest_tids('first'))
        with self.extended('first') as session:
            for pid, why in ((kthread, 'kernel thread'), (4000000, 'no process 4000000'), (thread, 'is a thread of'),
                             (self.pids['first'], 'attached already')):
                self.assertIn(why, session.console(f'maint packet vAttach;{pid:x}'))  # gdb 13 does not show it
            session.console('add-inferior')
            session.console('inferior 3')
            with self.assertRaisesRegex(HarnessError, 'Attaching to .* failed'):
                session.console(f'attach {kthread}')


class RunControl(ProcessCase):
    def test_a_breakpoint_of_one_process(self):
        """`break`: hit in the process for which it was set; the other one comes to it again and again, and goes on"""
        before = self.counters('second')
        with self.extended('first') as session:
            session.console('break leaf')
            for _ in range(10):
                record = self.go(session)
                self.assertIn('caller', self.current(session))
                self.assertEqual(session.value('number'), 7)
                self.assertIn(f'Thread {self.pids["first"]}.', session.console('thread'))
                self.assertRegex(session.console('bt'), r'(?s)leaf \(.*middle \(.*calls \(')
        self.assertGreater(self.counters('second')[0], before[0])

    def test_two_processes_with_a_breakpoint_at_one_address(self):
        """Each stops at its own, with `schedule-multiple`"""
        with self.extended('first', 'second') as session:
            session.console('set schedule-multiple on')
            session.console('break leaf')
            seen = set()
            for _ in range(12):
                self.go(session)
                seen.add(int(re.search(r'Thread (\d+)\.', session.console('thread')).group(1)))
            self.assertEqual(seen, set(self.pids.values()))

    def test_steps(self):
        """`next` over a call and a system call, `step` into, `finish`, `stepi` of a system call: where a program's own
        debugger leads"""
        with self.plain('first') as session:
            session.console('break middle')
            self.go(session)
            session.console('delete')
            self.go(session, 'step', 'end-stepping-range')
            self.assertRegex(session.console('bt 1'), r'leaf \(number=7\)')
            record = self.go(session, 'finish', 'function-finished')
            self.assertIn('gdb-result-var', record)
            self.go(session, 'next', 'end-stepping-range')
            self.assertEqual(session.value('result'), 8)
            self.go(session, 'next', 'end-stepping-range')
            self.assertEqual(session.value('result'), 16)
            self.go(session, 'next', 'end-stepping-range')  # getppid(2)
            self.assertIn('total = result', session.console('frame'))
            session.console('break syscall')
            self.go(session)
            session.console('delete')
            for _ in range(20):
                is_call = 'syscall' in session.console('x/i $pc').split('\t', 1)[1].split()[0]
                pc = session.value('$pc')
                self.go(session, 'stepi', 'end-stepping-range')
                if is_call:
                    break
            self.assertTrue(is_call)
            self.assertEqual(session.value('$pc'), pc + 2)
            self.assertIn('caller', self.current(session))

    def test_steps_over_a_page_fault(self):
        """`stepi` of a store that faults: the store is made, and the next instruction is where it ends"""
        with self.plain('first') as session:
            session.console('break fault')
            self.go(session)
            session.console('delete')
            self.go(session, 'next', 'end-stepping-range')
            self.assertIn('*page =', session.console('frame'))
            pcs = [session.value('$pc')]
            for _ in range(12):
                self.go(session, 'stepi', 'end-stepping-range')
                self.assertIn('fault (', session.console('bt 1'))
                self.assertIn('caller', self.current(session))
                self.assertGreater(session.value('$pc'), pcs[-1])
                pcs.append(session.value('$pc'))
                if 'return' in session.console('frame'):
                    break
            self.assertIn('return', session.console('frame'))
            self.assertEqual(session.value('*page'), 3)

    def test_steps_out_of_a_signal_handler(self):
        """`stepi` from the end of a handler on, through rt_sigreturn(2), to what the signal interrupted"""
        with self.plain('first') as session:
            session.console('break signalled')
            self.go(session)
            session.console('delete')
            interrupted = int(re.search(r'#2 +0x([0-9a-f]+)', session.console('bt')).group(1), 16)
            for _ in range(30):
                self.go(session, 'stepi', 'end-stepping-range')
                if session.value('$pc') == interrupted:
                    break
            self.assertEqual(session.value('$pc'), interrupted)
            self.assertIn('caller', self.current(session))

    def test_a_step_of_a_thread_that_runs(self):
        """`stepi` in a loop of user mode: its instructions in turn"""
        with self.plain('first') as session:
            self.select(session, 'spinner')
            begin, end = session.value('&spin_begin'), session.value('&spin_end')
            pcs = []
            for _ in range(12):
                self.go(session, 'stepi', 'end-stepping-range')
                pcs.append(session.value('$pc'))
                self.assertTrue(begin <= pcs[-1] < end)
                self.assertIn('spinner', self.current(session))
            self.assertEqual(len(set(pcs)), 3)

    def test_a_watchpoint(self):
        """`watch`: the store, in the process that is watched"""
        with self.plain('first') as session:
            session.console('set var total = 0')
            session.console('watch total')
            record = self.go(session, reason='watchpoint-trigger')
            self.assertIn('new="16"', record)
            self.assertIn('caller', self.current(session))
            self.assertIn('middle (', session.console('bt 1'))

    def test_control_c(self):
        """^C while the process runs: a thread of its"""
        with self.extended('first') as session:
            for _ in range(3):
                session.resume()
                self.stop(session)
                self.assertIn(f'Thread {self.pids["first"]}.', session.console('thread'))

    def test_detach_of_one(self):
        """`detach` of an inferior leaves the others; `kill` of one detaches it"""
        with self.extended('first', 'second') as session:
            session.console('break leaf')
            session.console('detach')
            session.console('inferior 2')
            self.go(session)
            self.assertIn(f'Thread {self.pids["first"]}.', session.console('thread'))
            session.console('kill')
            session.console('inferior 1')
            self.assertNotIn(f'Thread {self.pids["first"]}.', session.console('info threads'))
            session.resume()
            self.stop(session)


class Exit(ProcessCase):
    def test_the_end_of_a_process(self):
        """A process that exits while its debugger is attached: its status, and the session goes on"""
        with self.extended('second') as session:
            session.console('set var quit = 7')
            session.resume()
            record = self.stopped(session)
            self.assertEqual(gdb.stop_reason(record), 'exited')
            self.assertIn('exit-code="07"', record)
            session.console('inferior 1')
            self.assertRegex(session.console('info threads'), r'Thread 5242880\.')
            session.resume()
            self.stop(session)


class WithNothingGiven(ProcessCase):
    """The program comes out of the guest's memory: no file of it is given to gdb."""

    program_given = False

    def test_symbols_of_the_guests_own_program(self):
        """`attach` with no `file`: gdb reads the program from the guest's page cache; `bt` has functions, lines and arguments"""
        self.assert_symbols(self.extended('first'))

    def test_symbols_of_the_one_process_served(self):
        """`--process NAME` and no `file`: the same"""
        self.assert_symbols(self.plain('first'))

    def assert_symbols(self, session: gdb.Session):
        self.assertIn('target:/bin/process', session.console('info inferiors'))
        self.assertRegex(session.console('thread apply all bt'),
                         r' in main \(count=2, words=0x[0-9a-f]+\) at .*process\.c:')

    def test_info_proc(self):
        """`info proc`, `info proc mappings`, `info auxv`: what the guest's own /proc says"""
        maps = [line.split(maxsplit=5) for line in self.guest.channel.ask(f'run cat /proc/{self.pids["first"]}/maps')]
        session = self.extended('first')
        told = [line.split() for line in session.console('info proc mappings').splitlines() if re.match(r' +0x', line)]
        self.assertEqual([(int(row[0], 16), int(row[1], 16), int(row[3], 16), row[4], ''.join(row[5:])) for row in told],
                         [(*(int(end, 16) for end in row[0].split('-')), int(row[2], 16), row[1], ''.join(row[5:])) for row in maps])
        self.assertIn("exe = '/bin/process'", session.console('info proc'))
        entry = int(re.search(r'AT_ENTRY .* (0x[0-9a-f]+)', session.console('info auxv')).group(1), 16)
        self.assertEqual(entry, session.value('(long)&_start'))

    def test_thread_local_variables(self):
        """`print own` in each thread is its own copy; a value that is set is the one thread's alone"""
        session = self.extended('first')
        own = {'caller': 100, 'spinner': 200, 'sleeper': 300}
        for index, (name, value) in enumerate(own.items()):
            self.select(session, name)
            self.assertEqual(session.value('own'), value)
            self.assertEqual(session.value('&own'), session.value(f'owns[{index}]'))
        session.console('set var own = 301')
        self.assertEqual([session.value(f'*owns[{index}]') for index in range(3)], [100, 200, 301])
        session.console('set var own = 300')

    def test_gcore(self):
        """`gcore`: the core file opens with the same backtraces"""
        threads = {task.tid for task in self.guest.tasks() if task.tgid == self.pids['first']}
        session = self.plain('first')
        live = self.backtraces(session.console('thread apply all bt'))
        with tempfile.TemporaryDirectory(prefix='exogdb-core-') as folder:
            session.console(f'gcore {folder}/core')
            output = gdb.batch(f'file {self.program}', f'core-file {folder}/core', 'thread apply all bt')
        self.assertEqual(self.backtraces(output), {tid: live[tid] for tid in threads})
        self.assertIn('main', live[self.pids['first']])

    @staticmethod
    def backtraces(text: str) -> dict:
        """{TID: functions} of `thread apply all bt`."""
        parts = re.split(r'^Thread .*(?:LWP |Thread \d+\.)(\d+)\b.*$', text, flags=re.M)
        frame = re.compile(r'^#\d+ +(?:0x[0-9a-f]+ in )?(\w+)', re.M)
        return {int(tid): frame.findall(part) for tid, part in zip(parts[1::2], parts[2::2])}


if __name__ == '__main__':
    case.main()
