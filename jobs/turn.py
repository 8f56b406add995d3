"""One at a time: two runs of one job at once would pay twice for the same pages."""

import hashlib
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import CommitConflict
from .desk import Books

__all__ = ["turn"]


@contextmanager
def turn(books: Books, vendor: str, job: str) -> Generator[None, None, None]:
    """Hold the only turn of a job at a vendor, in this lake; it ends with the process at the latest.

    Raises
    ------
    CommitConflict
        Another process is at it. Nobody waits: whoever called meant the work to be done, and
        it is being done.
    """
    name = hashlib.sha256(f"{books.store.id}/{vendor}/{job}".encode()).hexdigest()[:16]
    lock = FileLock(str(Path(books.store.state_path).with_name(f"sync-{name}.lock")), timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise _taken(books, vendor, job) from None
    try:
        yield
    finally:
        lock.release()


def _taken(books: Books, vendor: str, job: str) -> CommitConflict:
    running = [r for r in books.runs.last(job) if r.vendor == vendor and r.ended_at is None]
    since = f" since {running[0].started_at:%Y-%m-%d %H:%M:%S} UTC" if running else ""
    since_zh = f"自 {running[0].started_at:%Y-%m-%d %H:%M:%S} UTC 起" if running else ""
    return CommitConflict(
        f"another klake sync of job {job} is running{since}: this one ends and has sent nothing",
        f"任务 {job} 的另一个 klake sync {since_zh}正在运行：本次直接结束，未发送任何请求",
    )
