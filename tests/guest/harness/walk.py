"""Runs inside gdb: steps one instruction at a time and compares where that leads with where the instruction goes.

    source walk.py, then: python walk(200, 'FILE')"""
import collections
import json
import os
import re

import gdb

PREFIXES = {'lock', 'bnd', 'notrack', 'data16', 'cs', 'ds', 'es', 'fs', 'gs', 'ss'}
REPEATED = {'rep', 'repz', 'repnz'}
# Where these lead is not in the instruction.
ELSEWHERE = {'iretq', 'iret', 'sysretq', 'sysretl', 'sysret', 'syscall', 'sysenter', 'sysexit', 'int3', 'int', 'ud2', 'hlt'}


def register(name):
    return int(gdb.newest_frame().read_register(name)) % 2**64


def word(address):
    return int.from_bytes(bytes(gdb.selected_inferior().read_memory(address, 8)), 'little')


def indirect(operand):
    """Of `*%rax`; None for what is in memory."""
    found = re.fullmatch(r'\*%(r\w+)', operand)
    return {register(found.group(1))} if found else None


def switches_stacks(text):
    """The one instruction of __switch_to_asm (arch/x86/entry/entry_64.S) behind which another task runs."""
    return re.fullmatch(r'mov +(0x)?[0-9a-f]+\(%rsi\),%rsp', text) is not None


def successors(pc, text, length):
    """The addresses that may be next, None when the instruction does not tell. AT&T syntax."""
    words = [part for part in text.split() if part not in PREFIXES]
    if not words:
        return {pc + length}
    if words[0] in REPEATED and len(words) > 1 and not words[1].startswith('ret'):
        return {pc, pc + length}
    words = [part for part in words if part not in REPEATED]
    name, operand = words[0].split(',')[0], words[1] if len(words) > 1 else ''
    if switches_stacks(text):  # the task goes on where it is switched to again: behind the six registers pushed
        return {word(register('rsp') + 6 * 8)}
    if name.startswith('ret'):
        return {word(register('rsp'))}
    if name in ELSEWHERE:
        return None
    if name.startswith(('j', 'call', 'loop')):
        target = {int(operand, 16)} if operand.startswith('0x') else indirect(operand)
        return target if target is None or name.startswith(('jmp', 'call')) else target | {pc + length}
    return {pc + length}


def after(pc):
    """The instruction at `pc`, and the addresses that may be next."""
    instruction = gdb.selected_frame().architecture().disassemble(pc)[0]
    text, following = instruction['asm'], pc + instruction['length']
    if text.split()[0] != 'pause':
        return text, successors(pc, text, instruction['length'])
    # TCG takes no single-step trap after it (helper_pause(), target/i386/tcg/misc_helper.c, leaves the loop before), so
    # that in an emulated KVM a step over it takes the next one too.
    beyond = after(following)[1]
    return text, beyond and beyond | {following}


def faulted(pc):
    """The instruction at `pc` has led to an exception: error code and pc are on the stack (Intel SDM 3A, 6.13). A page
    may be absent at any time. An interrupt would have left neither, and is not to come while there is stepped."""
    return word(register('rsp') + 8) == pc


def walk(count, path):
    """Leaves in the file {'wrong': [one line each], 'names': how often which instruction was stepped, 'switches': how often
    another task ran meanwhile}."""
    gdb.execute('set disassembly-flavor att')
    wrong, names, switches = [], collections.Counter(), 0
    pc, thread = register('rip'), gdb.selected_thread().ptid
    for _ in range(count):
        text, expected = after(pc)
        switches += switches_stacks(text)
        gdb.execute('stepi', to_string=True)
        before, pc = pc, register('rip')
        names[text.split()[0]] += 1
        if expected is not None and pc not in expected and not faulted(before):
            wrong.append(f'{before:#x}: {text}: at {pc:#x}')
        if gdb.selected_thread().ptid != thread:
            wrong.append(f'{before:#x}: {text}: in thread {gdb.selected_thread().ptid}, not in {thread}')
            break
    with open(f'{path}.partial', 'w') as file:
        json.dump({'wrong': wrong, 'names': dict(names), 'switches': switches}, file)
    os.rename(file.name, path)
