"""Time limits are for a machine that does the work itself. EXOGDB_PATIENCE: how many times longer to wait on a slower one."""
import os
import time
from typing import Callable

FACTOR = float(os.environ.get('EXOGDB_PATIENCE', '1'))


def seconds(limit: float) -> float:
    return limit * FACTOR


def until(condition: Callable[[], bool], otherwise: str, limit: float = 60, pause: float = 0.1):
    """Waits for what goes on by itself: how soon it does is the machine's affair, that it does is the test's."""
    end = time.monotonic() + seconds(limit)
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(otherwise)
        time.sleep(pause)
