"""Child processes that must not outlive a test."""
import signal
import subprocess


def end(process, patience: float = 5):
    """Asks, then insists. Nothing to do when it is None or already gone."""
    if process is None:
        return
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream:
            stream.close()


def raise_on_signals():
    """SIGTERM and SIGHUP unwind the stack as ^C does, so that every `with` and `finally` runs."""
    def unwind(number, _frame):
        raise KeyboardInterrupt(signal.Signals(number).name)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, unwind)
