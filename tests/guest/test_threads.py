"""gdb's threads are the guest's tasks: all of them, no others, with their names."""
import re

from harness import case, gdb, server

KERNEL_PID = 0x500000
IDLE_TID = 0x500001
WORKER = 0x20  # PF_WQ_WORKER, include/linux/sched.h


def shown(comm: bytes) -> str:
    """Bytes that are not printable ASCII are shown as '?'."""
    return ''.join(chr(byte) if 0x20 <= byte < 0x7f else '?' for byte in comm)


def name_matches(task, name: str) -> bool:
    # For a kernel thread /proc shows more than the 15 bytes of its comm: its full name, and of a workqueue's worker what
    # it works on after '-' or '+' (kernel/workqueue.c, wq_worker_comm; fs/proc/array.c, proc_task_name).
    full = shown(task.comm)
    if not task.is_kernel_thread:
        return name == full
    return name in (full, full[:15]) or (bool(task.flags & WORKER) and full.startswith((f'{name}-', f'{name}+')))


class Threads(case.GuestCase):
    config = {'scenario': 'threads', 'arguments': ('exo.threads=40',)}

    def compare(self, seen: dict):
        """`seen` is {tid: name} without the idle tasks."""
        always, ever = self.bounds
        missing = {tid: task for tid, task in always.items() if tid not in seen}
        self.assertEqual(missing, {}, 'tasks that the guest has and we do not show')
        extra = {tid: name for tid, name in seen.items() if tid not in ever}
        self.assertEqual(extra, {}, 'tasks that we show and the guest does not have')
        wrong = {tid: (name, ever[tid].comm) for tid, name in seen.items() if not name_matches(ever[tid], name)}
        self.assertEqual(wrong, {}, 'names that differ')

    def observed(self, look):
        """What `look` returns, with the guest's own lists around it kept in self.bounds."""
        before = {task.tid: task for task in self.guest.tasks()}
        seen = look()
        after = {task.tid: task for task in self.guest.tasks()}
        self.bounds = ({tid: task for tid, task in before.items() if tid in after}, {**before, **after})
        return seen

    def split_idle(self, rows) -> dict:
        """Checks the idle tasks and returns the other rows of (tid, name) as a dictionary."""
        idle = {tid - IDLE_TID: name for tid, name in rows if IDLE_TID <= tid < IDLE_TID + 4096}
        self.assertEqual(idle, {cpu: f'swapper/{cpu}' for cpu in range(self.guest.config.vcpus)})
        others = [(tid, name) for tid, name in rows if tid < IDLE_TID]
        self.assertEqual(len(others), len(dict(others)), 'a tid is there twice')
        return dict(others)

    def test_gdb_lists_the_guests_tasks(self):
        serving = self.serve()
        rows = self.observed(lambda: gdb.evaluate(
            serving.socket, 'result = [[t.ptid[0], t.ptid[1], t.name or ""] for t in gdb.selected_inferior().threads()]'))
        self.assertEqual({pid for pid, _, _ in rows}, {KERNEL_PID})
        self.compare(self.split_idle([(tid, name) for _, tid, name in rows]))

    def test_info_threads_prints_each_of_them(self):
        serving = self.serve()
        output = self.observed(lambda: gdb.batch(f'target remote {serving.socket}', 'info threads'))
        printed = re.findall(r'^[* ] \d+ +Thread (?:\d+\.)?(\d+)(?: "(.*?)")? \(', output, re.M)
        self.compare(self.split_idle([(int(tid), name) for tid, name in printed]))

    def test_ps_needs_no_debugger(self):
        report = self.observed(lambda: server.run_json('ps', self.guest.target))
        self.assertEqual(report['problems'], [])
        rows = [(IDLE_TID + task['cpu'] if task['idle'] else task['tid'], task['comm']) for task in report['tasks']]
        self.compare(self.split_idle(rows))
        always, _ = self.bounds
        for task in report['tasks']:
            theirs = always.get(task['tid'])
            if theirs and not task['idle']:
                self.assertEqual(task['tgid'], theirs.tgid, theirs)
                self.assertEqual(task['kernel_thread'], theirs.is_kernel_thread, theirs)
                if theirs.state in 'DTtZ':  # the others change by themselves
                    self.assertEqual(task['state'], theirs.state, theirs)

    def test_info_is_what_the_guest_says_of_itself(self):
        info = server.run_json('info', self.guest.target)
        self.assertEqual(info['os'], 'linux')
        self.assertEqual(info['version'], self.guest.config.kernel.release)
        self.assertEqual(info['vcpus'], self.guest.config.vcpus)
        symbols = self.guest.symbols('linux_banner')
        self.assertEqual(int(info['linux_banner'], 16), symbols['linux_banner'][0])

    @case.needs('breakpoints')
    def test_a_breakpoint_whose_condition_is_false_costs_no_list(self):
        """A gdb that evaluates it steps over it and goes on by itself, which must not take a look at every task of the guest
        each time."""
        getpid = self.guest.symbols('__x64_sys_getpid')['__x64_sys_getpid'][0]
        serving = self.serve()

        def logged(pattern: str) -> int:
            return len(re.findall(pattern, serving.log()))

        with gdb.Session(serving.socket) as session:
            session.console('set breakpoint condition-evaluation host')
            session.command(f'-break-insert -c "$rsp == 0" *{getpid:#x}')
            session.resume()
            self.guest.alive()
            before = logged(r'looked at \d+ tasks')
            self.guest.channel.ask('getpid 10', 120)
            during = logged(r'looked at \d+ tasks')
            hits = logged(fr"<- T05\S*;10:{getpid.to_bytes(8, 'little').hex()}")  # stops where rip is that
            self.assertGreaterEqual(hits, 10, 'hits: other programs of the guest have some too')
            self.assertEqual(logged('-> vCont;s:'), hits, 'steps over the breakpoint')
            self.assertEqual(during - before, 0, 'looks at all tasks')
            session.control_c()
            session.wait_stop()
            session.console('info threads')
            self.assertGreater(logged(r'looked at \d+ tasks'), during, 'those that gdb does ask for')

    def test_a_stop_names_the_thread_that_the_list_has_on_that_vcpu(self):
        with gdb.Session(self.serve().socket) as session:
            for _ in range(10):
                session.resume()
                self.guest.alive()
                session.control_c()
                record = session.wait_stop()
                pc = session.value('$pc')
                stopped = re.findall(r'^\* .*', session.console('info threads'), re.M)
                self.assertEqual(len(stopped), 1, record)
                self.assertRegex(stopped[0], r'on vCPU \d')
                session.console('maintenance flush register-cache')
                self.assertEqual(session.value('$pc'), pc, stopped)


if __name__ == '__main__':
    case.main()
