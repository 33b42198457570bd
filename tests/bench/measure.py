"""One measurement each: the raw client, a gdb, gdbserver, system calls, a guest's speed. Seconds throughout."""
import contextlib
import dataclasses
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import time

from harness import gdb, ports, processes
from harness.errors import HarnessError, MissingPrerequisite


def tool(name: str) -> str:
    """rsp_bench or many_threads."""
    path = pathlib.Path(os.environ['EXOGDB_BENCH_TOOLS'], name)
    if not path.exists():
        raise MissingPrerequisite(f'{path}: build the target {name}')
    return str(path)


@dataclasses.dataclass(frozen=True)
class Raw:
    seconds: float
    operations: int
    crc: str

    @property
    def each(self) -> float:
        return self.seconds / self.operations


def raw(socket, *workloads: str, limit: float = 120) -> dict:
    """NAME: Raw of each workload that the server knows (see rsp_bench.cpp)."""
    result = subprocess.run([tool('rsp_bench'), str(socket), *workloads], stdin=subprocess.DEVNULL,
                            capture_output=True, text=True, timeout=limit, check=False)
    if result.returncode:
        raise HarnessError(f'{result.stderr.strip()} ({socket}, {" ".join(workloads)})')
    rows = (line.split() for line in result.stdout.splitlines())
    return {row[0]: Raw(int(row[1]) / 1e9, int(row[2]), row[3]) for row in rows if len(row) == 4}


@dataclasses.dataclass(frozen=True)
class Command:
    begin: float  # on the clock of time.monotonic(), which all processes share
    end: float
    packets: int
    lines: int

    @property
    def seconds(self) -> float:
        return self.end - self.begin


def gdb_commands(*commands: str, prepare: tuple = (), count_packets: bool = False, record: str = None, limit: float = 120) -> list:
    """Command for each of them, run one after the other in one gdb; gdb's own start is not in it. `record`: what the server
    writes, in which packets are counted without slowing gdb down."""
    with tempfile.TemporaryDirectory(prefix='exogdb-bench-') as folder:
        wire = f'{folder}/wire' if count_packets else None
        plan = {'commands': commands, 'answer': f'{folder}/answer', 'wire': record or wire}
        words = [gdb.program(), *gdb.QUIET, '-batch']
        for command in (*((f'set remotelogfile {wire}',) if wire else ()), *prepare):
            words += ['-ex', command]
        words += ['-x', str(pathlib.Path(__file__).with_name('gdb_timer.py'))]
        result = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors='replace',
                                env={**os.environ, 'EXOGDB_BENCH_PLAN': json.dumps(plan)}, timeout=limit, check=False)
        try:
            with open(plan['answer']) as answer:
                return [Command(**row) for row in json.load(answer)]
        except OSError:
            raise HarnessError(f'gdb: {" ; ".join(commands)}: {(result.stdout + result.stderr)[-800:]}') from None


@contextlib.contextmanager
def threaded_process(count: int):
    """The pid of a process with so many threads."""
    with subprocess.Popen([tool('many_threads'), str(count)], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE) as process:
        try:
            if process.stdout.readline() != b'ready\n':
                raise HarnessError(f'many_threads {count} does not start')
            yield process.pid
        finally:
            process.kill()


@contextlib.contextmanager
def gdbserver(pid: int):
    """gdbserver attached to a process and listening; its address."""
    program = shutil.which('gdbserver')
    if not program:
        raise MissingPrerequisite('gdbserver')
    address = f'127.0.0.1:{ports.free()}'
    with subprocess.Popen([program, '--once', '--attach', address, str(pid)], stdin=subprocess.DEVNULL,
                          stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        try:
            for line in process.stderr:
                if line.startswith('Listening'):
                    break
            else:
                raise HarnessError(f'gdbserver ended with {process.wait()}')
            yield address
        finally:
            processes.end(process)


def resources(words: list) -> tuple:
    """Seconds and the greatest resident set, in bytes, of a command that must succeed."""
    begin = time.monotonic()
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise HarnessError(f'{" ".join(words)} ended with {process.returncode}')
    return time.monotonic() - begin, usage.ru_maxrss * 1024


def system_calls(pid: int, work) -> int:
    """How many the process makes, all its threads, while `work` runs."""
    program = shutil.which('strace')
    if not program:
        raise MissingPrerequisite('strace')
    with tempfile.NamedTemporaryFile(prefix='exogdb-bench-', mode='r') as table:
        with subprocess.Popen([program, '-f', '-c', '-o', table.name, '-p', str(pid)], stdin=subprocess.DEVNULL,
                              stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as tracer:
            try:
                if 'attached' not in tracer.stderr.readline():
                    raise MissingPrerequisite('strace that may attach to the server')
                work()
                tracer.send_signal(signal.SIGINT)
                tracer.wait(10)
            finally:
                if tracer.poll() is None:
                    tracer.kill()
        found = re.search(r'^\s*[\d.]+\s+[\d.]+\s+(?:\d+\s+)?(\d+)\s+(?:\d+\s+)?total$', table.read(), re.M)
        if not found:
            raise HarnessError('strace: no total')
        return int(found.group(1))


def spin_rate(guest, seconds: float) -> float:
    """Turns of the spinners' loops a second of the host, all vCPUs together."""
    def turns():
        return time.monotonic(), sum(count for _, _, count in guest.alive())
    begin, before = turns()
    time.sleep(seconds)
    end, after = turns()
    return (after - before) / (end - begin)


def wait_until_idle(pid: int, limit: float = 60):
    """Until the process has used none of the processor for half a second."""
    until, last = time.monotonic() + limit, None
    while last != processor_seconds(pid):
        if time.monotonic() > until:
            raise HarnessError(f'process {pid} is still at work after {limit:.0f} s')
        last = processor_seconds(pid)
        time.sleep(0.5)


def processor_seconds(pid: int) -> float:
    """User and system time that the process has used (proc(5), fields 14 and 15 of stat)."""
    fields = pathlib.Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')
