"""A breakpoint in the C library's write(2) wrapper, of one process while ten others call it."""
import struct

import test_process
from harness import case

STOPS = 20


class Write(test_process.ProcessCase):
    # All have the library at the same addresses. A pause leaves the guest time for what it is asked beside.
    config = {'scenario': 'writers', 'programs': ('writer',), 'dynamic': True, 'arguments': ('exo.pause=2000', 'norandmaps')}
    names = tuple(f'writer-{number}' for number in range(11))
    program_given = False

    def texts(self, name: str) -> list:
        """Of each mapping that is run, as the guest sees it: where, and a digest of its bytes. No page of it is a copy. (All
        files of an initramfs are dirty from the beginning; what is in them is compared after each test.)"""
        folder = f'/proc/{self.pids[name]}'
        found = []
        for line in self.guest.channel.ask(f'run cat {folder}/maps'):
            place, rights, *_, path = line.split()
            if 'x' not in rights or not path.startswith('/'):
                continue
            begin, end = (int(part, 16) // 4096 for part in place.split('-'))
            digest = self.guest.channel.ask(
                f'run dd if={folder}/mem bs=4096 skip={begin} count={end - begin} 2>/dev/null | md5sum')
            pages = self.guest.channel.ask(f"run sed -n '/^{place} /,/^VmFlags/p' {folder}/smaps")
            sizes = dict(row.split()[:2] for row in pages[1:] if row.endswith(' kB'))
            self.assertEqual(sizes['Anonymous:'], '0', f'{name}: {path}')
            found.append((path, place, digest))
        self.assertEqual({path for path, *_ in found}, {'/bin/writer', *self.libraries})
        return found

    def calls(self, session, name: str) -> int:
        """What a process has counted, while the guest stands: its file out of the page cache."""
        return struct.unpack_from('<Q', session.fetch(f'/{name}'))[0]

    def test_only_that_process_stops(self):
        """`break write`: the others count on while one stops again and again, and no page of a text has changed for anyone"""
        one, *others = self.names
        before = {name: self.texts(name) for name in self.names}
        with self.plain(one) as session:
            session.console('break write')
            first = {name: self.calls(session, name) for name in self.names}
            for _ in range(STOPS):
                self.go(session)
                self.assertRegex(session.console('bt'), r'^#0 .*\bwrite\b[^\n]*\n#1 .* in main \(.*writer\.c:')
                self.assertIn(f'Thread {self.pids[one]}.', session.console('thread'))
            last = {name: self.calls(session, name) for name in self.names}
        # It stood at the breakpoint STOPS times, and has returned from all but the last.
        self.assertIn(last[one] - first[one], (STOPS - 1, STOPS))
        for name in others:
            self.assertGreater(last[name], first[name], f'{name} has not called')
        self.assertEqual({name: self.texts(name) for name in self.names}, before)


if __name__ == '__main__':
    case.main()
