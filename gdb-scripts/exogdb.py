"""gdb commands for a guest that exogdb serves. In gdb: source gdb-scripts/exogdb.py, then: help exo

They show what the server knows and gdb has no packet for, by way of `monitor`. Tested with gdb 13.1."""
import re

import gdb

# A row of `monitor ps`: TID, TGID, state, '*' on a vCPU, CPU, name, and of a thread its process.
TASK = re.compile(r'^ *(?P<tid>\d+) +\d+ +(?P<state>\S)(?P<running>\*?) +(?P<cpu>\d+) +(?P<name>.*)$')
IDLE_TID = 0x500001  # the idle task of CPU n is thread IDLE_TID + n


def monitor(command: str) -> str:
    """What the server answers to `monitor COMMAND`."""
    connection = gdb.selected_inferior().connection
    if connection is None or connection.type not in ('remote', 'extended-remote'):
        raise gdb.GdbError('no server is connected; try: target remote :1234')
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


class ExoBreakpoints(gdb.Command):
    """Show what the server has of your breakpoints.

A software breakpoint that the guest cannot take is made a hardware one, or kept pending with the reason said.
gdb takes its breakpoints out at each stop; to see them here: set breakpoint always-inserted on"""

    def __init__(self):
        super().__init__('exo breakpoints', gdb.COMMAND_BREAKPOINTS)

    def invoke(self, argument, from_tty):
        no_arguments('exo breakpoints', argument)
        print(monitor('breakpoints'), end='')


for command in (Exo, ExoPs, ExoVcpus, ExoLsmod, ExoInfo, ExoSymbol, ExoBreakpoints, ExoProblems):
    command()
