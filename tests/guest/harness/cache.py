"""Where downloads and built pieces are kept between runs. Losing it costs time, never correctness."""
import contextlib
import fcntl
import os
import pathlib
import tempfile

from .errors import HarnessError


def root() -> pathlib.Path:
    chosen = os.environ.get('EXOGDB_CACHE')
    if chosen:
        folder = pathlib.Path(chosen)
    else:
        base = os.environ.get('XDG_CACHE_HOME') or os.path.join(os.path.expanduser('~'), '.cache')
        folder = pathlib.Path(base) / 'exogdb'
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:
        fallback = pathlib.Path(tempfile.gettempdir()) / f'exogdb-cache-{os.getuid()}'
        fallback.mkdir(mode=0o700, exist_ok=True)
        if fallback.stat().st_uid != os.getuid():
            raise HarnessError(f'{fallback} belongs to another user: set EXOGDB_CACHE') from None
        return fallback


@contextlib.contextmanager
def lock(name: str):
    """Processes that want the same piece wait for the one that makes it."""
    path = root() / f'{name}.lock'
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, 'w') as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def replacing(path: pathlib.Path):
    """A temporary name that becomes `path` only when the block succeeds, so that no half file is ever found."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f'{path.name}.{os.getpid()}.partial')
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
