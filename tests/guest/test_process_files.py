"""What vFile has of the guest's processes and files, against what the guest says of itself."""
import contextlib
import pathlib
import re
import shutil
import tempfile

from harness import case, gdb, initramfs, packets

MAPPER = 'exo-mapper'
PAGE = 4096
ENOENT, EROFS = 'F-1,2', 'F-1,1e'


class Files:
    """vFile without a debugger (gdb manual, "Host I/O Packets")."""

    def __init__(self, client):
        self.client = client

    def open(self, name: str, flags: int = 0) -> str:
        return self.client.ask(f'vFile:open:{name.encode().hex()},{flags:x},0')

    def pread(self, descriptor: int, count: int, offset: int):
        """The bytes, or the error reply."""
        reply = self.client.ask(f'vFile:pread:{descriptor:x},{count:x},{offset:x}')
        if reply.startswith('F-1'):
            return reply
        head, data = reply.encode('latin-1').split(b';', 1)
        plain = re.sub(rb'}(.)', lambda found: bytes([found.group(1)[0] ^ 0x20]), data, flags=re.S)
        assert len(plain) == int(head[1:], 16), reply
        return plain

    def readlink(self, name: str) -> str:
        reply = self.client.ask(f'vFile:readlink:{name.encode().hex()}')
        return reply if reply.startswith('F-1') else reply.split(';', 1)[1]


class ProcessFiles(case.GuestCase):
    config = {'scenario': 'mappings'}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.mapper = next(task.tid for task in cls.guest.tasks() if task.comm == MAPPER.encode())
        cls.thread = next(task.tid for task in cls.guest.tasks() if task.comm == b'second')

    def setUp(self):
        super().setUp()
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix='exogdb-files-'))
        self.addCleanup(shutil.rmtree, self.folder)

    def theirs(self, path: str) -> bytes:
        """Every byte of a file as the guest reads it."""
        lines = self.guest.channel.ask(f"run /bin/busybox hexdump -v -e '1/1 \"%02x\"' '{path}'; echo")
        return bytes.fromhex(''.join(lines))

    def ours(self, *paths: str) -> list:
        """The same through a real gdb."""
        names = [str(self.folder / str(number)) for number in range(len(paths))]
        serving = self.serve()
        output = gdb.batch(f'target remote {serving.socket}',
                           *(f'remote get {path} {name}' for path, name in zip(paths, names)), check=False)
        serving.stop()
        self.assertNotIn('error', output)
        return [pathlib.Path(name).read_bytes() for name in names]

    @contextlib.contextmanager
    def files(self):
        with packets.Client(self.serve().socket) as client:
            client.greet()
            yield Files(client)

    def test_text_that_is_the_guests_own(self):
        """Byte for byte: mappings of each kind, arguments, environment, auxiliary vector."""
        names = ('maps', 'cmdline', 'environ', 'auxv', 'comm', 'coredump_filter')
        paths = [f'/proc/{pid}/{name}' for pid in (self.mapper, 1) for name in names]
        paths.append(f'/proc/{self.mapper}/task/{self.thread}/comm')
        wanted = [self.theirs(path) for path in paths]
        got = self.ours(*paths)
        self.maxDiff = None
        for path, mine, guests in zip(paths, got, wanted):
            if path.endswith('maps'):
                self.assertEqual(mine.decode(), guests.decode(), path)
            self.assertEqual(mine, guests, path)
        maps = got[0].decode()
        for name in ('[heap]', '[stack]', '[vdso]', '[vvar', '/files/mapped', '/files/deleted (deleted)', '/init',
                     '/files/line\\012feed and \\', '/memfd:in memory (deleted)', '/dev/zero (deleted)',
                     '/files/mount/folder/file'):
            self.assertIn(name, maps)

    def test_status_has_no_line_that_the_guests_has_not(self):
        for pid, task in ((self.mapper, self.mapper), (self.mapper, self.thread), (1, 1)):
            path = f'/proc/{pid}/task/{task}'
            status, stat = self.theirs(f'{path}/status').decode(), self.theirs(f'{path}/stat').decode()
            our_status, our_stat = (text.decode() for text in self.ours(f'{path}/status', f'{path}/stat'))
            self.assertEqual(len(our_stat[our_stat.rindex(')'):].split(' ')), 8, our_stat)  # to the flags
            if task == 1:  # it answers us: it runs when it is asked, and not when we look
                status, our_status = (re.sub(r'State:.*', '', text) for text in (status, our_status))
                stat, our_stat = (re.sub(r'\) \S', ')', text) for text in (stat, our_stat))
            missing = [line for line in our_status.splitlines() if line not in status.splitlines()]
            self.assertEqual(missing, [], status)
            for line in ('Name', 'Umask', 'Pid', 'PPid', 'Uid', 'VmSize', 'Threads', 'SigBlk', 'CapEff'):
                self.assertRegex(our_status, rf'(?m)^{line}:\t')
            self.assertTrue(stat.startswith(our_stat.rstrip('\n') + ' '), f'{our_stat} {stat}')

    def test_smaps(self):
        theirs, (ours,) = self.theirs(f'/proc/{self.mapper}/smaps').decode(), self.ours(f'/proc/{self.mapper}/smaps')
        ours = ours.decode()

        def parts(text: str) -> list:
            return re.findall(r'(?ms)^([0-9a-f]+-[0-9a-f]+ .*?)\n(.*?^VmFlags: .*?)$', text)
        self.assertEqual([first for first, _ in parts(ours)], [first for first, _ in parts(theirs)])
        self.assertEqual(len(parts(ours)), ours.count('VmFlags'))
        for (mapping, mine), (_, guests) in zip(parts(ours), parts(theirs)):
            *lines, flags = mine.splitlines()
            self.assertEqual([line for line in lines if line not in guests.splitlines()], [], f'{mapping} {guests}')
            self.assertEqual([line.split(':')[0] for line in lines], ['Size', 'Rss', 'Anonymous'])
            beyond = {'dw', 'gu', 'lf', 'sl', 'dp', 'ss', 'ui'}  # bits that are not the same in every kernel
            self.assertEqual(set(re.findall(r'VmFlags: (.*)', guests)[0].split()) - beyond, set(flags.split()[1:]))

    def test_links(self):
        descriptor, name = self.guest.channel.ask(
            f'run cd /proc/{self.mapper}/fd; for n in *; do echo "$n $(readlink $n)"; done')[3].split(' ')
        with self.files() as files:
            self.assertEqual(files.readlink(f'/proc/{self.mapper}/exe'), '/init')
            self.assertEqual(files.readlink(f'/proc/{self.mapper}/cwd'), '/files')
            self.assertEqual(files.readlink(f'/proc/{self.mapper}/root'), '/')
            self.assertEqual(files.client.ask(f'qXfer:exec-file:read:{self.mapper:x}:0,100'), 'l/init')
            self.assertEqual(files.readlink(f'/proc/{self.mapper}/fd/{descriptor}'), name)
            self.assertEqual(files.readlink('/proc/2/exe'), ENOENT)  # a kernel thread

    def test_info_os_files(self):
        names = self.guest.channel.ask(f'run cd /proc/{self.mapper}/fd; for n in *; do echo "$n $(readlink $n)"; done')
        output = gdb.batch(f'target remote {self.serve().socket}', 'info os files')
        ours = re.findall(rf'(?m)^{self.mapper} +{MAPPER} +(\d+) +(.*?) *$', output)
        # A name with a line feed in it has its second line without a number.
        self.assertEqual([f'{number} {name}' for number, name in ours],
                         sorted((name.rstrip() for name in names if re.match(r'\d+ /', name)), key=lambda n: int(n.split()[0])),
                         output)

    def test_gdb_reads_a_program_out_of_the_guest(self):
        """As it does with `set sysroot target:`, gdb's default: here the program of a process of the guest."""
        output = gdb.batch(f'target remote {self.serve().socket}', 'file target:/init', 'info address be_mapper', check=False)
        self.assertRegex(output, r'Symbol "be_mapper" is at 0x[0-9a-f]+ in a file')

    def test_files_out_of_the_page_cache(self):
        paths = ['/files/mapped', '/files/mount/folder/file', '/files/link/../folder/./file', f'/proc/{self.mapper}/exe']
        wanted = [self.theirs(path) for path in paths[:3]]
        *got, executable = self.ours(*paths)
        for path, mine, guests in zip(paths, got, wanted):
            self.assertEqual(mine, guests, path)
        self.assertEqual(len(wanted[1]), 5 * PAGE + 100)
        self.assertEqual(executable, initramfs.guest_init().read_bytes())
        self.assertEqual(self.ours('/bin/busybox'), [pathlib.Path(shutil.which('busybox')).read_bytes()])

    def test_memory_that_is_not_mapped_yet(self):
        """As the process would find it: pages of files, pages without access, zeros. None is mapped by our look."""
        maps = self.theirs(f'/proc/{self.mapper}/maps').decode()
        smaps = self.theirs(f'/proc/{self.mapper}/smaps')
        # The only mapping of the file that it may write to and has for itself: pages 1 to 4, of which it has changed the
        # third and touched no other.
        own = int(re.search(r'(?m)^([0-9a-f]+)-\S+ rw-p 00001000 .*/files/mapped$', maps)[1], 16)
        shared = int(re.search(r'(?m)^([0-9a-f]+)-.*/files/mount/folder/file$', maps)[1], 16)
        content, mapped = self.theirs('/files/mount/folder/file'), self.theirs('/files/mapped')
        with self.files() as files:
            self.assertEqual(files.open(f'/proc/{self.mapper}/mem'), 'F0')
            self.assertEqual(files.pread(0, 2 * PAGE, own), mapped[PAGE:3 * PAGE])
            self.assertEqual(files.pread(0, PAGE, own + 2 * PAGE), b'!' + mapped[3 * PAGE + 1:4 * PAGE])
            # Its last page has less in it, and the page before that was never written.
            self.assertEqual(files.pread(0, 6 * PAGE, shared), content.ljust(6 * PAGE, b'\0'))
            self.assertEqual(files.pread(0, PAGE, 0), 'F-1,5')
            found = {self.memory_at(files, start, end)
                     for start, end in re.findall(r'(?m)^([0-9a-f]+)-([0-9a-f]+) (?:rw-p|---p|r-xp) 00000000 00:00 0 $', maps)}
            for words in (b'touched once', b'without access', b''):
                self.assertIn(words.ljust(4 * PAGE, b'\0'), found)
        self.assertEqual(self.theirs(f'/proc/{self.mapper}/smaps'), smaps)

    @staticmethod
    def memory_at(files, start: str, end: str) -> bytes:
        return files.pread(0, int(end, 16) - int(start, 16), int(start, 16))

    def test_what_there_is_not(self):
        with self.files() as files:
            for name in ('/files/nothing', '/files/deleted', '/etc/passwd', '/proc/99999/maps', '/exogdb/nothing', 'relative',
                         f'/proc/{self.mapper}/task/1/comm', f'/proc/{self.mapper}/nothing'):
                self.assertEqual(files.open(name), ENOENT, name)
            self.assertEqual(files.open('/files/mapped', 1), EROFS)
            self.assertEqual(files.client.ask(f'vFile:setfs:{99999:x}'), ENOENT)
            self.assertEqual(files.client.ask(f'vFile:setfs:{self.mapper:x}'), 'F0')
            self.assertEqual(files.open('/files/mapped'), 'F0')
            self.assertEqual(files.pread(0, 14, 3 * PAGE), b'page 3 of /fil')


if __name__ == '__main__':
    case.main()
