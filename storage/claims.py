"""Claims: how vacuum tells files that are about to be committed from those that a crash left.

A write names its files with a token and holds a lock of that name until it has committed.
The system releases the lock of a process that dies, so what bears its token is an orphan.
"""

import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from filelock import FileLock, Timeout

from .layout import CLAIMS, token_of

__all__ = ["claim", "drop", "held", "is_free", "release_dead"]


@contextmanager
def claim(root: str, at_us: int) -> Generator[str]:
    """Yield a token; while the block runs, vacuum leaves alone every file that bears it."""
    token = uuid4().hex[:12]
    path = Path(root) / CLAIMS / f"{at_us:016x}-{token}"
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(str(path))
    lock.acquire()
    try:
        yield token
    finally:
        drop(path, lock)


def held(root: str) -> frozenset[str]:
    """Return the tokens whose writes are under way, in any process of this machine."""
    return frozenset(token_of(path.name) for path in _claims(root) if not is_free(path))


def release_dead(root: str, before_us: int) -> int:
    """Return how many locks of dead processes were removed, of those made before `before_us`."""
    old = [p for p in _claims(root) if p.name < f"{before_us:016x}"]
    removed = 0
    for path in old:
        lock = FileLock(str(path))
        with suppress(Timeout):
            lock.acquire(timeout=0)
            drop(path, lock)
            removed += 1
    return removed


def _claims(root: str) -> list[Path]:
    try:
        return list((Path(root) / CLAIMS).iterdir())
    except FileNotFoundError:
        return []


def is_free(path: Path) -> bool:
    """Say whether nobody holds the lock file `path`, by trying it."""
    lock = FileLock(str(path))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    lock.release()
    return True


def drop(path: Path, lock: FileLock) -> None:
    """Let go of a lock that is held, and remove its file."""
    if os.name != "nt":
        path.unlink(missing_ok=True)  # while it is held: nobody can take the name in between
    lock.release()
    if os.name == "nt":
        with suppress(OSError):
            path.unlink(missing_ok=True)
