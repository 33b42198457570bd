"""Sourced inside gdb: runs the commands of a plan, writes when each began and ended and how many packets it took.

The plan is JSON in the environment: commands, answer (a path), wire (null, or the path of gdb's own remotelogfile or of a
server's --record: gdb's has each byte in it, and a symbol file takes minutes to write there)."""
import json
import os
import time

import gdb

plan = json.loads(os.environ['EXOGDB_BENCH_PLAN'])


def packets() -> int:
    """Sent so far. In gdb's log each starts with a '$', which occurs in none: it is escaped (GDB manual, "Overview")."""
    if not plan['wire'] or not os.path.exists(plan['wire']):  # gdb makes it when it connects
        return 0
    with open(plan['wire'], errors='replace') as log:
        return sum(line.count('$') if line.startswith('w ') else line.startswith('-> ') for line in log)


rows = []
for command in plan['commands']:
    before = packets()
    begin = time.monotonic()
    output = gdb.execute(command, to_string=True)
    end = time.monotonic()
    rows.append({'begin': begin, 'end': end, 'packets': packets() - before, 'lines': output.count('\n')})
with open(plan['answer'], 'w') as answer:
    json.dump(rows, answer)
