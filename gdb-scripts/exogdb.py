"""gdb commands for a guest that exogdb serves. In gdb: source gdb-scripts/exogdb.py, then: help exo

They show what the server knows and gdb has no packet for, by way of `monitor`. Tested with gdb 13.1.

Functions for expressions: $current(), $task(TID), $per_cpu(VARIABLE, CPU); to list them: help function"""
import os
import re
import struct
import subprocess
import tempfile

import gdb

# A row of `monitor ps`: TID, TGID, state, '*' on a vCPU, CPU, name, and of a thread its process.
TASK = re.compile(r'^ *(?P<tid>\d+) +\d+ +(?P<state>\S)(?P<running>\*?) +(?P<cpu>\d+) +(?P<name>.*)$')
IDLE_TID = 0x500001  # the idle task of CPU n is thread IDLE_TID + n


def need_server():
    connection = gdb.selected_inferior().connection
    if connection is None or connection.type not in ('remote', 'extended-remote'):
        raise gdb.GdbError('no server is connected; try: target remote :1234')


def monitor(command: str) -> str:
    """What the server answers to `monitor COMMAND`."""
    need_server()
    return gdb.execute(f'monitor {command}', to_string=True)


def no_arguments(command: str, argument: str):
    if argument.strip():
        raise gdb.GdbError(f'{command} takes no argument')


def thread_numbers() -> dict:
    """gdb's number of each thread, by the guest's TID."""
    return {thread.ptid[1]: thread.num for thread in gdb.selected_inferior().threads()}


class Exo(gdb.Command):
    """Commands for a guest that exogdb serves."""

    def __init__(self):
        super().__init__('exo', gdb.COMMAND_STATUS, prefix=True)


class ExoPs(gdb.Command):
    """List the guest's tasks: exo ps [TEXT]

With TEXT, only the tasks whose name has TEXT in it, in upper or lower case.
S is the state as ps(1) has it; a * follows where the task runs on a vCPU now.
Names in brackets are kernel threads. To select a task: thread find TID"""

    def __init__(self):
        super().__init__('exo ps', gdb.COMMAND_STATUS)

    def invoke(self, argument, from_tty):
        wanted = argument.strip().lower()
        for line in monitor('ps').splitlines():
            row = TASK.match(line)
            if row is None or wanted in row['name'].lower():
                print(line)


class ExoVcpus(gdb.Command):
    """Show which task each virtual CPU runs, and gdb's number of its thread.

To select one of them: thread NUMBER"""

    def __init__(self):
        super().__init__('exo vcpus', gdb.COMMAND_STATUS)

    def invoke(self, argument, from_tty):
        no_arguments('exo vcpus', argument)
        numbers = thread_numbers()
        rows = [row for row in map(TASK.match, monitor('ps').splitlines()) if row and row['running']]
        if not rows:
            raise gdb.GdbError('no task is known to run on a vCPU; see: info threads, exo problems')
        print('CPU  THREAD      TID  NAME')
        for row in sorted(rows, key=lambda row: int(row['cpu'])):
            tid = int(row['tid']) or IDLE_TID + int(row['cpu'])
            print(f"{row['cpu']:>3}  {numbers.get(tid, '?'):>6}  {row['tid']:>7}  {row['name']}")


class ExoLsmod(gdb.Command):
    """List the kernel's modules: exo lsmod [TEXT]

With TEXT, only those whose name has TEXT in it. gdb knows their symbols by itself; see also: info sharedlibrary"""

    def __init__(self):
        super().__init__('exo lsmod', gdb.COMMAND_STATUS)

    def invoke(self, argument, from_tty):
        wanted = argument.strip().lower()
        heading, *rows = monitor('lsmod').splitlines() or ['']
        print(heading)
        for row in rows:
            if wanted in row.split(' ')[0].lower():
                print(row)


class ExoInfo(gdb.Command):
    """Show what was recognised in the guest: system, version, KASLR slide, paging, and by what each was found."""

    def __init__(self):
        super().__init__('exo info', gdb.COMMAND_STATUS)

    def invoke(self, argument, from_tty):
        no_arguments('exo info', argument)
        print(monitor('info'), end='')


class ExoSymbol(gdb.Command):
    """Show the address of a kernel symbol, or the symbol at an address: exo symbol NAME-OR-ADDRESS"""

    def __init__(self):
        super().__init__('exo symbol', gdb.COMMAND_DATA)

    def invoke(self, argument, from_tty):
        if not argument.strip():
            raise gdb.GdbError('which symbol? exo symbol NAME-OR-ADDRESS')
        print(monitor(f'symbol {argument.strip()}'), end='')


class ExoProblems(gdb.Command):
    """Show what in the guest's memory could not be read or trusted, one line each; `none` when all is well."""

    def __init__(self):
        super().__init__('exo problems', gdb.COMMAND_STATUS)

    def invoke(self, argument, from_tty):
        no_arguments('exo problems', argument)
        print(monitor('problems'), end='')


class ExoDmesg(gdb.Command):
    """Show the kernel's log, out of guest memory: exo dmesg [N]

With N, only the last N records. What is not printable in it is shown as \\xNN."""

    def __init__(self):
        super().__init__('exo dmesg', gdb.COMMAND_DATA)

    def invoke(self, argument, from_tty):
        print(monitor(f'dmesg {argument.strip()}'.strip()), end='')


class ExoBtAll(gdb.Command):
    """Show who called whom in the kernel, of every task: exo bt-all [-g]

Above each stack: the TID, name, state and CPU of its task. With -g (group), tasks with the same stack are above
one stack. The server unwinds; what gdb makes of the stacks is shown by: thread apply all bt"""

    def __init__(self):
        super().__init__('exo bt-all', gdb.COMMAND_STACK)

    def invoke(self, argument, from_tty):
        if argument.strip() not in ('', '-g'):
            raise gdb.GdbError('exo bt-all takes no argument but -g')
        text = monitor('bt-all')
        print(grouped(text) if argument.strip() else text, end='')


def grouped(text: str) -> str:
    """The blocks of `monitor bt-all`, those of one stack together; the stacks of most tasks come first."""
    heads = {}
    for block in text.split('\n\n'):
        head, _, stack = block.strip().partition('\n')
        if head:
            heads.setdefault(stack, []).append(head)
    groups = sorted(heads.items(), key=lambda group: -len(group[1]))
    return ''.join('\n'.join([*tasks, stack, '', '']) for stack, tasks in groups)


class ExoX16(gdb.Command):
    """Disassemble 16-bit code: exo x16 [COUNT [ADDRESS]]

ADDRESS is a linear one; without it: where the selected thread's vCPU is, which is $cs_base + $pc.
gdb has one architecture in a session, and x/i decodes as 64-bit code what is read at $pc. Here another gdb
decodes, which is set to i8086. `monitor vcpus` shows which vCPU executes 16-bit code."""

    MOST = 1000  # instructions, of 15 bytes at most

    def __init__(self):
        super().__init__('exo x16', gdb.COMMAND_DATA)

    def invoke(self, argument, from_tty):
        need_server()
        words = gdb.string_to_argv(argument)
        if len(words) > 2:
            raise gdb.GdbError('exo x16 takes a count and an address')
        count = int(gdb.parse_and_eval(words[0])) if words else 10
        place = gdb.parse_and_eval(words[1] if len(words) > 1 else '(long)$cs_base + (long)$pc')
        address = int(place) % 2**32
        if not 0 < count <= self.MOST:
            raise gdb.GdbError(f'a count from 1 to {self.MOST}')
        size = min(15 * count, 2**32 - address)
        code = bytes(gdb.selected_inferior().read_memory(address, size))
        with tempfile.NamedTemporaryFile(prefix='exogdb-x16-') as file:
            file.write(elf_of(address, code))
            file.flush()
            words = [os.readlink('/proc/self/exe'), '-nx', '-q', '-batch', '-ex', 'set architecture i8086',
                     '-ex', f'x/{count}i {address:#x}', file.name]
            answer = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        print(''.join(f'{line}\n' for line in answer.stdout.splitlines() if '0x' in line) or answer.stderr, end='')


def elf_of(address: int, code: bytes) -> bytes:
    """A file that has `code` in a section at that address, and nothing else (System V ABI, chapter 4)."""
    names = b'\0.text\0.shstrtab\0'
    header, section = 52, 40
    name_at = header + len(code)
    sections = (struct.pack('<10I', *[0] * 10),
                struct.pack('<10I', 1, 1, 6, address, header, len(code), 0, 0, 1, 0),  # PROGBITS, ALLOC | EXECINSTR
                struct.pack('<10I', 7, 3, 0, 0, name_at, len(names), 0, 0, 1, 0))  # STRTAB
    ident = b'\x7fELF\x01\x01\x01' + bytes(9)
    # EXEC for a 386; no program header.
    head = ident + struct.pack('<HHIIIIIHHHHHH', 2, 3, 1, address, 0, name_at + len(names), 0, header, 0, 0,
                               section, len(sections), 2)
    return head + code + names + b''.join(sections)


class ExoReset(gdb.Command):
    """Press the guest's reset button: it stands at its reset vector then, and gdb sees it there."""

    def __init__(self):
        super().__init__('exo reset', gdb.COMMAND_RUNNING)

    def invoke(self, argument, from_tty):
        no_arguments('exo reset', argument)
        print(monitor('reset').splitlines()[0].split(',')[0])
        gdb.execute('maintenance flush register-cache', to_string=True)
        gdb.execute('info threads', to_string=True)  # gdb asks which there are
        for thread in gdb.selected_inferior().threads():
            if thread.ptid[1] == 1:  # vCPU 0
                thread.switch()


class ExoBreakpoints(gdb.Command):
    """Show what the server has of your breakpoints.

A software breakpoint that the guest cannot take is made a hardware one, or kept pending with the reason said.
gdb takes its breakpoints out at each stop; to see them here: set breakpoint always-inserted on"""

    def __init__(self):
        super().__init__('exo breakpoints', gdb.COMMAND_BREAKPOINTS)

    def invoke(self, argument, from_tty):
        no_arguments('exo breakpoints', argument)
        print(monitor('breakpoints'), end='')


def address_from(command: str) -> int:
    """The one address that `monitor COMMAND` prints. Where it prints something else, that is the error."""
    answer = monitor(command).strip()
    if not re.fullmatch('0x[0-9a-f]+', answer):
        raise gdb.GdbError(answer)
    return int(answer, 16)


def pointer(address: int, target: gdb.Type = None) -> gdb.Value:
    """A number where the type is not known."""
    number = gdb.Value(address).cast(gdb.lookup_type('unsigned long'))
    return number if target is None else number.cast(target.pointer())


def task_pointer(address: int) -> gdb.Value:
    try:
        return pointer(address, gdb.lookup_type('struct task_struct'))
    except gdb.error:
        return pointer(address)


class Current(gdb.Function):
    """$current(): the task_struct of the selected thread's task, as a struct task_struct *

An unsigned long where gdb does not know that type. Example: print $current()->comm"""

    def __init__(self):
        super().__init__('current')

    def invoke(self):
        thread = gdb.selected_thread()
        if thread is None:
            raise gdb.GdbError('no thread is selected')
        return task_pointer(address_from(f'task {thread.ptid[1]}'))


class TaskByTid(gdb.Function):
    """$task(TID): the task_struct of the guest's task with that TID, as a struct task_struct *

An unsigned long where gdb does not know that type. Example: print $task(1)->comm"""

    def __init__(self):
        super().__init__('task')

    def invoke(self, tid):
        return task_pointer(address_from(f'task {int(tid)}'))


class PerCpu(gdb.Function):
    """$per_cpu(VARIABLE, CPU): a CPU's own of a per-CPU variable

VARIABLE is its name as a string, the variable, or a pointer to it, which gives a pointer:
print $per_cpu("runqueues", 1).nr_running
print $per_cpu(&runqueues, 1)->curr->comm
A pointer that the kernel has of alloc_percpu() will do, too. By name and without a type: an unsigned long."""

    def __init__(self):
        super().__init__('per_cpu')

    def invoke(self, variable, cpu):
        cpu = int(cpu)
        kind = variable.type.strip_typedefs().code
        if kind == gdb.TYPE_CODE_ARRAY and variable.type.target().sizeof == 1:
            return self.by_name(variable.string(), cpu)
        # A variable that is a pointer is one all the same: it is there where per-CPU variables are.
        if variable.address is not None:
            address = self.own(int(variable.address), cpu)
            if address is not None:
                return pointer(address, variable.type).dereference()
        if kind != gdb.TYPE_CODE_PTR:
            raise gdb.GdbError('not a per-CPU variable, its name in quotes, or a pointer to one')
        address = self.own(int(variable), cpu)
        if address is None:
            address = (int(variable) + address_from(f'percpu {cpu}')) % 2**64
        return pointer(address, variable.type.target())

    def own(self, address: int, cpu: int):
        """None where no variable of the kernel's per-CPU section is at `address`."""
        try:
            return address_from(f'percpu {address % 2**64:#x} {cpu}')
        except gdb.GdbError as error:
            if 'no per-CPU variable' in str(error):
                return None
            raise

    def by_name(self, name: str, cpu: int) -> gdb.Value:
        address = address_from(f'percpu {name} {cpu}')
        symbol = gdb.lookup_global_symbol(name) or gdb.lookup_static_symbol(name)
        target = symbol.type if symbol is not None else gdb.lookup_type('unsigned long')
        return pointer(address, target).dereference()


for command in (Exo, ExoPs, ExoVcpus, ExoLsmod, ExoInfo, ExoSymbol, ExoBreakpoints, ExoProblems, ExoDmesg, ExoBtAll,
                ExoReset, ExoX16, Current, TaskByTid, PerCpu):
    command()
