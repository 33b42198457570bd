"""What the lab tells its guests' tests (tests/lab/run)."""
import os


def lacks(capability: str) -> bool:
    """Whether guests cannot have that there."""
    return capability in os.environ.get('EXOGDB_LAB_LACKS', '').split()
