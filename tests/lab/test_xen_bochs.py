"""Run control of a PVH guest of a stock Xen, where the processor does all that Xen asks of it: exogdb in dom0, gdb here.

What the guest does can be counted (guest_programs/traps.c): a hit that is lost, or one too many, is seen by its number.
EXOGDB_LAB_HITS and EXOGDB_LAB_STEPS choose how many of these, EXOGDB_LAB_KILLS and EXOGDB_LAB_SEED how often, and when, the
server is killed: before a release 40, 1000 and 4."""
import contextlib
import os
import pathlib
import random
import re
import tempfile
import threading
import time
import unittest

from harness import case, gdb, kernels, processes, server
from harness.errors import HarnessError, MissingPrerequisite
from harness.patience import seconds

import bochs_xen_machine

HITS = int(os.environ.get('EXOGDB_LAB_HITS', '10'))
STEPS = int(os.environ.get('EXOGDB_LAB_STEPS', '100'))
KILLS = int(os.environ.get('EXOGDB_LAB_KILLS', '1'))
SEED = int(os.environ.get('EXOGDB_LAB_SEED', str(time.time_ns())))
FUNCTION = '__x64_sys_getppid'
NUMBER = '((struct pt_regs *) $rdi)->di'
NAME = '&init_uts_ns.name.nodename'
COUNTS = re.compile(r'^traps: calls (\d+) executed (\d+) trapped (\d+) wrong (\d+) changed (\d+)\r?$', re.M)
LOOK = 2.0  # seconds between two looks: each of them holds the guest up, which has the same processor
# Seconds, for the server to start, and for an answer: what is in Bochs is slow, on a busy machine most of all.
START, ANSWER = 600, 300
REPLY = 60  # seconds that gdb waits for one


def symbol_file(folder: pathlib.Path) -> pathlib.Path:
    """Made here from the guest's kernel, which under PVH is where it was linked: in dom0 it would take minutes."""
    tool = os.environ.get('EXOGDB_SYMBOL_FILE_OF')
    if not tool:
        raise MissingPrerequisite('symbol_file_of (its path in EXOGDB_SYMBOL_FILE_OF)')
    kernel = folder / 'vmlinux'
    kernel.write_bytes(bochs_xen_machine.unpacked_kernel(kernels.fetch(bochs_xen_machine.GUEST_KERNEL).image))
    status, output = processes.output_of([tool, kernel, folder / 'symbols'], 60, 'symbol_file_of')
    if status:
        raise HarnessError(f'symbol_file_of: {output}')
    return folder / 'symbols'


class Lab:
    """Of all tests: it takes a minute to start."""

    stack = contextlib.ExitStack()
    dom0 = None
    symbols = None

    @classmethod
    def start(cls):
        folder = pathlib.Path(cls.stack.enter_context(tempfile.TemporaryDirectory(prefix='exogdb-xen-bochs-')))
        cls.symbols = symbol_file(folder)
        cls.dom0 = cls.stack.enter_context(bochs_xen_machine.dom0((server.program(),), limit=seconds(400)))


def setUpModule():  # noqa: N802, unittest's name
    try:
        Lab.start()
    except BaseException:
        Lab.stack.close()
        raise


def tearDownModule():  # noqa: N802
    Lab.stack.close()


class Guest:
    """What is the same with altp2m and without."""

    name = None
    serving = False  # one server for all tests: there it takes most of a minute to start

    @classmethod
    def setUpClass(cls):
        cls.dom0 = Lab.dom0
        cls.log = f'/var/log/xen/console/guest-{cls.name}.log'
        cls.dom0.run(f'xl create /guest/{cls.name}')
        cls.addClassCleanup(cls.dom0.run, f'xl destroy {cls.name}', check=False)
        cls.wait_for_counts(limit=START)
        cls.addClassCleanup(cls.leave)

    @classmethod
    def leave(cls):
        """Ended as a user ends it, the server has left nothing to be undone."""
        cls.stop_server()
        cls.alive()
        if 'nothing' not in (told := cls.recover()):
            raise AssertionError(told)

    @classmethod
    def wait_for_counts(cls, after: int = 0, limit: float = ANSWER) -> list:
        """[calls, executed, trapped, wrong, changed], once there are more than `after` calls."""
        until = time.monotonic() + limit
        while True:
            told = cls.dom0.run(f'tail -n 3 {cls.log}', check=False)
            found = COUNTS.findall(told)
            if found and int(found[-1][0]) > after:
                return [int(number) for number in found[-1]]
            if time.monotonic() > until:
                raise HarnessError(f'the guest does not go on: {told}; {cls.dom0.run("xl list")}')
            time.sleep(LOOK)

    @classmethod
    def alive(cls) -> list:
        """It makes calls, and what is its own it gets: each of its int3 has led to one SIGTRAP, behind the int3."""
        calls = cls.wait_for_counts()[0]
        counts = cls.wait_for_counts(calls + 64)
        _, executed, trapped, wrong, _ = counts
        if executed - trapped not in (0, 1) or wrong:  # 1: printed between the two
            raise AssertionError(counts)
        return counts

    def setUp(self):
        self.before = self.alive()
        self.start_server()

    def tearDown(self):
        self.alive()

    @classmethod
    def start_server(cls, wait: bool = True):
        if cls.serving:
            return
        program, log = server.program(), '/run/serve.log'
        cls.dom0.run(f'{program} serve xen:{cls.name} --listen {bochs_xen_machine.ADDRESS}:{bochs_xen_machine.LINE_PORT} '
                     f'</dev/null >{log} 2>&1 & echo $! >/run/serve.pid')
        cls.serving = True
        if wait:
            until = time.monotonic() + START
            while 'listening on' not in (told := cls.dom0.run(f'cat {log}', check=False)):
                if time.monotonic() > until or cls.dom0.run('kill -0 $(cat /run/serve.pid) 2>&1', check=False):
                    raise AssertionError(f'the server does not listen: {told}')
                time.sleep(LOOK)

    @classmethod
    def stop_server(cls, signal: str = 'TERM'):
        if not cls.serving:
            return
        cls.serving = False
        # It is no child of any shell that could wait for it.
        told = cls.dom0.run(f'pid=$(cat /run/serve.pid); kill -{signal} $pid; n=0; '
                            'while kill -0 $pid 2>/dev/null; do n=$((n+1)); [ $n -lt 300 ] || exit 1; sleep 0.1; done; '
                            'tail -n 5 /run/serve.log', check=False)
        if 'error' in told:
            raise AssertionError(told)

    @classmethod
    def recover(cls) -> str:
        return cls.dom0.run(f'{server.program()} recover xen:{cls.name} 2>&1')

    def session(self) -> gdb.Session:
        flags = (*gdb.QUIET, '-iex', 'set sysroot', '-iex', f'set remotetimeout {seconds(REPLY):.0f}', str(Lab.symbols))
        return gdb.Session(self.dom0.line, limit=ANSWER, flags=flags)

    def hit(self, session):
        session.resume()
        session.wait_stop()

    def assert_each_call(self, session, count: int):
        """The next `count` stops are in calls of successive numbers."""
        numbers = []
        for _ in range(count):
            self.hit(session)
            self.assertEqual(session.value('$rip'), self.address)
            numbers.append(session.value(NUMBER))
        self.assertEqual(numbers, list(range(numbers[0], numbers[0] + count)))

    def assert_each_write(self, session, count: int):
        """The next `count` stops are behind writes of successive numbers."""
        numbers = []
        for _ in range(count):
            self.hit(session)
            numbers.append(session.value(f'*(unsigned char *) {NAME}'))
        self.assertEqual(numbers, [(numbers[0] + index) % 256 for index in range(count)])

    @property
    def address(self) -> int:
        return int(gdb.batch(f'file {Lab.symbols}', f'output/x (long) &{FUNCTION}').split()[-1], 16)

    def test_software_breakpoint(self):
        with self.session() as session:
            was = session.value(f'*(unsigned char *) &{FUNCTION}')
            session.console(f'break *(long) &{FUNCTION}')
            self.assert_each_call(session, HITS)
            self.assertEqual(session.value(f'*(unsigned char *) &{FUNCTION}'), was)  # as gdb is shown it
        self.seen_by_the_guest()

    def seen_by_the_guest(self):
        raise NotImplementedError

    def test_control_c_registers_and_memory(self):
        with self.session() as session:
            for _ in range(2):
                session.resume()
                self.wait_for_counts(self.wait_for_counts()[0])
                session.control_c()
                self.assertEqual(gdb.stop_reason(session.wait_stop()), 'signal-received')
            was, written = session.value('$r12'), 0x0123456789abcdef
            session.console(f'set $r12 = {written:#x}')
            self.assertEqual(session.value('$r12'), written)
            session.console(f'set $r12 = {was:#x}')
            self.assertEqual(session.value('$r12'), was)

    def kill_once(self, delay: float):
        """While a breakpoint is hit again and again, or while the server attaches."""
        self.start_server(wait=delay >= 0)
        ended = threading.Event()

        def use():
            with contextlib.suppress(HarnessError, OSError), self.session() as session:
                session.console(f'break *(long) &{FUNCTION}')
                while not ended.is_set():
                    self.hit(session)
        client = threading.Thread(target=use, daemon=True)
        if delay >= 0:
            client.start()
        time.sleep(abs(delay))
        self.stop_server('KILL')
        ended.set()
        if delay >= 0:
            client.join(ANSWER)

    def test_killed_at_any_moment(self):
        self.stop_server()
        chance = random.Random(SEED)
        print(f'EXOGDB_LAB_SEED={SEED}', flush=True)
        for index in range(KILLS):
            delay = chance.uniform(-8, 0) if index % 4 == 3 else chance.uniform(0, 15)
            with self.subTest(kill=index, delay=delay):
                self.kill_once(delay)
                self.alive()  # without any help
                self.recover()
                self.assertIn('nothing', self.recover())
                self.assert_text_as_it_was()

    def assert_text_as_it_was(self):
        """By the guest's own look at it."""
        first, second = self.alive(), self.alive()
        self.assertEqual(first[-1], second[-1])


class Hidden(Guest, unittest.TestCase):
    """With altp2m."""

    name = 'hidden'

    def seen_by_the_guest(self):
        self.assertEqual(self.alive()[-1], self.before[-1])

    def test_hardware_breakpoint(self):
        with self.session() as session:
            session.console(f'hbreak *(long) &{FUNCTION}')
            self.assert_each_call(session, HITS)
        self.seen_by_the_guest()

    def test_watchpoint_in_a_debug_register(self):
        with self.session() as session:
            session.console(f'watch *(unsigned char *) {NAME}')
            self.assert_each_write(session, HITS)

    def test_watchpoint_wider_than_debug_registers(self):
        with self.session() as session:
            session.console(f'watch *(char (*)[65]) {NAME}')
            self.assert_each_write(session, HITS)

    def test_steps(self):
        with self.session() as session:
            session.console(f'tbreak *(long) &{FUNCTION}')
            self.hit(session)
            walked = session.walk(STEPS)
            self.assertEqual(walked['wrong'], [])
            self.assertEqual(sum(walked['names'].values()), STEPS)


class Visible(Guest, unittest.TestCase):
    """Without it: int3 is written into the guest's own page."""

    name = 'visible'

    def seen_by_the_guest(self):
        """That it was there, and that it is no longer."""
        first, second = self.alive(), self.alive()
        self.assertGreater(second[-1], self.before[-1])
        self.assertEqual(first[-1], second[-1])


if __name__ == '__main__':
    case.main()
