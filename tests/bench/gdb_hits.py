"""Inside gdb: how many hits of a breakpoint with a false condition there are in a time. The plan comes in the
environment, the answer is a file."""
import json
import os
import re
import signal
import threading
import time

import gdb

plan = json.loads(os.environ['EXOGDB_BENCH_PLAN'])


def address() -> int:
    """The function's breakpoint, or `instruction` instructions behind it."""
    gdb.execute(f'break {plan["function"]}', to_string=True)
    place = int(re.findall(r'0x[0-9a-f]+', gdb.execute('info breakpoints', to_string=True))[0], 16)
    gdb.execute('delete')
    code = gdb.selected_inferior().architecture().disassemble(place, count=plan['instruction'] + 1)
    return code[plan['instruction']]['addr']


def count() -> int:
    if plan['server']:
        shown = gdb.execute('monitor breakpoints', to_string=True)
        return sum(int(times) for times in re.findall(r'went on (\d+) times', shown))
    return int(gdb.parse_and_eval('$hits'))


stopped = threading.Event()


def stop_soon():
    """A ^C that comes while gdb evaluates a condition is lost."""
    wait = plan['seconds']
    while not stopped.wait(wait):
        os.kill(os.getpid(), signal.SIGINT)
        wait = 2


gdb.execute('set $hits = 0')
# Who evaluates the condition counts: gdb's counters do not show hits that it did not stop at.
condition = '$rdi == 1' if plan['server'] else '($hits++, $rdi == 1)'
gdb.execute(f'{plan["break"]} *{address():#x} if {condition}')
waiter = threading.Thread(target=stop_soon)
waiter.start()
begin = time.monotonic()
gdb.execute('continue', to_string=True)
seconds = time.monotonic() - begin
stopped.set()
waiter.join()
with open(plan['answer'], 'w') as answer:
    json.dump({'seconds': seconds, 'hits': count()}, answer)
