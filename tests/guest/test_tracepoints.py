"""Tracepoints with a real gdb: what is collected while the guest runs, and looked at when it has been. Each vCPU of the
guest makes one system call after the other (guest_init/scenarios.c)."""
import re
import tempfile
import time

from harness import case, gdb, patience

HOT = '__x64_sys_getppid'  # what the guest calls over and over again; rdi: its struct pt_regs
OPEN = 'do_sys_openat2'    # rsi: the path, in user memory (fs/open.c)
ORIG_AX = 'sizeof(long)*15'  # in struct pt_regs (arch/x86/include/asm/ptrace.h)
GETPPID = 110              # arch/x86/entry/syscalls/syscall_64.tbl


class Tracepoints(case.SessionCase):
    config = {'scenario': 'syscalls'}

    def define(self, session, where: str, *actions: str):
        """A tracepoint with these actions; gdb reads them line by line."""
        session.console(f'trace {where}')
        number = session.value('$tpnum')
        session.command(f'-break-commands {number} ' + ' '.join(f'"{action}"' for action in actions))

    def run_for(self, session, seconds: float):
        session.resume()
        time.sleep(patience.seconds(seconds))
        session.control_c()
        self.assertIn('SIGINT', session.wait_stop())

    def trace(self, session, seconds: float = 2) -> str:
        """Starts a trace, lets the guest run, ends the trace if it still runs: what gdb says of it."""
        session.console('tstart')
        self.run_for(session, seconds)
        status = session.console('tstatus')
        if 'is running' in status:
            session.console('tstop')
        return status

    def frames(self, status: str) -> int:
        return int(re.search(r'Collected (\d+)', status).group(1))

    def test_registers_and_memory(self):
        """Registers and memory that a tracepoint collects are those of the hit, frame by frame, in tfind and tdump."""
        session = self.session()
        self.define(session, HOT, 'collect $regs', f'collect *(long *) ($rdi + {ORIG_AX})')
        self.assertGreater(self.frames(self.trace(session)), 10)
        address = re.search(r'0x[0-9a-f]+', session.console('info tracepoints')).group(0)
        for _ in range(3):
            self.assertIn('Found trace frame', session.console('tfind'))
            self.assertEqual(session.value('$pc'), int(address, 16))
            self.assertEqual(session.value(f'*(long *) ($rdi + {ORIG_AX})'), GETPPID)
        self.assertIn(f'= {GETPPID}', session.console('tdump'))

    def test_a_pass_count_ends_the_trace(self):
        """`passcount`: the trace ends at that hit by itself, and the guest runs on."""
        session = self.session()
        self.define(session, HOT, 'collect $rdi')
        session.console('passcount 7')
        status = self.trace(session)
        self.assertIn('stopped by tracepoint 1', status)
        self.assertEqual(self.frames(status), 7)

    def test_a_condition_and_a_string(self):
        """A tracepoint's condition sees the task's memory; `collect/s` takes a string up to its end."""
        session = self.session()
        self.define(session, OPEN, 'collect $rsi', 'collect/s (char *) $rsi')
        session.console('condition $tpnum ((char *) $rsi)[6] == 118')  # /proc/v…
        session.console('tstart')
        self.guest.channel.send('file /proc/uptime')
        self.guest.channel.send('file /proc/version')
        session.resume()
        self.guest.channel.receive('file /proc/uptime')
        self.guest.channel.receive('file /proc/version')
        session.control_c()
        session.wait_stop()
        session.console('tstop')
        self.assertEqual(self.frames(session.console('tstatus')), 1)
        session.console('tfind start')
        self.assertIn('"/proc/version"', session.console('output (char *) $rsi'))

    def test_a_trace_state_variable(self):
        """`teval` counts hits in a trace state variable, whose value in each frame is that of the hit."""
        session = self.session()
        session.console('tvariable $count = 100')
        self.define(session, HOT, 'teval $count = $count + 1', 'collect $count')
        session.console('passcount 5')
        self.trace(session)
        self.assertRegex(session.console('info tvariables'), r'\$count +100 +105')
        session.console('tfind 2')
        self.assertEqual(session.value('$count'), 103)

    def test_a_full_buffer_ends_the_trace(self):
        """A buffer that is full ends the trace, and gdb says so."""
        session = self.session()
        session.console('set trace-buffer-size 20000')
        self.define(session, HOT, 'collect $regs')
        status = self.trace(session)
        self.assertIn('buffer was full', status)
        self.assertGreater(self.frames(status), 2)

    def test_a_circular_buffer(self):
        """A circular buffer keeps the last frames, and the trace goes on."""
        session = self.session()
        session.console('set trace-buffer-size 20000')
        session.console('set circular-trace-buffer on')
        self.define(session, HOT, 'collect $regs')
        status = self.trace(session)
        self.assertIn('is running', status)
        created = re.search(r'Buffer contains (\d+) trace frames \(of (\d+) created total\)', status)
        self.assertTrue(created, status)
        self.assertGreater(int(created.group(2)), int(created.group(1)))

    def test_what_was_not_collected_is_unavailable(self):
        """In a frame, memory that was not collected is unavailable, not that of now."""
        session = self.session()
        self.define(session, HOT, 'collect *(long *) $rdi')
        self.trace(session)
        session.console('tfind start')
        self.assertIn('unavailable', session.console('print *(long *) &jiffies'))
        session.console('tfind none')
        self.assertNotIn('unavailable', session.console('print *(long *) &jiffies'))

    def test_a_saved_trace(self):
        """`tsave` writes a file that another gdb reads, frame by frame, with no guest there."""
        session = self.session()
        self.define(session, HOT, 'collect $regs', f'collect *(long *) ($rdi + {ORIG_AX})')
        session.console('passcount 3')
        self.trace(session)
        with tempfile.TemporaryDirectory(prefix='exogdb-trace-') as folder:
            session.console(f'tsave {folder}/trace')
            session.console('tfind 1')
            rdi = session.value('$rdi')
            shown = gdb.batch(f'target tfile {folder}/trace', 'tstatus', 'tfind 1', 'print/x $rdi',
                              f'print *(long *) ($rdi + {ORIG_AX})', check=False)
        self.assertIn('Collected 3', shown)
        self.assertIn(f'{rdi:#x}', shown)
        self.assertIn(f'= {GETPPID}', shown)

    def test_a_breakpoint_at_a_tracepoint(self):
        """A breakpoint and a tracepoint at one place: it collects and it stops."""
        session = self.session()
        self.define(session, HOT, 'collect $rdi')
        session.console(f'break {HOT}')
        session.console('tstart')
        session.resume()
        self.assertEqual(gdb.stop_reason(session.wait_stop()), 'breakpoint-hit')
        self.assertGreaterEqual(self.frames(session.console('tstatus')), 1)
        session.console('tstop')

    def test_a_client_that_is_killed_amid_a_trace(self):
        """gdb killed while a trace runs: the trace is gone, the guest runs on with no changed byte."""
        session = self.session()
        self.define(session, HOT, 'collect $regs')
        session.console('tstart')
        session.resume()
        time.sleep(patience.seconds(1))
        session.kill()  # tearDown() looks at the guest


if __name__ == '__main__':
    case.main()
