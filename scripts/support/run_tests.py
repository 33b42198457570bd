"""Builds and runs everything that scripts/test promises, two lanes side by side, and counts all tests of all runs.

One lane compiles what users get, and runs it, with guests for most of the time; the other compiles the sanitizer builds
meanwhile."""
import argparse
import dataclasses
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time

import junit

TOP = pathlib.Path(__file__).resolve().parents[2]
NICENESS = 5
SUITES = ('bullseye', 'bookworm', 'trixie', 'forky')


@dataclasses.dataclass(frozen=True)
class Run:
    """One build folder and the tests to run in it."""
    name: str
    preset: str
    label: str  # a regular expression
    target: str | None = 'all'  # None: nothing has to be built
    options: tuple = ()
    jobs: int = 2
    niceness: int = 0


DEV = Run('dev', 'release', '^(unit|transcript|lint-docs)$')
LAB = Run('lab', 'release', '^lab$', target='lab_programs')
LAB_LINUX = Run('lab-linux', 'release', '^lab-linux$', target='lab_programs')
LAB_XEN = Run('lab-xen', 'release', '^lab-xen$', target='lab_programs')
LAB_XEN_BOCHS = Run('lab-xen-bochs', 'release', '^lab-xen-bochs$', target='lab_programs')
GUESTS = Run('guest', 'release', '^guest$', target='guest_programs')
# Guests one at a time, and beside each what a lab's emulated machine leaves.
GUESTS_AND_XEN = Run('guest', 'release', '^(guest|lab-xen|lab-xen-bochs)$')
ASAN = Run('asan', 'asan', '^(unit|transcript)$')
FUZZ = Run('fuzz', 'asan', '^fuzz$', options=('-DEXOGDB_FUZZ_SECONDS=5',))
TSAN = Run('tsan', 'tsan', '^concurrent$', target='concurrent_tests')
LINT = Run('lint', 'tidy', '^lint$', target=None)
LANES = ((DEV, LAB, GUESTS_AND_XEN), (FUZZ, ASAN, TSAN, LINT))
ENVIRONMENT = {
    'ASAN_OPTIONS': 'detect_stack_use_after_return=1:strict_string_checks=1:abort_on_error=0',
    'UBSAN_OPTIONS': 'print_stacktrace=1',
    'TSAN_OPTIONS': 'second_deadlock_stack=1',
    'PYTHONDONTWRITEBYTECODE': '1',
    'CTEST_OUTPUT_ON_FAILURE': '0',
    # Two lanes share the machine, which may be shared itself (tests/guest/harness/patience.py).
    'EXOGDB_PATIENCE': os.environ.get('EXOGDB_PATIENCE', '2'),
}


class Interrupted(Exception):
    pass


class Runner:
    def __init__(self):
        self._lock = threading.Lock()
        self._children = set()
        self._stopping = False
        self.total = junit.Counts()

    def say(self, text: str):
        with self._lock:
            print(text, flush=True)

    def call(self, words: list, log: pathlib.Path, niceness: int = 0) -> int:
        """The exit status; output goes to `log`. The child is in a group of its own, so that stop() gets all of it."""
        if niceness:
            words = ['nice', '-n', str(niceness), *words]
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, 'ab') as output:
            with self._lock:
                if self._stopping:
                    raise Interrupted
                child = subprocess.Popen(words, cwd=TOP, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                                         env={**os.environ, **ENVIRONMENT}, start_new_session=True)
                self._children.add(child)
            if niceness:
                be_nice(child.pid, niceness)
            try:
                return child.wait()
            finally:
                with self._lock:
                    self._children.discard(child)

    def stop(self):
        with self._lock:
            self._stopping = True
            for child in self._children:
                try:
                    os.killpg(child.pid, signal.SIGTERM)
                except ProcessLookupError:
                    pass

    def count(self, counts: junit.Counts):
        with self._lock:
            self.total += counts

    def build(self, run: Run) -> bool:
        """A build that fails is a failed test."""
        log = TOP / 'build' / 'logs' / f'{run.name}.build.log'
        log.unlink(missing_ok=True)
        launcher = ['-DCMAKE_CXX_COMPILER_LAUNCHER=ccache'] if shutil.which('ccache') else []
        steps = [['cmake', '--preset', run.preset, '-DBUILD_TESTING=ON', *launcher, *run.options]]
        if run.target:
            steps.append(['cmake', '--build', f'build/{run.preset}', '--target', run.target, '-j', str(run.jobs)])
        begin = time.monotonic()
        for step in steps:
            if self.call(step, log, run.niceness):
                self.say(f'FAILED {run.name}: {" ".join(step)}\n{tail(log)}')
                self.count(junit.Counts(failed=1))
                return False
        self.say(f'{run.name}: built in {time.monotonic() - begin:.0f} s')
        return True

    def test(self, run: Run):
        logs = TOP / 'build' / 'logs'
        report, log = logs / f'{run.name}.xml', logs / f'{run.name}.test.log'
        report.unlink(missing_ok=True)
        log.unlink(missing_ok=True)
        # GCC 12's ThreadSanitizer cannot live with the layouts that a high vm.mmap_rnd_bits gives.
        words = ['setarch', '-R'] if run.preset == 'tsan' and can_fix_layout() else []
        words += ['ctest', '--test-dir', f'build/{run.preset}', '--label-regex', run.label, '--output-junit', str(report),
                  '--timeout', '900', '-j', str(run.jobs), '--test-output-size-passed', '200000',
                  '--test-output-size-failed', '200000']
        begin = time.monotonic()
        status = self.call(words, log, run.niceness)
        results = junit.read(report)
        counts = sum((result.counts for result in results), junit.Counts())
        for result in results:
            if result.counts.failed:
                self.say(f'FAILED {run.name}: {result.name}\n{result.output.rstrip()}\n')
            elif result.counts.skipped:
                self.say(f'skipped {run.name}: {result.name}: {result.why_skipped}')
        if not counts.failed and (status or not results):
            counts += junit.Counts(failed=1)
            self.say(f'FAILED {run.name}: ctest ended with {status}, {len(results)} tests\n{tail(log)}')
        self.count(counts)
        self.say(f'{run.name}: {counts} in {time.monotonic() - begin:.0f} s')

    def lane(self, runs):
        built = set()
        try:
            for run in runs:
                if {(run.preset, 'all'), (run.preset, run.target)} & built or self.build(run):
                    built.add((run.preset, run.target))
                    self.test(run)
        except Interrupted:
            pass


def be_nice(session: int, niceness: int):
    """Processes of a session have their own niceness among themselves, and one as a whole: sched(7), "The autogroup feature"."""
    try:
        pathlib.Path(f'/proc/{session}/autogroup').write_text(str(niceness))
    except OSError:
        pass  # a kernel without it: the processes' own counts


def tail(path: pathlib.Path, lines: int = 60) -> str:
    return '\n'.join(path.read_text(errors='replace').splitlines()[-lines:]) if path.exists() else ''


def can_fix_layout() -> bool:
    return subprocess.run(['setarch', '-R', 'true'], capture_output=True, check=False).returncode == 0


def chosen_lanes(options):
    if options.only:
        for run in (ASAN, TSAN, FUZZ, LINT, GUESTS, LAB, LAB_LINUX, LAB_XEN, LAB_XEN_BOCHS):
            if options.only == run.name:
                return ((run,),)
        if (TOP / 'tests/guest' / f'test_{options.only}.py').exists() or options.only in SUITES:
            return ((dataclasses.replace(GUESTS, name=options.only, label=f'^{options.only}$'),),)
        return ((dataclasses.replace(DEV, name=options.only, label=f'^{options.only}$'),),)
    if options.quick:
        return ((DEV, LINT),)
    if options.no_guests:
        return ((DEV,), LANES[1])
    guests, compilers = LANES
    if options.every_kernel:
        every = dataclasses.replace(GUESTS_AND_XEN, label='^(guest|every-kernel|lab-xen|lab-xen-bochs)$')
        guests = tuple(every if run is GUESTS_AND_XEN else run for run in guests)
    # libvirt's guests are one control group, which the scheduler gives as much as one process outside of it, and whoever
    # waits for a guest may give up: what compiles beside them takes what they leave.
    return (guests, tuple(dataclasses.replace(run, niceness=NICENESS) for run in compilers))


def main():
    parser = argparse.ArgumentParser(prog='scripts/test', description='build and run the tests')
    parser.add_argument('--quick', action='store_true', help='no sanitizers, no fuzzing, no guests')
    parser.add_argument('--no-guests', action='store_true', help='no guests')
    parser.add_argument('--every-kernel', action='store_true', help='every guest test on every kernel: an hour more')
    parser.add_argument('--only', metavar='LABEL',
                        help='tests of one label (unit, transcript, gdb, lint, guest, lab, lab-linux, lab-xen, lab-xen-bochs, fuzz), of one guest test or suite (safety, trixie) '
                             'or of one sanitizer (asan, tsan)')
    options = parser.parse_args()
    runner = Runner()

    def interrupt(number, _frame):
        runner.stop()
        raise KeyboardInterrupt(signal.Signals(number).name)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)

    begin = time.monotonic()
    lanes = [threading.Thread(target=runner.lane, args=(runs,)) for runs in chosen_lanes(options)]
    try:
        for lane in lanes:
            lane.start()
        for lane in lanes:
            lane.join()
    except KeyboardInterrupt as error:
        for lane in lanes:
            lane.join()
        print(f'interrupted by {error}')
        runner.count(junit.Counts(failed=1))
    print(f'{(time.monotonic() - begin) / 60:.0f} minutes; logs in build/logs')
    print(runner.total, flush=True)
    sys.exit(1 if runner.total.failed or not runner.total.passed else 0)


if __name__ == '__main__':
    main()
