"""Registers: of a task that runs, the vCPU's; of one that does not, the saved ones, and the others unavailable."""
import re

from harness import case, gdb, patience

# What the spinning loop keeps (guest_init/scenarios.c).
SPINNING = {'r8': 0x0808080808080808, 'r9': 0x0909090909090909, 'r10': 0x1010101010101010, 'r11': 0x1111111111111111,
            'r12': 0x1212121212121212, 'r13': 0x1313131313131313, 'r14': 0x1414141414141414, 'r15': 0x1515151515151515}
# Where a switched-out task's callee-saved registers are, in words below rsp (struct inactive_task_frame,
# arch/x86/include/asm/switch_to.h).
SAVED = {'rip': -1, 'rbp': -2, 'rbx': -3, 'r12': -4, 'r13': -5, 'r14': -6, 'r15': -7}
UNKNOWN = ('rax', 'rcx', 'rdx', 'rsi', 'rdi', 'r8', 'r9', 'r10', 'r11')

READ = '''
def registers(frame, names):
    values = {}
    for name in names:
        value = frame.read_register(name)
        values[name] = None if "<unavailable>" in str(value) else int(value) % 2**64
    return values

def words(address, count):
    data = gdb.selected_inferior().read_memory(address, 8 * count)
    return [int.from_bytes(data[at:at + 8], "little") for at in range(0, 8 * count, 8)]
'''


class Sleeping(case.GuestCase):
    config = {'scenario': 'threads', 'arguments': ('exo.threads=8',)}

    def read_sleepers(self):
        """[{tid, values, below: the 7 words below rsp, if it has one}] of the tasks that run on no vCPU."""
        names = [*SAVED, 'rsp', *UNKNOWN]
        return gdb.evaluate(self.serve().socket, READ + f'''
result = []
for thread in gdb.selected_inferior().threads():
    thread.switch()
    values = registers(gdb.newest_frame(), {names!r})
    if values["rax"] is None:
        below = None if values["rsp"] is None else words(values["rsp"] - 56, 7)
        result.append({{"tid": thread.ptid[1], "values": values, "below": below}})
''')

    def test_saved_registers_are_the_frames_and_the_rest_is_unavailable(self):
        symbols = self.guest.symbols('__schedule', 'ret_from_fork', 'ret_from_fork_asm', '__switch_to_asm')
        sleepers = self.read_sleepers()
        by_tid = {sleeper['tid']: sleeper for sleeper in sleepers}
        states = {}
        for task in self.guest.tasks():
            states[task.tid] = task.state
            if task.state in 'SDTt':
                self.assertIn(task.tid, by_tid, f'{task} sleeps')
        for sleeper in sleepers:
            values, below = sleeper['values'], sleeper['below']
            if below is None:  # a zombie's stack is freed once it is switched away for the last time
                self.assertEqual((states.get(sleeper['tid']), set(values.values())), ('Z', {None}), sleeper)
                continue
            self.assertEqual({name: values[name] for name in UNKNOWN}, dict.fromkeys(UNKNOWN), sleeper)
            self.assertEqual({name: values[name] for name in SAVED},
                             {name: below[index + 7] for name, index in SAVED.items()}, sleeper)
            self.assertTrue(any(start <= values['rip'] < end for start, end in symbols.values()),
                            f'rip {values["rip"]:#x} is not where a task is switched out')

    def test_the_stack_holds_the_calls_that_the_guest_reports(self):
        """/proc/TID/stack's return addresses are on the stack above rsp, in order."""
        wanted = {}
        for task in self.guest.tasks():
            if task.state in 'SDTt' and not task.is_kernel_thread:
                # "[<0>] do_nanosleep+0x67/0x190"
                calls = re.findall(r'\] ([\w.]+)\+0x([0-9a-f]+)/',
                                   '\n'.join(self.guest.channel.ask(f'file /proc/{task.tid}/stack')))
                wanted[task.tid] = [(name, int(offset, 16)) for name, offset in calls]
        symbols = self.guest.symbols(*sorted({name for calls in wanted.values() for name, _ in calls})[:60])
        stacks = gdb.evaluate(self.serve().socket, READ + f'''
result = {{}}
for thread in gdb.selected_inferior().threads():
    if thread.ptid[1] in {sorted(wanted)!r}:
        thread.switch()
        top = registers(gdb.newest_frame(), ["rsp", "rax"])
        if top["rax"] is None:
            end = (top["rsp"] | 0x3fff) + 1
            result[thread.ptid[1]] = words(top["rsp"], (end - top["rsp"]) // 8)
''')
        self.assertGreater(len(stacks), 10)
        for tid, stack in stacks.items():
            addresses = [symbols[name][0] + offset for name, offset in wanted[int(tid)] if name in symbols]
            remaining = iter(stack)
            lost = [hex(address) for address in addresses if address not in remaining]
            self.assertEqual(lost, [], f'task {tid}: return addresses that are not on the stack from rsp')


class Running(case.GuestCase):
    config = {'scenario': 'spin'}

    def test_a_spinning_thread_has_the_vcpus_registers(self):
        lines = [line.split() for line in self.guest.channel.ask('spinners')]
        loops = {int(tid): (int(begin, 16), int(end, 16), int(counter, 16)) for tid, _, begin, end, counter in lines}
        serving = self.serve()
        for _ in range(10):  # a vCPU may be stopped in an interrupt: look again
            seen = gdb.evaluate(serving.socket, READ + f'''
result = {{}}
for thread in gdb.selected_inferior().threads():
    if thread.ptid[1] in {sorted(loops)!r}:
        thread.switch()
        frame = gdb.newest_frame()
        values = registers(frame, {[*SPINNING, 'rip', 'rdi', 'cs']!r})
        values["xmm3"] = str(frame.read_register("xmm3")["uint128"])
        result[thread.ptid[1]] = values
''')
            caught = {int(tid): values for tid, values in seen.items() if values['cs'] == 0x33}
            if len(caught) == len(loops):
                break
        self.assertEqual(sorted(caught), sorted(loops), 'not all vCPUs were caught in the loop')
        for tid, values in caught.items():
            begin, end, counter = loops[tid]
            self.assertEqual({name: values[name] for name in SPINNING}, SPINNING)
            self.assertTrue(begin <= values['rip'] < end, hex(values['rip']))
            self.assertEqual(values['rdi'], counter)
            self.assertEqual(int(values['xmm3']), SPINNING['r13'] << 64 | SPINNING['r12'])

    def test_user_memory_is_that_of_the_selected_thread(self):
        serving = self.serve()
        for line in self.guest.channel.ask('spinners'):
            tid, _, _, _, counter = line.split()
            read = f'''
for thread in gdb.selected_inferior().threads():
    if thread.ptid[1] == {tid}:
        thread.switch()
        result = int.from_bytes(gdb.selected_inferior().read_memory({counter}, 8), "little")
'''
            first = gdb.evaluate(serving.socket, read)
            self.assertGreater(first, 0)
            patience.until(lambda: gdb.evaluate(serving.socket, read) > first, 'the counter stands still')


if __name__ == '__main__':
    case.main()
