"""Runs a daemon and takes care of its orphans: python3 -m harness.reaper PROGRAM [ARGUMENT…]

libvirtd's QEMUs detach themselves, so when they end they are zombies of process 1 until that waits for them; libvirtd
waits up to a minute for each to vanish. In a container process 1 is often something that never waits. Here they are
adopted by this process (prctl(2), PR_SET_CHILD_SUBREAPER), which does. SIGUSR1 starts the daemon anew."""
import ctypes
import os
import signal
import subprocess
import sys

PR_SET_CHILD_SUBREAPER = 36  # include/uapi/linux/prctl.h


def main():
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        sys.exit(f'reaper: prctl: {os.strerror(ctypes.get_errno())}')
    daemon, restarts = subprocess.Popen(sys.argv[1:]), False

    def on_signal(number, _frame):
        nonlocal restarts
        restarts = number == signal.SIGUSR1
        daemon.terminate()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, on_signal)
    while True:
        pid, status = os.wait()
        if pid != daemon.pid:
            continue
        daemon.returncode = os.waitstatus_to_exitcode(status)
        if not restarts:
            sys.exit(abs(daemon.returncode))
        daemon, restarts = subprocess.Popen(sys.argv[1:]), False


if __name__ == '__main__':
    main()
