"""The lints and the test runner's counting, on examples: what must be found, and what must not."""
import pathlib
import socket
import sys
import tempfile
import threading
import unittest

import docs
import includes
import tree
import words

sys.path.insert(0, str(tree.TOP / 'scripts' / 'support'))
sys.path.insert(0, str(tree.TOP / 'tests' / 'guest'))
import junit  # noqa: E402
from harness import channel  # noqa: E402


class Includes(unittest.TestCase):
    def test_arrows(self):
        for folder, kind, name, allowed in (
                ('rsp', '"', 'rsp/hex.h', True), ('rsp', '<', 'vector', True),
                ('rsp', '<', 'tl/expected.hpp', False), ('rsp', '"', 'backends/api/error.h', False),
                ('rsp', '<', 'sys/socket.h', False), ('os-awareness', '"', 'stub/machine.h', False),
                ('os-awareness', '"', 'backends/api/memory.h', True), ('os-awareness', '"', 'rsp/hex.h', False),
                ('os-awareness', '"', 'backends/qemu/memory.h', False), ('os-awareness', '<', 'fstream', False),
                ('backends/qemu', '"', 'rsp/frame.h', True), ('backends/qemu', '"', 'stub/reply.h', False),
                ('backends/qemu', '<', 'boost/asio.hpp', False), ('backends/qemu', '<', 'boost/json.hpp', True),
                ('backends', '"', 'backends/qemu/open.h', True), ('backends/api', '<', 'tl/expected.hpp', True),
                ('stub', '<', 'boost/asio.hpp', True), ('stub', '"', 'os-awareness/os.h', True),
                ('stub', '"', 'reply.h', False), ('stub', '"', 'tests/support/fake_memory.h', False)):
            with self.subTest(folder=folder, name=name):
                self.assertEqual(includes.complaint(folder, kind, name) is None, allowed)

    def test_the_longest_folder_owns_a_file(self):
        self.assertEqual(includes.owner('backends/qemu/open.cpp'), 'backends/qemu')
        self.assertEqual(includes.owner('backends/registry.cpp'), 'backends')
        self.assertEqual(includes.owner('backends/apiary/x.cpp'), 'backends')
        self.assertIsNone(includes.owner('tests/unit/main.cpp'))


class Words(unittest.TestCase):
    def found(self, text: str) -> bool:
        return any(words.re.search(pattern, text) for pattern, _ in words.FORBIDDEN)

    def test_what_is_forbidden(self):
        for text in ('see /wo' 'rk/main', 'open("/tm' 'p/k/x")', '// FIX' 'ME later', 'http://deb.debian.o' 'rg/debian',
                     'as issu' 'e 12 says', 'not imple' 'mented'):
            self.assertTrue(self.found(text), text)

    def test_what_is_not(self):
        for text in ('the network/', 'a/wo' 'rk/tree', 'mkdtemp', 'Debian', '#1 SMP', 'task 1', 'thread 2'):
            self.assertFalse(self.found(text), text)


class Docs(unittest.TestCase):
    def test_names_of_tests(self):
        tests = {'lint.docs', 'guest.pti.trixie', 'guest.lldb.bookworm'}
        for name, suite, there in (('lint.docs', '', True), ('guest.pti', '', True), ('guest.pti', 'trixie', True),
                                   ('guest.pti', 'forky', False), ('guest.pt', '', False), ('guest', '', True)):
            with self.subTest(name=name, suite=suite):
                self.assertEqual(docs.exists(name, tests, suite), there)

    def test_methods(self):
        self.assertTrue(docs.has_method('gdb.readme', 'session'))
        self.assertFalse(docs.has_method('gdb.readme', 'no_such_method'))
        self.assertFalse(docs.has_method('gdb.nothing', 'session'))

    def test_packets_without_a_transcript(self):
        self.assertEqual(docs.unused_packets([['vCont;', 'prefix'], ['vMustReplyEmpty', 'exact']]), [])
        self.assertEqual(len(docs.unused_packets([['vNothing;', 'prefix'], ['vCont', 'exact']])), 2)

    def test_paths(self):
        here = docs.pathlib.Path('docs/ARCHITECTURE.md')
        self.assertEqual(docs.paths(here, '[a](../README.md) `rsp/frame.h` `a/b` `tests/unit/*`'), [])
        self.assertEqual(len(docs.paths(here, '[a](README.md) `rsp/none.h`')), 2)


class Counting(unittest.TestCase):
    def test_programs_with_cases_inside(self):
        doctest = '[doctest] test cases:  7 |  7 passed | 0 failed | 0 skipped\n'
        self.assertEqual(junit.counted('run', doctest), junit.Counts(7))
        self.assertEqual(junit.counted('fail', doctest.replace('7 passed | 0', '5 passed | 2')), junit.Counts(5, 2))
        self.assertEqual(junit.counted('run', 'Ran 5 tests in 1.0s\n\nOK (skipped=2)\n'), junit.Counts(3, 0, 2))
        self.assertEqual(junit.counted('fail', 'Ran 5 tests in 1.0s\n\nFAILED (failures=1, errors=1)\n'),
                         junit.Counts(3, 2))

    def test_the_program_has_the_last_say(self):
        self.assertEqual(junit.counted('run', ''), junit.Counts(1))
        self.assertEqual(junit.counted('fail', 'crashed'), junit.Counts(0, 1))
        # It passed all of its cases, and then the sanitizer found a leak.
        self.assertEqual(junit.counted('fail', 'Ran 2 tests in 1.0s\n\nOK\n'), junit.Counts(2, 1))
        self.assertEqual(junit.counted('notrun', 'Ran 2 tests in 1.0s\n\nOK\n'), junit.Counts(0, 0, 1))

    def test_a_report(self):
        with tempfile.TemporaryDirectory() as folder:
            report = pathlib.Path(folder) / 'report.xml'
            self.assertEqual(junit.read(report), [])
            report.write_text('''<testsuite><testcase name="a" status="run"><system-out>fine</system-out></testcase>
                <testcase name="b" status="notrun"><skipped message="SKIP_RETURN_CODE=77"/><system-out>
                skipped, the machine lacks: gdb</system-out></testcase>
                <testcase name="c" status="notrun"><skipped message="Unable to find executable"/></testcase>
                </testsuite>''')
            results = junit.read(report)
            self.assertEqual([str(result.counts) for result in results],
                             ['1 passed, 0 failed, 0 skipped', '0 passed, 0 failed, 1 skipped',
                              '0 passed, 1 failed, 0 skipped'])
            self.assertEqual(results[1].why_skipped, 'skipped, the machine lacks: gdb')


class SlowGuest:
    """Answers hello at once, and nothing else while `asleep`; what it has not answered when a connection ends is lost."""

    def __init__(self, folder: str):
        self.path = f'{folder}/channel'
        self.asleep = threading.Event()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen(1)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                connection = self._listener.accept()[0]
            except OSError:
                return
            waiting = []
            with connection, connection.makefile('rw') as lines:
                for line in lines:
                    waiting.append(line)
                    if self.asleep.is_set():
                        continue
                    for one in waiting:
                        lines.write(f'{one}.ok\n')
                    lines.flush()
                    waiting.clear()

    def close(self):
        self._listener.close()


class Channel(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.guest = SlowGuest(folder.name)
        self.addCleanup(self.guest.close)
        self.channel = channel.Channel(self.guest.path)
        self.addCleanup(self.channel.close)
        self.guest.asleep.set()
        self.assertRaises(channel.GuestSilent, self.channel.ask, 'first', 0.1)
        self.guest.asleep.clear()

    def test_a_late_answer_is_not_the_next_commands(self):
        self.assertEqual(self.channel.ask('second', 10), ['second'])

    def test_no_late_answer_of_several_is_the_next_commands(self):
        self.guest.asleep.set()
        for command in ('second', 'third'):
            self.assertRaises(channel.GuestSilent, self.channel.ask, command, 0.1)
        self.guest.asleep.clear()
        self.assertEqual(self.channel.ask('fourth', 10), ['fourth'])
        self.assertEqual(self.channel.ask('fifth', 10), ['fifth'])

    def test_an_answer_that_went_with_its_connection_is_not_awaited(self):
        self.channel.close()
        self.channel.wait_ready(10)
        self.assertEqual(self.channel.ask('second', 10), ['second'])


if __name__ == '__main__':
    unittest.main()
