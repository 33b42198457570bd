"""lldb's own debug adapters, run as an editor runs them (docs/ide.md). When asked for: in three of eight runs an adapter took
a request to step, at once after it had told of a stop, and sent the server nothing of it."""
import re
import time

import test_ide
import test_process
from harness import case, dap, initramfs, lldb, patience, ports


class Lldb(test_ide.IdeCase):
    """lldb's own debug adapter, which Visual Studio Code's LLDB DAP runs; CodeLLDB reads `processCreateCommands` as this does
    `attachCommands`."""

    def attach(self, version: int, *options: str, program: str = None):
        port = ports.free()
        self.serve(*options, listen=f'127.0.0.1:{port}')
        adapter = dap.Adapter(*lldb.adapter(version))
        self.sessions.append(adapter)
        adapter.request('initialize', clientID='vscode', adapterID='lldb', pathFormat='path', linesStartAt1=True,
                        columnsStartAt1=True)
        given = {'program': str(program)} if program else {}
        attached = adapter.send('attach', attachCommands=[f'gdb-remote 127.0.0.1:{port}'], stopOnEntry=True, **given)
        adapter.event('initialized')
        adapter.request('setExceptionBreakpoints', filters=[])
        adapter.request('configurationDone')
        adapter.answer(attached, 'attach')
        return adapter, adapter.event('stopped')['threadId']

    @staticmethod
    def stop(adapter, reason: str) -> dict:
        """The next stop for that reason. The one at connect may be told twice, by lldb-vscode itself and as lldb's event."""
        while (stop := adapter.event('stopped'))['reason'] != reason:
            continue
        time.sleep(patience.seconds(1))  # as long as a user takes; a request that comes at once may be lost
        return stop

    def threads(self, adapter) -> dict:
        """{name: tid}; up to 18 a name begins with the thread's number. The adapter may answer while lldb's own thread has
        not taken the names from what it was told; an editor asks at each stop."""
        until = time.monotonic() + patience.seconds(60)
        while True:
            listed = adapter.request('threads')['threads']
            named = {re.sub(r'^Thread #\d+ ', '', thread['name']): thread['id'] for thread in listed}
            if not any(re.match(r'Thread #?\d+$', name) for name in named) or time.monotonic() > until:
                return named
            time.sleep(0.2)

    def pause(self, adapter, thread: int) -> int:
        adapter.request('continue', threadId=thread)
        time.sleep(patience.seconds(1))  # answered before the process runs; what is asked for then is lost in lldb-vscode
        adapter.request('pause', threadId=thread)
        return self.stop(adapter, 'exception')['threadId']  # SIGINT

    def process(self, version: int):
        adapter, thread = self.attach(version, '--process', 'first', program=self.program)
        listed = self.threads(adapter)
        self.assertEqual(set(listed), {'first', *test_process.THREADS})
        self.assertEqual(set(listed.values()), self.first_tids)
        line = self.line_of('result *= 2')
        source = {'path': f'{initramfs.SOURCE_ROOT}/process.c'}
        told = adapter.request('setBreakpoints', source=source, breakpoints=[{'line': line}])['breakpoints'][0]
        self.assertTrue(told['verified'], told)
        adapter.request('continue', threadId=thread)
        stop = self.stop(adapter, 'breakpoint')
        self.assertEqual(stop['threadId'], listed['caller'])
        stack = adapter.request('stackTrace', threadId=stop['threadId'], levels=20)['stackFrames']
        self.assertEqual([(frame['name'].split('(')[0], frame['line']) for frame in stack[:1]], [('middle', line)])
        self.assertEqual(stack[1]['name'].split('(')[0], 'calls')
        scope = adapter.request('scopes', frameId=stack[0]['id'])['scopes'][0]
        told = adapter.request('variables', variablesReference=scope['variablesReference'])['variables']
        self.assertLessEqual({('number', '7'), ('result', '8')}, {(one['name'], one['value']) for one in told})
        adapter.request('setBreakpoints', source=source, breakpoints=[])
        adapter.request('next', threadId=stop['threadId'])
        stop = self.stop(adapter, 'step')
        self.assertEqual(stop['threadId'], listed['caller'])
        adapter.request('stepOut', threadId=stop['threadId'])
        stop = self.stop(adapter, 'step')
        stack = adapter.request('stackTrace', threadId=stop['threadId'], levels=1)['stackFrames']
        self.assertEqual(stack[0]['name'].split('(')[0], 'calls')
        self.assertIn(self.pause(adapter, stop['threadId']), listed.values())

    def kernel(self, version: int):
        adapter, thread = self.attach(version)
        listed = self.threads(adapter)
        for name in ('swapper/0', 'swapper/1', 'kthreadd', 'init', *test_process.NAMES):
            self.assertIn(name, listed)
        stack = adapter.request('stackTrace', threadId=thread, levels=20)['stackFrames']
        scopes = {scope['name']: scope for scope in adapter.request('scopes', frameId=stack[0]['id'])['scopes']}
        self.assertTrue(adapter.request('variables', variablesReference=scopes['Registers']['variablesReference'])['variables'])
        thread = self.pause(adapter, thread)
        adapter.request('next', threadId=thread, granularity='instruction')
        self.assertEqual(self.stop(adapter, 'step')['threadId'], thread)

    def test_a_process_14(self):
        self.process(14)

    def test_a_process_19(self):
        self.process(19)

    def test_the_kernel_14(self):
        self.kernel(14)

    def test_the_kernel_19(self):
        self.kernel(19)


if __name__ == '__main__':
    case.main()
