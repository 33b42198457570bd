"""Child processes that must not outlive a test."""
import signal
import subprocess

from .errors import HarnessError
from .patience import seconds


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


def output_of(words: list, limit: float, what: str, env=None):
    """(exit status, output) of a client that has no input; HarnessError if it does not end within `limit` seconds."""
    limit = seconds(limit)
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env,
                          start_new_session=True) as process:
        try:
            output = process.communicate(timeout=limit)[0].decode(errors='surrogateescape')
        except subprocess.TimeoutExpired:
            process.kill()
            output = process.communicate()[0].decode(errors='replace')
            raise HarnessError(f'{what} did not end in {limit:.0f} s: {output[-1000:]}') from None
        return process.returncode, output


def raise_on_signals():
    """SIGTERM and SIGHUP unwind the stack as ^C does, so that every `with` and `finally` runs."""
    def unwind(number, _frame):
        raise KeyboardInterrupt(signal.Signals(number).name)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, unwind)
