"""Sessions as IDEs drive them: what each sends over gdb/MI, in its order. Where each takes it from is said by repository
and file; nothing of those programs runs here (docs/ide.md). lldb's debug adapters: test_dap.py."""
import re
import tempfile

import test_process
from harness import case, gdb, initramfs, mi, processes, server

IN_KERNEL = 'hrtimer_nanosleep'  # where a thread that sleeps goes to


class IdeCase(test_process.ProcessCase):
    config = {**test_process.ProcessCase.config, 'dynamic': True}

    def ide(self) -> gdb.Session:
        """gdb as an IDE starts it: with nothing that spares it questions and warnings."""
        self.sessions.append(gdb.Session(flags=gdb.PLAIN))
        return self.sessions[-1]

    def said(self, session, *commands: str) -> dict:
        """What the last of the commands answers; none may fail."""
        for command in commands:
            answer = session.command(command)
        return mi.parse(answer)

    def stopped(self, session, reason: str = '') -> dict:
        """The next stop. MIEngine (MIDebugEngine/Engine.Impl/DebuggedProcess.cs, HandleBreakModeEvent) and CDT
        (MIStoppedEvent) end a session whose stops are without a thread or a frame."""
        record = session.wait_stop(120)
        stop = mi.parse(record.removeprefix('*stopped,'))
        self.assertEqual(stop.get('reason', ''), reason, record)
        self.assertTrue(stop['thread-id'].isdigit(), record)
        self.assertRegex(stop['frame']['addr'], '^0x[0-9a-f]{16}$')
        self.assertIn('func', stop['frame'])
        return stop

    def go(self, session, command: str, reason: str) -> dict:
        session.resume(command)
        return self.stopped(session, reason)

    def threads(self, session) -> dict:
        """{name: thread} of -thread-info; each has what MIEngine (DebuggedThread.cs) and Native Debug (mi2.ts) read."""
        listed = self.said(session, '-thread-info')['threads']
        for thread in listed:
            self.assertLessEqual({'id', 'target-id', 'name', 'details', 'state', 'frame', 'core'}, set(thread))
        return {thread['name']: thread for thread in listed}

    def assert_threads_of(self, session, name: str):
        listed = self.threads(session)
        self.assertEqual(set(listed), {name, *test_process.THREADS})
        self.assertEqual({thread['target-id'] for thread in listed.values()},
                         {f'Thread {self.pids[name]}.{tid}' for tid in self.first_tids})

    def setUp(self):
        super().setUp()
        self.first_tids = self.guest_tids('first')  # asked of the guest while it runs

    def assert_frame(self, frame: dict, function: str):
        self.assertEqual(frame['func'], function)
        self.assertEqual(frame['file'], 'process.c')
        self.assertTrue(int(frame['line']) > 0 and frame['fullname'].endswith('/process.c'), frame)

    @staticmethod
    def line_of(text: str) -> int:
        lines = (initramfs.PROGRAMS / 'process.c').read_text().splitlines()
        return next(number for number, line in enumerate(lines, 1) if text in line)


class CppTools(IdeCase):
    """Visual Studio Code's C/C++ extension: microsoft/vscode-cpptools, whose adapter is microsoft/MIEngine."""

    def test_the_process_picker(self):
        """`useExtendedRemote` with `${command:pickRemoteProcess}`: a gdb that lists processes and leaves"""
        # Extension/src/Debugger/attachToProcess.ts, getRemoteProcessesExtendedRemote, and below it how it reads the answer
        status, output = processes.output_of(
            [gdb.program(), *gdb.PLAIN, '-ex', f'target extended-remote {self.serve().socket}', '-ex', 'info os processes',
             '-batch'], 120, 'gdb')
        self.assertEqual(status, 0, output)
        rows = (re.match(r'^(\d+)\s+(.+?)\s+(?:\d+,)*\d+$', line.strip()) for line in output.splitlines())
        picked = {int(row.group(1)): row.group(2) for row in rows if row}
        for name in test_process.NAMES:
            self.assertIn(name, picked[self.pids[name]])
        self.assertIn('[kthreadd]', picked[2])

    def test_attach_to_a_process(self):
        """`request: attach` with `processId`: threads, a breakpoint set while it runs, variables, steps, pause, detach"""
        session, remote = self.ide(), self.serve().socket
        # MIDebugEngine/Engine.Impl/DebuggedProcess.cs, Initialize and GetInitializeCommands
        self.said(session, '-gdb-set mi-async on', '-interpreter-exec console "set pagination off"',
                  f'-file-exec-and-symbols {self.program}')
        self.assertIn('x86-64', session.console('show architecture'))
        self.said(session, f'-target-select extended-remote {remote}')
        self.stopped(session)  # of the kernel: MIEngine looks at stops from the end of these commands on
        self.said(session, f'-target-attach {self.pids["first"]}')
        self.stopped(session)
        self.assert_threads_of(session, 'first')
        self.assertTrue(self.said(session, '-stack-list-frames 0 1000')['stack'])
        session.resume()  # a stop without a reason is not the user's
        # MICore/Debugger.cs, CmdBreakInternal; MICommandFactory.cs, BreakInsert
        self.said(session, '-exec-interrupt')
        self.stopped(session, 'signal-received')
        line = self.line_of('result *= 2')
        said = self.said(session, f'-break-insert -f process.c:{line}')['bkpt']
        self.assertEqual((said['func'], said['line']), ('middle', str(line)))
        stop = self.go(session, '-exec-continue', 'breakpoint-hit')
        self.assertEqual(stop['bkptno'], said['number'])
        self.assert_frame(stop['frame'], 'middle')
        self.assertEqual(self.threads(session)['caller']['id'], stop['thread-id'])
        # MICommandFactory.cs, one after the other
        self.said(session, f'-thread-select {stop["thread-id"]}')
        stack = self.said(session, '-stack-list-frames 0 1000')['stack']
        self.assertEqual([frame['func'] for frame in stack[:2]], ['middle', 'calls'])
        self.assertEqual(self.said(session, '-stack-list-arguments 1 0 0')['stack-args'][0]['args'],
                         [{'name': 'number', 'value': '7'}])
        self.assertIn({'name': 'result', 'value': '8'}, self.said(session, '-stack-list-variables 1')['variables'])
        variable = self.said(session, '-var-create - * "counters"')
        self.assertEqual(len(self.said(session, f'-var-list-children --simple-values "{variable["name"]}" 0 1000')['children']), 3)
        self.said(session, f'-var-delete {variable["name"]}', '-stack-select-frame 1')
        self.assertEqual(self.said(session, '-data-evaluate-expression "before >= 0"')['value'], '1')
        registers = self.said(session, '-data-list-register-values x')['register-values']
        self.assertGreater(len(registers), 16)
        self.assertIn('libc.so', session.console('info sharedlibrary'))
        self.said(session, '-break-delete 1', '-stack-select-frame 0')
        stop = self.go(session, '-exec-next', 'end-stepping-range')
        self.assertEqual(stop['frame']['line'], str(line + 1))
        stop = self.go(session, '-exec-finish', 'function-finished')
        self.assertEqual((stop['return-value'], stop['frame']['func']), ('16', 'calls'))
        # MIDebugEngine/Engine.Impl/Disassembly.cs and DebuggedProcess.cs, ReadProcessMemory
        code = self.said(session, '-data-disassemble -s $pc -e "$pc + 16" -- 2')['asm_insns']
        self.assertEqual(code[0]['address'], stop['frame']['addr'])
        read = self.said(session, '-data-read-memory-bytes &greeting 23')['memory'][0]['contents']
        self.assertEqual(bytes.fromhex(read), b'a process of the guest\0')
        session.resume()
        self.said(session, '-exec-interrupt')
        self.stopped(session, 'signal-received')
        self.said(session, '-target-detach')

    def test_the_kernel(self):
        """`request: launch` with `miDebuggerServerAddress`, and the symbol file that exogdb makes as the `program`"""
        session = self.ide()
        with tempfile.TemporaryDirectory(prefix='exogdb-ide-') as folder:
            server.run('symbols', self.guest.target, '-o', f'{folder}/vmlinux')
            self.said(session, '-gdb-set mi-async on', f'-file-exec-and-symbols {folder}/vmlinux')
            self.debug_the_kernel(session)

    def debug_the_kernel(self, session):
        remote = self.serve().socket
        self.assertIn('x86-64', session.console('show architecture'))
        self.said(session, f'-target-select remote {remote}')
        self.stopped(session)
        self.assertIn('swapper/0', self.threads(session))
        said = self.said(session, f'-break-insert -f {IN_KERNEL}')['bkpt']
        self.assertIn(IN_KERNEL, said['at'])  # and no file and line
        stop = self.go(session, '-exec-continue', 'breakpoint-hit')
        self.assertEqual(stop['frame']['func'], IN_KERNEL)
        stack = self.said(session, '-stack-list-frames 0 1000')['stack']
        self.assertIn('do_syscall_64', [frame['func'] for frame in stack])
        self.assertTrue(self.said(session, '-stack-list-arguments 2 0 0')['stack-args'][0]['args'])
        self.said(session, '-break-delete 1')
        self.go(session, '-exec-finish', 'function-finished')
        session.resume()
        self.said(session, '-exec-interrupt')
        self.stopped(session, 'signal-received')
        self.said(session, '-target-detach')


class NativeDebug(IdeCase):
    """Visual Studio Code's Native Debug: WebFreak001/code-debug, src/backend/mi2/mi2.ts. Nothing is given to gdb."""

    def begin(self, session, target: str):
        self.said(session, '-gdb-set target-async on', '-list-features', '-environment-directory "/tmp"',
                  f'-target-select {target}')
        self.stopped(session)

    def debug(self, session, function: str, caller: str, frames: int):
        """What the two have in common: a breakpoint, the panes, steps."""
        number = self.said(session, f'-break-insert -f "{function}"')['bkpt']['number']
        stop = self.go(session, '-exec-continue', 'breakpoint-hit')
        self.assertEqual((stop['bkptno'], stop['frame']['func']), (number, function))
        of = f'--thread {stop["thread-id"]}'
        depth = int(self.said(session, f'-stack-info-depth {of}')['depth'])
        self.assertGreaterEqual(depth, frames)
        stack = self.said(session, f'-stack-list-frames {of} 0 {depth - 1}')['stack']
        self.assertEqual([frame['func'] for frame in stack[:2]], [function, caller])
        for frame in range(2):
            self.said(session, f'-stack-list-variables {of} --frame {frame} --simple-values')
        names = self.said(session, '-data-list-register-names')['register-names']
        values = {names[int(one['number'])]: one['value']
                  for one in self.said(session, '-data-list-register-values N')['register-values']}
        self.assertIn(function, values['rip'])
        self.said(session, f'-var-create {of} --frame 0 - @ "$rip"', '-var-update --all-values "*"',
                  f'-data-read-memory-bytes {stop["frame"]["addr"]} 16', f'-break-delete {number}')
        self.go(session, '-exec-next', 'end-stepping-range')
        self.go(session, '-exec-step', 'end-stepping-range')
        session.resume()
        self.said(session, '-exec-interrupt')
        self.stopped(session, 'signal-received')
        self.said(session, '-target-detach')

    def test_attach_to_a_process(self):
        """`target: extended-remote …` and `autorun: ["attach PID"]`"""
        session = self.ide()
        self.begin(session, f'extended-remote {self.serve().socket}')
        session.console(f'attach {self.pids["first"]}')
        self.stopped(session)
        self.assert_threads_of(session, 'first')
        self.debug(session, 'leaf', 'middle', 3)

    def test_the_one_process_served(self):
        """`remote: true`, of a server with `--process`"""
        session = self.ide()
        self.begin(session, f'remote {self.serve("--process", "first").socket}')
        self.assert_threads_of(session, 'first')
        self.debug(session, 'leaf', 'middle', 3)

    def test_the_kernel(self):
        """`remote: true`"""
        session = self.ide()
        self.begin(session, f'remote {self.serve().socket}')
        self.debug(session, IN_KERNEL, 'common_nsleep', 4)


class Eclipse(IdeCase):
    """Eclipse CDT: eclipse-cdt/cdt, dsf-gdb/…/service/GDBProcesses_7_2.java (which has one process at a time in all-stop) and
    …/mi/service/command/commands/MI*.java."""

    def test_a_process_beside_the_kernel(self):
        """`C/C++ Attach to Application`, remote: the kernel is the connection's, the process gets an inferior of its own"""
        session = self.ide()
        self.said(session, '-environment-cd /tmp', '-list-features', '-gdb-set breakpoint pending on',
                  '-gdb-set detach-on-fork on', '-gdb-set python print-stack none', '-gdb-set print object on',
                  '-gdb-set print sevenbit-strings on', '-gdb-set host-charset UTF-8', '-gdb-set dprintf-style gdb',
                  '-gdb-set mi-async on', '-gdb-set record full stop-at-limit off', '-gdb-set auto-solib-add on',
                  f'-target-select extended-remote {self.serve().socket}')
        self.stopped(session)
        available = {row['id']: row for row in self.said(session, '-list-thread-groups --available')['groups']}
        row = available[str(self.pids['second'])]
        self.assertIn('second', row['description'])
        self.assertTrue(row['cores'])
        group = self.said(session, '-add-inferior')['inferior']
        self.said(session, f'-target-attach --thread-group {group} {self.pids["second"]}')
        stop = self.stopped(session)
        listed = self.said(session, f'-list-thread-groups {group}')['threads']
        self.assertEqual({thread['name'] for thread in listed}, {'second', *test_process.THREADS})
        self.assertIn(stop['thread-id'], {thread['id'] for thread in listed})
        groups = {row['id']: row['pid'] for row in self.said(session, '-list-thread-groups')['groups']}
        self.assertEqual(groups[group], str(self.pids['second']))
        number = self.said(session, f'-break-insert --thread-group {group} -f middle')['bkpt']['number']
        stop = self.go(session, f'-exec-continue --thread-group {group}', 'breakpoint-hit')
        of = f'--thread {stop["thread-id"]}'
        thread = self.said(session, f'-thread-info {stop["thread-id"]}')['threads'][0]
        self.assertEqual((thread['name'], thread['target-id'].split('.')[0]), ('caller', f'Thread {self.pids["second"]}'))
        self.assertGreaterEqual(int(self.said(session, f'-stack-info-depth {of} 11')['depth']), 2)
        self.assert_frame(self.said(session, f'-stack-list-frames {of} 0 10')['stack'][1], 'calls')
        self.said(session, f'-stack-list-locals {of} --frame 0 1')
        variable = self.said(session, f'-var-create {of} --frame 0 - * number')
        self.assertEqual((variable['value'], variable['type']), ('7', 'long'))
        self.assertEqual(self.said(session, f'-data-evaluate-expression {of} --frame 0 answer')['value'], '42')
        self.said(session, f'-data-disassemble {of} --frame 0 -s $pc -e "$pc + 16" -- 3', f'-break-delete {number}')
        self.go(session, f'-exec-next {of} 1', 'end-stepping-range')
        session.resume(f'-exec-continue --thread-group {group}')
        self.said(session, f'-exec-interrupt --thread-group {group}')
        self.stopped(session, 'signal-received')
        self.said(session, f'-target-detach --thread-group {group}')
        kernel = self.said(session, '-list-thread-groups i1')['threads']
        self.assertIn('swapper/0', {thread['name'] for thread in kernel})


if __name__ == '__main__':
    case.main()
