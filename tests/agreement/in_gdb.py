"""Run by gdb (`source`): what it makes of the stopped guest with the symbols that it has.

stacks() is called once with the file that exogdb serves and once with the real vmlinux, in one gdb at one stop."""
import gdb

LONGEST = 60  # frames of a stack; kernel stacks have fewer
DWARF_ONLY = (gdb.INLINE_FRAME, gdb.TAILCALL_FRAME)  # frames that are not on the stack: the compiler's DWARF tells of them


def _is_assembly(frame):
    """By its source file. Without one too: nothing but assembly of the kernel has no lines."""
    symtab = frame.find_sal().symtab
    return symtab is None or symtab.filename.endswith('.S')


def _frames():
    """[pc, name, whether assembly] of each real frame, innermost first; why gdb went no further."""
    stack = []
    frame = gdb.newest_frame()
    why = 0
    try:
        while frame is not None and frame.is_valid() and len(stack) < LONGEST:
            if frame.type() not in DWARF_ONLY:
                stack.append([frame.pc(), frame.name() or '', _is_assembly(frame)])
            why = frame.unwind_stop_reason()
            frame = frame.older()
    except gdb.error as error:
        return stack, str(error)
    return stack, gdb.frame_stop_reason_string(why)


def stacks():
    """By TID."""
    found = {}
    for thread in gdb.selected_inferior().threads():
        thread.switch()
        frames, why = _frames()
        found[thread.ptid[1] or thread.ptid[2]] = {'name': thread.name or '', 'frames': frames, 'why': why}
    return found


def address(name):
    """As the symbols of now have it, 0 if they do not."""
    try:
        return int(gdb.parse_and_eval(f"(unsigned long)&'{name}'"))
    except gdb.error:
        return 0


def addresses(*looks):
    """Of every name in these stacks."""
    names = {frame[1] for look in looks for stack in look.values() for frame in stack['frames']}
    return {name: at for name in names if (at := address(name))}


def go_to(address):
    """Runs until some task gets there; False if gdb says no."""
    try:
        gdb.execute(f'tbreak *{address:#x}')
        gdb.execute('continue')
    except gdb.error:
        return False
    return True
