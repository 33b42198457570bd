"""Non-stop mode: a real gdb stops and runs the guest's threads one by one."""
import re
import time

from harness import case, gdb, patience
from harness.errors import HarnessError

KERNEL_PID = 0x500000
IDLE_TID = 0x500001


class NonStopSession(gdb.Session):
    """gdb in non-stop mode, with commands while threads run. Its threads are known by the guest's TIDs."""

    def __init__(self, remote: str, background: bool = True, kind: str = 'remote'):
        super().__init__()
        self.command(f'-gdb-set mi-async {"on" if background else "off"}')
        self.command('-gdb-set non-stop on')
        self.connect(remote, kind)

    def threads(self) -> dict:
        """{TID: (gdb's number, 'stopped' or 'running', the function it is in)}"""
        rows = {}
        for row in re.findall(r'\{id="(\d+)",target-id="Thread \d+\.(\d+)"(.*?)state="(\w+)"', self.command('-thread-info')):
            function = re.search(r'func="([^"]*)"', row[2])
            rows[int(row[1])] = (int(row[0]), row[3], function.group(1) if function else '')
        return rows

    def number(self, tid: int) -> int:
        return self.threads()[tid][0]

    def stopped(self) -> set:
        return {tid for tid, (_, state, _) in self.threads().items() if state == 'stopped'}

    def wait_stop_of(self, number: int, limit: float = None) -> str:
        """The next stop of that thread; those of others are dropped."""
        while True:
            record = self.wait_stop(limit)
            if f'thread-id="{number}"' in record:
                return record

    def function(self, number: int) -> str:
        found = re.search(r'func="([^"]*)"', self.command(f'-stack-info-frame --thread {number}'))
        return found.group(1) if found else ''

    def pc(self, number: int) -> int:
        found = re.search(r'value="(0x[0-9a-f]+)', self.command(
            f'-data-evaluate-expression --thread {number} --frame 0 "$pc"'))
        return int(found.group(1), 16)


class NonStopCase(case.GuestCase):
    # A kernel that finds the clock of a vCPU behind that of another takes to another clock, and patches its text for it.
    config = {'arguments': ('tsc=reliable',)}
    unanswered = serving = None

    def connected(self, background: bool = True) -> NonStopSession:
        self.serving = self.serve()
        session = NonStopSession(self.serving.socket, background)
        self.addCleanup(self.answered)
        self.addCleanup(session.close)
        return session

    def answered(self):
        """The channel's answer to the command of run_init_into(), for which that task must run."""
        command, self.unanswered = self.unanswered, None
        if command:
            self.guest.channel.receive(command)

    def running(self) -> NonStopSession:
        """All threads run."""
        session = self.connected()
        session.command('-exec-continue --all')
        self.guest.alive()
        return session

    def run_init_into(self, session: NonStopSession, function: str, command: str) -> int:
        """The task that answers on the channel stops at a breakpoint, which is set while it runs; gdb's number of it."""
        session.command(f'-break-insert {function}')
        self.guest.channel.send(command)
        self.unanswered = command
        record = session.wait_stop()
        self.assertEqual(gdb.stop_reason(record), 'breakpoint-hit')
        return int(re.search(r'thread-id="(\d+)"', record).group(1))

    def jiffies(self, session: NonStopSession) -> int:
        return int(re.search(r'\b(\d+)', session.console('output (unsigned long)jiffies')).group(1))


@case.needs('breakpoints')
class NonStop(NonStopCase):
    def test_one_thread_is_stopped_at_connect(self):
        """At connect the thread on vCPU 0 is stopped, and all others run."""
        session = self.connected()
        threads = session.threads()
        stopped = session.stopped()
        self.assertEqual(len(stopped), 1, threads)
        self.assertGreater(len(threads), 20)
        self.assertRegex(session.console('info threads'), r'(?m)^\* 1 .* on vCPU 0')
        session.close()

    def test_symbols_are_where_the_kernel_runs(self):
        """gdb does not ask for the KASLR slide in this mode: its symbols are at the guest's addresses all the same."""
        symbols = self.guest.symbols('schedule', 'jiffies', 'init_task')
        session = self.running()
        for name, (address, _) in symbols.items():
            self.assertEqual(session.value(f'&{name}'), address, name)

    def test_info_threads_while_all_run(self):
        """`info threads` lists all of the guest's tasks as running, none with a frame, and the guest goes on."""
        session = self.running()
        tids = {task.tid for task in self.guest.tasks()}
        threads = session.threads()
        self.assertEqual({state for _, state, _ in threads.values()}, {'running'})
        self.assertGreater(len(tids & set(threads)), len(tids) * 0.8)
        self.guest.alive()

    def test_memory_is_read_while_all_run(self):
        """Variables are printed while the guest runs, each time as they are."""
        session = self.running()
        before = self.jiffies(session)
        self.guest.alive()
        patience.until(lambda: self.jiffies(session) > before, 'no tick of the clock')
        self.assertIn('Linux version', session.console('output (char *)linux_banner'))

    def test_registers_of_a_running_thread_are_an_error(self):
        """gdb refuses registers of a thread that runs, and the session goes on."""
        session = self.running()
        with self.assertRaisesRegex(HarnessError, 'running'):
            session.command(f'-stack-info-frame --thread {session.number(1)}')
        self.assertEqual(session.stopped(), set())

    def test_breakpoints_are_set_and_hit_while_all_run(self):
        """Breakpoints are set and deleted while the guest runs; one that is deleted is not hit any more."""
        session = self.running()
        for _ in range(3):
            number = self.run_init_into(session, '__x64_sys_getpid', 'getpid 1')
            session.command('-break-delete')
            session.command(f'-exec-continue --thread {number}')
            self.answered()
        self.guest.channel.ask('getpid 3')
        self.assertEqual(session.stopped(), set())

    def test_continue_over_a_breakpoint(self):
        """Each `continue` runs to the next hit: gdb steps over the breakpoint, for which it stops all and lets all go."""
        session = self.running()
        number = self.run_init_into(session, '__x64_sys_getpid', 'getpid 3')
        for _ in range(2):
            session.command(f'-exec-continue --thread {number}')
            self.assertEqual(gdb.stop_reason(session.wait_stop()), 'breakpoint-hit')
            self.assertEqual(session.stopped(), {1})
        session.command('-break-delete')
        session.command(f'-exec-continue --thread {number}')
        self.answered()

    def test_interrupt_of_one_thread(self):
        """`interrupt` stops the selected thread alone, also one that sleeps, with a backtrace from where it sleeps."""
        session = self.running()
        number = session.number(1)
        session.command(f'-exec-interrupt --thread {number}')
        session.wait_stop_of(number)
        self.assertEqual(session.stopped(), {1})
        self.assertRegex(session.console(f'thread apply {number} backtrace'), r'(?s)schedule.*do_syscall_64')
        self.guest.alive()  # asleep it holds no vCPU
        session.command(f'-exec-continue --thread {number}')
        self.guest.alive()

    def test_interrupt_all(self):
        """`interrupt -a` stops every thread: the guest stands, each has a backtrace; `continue -a` lets all go."""
        session = self.running()
        session.command('-exec-interrupt --all')
        until = time.monotonic() + 120
        while {state for _, state, _ in session.threads().values()} != {'stopped'}:
            self.assertLess(time.monotonic(), until, session.threads())
        before = self.jiffies(session)
        time.sleep(patience.seconds(1))
        self.assertEqual(self.jiffies(session), before)
        frames = session.console('thread apply all backtrace 1', limit=240)
        self.assertGreaterEqual(len(re.findall(r'^#0 ', frames, re.M)), 20)
        session.command('-exec-continue --all')
        self.guest.alive()
        self.assertEqual(session.stopped(), set())

    def test_finish_while_the_other_runs(self):
        """`finish` comes back in the same thread."""
        session = self.running()
        number = self.run_init_into(session, '__x64_sys_getpid', 'getpid 1')
        session.command('-break-delete')
        session.command(f'-exec-finish --thread {number} --frame 0')
        record = session.wait_stop_of(number)
        self.assertEqual(gdb.stop_reason(record), 'function-finished')
        self.assertIn('do_syscall', session.function(number))
        session.command(f'-exec-continue --thread {number}')
        self.answered()

    def test_control_c(self):
        """^C at a `continue` in the foreground stops a thread, by vCtrlC."""
        session = self.connected(background=False)
        session.resume()
        self.guest.alive()
        session.control_c()
        self.assertIn('SIGINT', session.wait_stop())
        self.assertIn('-> vCtrlC', self.serving.log())
        session.close()
        self.guest.alive()

    def test_detach(self):
        """Detach while one thread is stopped and others run leaves all running."""
        session = self.running()
        self.run_init_into(session, '__x64_sys_getpid', 'getpid 1')
        session.command('-target-detach')
        self.answered()
        self.guest.alive()

    def test_a_detached_guest_is_left_alone(self):
        """A client that stays after `detach` is told of no stop any more, and a guest that virsh had paused stays so."""
        serving = self.serve()
        with self.suspended():
            with NonStopSession(serving.socket, kind='extended-remote') as session:
                session.command('-target-detach')
                time.sleep(0.5)
                self.assertEqual(self.guest.state(), 'paused')
            after = serving.log().partition('-> D')[2]
            self.assertIn('<- OK', after)
            self.assertNotIn('%Stop', after)
            self.assertNotIn('error:', after)
        self.guest.alive()

    def test_a_killed_gdb(self):
        """`kill -9` of gdb while one thread is stopped and others run leaves all running, and no breakpoint behind."""
        session = self.running()
        self.run_init_into(session, '__x64_sys_getpid', 'getpid 1')
        session.kill()
        self.answered()
        self.guest.alive()

    def test_all_stop_after_it(self):
        """The next client of the same server is in all-stop mode, as it asks for."""
        serving = self.serve()
        session = NonStopSession(serving.socket)
        session.command('-exec-continue --all')
        session.close()
        with gdb.Session(serving.socket) as session:
            session.resume()
            self.guest.alive()
            session.control_c()
            session.wait_stop()
            self.assertNotIn('running)', session.console('info threads'))


@case.needs('breakpoints')
class NonStopBusy(NonStopCase):
    """A task of user mode spins on each vCPU, so that both have something to do."""

    config = {**NonStopCase.config, 'scenario': 'spin'}

    def running(self) -> NonStopSession:
        session = super().running()
        self.spinners = {}
        for cpu in (0, 1):
            number = self.stop_spinner(session, cpu)
            self.spinners[cpu] = (number, session.value('$rdi'))  # what it counts up: guest_init/scenarios.c, spin()
            session.command(f'-exec-continue --thread {number}')
        return session

    def ticks(self, session: NonStopSession, cpu: int) -> int:
        """How far the task that spins on that CPU has counted, read while it runs: further only if the vCPU runs."""
        number, address = self.spinners[cpu]
        session.command(f'-thread-select {number}')
        return int(session.console(f'output *(unsigned long *){address:#x}'))

    def assert_runs(self, session: NonStopSession, cpu: int):
        self.assert_has_run(session, cpu, self.ticks(session, cpu))

    def assert_has_run(self, session: NonStopSession, cpu: int, since: int):
        patience.until(lambda: self.ticks(session, cpu) > since, f'CPU {cpu} does not run')

    def assert_stands(self, session: NonStopSession, cpu: int):
        before = self.ticks(session, cpu)
        time.sleep(patience.seconds(1))
        self.assertEqual(self.ticks(session, cpu), before)

    def vcpu_of(self, session: NonStopSession, number: int) -> int:
        found = re.search(rf'^[* ] {number} .*on vCPU (\d)', session.console('info threads'), re.M)
        return int(found.group(1)) if found else -1

    def stop_spinner(self, session: NonStopSession, cpu: int) -> int:
        """Stops the task that spins on `cpu`, on its vCPU and in user mode; gdb's number of it."""
        number = int(re.search(rf'^[* ] (\d+) .*"spinner-{cpu}"', session.console('info threads'), re.M).group(1))
        while True:
            session.command(f'-exec-interrupt --thread {number}')
            session.wait_stop_of(number)
            if self.vcpu_of(session, number) == cpu and session.pc(number) < 1 << 47:  # not in an interrupt
                session.command(f'-thread-select {number}')
                return number
            session.command(f'-exec-continue --thread {number}')

    def test_a_breakpoint_stops_one_thread(self):
        """A breakpoint stops the thread that hit it, on its vCPU, and the other vCPU runs on."""
        session = self.running()
        number = self.run_init_into(session, '__x64_sys_getpid', 'getpid 1')
        self.assertEqual(session.stopped(), {1}, 'stopped: init alone')
        self.assertIn('getpid', session.function(number))
        vcpu = self.vcpu_of(session, number)
        self.assert_stands(session, vcpu)
        self.assert_runs(session, 1 - vcpu)
        self.assertEqual(session.stopped(), {1})
        session.command('-break-delete')
        session.command(f'-exec-continue --thread {number}')
        self.answered()
        self.assert_runs(session, vcpu)

    def test_interrupt_of_a_vcpus_thread(self):
        """`interrupt` of what a vCPU runs holds that vCPU, and its registers stay what they are while the other runs."""
        session = self.running()
        number = self.stop_spinner(session, 1)
        registers = f'thread apply {number} info registers rip rsp r12 r13'
        before = session.console(registers)
        self.assertIn('0x1212121212121212', before)
        self.assert_runs(session, 0)
        self.assert_stands(session, 1)
        session.console('maintenance flush register-cache')
        self.assertEqual(session.console(registers), before)
        session.command(f'-exec-continue --thread {number}')
        self.guest.alive()

    def test_step_of_one_while_the_other_runs(self):
        """`stepi` of one thread goes from instruction to instruction of that thread, while the other vCPU runs on."""
        session = self.running()
        number = self.stop_spinner(session, 1)
        where = [session.pc(number)]
        ticks = self.ticks(session, 0)
        for _ in range(30):
            session.command(f'-exec-step-instruction --thread {number}')
            record = session.wait_stop_of(number)
            self.assertEqual(gdb.stop_reason(record), 'end-stepping-range', record)
            where.append(session.pc(number))
        # The loop is INC, PAUSE, JMP; TCG makes one step of PAUSE and what follows it.
        inc, pause, jmp = min(where), min(where) + 3, min(where) + 5
        following = {inc: {pause}, pause: {jmp, inc}, jmp: {inc}}
        for at, then in zip(where, where[1:]):
            self.assertIn(then, following[at], where)
        self.assert_has_run(session, 0, ticks)
        session.command(f'-exec-continue --thread {number}')
        self.guest.alive()

    def test_both_vcpus_stopped_one_by_one(self):
        """With a thread stopped on each vCPU the guest stands; the first `continue` lets that vCPU alone run."""
        session = self.running()
        numbers = [self.stop_spinner(session, cpu) for cpu in (0, 1)]
        for cpu in (0, 1):
            self.assert_stands(session, cpu)
        session.command(f'-exec-continue --thread {numbers[1]}')
        self.assert_runs(session, 1)
        self.assert_stands(session, 0)
        session.command(f'-exec-continue --thread {numbers[0]}')
        self.guest.alive()


if __name__ == '__main__':
    case.main()
