"""The frame of a guest test file: one boot for each class, every test checked for what it did to the guest."""
import contextlib
import os
import sys
import threading
import unittest

from . import gdb, kernels, lab, libvirtd, processes, server
from .domain import Domain
from .errors import MissingPrerequisite
from .guest import Config
from .small_vmm import SmallVmm
from .vm import KvmVm, Vm
from .xen_domain import XenPv, XenPvh

SKIPPED = 77  # ctest's SKIP_RETURN_CODE


# What EXOGDB_GUEST may say; without it a libvirt domain.
GUEST_TYPES = {'qemu': Vm, 'kvm': KvmVm, 'small_vmm': SmallVmm, 'xen-pvh': XenPvh, 'xen-pv': XenPv}


def needs(capability: str):
    """Leaves a test out by name where guests of an emulated KVM lack it (tests/lab)."""
    return unittest.skipIf(lab.lacks(capability), f'KVM is emulated here, and guests of it have no {capability}')


def kernel():
    return kernels.fetch(os.environ.get('EXOGDB_KERNEL', 'bookworm'))


class GuestCase(unittest.TestCase):
    """`config` says which guest; it is booted once, before the first test of the class."""

    config = {}
    guest_type = GUEST_TYPES.get(os.environ.get('EXOGDB_GUEST'), Domain)
    guest = None
    _booted = []

    @classmethod
    def setUpClass(cls):
        server.program()
        cls.guest = cls.guest_type(Config(kernel(), **cls.config))
        cls._booted.append(cls.guest)
        cls.addClassCleanup(cls.guest.destroy)
        cls.guest.boot()
        cls.guest.save_text()

    def setUp(self):
        self.assert_unharmed('before the test')

    def tearDown(self):
        self.assert_unharmed('after the test')

    def assert_unharmed(self, when: str):
        """Every CPU schedules and the kernel's text is byte for byte what it was."""
        self.guest.alive()
        self.assertEqual(self.guest.text_changes(), [], f'kernel text changed ({when})')

    def serve(self, *options: str, listen: str = None) -> server.Server:
        """Started now, stopped at the end of the test; one that failed shows the last packets."""
        serving = server.Server(self.guest.target, '--log', 'trace', *options, listen=listen)
        serving.start()
        self.addCleanup(serving.stop)
        self.addCleanup(show_log, self, serving)
        return serving

    @contextlib.contextmanager
    def suspended(self):
        """Paused by virsh, and by nobody let go on meanwhile."""
        if not isinstance(self.guest, Domain):
            self.skipTest('virsh suspends libvirt domains only')
        libvirtd.virsh('suspend', self.guest.name)
        try:
            yield
            self.assertEqual(self.guest.state(), 'paused')
        finally:
            libvirtd.virsh('resume', self.guest.name)

    def run_into(self, session, function: str, command: str):
        """The guest runs to a breakpoint on `function`, on its way to do what `command` of its channel asks."""
        session.console(f'break {function}')
        self.guest.channel.send(command)
        session.resume()
        self.assertEqual(gdb.stop_reason(session.wait_stop()), 'breakpoint-hit')


def show_log(test: unittest.TestCase, serving):
    """Of a test that failed, the last packets. For its clean-up."""
    # Not _outcome.success, which is of the part that runs now: of that clean-up.
    result = test._outcome.result
    reasons = [text for failed, text in result.errors + result.failures if getattr(failed, 'test_case', failed) is test]
    if reasons:
        print(f'\n{test.id()}: the end of the server\'s log:\n{serving.log()[-4000:]}\n{reasons[-1]}', flush=True)


class SessionCase(GuestCase):
    """Debuggers that have left when the guest is looked at after the test."""

    def setUp(self):
        super().setUp()
        self.sessions = []

    def tearDown(self):
        for session in self.sessions:  # the guest runs again before it is looked at
            session.close()
        super().tearDown()

    def session(self) -> gdb.Session:
        self.sessions.append(gdb.Session(self.serve().socket))
        return self.sessions[-1]


class AskingCase(GuestCase):
    """What the guest is asked for while a debugger may hold it up."""

    def setUp(self):
        super().setUp()
        self.asked = []

    def tearDown(self):
        for asking in self.asked:
            asking.join(120)
            self.assertFalse(asking.is_alive(), 'the guest did not do what it was asked for')
        super().tearDown()

    def ask(self, command: str) -> threading.Thread:
        """The guest does that, and may come into a breakpoint by it; it has ended when the test has."""
        self.asked.append(threading.Thread(target=self.guest.channel.ask, args=(command, 120), daemon=True))
        self.asked[-1].start()
        return self.asked[-1]


def main():
    """Runs the test classes of the calling file: 0 passed, 1 failed, 77 when the machine lacks something."""
    processes.raise_on_signals()
    runner = unittest.TextTestRunner(stream=sys.stdout, verbosity=2)
    try:
        program = unittest.main(module='__main__', testRunner=runner, exit=False)
    finally:
        for guest in GuestCase._booted:  # unittest does not clean up after an interruption
            guest.destroy()
    lacking = [text for _, text in program.result.errors if MissingPrerequisite.__name__ in text]
    if lacking and len(lacking) == len(program.result.errors) and not program.result.failures:
        print(f'skipped, the machine lacks: {lacking[0].strip().splitlines()[-1].split(": ", 1)[-1]}')
        sys.exit(SKIPPED)
    sys.exit(0 if program.result.wasSuccessful() and program.result.testsRun else 1)
