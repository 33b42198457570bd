"""Time limits are for a machine that does the work itself. EXOGDB_PATIENCE: how many times longer to wait on a slower one."""
import os

FACTOR = float(os.environ.get('EXOGDB_PATIENCE', '1'))


def seconds(limit: float) -> float:
    return limit * FACTOR
