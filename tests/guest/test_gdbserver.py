"""The same session with a process of a real Debian, by exogdb from outside and by gdbserver in the guest: what gdb says,
text by text. docs/gdbserver.md has the differences."""
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

from harness import case, debian, gdb, initramfs, server

# What exogdb says more, command by command: without it the text is the same. None: the whole text is another.
THREAD = r' \([A-Z] \([a-z ]+\)(?:, [^()]+)*\)'
DIFFERENCES = {
    'info threads': THREAD,
    'thread apply all bt': THREAD,
    'info registers': r'(?m)^\w+ +<unavailable>\n',
    'print $_siginfo': None,
}
PRINTERS = ('python import sys; sys.path.insert(0, "/usr/share/gcc/python")',
            'python from libstdcxx.v6.printers import register_libstdcxx_printers; register_libstdcxx_printers(None)')
SOURCE = (initramfs.PROGRAMS / 'shop.cpp').read_text().splitlines()
LINE = next(number for number, text in enumerate(SOURCE, 1) if 'taken_ += sum' in text)
SESSION = (
    'info threads', 'thread apply all bt', 'info sharedlibrary', 'print open_doors', 'ptype Order',
    'break Shop::total', 'print open_doors = 1', 'continue', 'bt', 'info args', 'info locals', 'print *this', 'print order',
    'print orders_', 'print order.prices', 'print customers_seen', 'next', 'next', 'next', 'next', 'print sum', 'step',
    'finish', 'info breakpoints', 'delete', f'break shop.cpp:{LINE}', 'continue',
    'print sum', 'delete', 'watch served_', 'continue', 'continue', 'delete',
    'tbreak Shop::total if customers_seen == 5', 'continue', 'up', 'info frame', 'down',
    'stepi', 'x/4i $pc', 'info registers', 'p $ymm0', 'info auxv', 'print total(order)', 'print $_siginfo', 'thread 2', 'bt',
    'frame function wait_for_closing', 'list', 'info proc mappings', 'info signals SIGUSR1', 'thread 1', 'until',
    'advance Shop::serve', 'where 1', 'detach',
)
MARK = '@@@'


class Comparison(unittest.TestCase):
    maxDiff = None

    @classmethod
    def setUpClass(cls):
        server.program()
        kept = tempfile.TemporaryDirectory(prefix='exogdb-shop-')
        cls.addClassCleanup(kept.cleanup)
        cls.folder = pathlib.Path(kept.name)
        cls.sysroot, cls.socket = cls.folder / 'sysroot', cls.folder / 'gdbserver'
        cls.binary = cls.sysroot / 'mnt/shop'
        cls.binary.parent.mkdir(parents=True)
        shutil.copy(initramfs.program('shop', True), cls.binary)
        disk = cls.folder / 'disk'
        subprocess.run(['mke2fs', '-q', '-F', '-d', cls.binary.parent, disk, '8M'], check=True, stdin=subprocess.DEVNULL,
                       capture_output=True)
        cls.guest = debian.DebianVm(case.kernel().suite, (
            '-drive', f'file={disk},format=raw,if=virtio,readonly=on', '-device', 'virtio-serial',
            '-chardev', f'socket,path={cls.socket},server=on,wait=off,id=gdbserver', '-device', 'virtconsole,chardev=gdbserver'))
        cls.addClassCleanup(cls.guest.destroy)
        cls.guest.boot()
        cls.guest.run('mount -o ro /dev/vdb /mnt; systemctl mask --runtime --now serial-getty@hvc0', 300)
        for library in cls.guest.run('cat /mnt/shop >/dev/null; ldd /mnt/shop | grep -o "/[^ ]*"', 120):
            cls.guest.copy(library, cls.sysroot)

    def start(self) -> int:
        """The program anew, at the same addresses each time."""
        pid = int(self.guest.run('setarch -R /mnt/shop >/dev/null 2>&1 & echo $!', 120)[0])
        self.guest.run(f'while ! grep -q futex /proc/{pid}/task/*/wchan; do sleep 0.1; done; sleep 1', 120)
        return pid

    def said(self, remote: str, pid: int) -> list:
        """[command, text] of the session, without what differs each time the program is run."""
        words = [word for command in SESSION for word in (f'echo {MARK}{command}\\n', command)]
        output = gdb.batch(*PRINTERS, f'set sysroot {self.sysroot}', f'file {self.binary}', f'target remote {remote}', *words, f'echo {MARK}\\n', limit=600, check=False)
        tids = sorted({int(tid) for tid in self.guest.run(f'ls -1 /proc/{pid}/task')})
        self.assertEqual(len(tids), 3)
        self.assertIn('hit Breakpoint 1, Shop::total', output)
        self.assertNotIn('Failed to read', output)  # of the vDSO, which lies in the process' memory alone
        for number, tid in enumerate(tids, 1):
            output = re.sub(rf'\b{tid}\b', f'TID{number}', output)
        parts = re.split(rf'^{MARK}(.*)\n', output, flags=re.M)
        return list(zip(parts[1::2], parts[2::2]))

    def test_the_same_session(self):
        """attach, backtraces, breakpoints, steps, STL containers, watchpoints, finish, calls, detach"""
        pid = self.start()
        with server.Server(self.guest.target, '--process', str(pid), '--log', 'trace') as serving:
            own = self.said(serving.socket, pid)
        self.guest.run(f'kill {pid}')
        pid = self.start()
        self.guest.run(f'nohup gdbserver --once --attach /dev/hvc0 {pid} >/run/gdbserver 2>&1 & sleep 3', 120)
        theirs = self.said(self.socket, pid)
        self.guest.run(f'kill {pid}')
        self.assertEqual([command for command, _ in own], [*SESSION, ''])
        told = (server.TOP / 'docs/gdbserver.md').read_text()
        for (command, mine), (_, other) in zip(own, theirs):
            with self.subTest(command):
                if command in DIFFERENCES:
                    self.assertIn(f'`{command}`', told)
                    self.assertNotEqual(mine, other)
                    more = DIFFERENCES[command]
                    mine = re.sub(more, '', mine) if more else other
                    mine, other = (re.sub(' +', ' ', text) for text in (mine, other))  # gdb's columns
                self.assertEqual(mine, other)


if __name__ == '__main__':
    case.main()
