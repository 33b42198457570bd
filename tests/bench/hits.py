"""Rows about breakpoints whose conditions are false: exogdb evaluates them itself, with QEMU's stub gdb does."""
import json
import os
import pathlib
import subprocess
import tempfile
import time

from harness import gdb, lab, server
from harness.errors import HarnessError

from rows import SETTLE, STUB
from table import Series

HOT = '__x64_sys_getppid'  # called over and over again by the scenario `syscalls` (guest_init/scenarios.c)


def seconds_per_hit(remote, prepare: tuple = (), **plan) -> float:
    with tempfile.TemporaryDirectory(prefix='exogdb-bench-') as folder:
        plan |= {'function': HOT, 'answer': f'{folder}/answer'}
        words = [gdb.program(), *gdb.QUIET, '-batch']
        for command in (*prepare, f'target remote {remote}'):
            words += ['-ex', command]
        words += ['-x', str(pathlib.Path(__file__).with_name('gdb_hits.py'))]
        result = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors='replace',
                                env={**os.environ, 'EXOGDB_BENCH_PLAN': json.dumps(plan)}, timeout=120, check=False)
        try:
            with open(plan['answer']) as file:
                answer = json.load(file)
        except OSError:
            raise HarnessError(f'gdb, hits: {(result.stdout + result.stderr)[-800:]}') from None
    if not answer['hits']:
        raise HarnessError(f'{remote}: no hit in {answer["seconds"]:.1f} s')
    return answer['seconds'] / answer['hits']


class FalseConditions:
    def __init__(self, guest, target: str, smoke: bool):
        self.guest = guest
        self.stub = guest.folder / 'stub'
        self.seconds = 1 if smoke else 10
        # Where guests can have no others, both debuggers get one in a debug register.
        self.kind = 'hbreak' if lab.lacks('breakpoints') else 'break'
        self.slide = int(server.run_json('info', target)['slide'], 16)
        peer = f'{STUB}, gdb evaluating'
        # What stands at the breakpoint counts: no step is needed over a NOP.
        kvm = 'KVM: ' if target.startswith('kvm:') else ''
        self.rows = [Series(f'{kvm}hits of a breakpoint with a false condition, at the function', peer, 20, amount=1,
                            speed='hits/s'),
                     Series('the same, at its second instruction', peer, amount=1, speed='hits/s')]

    def series(self) -> list:
        return [row for row in self.rows if row.ours]

    def round(self, serving: server.Server, file: str):
        """gdb has the same symbols with both."""
        load = (f'symbol-file -o {self.slide:#x} {file}',)
        for index, row in enumerate(self.rows):
            plan = {'break': self.kind, 'seconds': self.seconds, 'instruction': index}
            ours = seconds_per_hit(serving.socket, server=True, **plan)
            peers = seconds_per_hit(self.stub, load, server=False, **plan)
            time.sleep(SETTLE)
            row.add(ours, peers)
