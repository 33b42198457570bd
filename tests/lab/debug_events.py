"""For gdb, in the lab: every kind of debug event on the bare program `traps`, which checks meanwhile that nothing of it shows
in the guest. Prints a line for each check and ends with their count; `gdb -x` it with the program's symbols loaded and
a server connected. EXOGDB_LAB_HITS: how many breakpoint hits are counted."""
import os

import gdb

RECORDS, RECORD_SIZE = 0x8000, 0x80  # tests/lab/vmm/bare/record.inc
FIELDS = ('rounds', 'int3', 'ticks', 'right', 'wrong', 'stray', 'text')
HITS = int(os.environ.get('EXOGDB_LAB_HITS', '40'))
TRAP_FLAG = 0x100
VCPUS = (1, 2)
stops = []  # what gdb has told of each stop
gdb.events.stop.connect(stops.append)
counts = {'ok': 0, 'FAIL': 0}


def check(name: str, right: bool, detail=''):
    word = 'ok' if right else 'FAIL'
    counts[word] += 1
    print(f'check {word}: {name}' + (f' ({detail})' if detail and not right else ''), flush=True)


def run(command: str) -> str:
    return gdb.execute(command, to_string=True)


def value(expression: str) -> int:
    return int(gdb.parse_and_eval(expression)) & (1 << 64) - 1


def at(symbol: str) -> int:
    return value(f'(long)&{symbol}')


def record(vcpu: int) -> dict:
    words = (value(f'*(unsigned long *) {RECORDS + (vcpu - 1) * RECORD_SIZE + 8 * i}') for i in range(len(FIELDS)))
    return dict(zip(FIELDS, words))


def selected() -> int:
    return gdb.selected_thread().num


def hit(number: int, kind: int) -> bool:
    """Whether the last stop was that breakpoint's, of that kind."""
    event = stops[-1] if stops else None
    return isinstance(event, gdb.BreakpointEvent) and (event.breakpoint.number, event.breakpoint.type) == (number, kind)


def go_to(symbol: str, kind: str = 'tbreak') -> bool:
    run(f'{kind} *{at(symbol)}')
    run('continue')
    return value('$pc') == at(symbol)


def step_from(symbol: str, *targets: str):
    """One step from there leads to one of the targets."""
    reached = go_to(symbol)
    run('stepi')
    check(f'a step from {symbol}', reached and value('$pc') in [at(target) for target in targets], hex(value('$pc')))


def breakpoints():
    """Each hit of each vCPU is one round further than its last: none lost, none spurious."""
    run(f'break *{at("round")}')
    last, hits, wrong = {}, {vcpu: 0 for vcpu in VCPUS}, []
    for _ in range(HITS):
        run('continue')
        vcpu = selected()
        rounds = record(vcpu)['rounds']
        if value('$pc') != at('round') or rounds != last.get(vcpu, rounds - 1) + 1:
            wrong.append((vcpu, rounds, last.get(vcpu), hex(value('$pc'))))
        last[vcpu] = rounds
        hits[vcpu] += 1
    check(f'{HITS} hits of a software breakpoint, {hits}', not wrong, wrong[:5])
    check('both vCPUs hit it', all(hits.values()), hits)
    here = value('$pc')
    run('stepi')
    check('a step from a breakpoint', here < value('$pc') < at('int3_here_next'), hex(value('$pc')))
    check('memory shows the program\'s byte', value(f'*(unsigned char *) {at("round")}') != 0xcc)
    run('delete')


def hardware():
    check('a hardware breakpoint', go_to('rep_here', 'thbreak'), hex(value('$pc')))
    vcpu = selected()
    place = RECORDS + (vcpu - 1) * RECORD_SIZE
    rounds = value(f'*(unsigned long *) {place}')
    watch = gdb.Breakpoint(f'*(unsigned long *) {place}', gdb.BP_WATCHPOINT, gdb.WP_WRITE)
    run('continue')
    check('a write watchpoint', hit(watch.number, gdb.BP_HARDWARE_WATCHPOINT) and value(f'*(unsigned long *) {place}') == rounds + 1)
    check('its store is done, the next instruction is not', value('$pc') == at('ss_after'), hex(value('$pc')))
    watch.delete()
    watch = gdb.Breakpoint(f'*(unsigned long *) {place + 8}', gdb.BP_WATCHPOINT, gdb.WP_ACCESS)  # int3 hits
    seen = []
    for _ in range(3):
        run('continue')
        seen.append(hit(watch.number, gdb.BP_ACCESS_WATCHPOINT))
    check('an access watchpoint: the reads and the write of a round', all(seen), seen)
    watch.delete()


def steps():
    run('thread 1')
    step_from('pushf_here', 'pushf_here_next')
    check('pushed flags have no trap flag', value('*(unsigned long *) $rsp') & TRAP_FLAG == 0)
    step_from('ss_here', 'ss_after')  # the instruction behind is shadowed
    step_from('sti_here', 'sti_here_next', 'hlt_here_next')
    step_from('hlt_here', 'hlt_here_next', 'on_timer')
    if go_to('rep_here'):
        count = value('$rcx')
        for _ in range(3):
            run('stepi')
        check('REP steps from round to round', value('$pc') == at('rep_here') and value('$rcx') == count - 3, value('$rcx'))
    hits = record(selected())['int3'] if go_to('int3_here') else -1
    vcpu = selected()
    run('stepi')
    check('a step at the guest\'s own int3 leads to its handler or behind it', value('$pc') in (at('on_int3'), at('int3_here_next'), at('int3_after')),
          hex(value('$pc')))
    go_to('pushf_here')
    check('the guest\'s own int3 reached the guest', record(vcpu)['int3'] > hits)


def unharmed():
    run('delete')
    before = {vcpu: record(vcpu) for vcpu in VCPUS}
    run(f'break *{at("round")}')
    for _ in range(4):
        run('continue')
    run('delete')
    for vcpu in VCPUS:
        now = record(vcpu)
        check(f'vCPU {vcpu} found nothing wrong', (now['wrong'], now['stray'], now['text']) == (0, 0, 0), now)
        check(f'vCPU {vcpu} took every int3 of its own', now['int3'] in (now['rounds'], now['rounds'] + 1), now)
    check('both went on', any(record(vcpu)['rounds'] > before[vcpu]['rounds'] for vcpu in VCPUS))


for part in (breakpoints, hardware, steps, unharmed):
    try:
        part()
    except gdb.error as error:
        check(f'{part.__name__}: {error}', False)
print(f'checks: {counts["ok"]} ok, {counts["FAIL"]} failed', flush=True)
