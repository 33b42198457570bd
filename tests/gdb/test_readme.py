"""What the README shows is what happens: its session is run, line by line."""
import itertools
import pathlib
import re
import shutil
import subprocess

from harness import case, gdb, ports, server
from harness.errors import MissingPrerequisite

README = pathlib.Path(__file__).resolve().parents[2] / 'README.md'
DOMAIN = 'debian'  # the guest's name in the README
PORT = '1234'
ATTEMPTS = 5


def session() -> list:
    """[(command with its prompt, [line that it printed]…)…] of the README's first console block."""
    block = re.search(r'^```console\n(.*?)^```', README.read_text(), re.M | re.S).group(1)
    commands = []
    for line in block.splitlines():
        if re.match(r'(\$|\(gdb\)) ', line):
            commands.append((line, []))
        else:
            commands[-1][1].append(line)
    return commands


HEX = r'0x[0-9a-f]+'


class Comparison:
    """The README's lines against real output. Numbers may differ, but one that is used later stands for the real one."""

    def __init__(self):
        self.values = {}  # of the README: what it is here

    def real(self, text: str) -> str:
        """The README's text with the values of this run."""
        return re.sub(HEX, lambda found: self.values.get(found.group(), found.group()), text)

    def pattern(self, line: str) -> re.Pattern:
        """A '…' stands for anything, a run of blanks for another, a number for another."""
        parts = re.split(rf'(…|\s+|{HEX}|\d+)', line)
        kinds = {'…': '.*', 'h': f'({HEX})', 'd': r'\d+'}
        text = ''
        for part in parts:
            if part.isspace():
                text += r'\s+'
            else:
                text += kinds.get(part) or (kinds['h'] if re.fullmatch(HEX, part) else
                                            kinds['d'] if part.isdigit() else re.escape(part))
        return re.compile(text + r'\s*')

    def missing(self, expected: list, output: str) -> str:
        """The first expected line that is not in the output, in order; '' when all are there."""
        lines = iter(output.splitlines())
        for line in expected:
            if line.strip() == '…':
                continue
            pattern = self.pattern(line)
            found = next((match for match in map(pattern.fullmatch, lines) if match), None)
            if found is None:
                return line
            self.values.update(zip(re.findall(HEX, line), found.groups()))
        return ''


class Readme(case.GuestCase):
    config = {'scenario': 'idle'}

    def shell(self, command: str) -> str:
        """An exogdb command of the README, of this test's guest."""
        words = [self.guest.name if word == DOMAIN else word for word in command.split()]
        self.assertEqual(words[0], 'exogdb', command)
        return server.run(*words[1:]).stdout

    def run_gdb(self, commands: list) -> list:
        """What each command prints."""
        marked = [word for command in commands for word in ('echo \\n@@@\\n', command)]
        return gdb.batch(*marked).split('\n@@@\n')[1:]

    def attempt(self) -> str:
        """Runs the session; '' or what differs."""
        comparison, in_gdb, port = Comparison(), [], ports.free()
        for command, expected in session():
            command = command.replace(f':{PORT}', f':{port}')
            if command.startswith('(gdb) '):
                in_gdb.append((command.removeprefix('(gdb) '), expected))
                continue
            words = command.removeprefix('$ ')
            connecting = re.fullmatch(r"gdb -q -ex '(.*)'", words)
            if connecting:
                in_gdb.append((connecting.group(1), expected))
            elif words.endswith(' &'):
                self.assertEqual(words, f'exogdb serve {DOMAIN} &')
                self.assertEqual(expected, [f'listening on 127.0.0.1:{PORT}'])
                self.serve(listen=f'127.0.0.1:{port}')
            else:
                line = comparison.missing(expected, output := self.shell(words))
                if line:
                    return f'{words}: {line!r} is not in:\n{output}'
        # Once as far as no value of an earlier answer is needed; the guest's addresses stay what they are.
        free = list(itertools.takewhile(lambda entry: not re.search(HEX, entry[0]), in_gdb))
        return self.compare_gdb(comparison, free) or self.compare_gdb(comparison, in_gdb)

    def compare_gdb(self, comparison: Comparison, session_part: list) -> str:
        outputs = self.run_gdb([comparison.real(command) for command, _ in session_part])
        self.assertEqual(len(outputs), len(session_part), outputs)
        for (command, expected), output in zip(session_part, outputs):
            line = comparison.missing(expected, output)
            if line:
                return f'(gdb) {command}: {line!r} is not in:\n{output}'
        return ''

    def test_session(self):
        self.assertGreaterEqual(len(session()), 7)
        for _ in range(ATTEMPTS):  # the order of threads differs when a task was caught at work
            difference = self.attempt()
            if not difference:
                return
        self.fail(difference)

    def test_a_line_that_does_not_come_is_noticed(self):
        comparison = Comparison()
        self.assertEqual(comparison.missing(['a 0x12 …', '…', 'b'], 'a  0xffff tail\nx\nb\n'), '')
        self.assertEqual(comparison.real('x/s 0x12'), 'x/s 0xffff')
        self.assertEqual(comparison.missing(['b', 'a'], 'a\nb\n'), 'a')
        self.assertEqual(comparison.missing(['rax 0x1'], 'rax <unavailable>'), 'rax 0x1')

    def test_commands_of_the_table(self):
        self.assertIn(self.guest.target, server.run('list').stdout)
        self.assertEqual([row['target'] for row in server.run_json('list') if row['target'] == self.guest.target],
                         [self.guest.target])
        self.assertIn('ok', server.run('doctor', self.guest.name).stdout)
        self.assertIn('nothing to undo', server.run('recover', self.guest.name).stdout)

    def test_own_symbols_are_moved_by_the_slide(self):
        """`gdb vmlinux`: symbols at link-time addresses, gdb asks for the slide at connect."""
        for tool in ('as', 'ld'):
            if not shutil.which(tool):
                raise MissingPrerequisite(f'{tool} (package binutils)')
        info = server.run_json('info', self.guest.target)
        linked = int(info['linux_banner'], 16) - int(info['slide'], 16)
        folder = self.guest.folder
        subprocess.run(['as', '-o', f'{folder}/banner.o'], input='.text\n.globl _start, banner\n_start:\nbanner: .skip 64\n',
                       text=True, check=True)
        subprocess.run(['ld', f'-Ttext={linked:#x}', '-o', f'{folder}/vmlinux', f'{folder}/banner.o'], check=True)
        output = gdb.batch(f'file {folder}/vmlinux', f'target remote {self.serve().socket}', 'x/s &banner')
        self.assertRegex(output, rf'(?m)^{info["linux_banner"]} <banner>:\s+"Linux version ')


if __name__ == '__main__':
    case.main()
