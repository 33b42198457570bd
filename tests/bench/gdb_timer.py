"""Sourced inside gdb: runs the commands of a plan, writes when each began and ended and how many packets it took.

The plan is JSON in the environment: commands, answer (a path), wire (the path of gdb's own remotelogfile, or null)."""
import json
import os
import time

import gdb

plan = json.loads(os.environ['EXOGDB_BENCH_PLAN'])


def packets() -> int:
    """Sent so far. Each starts with a '$', which occurs in none: it is escaped (GDB manual, "Overview")."""
    if not plan['wire'] or not os.path.exists(plan['wire']):  # gdb makes it when it connects
        return 0
    with open(plan['wire'], errors='replace') as log:
        return sum(line.count('$') for line in log if line.startswith('w '))


rows = []
for command in plan['commands']:
    before = packets()
    begin = time.monotonic()
    output = gdb.execute(command, to_string=True)
    end = time.monotonic()
    rows.append({'begin': begin, 'end': end, 'packets': packets() - before, 'lines': output.count('\n')})
with open(plan['answer'], 'w') as answer:
    json.dump(rows, answer)
