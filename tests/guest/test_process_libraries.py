"""A PIE with shared libraries: gdb finds where they are, and reads them, with nothing given to it."""
import re

import test_process
from harness import case

LIBRARY = re.compile(r'^ *(0x[0-9a-f]+) +(0x[0-9a-f]+) +(Yes|No).* target:(/.*)$', re.M)  # of `info sharedlibrary`


class Libraries(test_process.WithNothingGiven):
    """What holds of a static program, and:"""

    config = {**test_process.ProcessCase.config, 'dynamic': True}

    def texts(self, process: str) -> dict:
        """{path: (begin, end)} of the mappings that are run, as the guest's /proc has them."""
        rows = (line.split() for line in self.guest.channel.ask(f'run cat /proc/{self.pids[process]}/maps'))
        return {row[5]: tuple(int(end, 16) for end in row[0].split('-')) for row in rows if len(row) == 6 and 'x' in row[1]}

    def test_where_libraries_are(self):
        """`info sharedlibrary`: each in the guest's own mapping of it, read from the guest's page cache"""
        texts = {name: self.texts(name) for name in test_process.NAMES}
        session = self.extended(*test_process.NAMES)
        for number, name in enumerate(test_process.NAMES, 2):
            session.console(f'inferior {number}')
            told = LIBRARY.findall(session.console('info sharedlibrary'))
            self.assertEqual({path for *_, path in told}, set(self.libraries))
            for begin, end, read, path in told:
                self.assertEqual(read, 'Yes', path)
                self.assertTrue(texts[name][path][0] <= int(begin, 16) < int(end, 16) <= texts[name][path][1], path)

    def test_backtraces_through_a_library(self):
        """From a system call in the C library to the program's source lines"""
        calls = self.backtraces(self.plain('first').console('thread apply all bt'))
        main = calls[self.pids['first']]
        self.assertIn('usleep', main)
        self.assertLess(main.index('usleep'), main.index('main'))

    def test_a_breakpoint_in_a_library(self):
        """Both processes have the library's page, and both call it: one of them stops, and `finish` leads back into it"""
        session = self.extended('first')
        session.console('break usleep')
        for _ in range(3):
            self.go(session)
            frames = session.console('bt')
            self.assertRegex(frames, r'^#0 .*\busleep\b')
            self.assertRegex(frames, r'#1 .* in (calls|main) \(.*process\.c:')
            self.assertIn(f'(Thread {self.pids["first"]}.', session.console('thread'))
        session.console('delete')
        session.console('finish')
        session.wait_stop()  # gdb gives no reason where the function has no debug information
        self.assertRegex(session.console('bt'), r'^#0 .*\b(calls|main) \(.*process\.c:')


if __name__ == '__main__':
    case.main()
