"""Modules: what gdb knows of them after `target remote` alone, and of one that is loaded while it is connected."""
import re
import subprocess

from harness import case, gdb
from test_symbols import ROOTS, SERVER_FRAME

FRAME = re.compile(r'^#\d+ +(?:0x[0-9a-f]+ in )?(\S+)', re.M)
MODULES = ('tun', 'loop')
LATER = 'dummy'
SYMBOLS = """
import re
result = {}
for objfile in gdb.objfiles():
    if objfile.filename and objfile.filename.endswith('.ko'):
        text = gdb.execute(f'maint print msymbols -objfile {objfile.filename}', to_string=True)
        for address, name in re.findall(r'(?m)^\\[ *\\d+\\] \\S (0x[0-9a-f]+) (\\S+)', text):
            result.setdefault(name, []).append(int(address, 16))
"""


class Modules(case.GuestCase):
    config = {'modules': (*MODULES, LATER)}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        for name in MODULES:
            cls.guest.channel.ask(f'load /{name}.ko')
        cls.guest.save_text()  # a module may switch static branches of the kernel

    def test_the_list_is_the_guests(self):
        output = gdb.batch(f'target remote {self.serve().socket}', 'monitor lsmod', 'info sharedlibrary')
        rows = [line.split(' ') for line in self.guest.channel.ask('file /proc/modules')]
        self.assertGreaterEqual({row[0] for row in rows}, set(MODULES))
        for name, size, users, *_ in rows:
            self.assertRegex(output, re.compile(rf'^{name} +{size} +{users}  0x[0-9a-f]+$', re.M))
            self.assertIn(f'/{name}.ko', output)

    def test_every_symbol_is_there_at_its_address(self):
        wanted = {}
        for line in self.guest.channel.ask("run /bin/busybox grep '\\[' /proc/kallsyms"):
            found = re.match(r'([0-9a-f]+) (\S) (\S+)\s+\[(\w+)\]', line)
            if found and found.group(4) in MODULES and int(found.group(1), 16) >> 63:  # not per CPU
                wanted.setdefault(found.group(3), set()).add(int(found.group(1), 16))
        self.assertGreater(len(wanted), 100)
        got = gdb.evaluate(self.serve().socket, SYMBOLS)
        lost = {name: addresses for name, addresses in wanted.items() if not addresses <= set(got.get(name, ()))}
        self.assertEqual(lost, {})

    @case.needs('breakpoints')
    def test_a_breakpoint_by_name_and_the_way_there(self):
        with gdb.Session(self.serve().socket) as session:
            self.run_into(session, 'tun_chr_open', 'open /dev/net/tun')
            stack = session.console('bt')
            names = FRAME.findall(stack)
            self.assertEqual(names[0], 'tun_chr_open', stack)
            self.assertRegex(names[-1], ROOTS, stack)
            self.assertNotIn('??', stack)
            self.assertGreater(len(names), 5, stack)
            ours = session.console('monitor bt')  # for debuggers that know nothing of modules
            self.assertRegex(ours, r'^#0 +0x[0-9a-f]+ tun_chr_open\+0x0 \[tun\]\n', ours)
            found = [frame.group(3) for frame in map(SERVER_FRAME.match, ours.splitlines()) if frame]
            self.assertEqual(found, names[:len(found)], stack + ours)
            self.assertGreater(len(found), 5, ours)
            self.assertNotIn('broken off', ours)
            self.assertEqual(session.console('monitor symbol tun_chr_open').strip(), hex(session.value('$pc')))
            session.console('delete')
            session.command('-target-detach')
        self.guest.channel.receive('open')

    @case.needs('breakpoints')
    def test_a_module_that_is_loaded_later(self):
        """gdb is told at the next stop, and of what the guest stopped for as well."""
        with gdb.Session(self.serve().socket) as session:
            self.assertNotIn(f'/{LATER}.ko', session.console('info sharedlibrary'))
            session.console('break tun_chr_open')
            self.guest.channel.send(f'load /{LATER}.ko')
            self.guest.channel.send('open /dev/net/tun')
            session.resume()
            self.assertEqual(gdb.stop_reason(session.wait_stop()), 'breakpoint-hit')
            self.assertIn(f'/{LATER}.ko', session.console('info sharedlibrary'))
            self.assertRegex(session.console('info symbol dummy_setup'), r'dummy_setup in section \.text of .*/dummy\.ko')
            session.console('delete')
            session.command('-target-detach')
        self.guest.channel.receive('load')
        self.guest.channel.receive('open')
        self.guest.save_text()

    def test_types_that_only_a_module_has(self):
        sections = subprocess.run(['readelf', '-SW', self.guest.module_paths()['loop']], capture_output=True,
                                  text=True, check=True).stdout
        output = gdb.batch(f'target remote {self.serve().socket}', 'ptype struct loop_device', 'whatis tun_chr_open',
                           'ptype struct list_head', check=False)
        self.assertRegex(output, r'struct list_head \*next;')
        if '.BTF' not in sections:  # before 5.11 no module has any
            return
        self.assertRegex(output, r'(?s)type = struct loop_device \{.*lo_\w+;')
        self.assertRegex(output, r'type = int \(struct inode \*, struct file \*\)')


if __name__ == '__main__':
    case.main()
