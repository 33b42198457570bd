"""A real Debian: systemd, PID 1, and its services attached, looked at and left alone, with nothing given to gdb."""
import hashlib
import pathlib
import re
import tempfile

from harness import case, debian, gdb, server

# Services that every such Debian runs; all but D-Bus' daemon have a mount namespace of their own.
PROGRAMS = {'systemd-journal': '/lib/systemd/systemd-journald', 'dbus-daemon': '/usr/bin/dbus-daemon',
            'systemd-logind': '/lib/systemd/systemd-logind'}
UNITS = 'systemd-journald dbus systemd-logind'
LIBRARY = re.compile(r'^ *(0x[0-9a-f]+) +(0x[0-9a-f]+) +(Yes|No).* target:(/.*)$', re.M)  # of `info sharedlibrary`
FRAME = re.compile(r'^#\d+ +(?:0x[0-9a-f]+ in )?(\S+) \(', re.M)


class Systemd(case.SessionCase):
    @classmethod
    def setUpClass(cls):
        server.program()
        cls.guest = debian.DebianVm(case.kernel().suite)
        cls._booted.append(cls.guest)
        cls.addClassCleanup(cls.guest.destroy)
        cls.guest.boot()
        cls.shell('systemctl is-system-running --wait')
        cls.pids = {name: int(cls.shell(f'pidof -s {path}')[0]) for name, path in PROGRAMS.items()} | {'systemd': 1}
        # What no process has needed of a file is on the disk alone, where gdb does not find it: in the page cache with it.
        cls.shell("sed -n 's/.* //p' /proc/[0-9]*/maps | grep ^/usr | sort -u | xargs md5sum >/run/digests")
        cls.first_state = cls.state()

    @classmethod
    def shell(cls, command: str) -> list:
        return cls.guest.run(command, 300)

    @classmethod
    def state(cls) -> list:
        """What systemd says of itself and its services, and the kernel of faults; not what slow machines make it say."""
        return cls.shell('systemctl is-system-running; systemctl --failed --no-legend; cat /proc/sys/kernel/tainted;'
                         'dmesg | grep -E "segfault|traps:|BUG|WARNING|Oops";'
                         f'systemctl show -p Id -p ActiveState -p SubState -p MainPID -p NRestarts {UNITS}')

    def assert_unharmed(self, when: str):
        """systemd starts a service, all others are as they were, as are their files."""
        self.assertEqual(self.shell('systemd-run --quiet --wait --pipe echo started'), ['started'], when)
        self.assertEqual(self.state(), self.first_state, when)
        self.assertEqual(self.shell('md5sum --quiet --check /run/digests'), [], when)

    def connected(self, *options: str) -> gdb.Session:
        """Without the debug packages that this machine may have."""
        session = gdb.Session()
        self.sessions.append(session)
        session.console('set debug-file-directory /nonexistent')
        session.command(f'-target-select {"remote" if options else "extended-remote"} {self.serve(*options).socket}')
        return session

    def extended(self, *names: str) -> gdb.Session:
        session = self.connected()
        for number, name in enumerate(names, 2):
            session.console('add-inferior')
            session.console(f'inferior {number}')
            session.console(f'attach {self.pids[name]}')
        return session

    def maps(self, name: str) -> list:
        """(start, end, offset, permissions, file) of the guest's own /proc/PID/maps."""
        rows = (line.split(maxsplit=5) for line in self.shell(f'cat /proc/{self.pids[name]}/maps'))
        return [(*(int(end, 16) for end in row[0].split('-')), int(row[2], 16), row[1], ''.join(row[5:])) for row in rows]

    def assert_backtrace(self, session, name: str, library: tuple):
        """From epoll_wait() to the beginning of the stack, through functions of libraries and of the program, which has
        no names. C libraries of Debian do not name main()'s caller either: it is static."""
        names = FRAME.findall(session.console('bt'))
        self.assertEqual(names[:1 + len(library)], ['epoll_wait', *library], name)
        self.assertEqual(names[-3:], ['??', '__libc_start_main', '??'], name)
        self.assertEqual(set(names[1 + len(library):-3]), {'??'}, name)

    BACKTRACES = {'systemd': ('sd_event_wait', 'sd_event_run', 'manager_loop'), 'dbus-daemon': (),
                  'systemd-journal': ('sd_event_wait', 'sd_event_run'), 'systemd-logind': ('sd_event_wait', 'sd_event_run')}

    def test_only_systemd(self):
        """`--process 1`: its one thread, its calls"""
        session = self.connected('--process', '1')
        self.assertRegex(session.console('info threads'), r'^ +Id .*\n\* 1 +Thread 1\.1 "systemd" [^\n]*\n$')
        self.assertIn('target:/usr/lib/systemd/systemd', session.console('info inferiors'))
        self.assert_backtrace(session, 'systemd', self.BACKTRACES['systemd'])

    def test_systemd_and_services(self):
        """`attach 1` and services: calls of each, where its libraries are, read through links out of the page cache"""
        maps = {name: self.maps(name) for name in self.BACKTRACES}
        links = dict(line.split() for line in self.shell(
            'for f in /lib64/ld-linux* /lib/x86_64-linux-gnu/*.so* /usr/lib/x86_64-linux-gnu/systemd/*; do echo $f $(readlink -f $f); done'))
        session = self.extended(*self.BACKTRACES)
        for number, (name, library) in enumerate(self.BACKTRACES.items(), 2):
            session.console(f'inferior {number}')
            self.assert_backtrace(session, name, library)
            texts = {row[4]: row[:2] for row in maps[name] if 'x' in row[3] and row[4].startswith('/usr/lib/x86_64')}
            told = {links[path]: (begin, end, read) for begin, end, read, path in LIBRARY.findall(
                session.console('info sharedlibrary'))}
            self.assertEqual(told.keys(), texts.keys(), name)
            for path, (begin, end, read) in told.items():
                self.assertEqual(read, 'Yes', path)
                self.assertTrue(texts[path][0] <= int(begin, 16) < int(end, 16) <= texts[path][1], path)

    def test_info_proc_mappings(self):
        """More than a hundred mappings: the guest's own"""
        maps = self.maps('systemd')
        self.assertGreater(len(maps), 100)
        lines = self.extended('systemd').console('info proc mappings').splitlines()
        rows = [line.split() for line in lines if re.match(r' +0x', line)]
        self.assertEqual([(int(row[0], 16), int(row[1], 16), int(row[3], 16), row[4], ''.join(row[5:])) for row in rows], maps)

    def listed(self) -> set:
        """What the guest says of its processes; those that end meanwhile, and the listing itself, are left out."""
        lines = self.shell('for p in /proc/[0-9]*; do readlink $p/exe >/dev/null && '
                           'echo $(basename $p) $(stat -c %U $p) $(tr "\\0" " " <$p/cmdline); done; true')
        return {line for line in lines if re.match(r'\d+ \S+ \S', line) and ' sh -c for p in ' not in line}

    def test_info_os_processes(self):
        """Those that the guest lists, with user and arguments; kernel threads aside, which come and go"""
        before = self.listed()
        with self.connected() as session:
            rows = re.findall(r'(?m)^(\d+) +(\S+) +(.*?) +[\d,]+ *$', session.console('info os processes'))
        after = self.listed()
        told = {f'{pid} {owner} {command.strip()}' for pid, owner, command in rows}
        self.assertGreater(len(before & after), 4)
        self.assertLessEqual(before & after, told)
        user = {line for line in told if not re.search(r'^\d+ \S+ (\[|\(udev-worker)', line)}
        self.assertLessEqual(user, before | after)
        self.assertIn('2 root [kthreadd]', told)

    def test_a_breakpoint_of_systemd_alone(self):
        """`break epoll_wait`: others call it too, in the same page of the C library"""
        session = self.extended('systemd')
        session.console('break epoll_wait')
        self.guest.channel.send(f'run systemctl show -p Id {UNITS}; busctl --no-legend list >/dev/null')
        for _ in range(3):
            session.resume()
            record = session.wait_stop(300)
            while not gdb.stop_reason(record):  # the stop of `attach`, which may be told late
                record = session.wait_stop(300)
            self.assertEqual(gdb.stop_reason(record), 'breakpoint-hit')
            self.assertIn('Thread 1.1', session.console('thread'))
            self.assertEqual(FRAME.findall(session.console('bt'))[:2], ['epoll_wait', 'sd_event_wait'])
        session.console('delete')
        session.console('detach')
        session.close()
        self.assertIn('Id=dbus.service', self.guest.channel.receive('systemctl show', 300))

    def test_a_file_is_exact_or_an_error(self):
        """What the page cache of a disk has dropped cannot be read; what has come back is the file"""
        path = '/usr/bin/perl'
        before = self.shell(f'md5sum {path}')[0].split()[0]
        self.assertEqual(self.got(path), before)
        self.shell('echo 1 >/proc/sys/vm/drop_caches')
        self.assertIn('page 0 of the file is not in the page cache', self.got(path))
        self.shell('md5sum --quiet --check /run/digests')  # for the other tests

    def got(self, path: str) -> str:
        """The digest of what `remote get` has, or what the server says of it. gdb 13 has no name for EIO."""
        with tempfile.TemporaryDirectory(prefix='exogdb-get-') as folder, server.Server(
                self.guest.target, '--log', 'info') as serving:
            output = gdb.batch(f'target remote {serving.socket}', f'remote get {path} {folder}/file', check=False)
            if 'Remote I/O error' in output:
                return serving.log()
            return hashlib.md5(pathlib.Path(folder, 'file').read_bytes()).hexdigest()


if __name__ == '__main__':
    case.main()
