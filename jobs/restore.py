"""Restore: the bars of an earlier version come back, and coverage says what is not held any more.

The table `requests` learns of the holes before the bars go, the ledger after: a crash between
any two of these steps leaves sessions that are asked for once too often, never one that is
called held and is not. The next opening of the books rebuilds the ledger from `requests`.
"""

from collections.abc import Sequence
from datetime import datetime

from ..errors import CommitConflict
from ..schemas.coverage import Covered, Reason, Series, Standing
from ..schemas.requests import Asked, rows
from ..storage.restore import Hole, Restored
from ..storage.runs import run_id
from .desk import Books, Desk

__all__ = ["restore"]


def restore(desk: Desk, version: int) -> Restored:
    """Return what was done so that `bars` hold what they held at `version`, in a new commit.

    Sessions that lose bars, or whose bars are less settled than they were, become missing: the
    next sync asks for them.

    Raises
    ------
    BadRequest
        There is no such version.
    LakeError
        Files of it are deleted.
    CommitConflict
        Others store bars without a pause; nothing was changed.
    """
    books = desk.books()
    run = run_id(desk.clock)
    books.store.told_by(run)
    loss = _Loss(books, desk, version, run)
    with books.store.booking() as mine:
        if not mine:
            raise CommitConflict(
                f"{books.store.path}: a sync is storing bars: nothing was restored, try again",
                f"{books.store.path}：正在写入 K 线：未做恢复，请稍后再试",
            )
        done = books.store.restore(version, loss.write_down)
        loss.record()
    return done


class _Loss:
    """What a restore takes away, told to `requests` and then to the ledger."""

    def __init__(self, books: Books, desk: Desk, version: int, run: str) -> None:
        self._books, self._desk, self._why, self._run = books, desk, f"restore {version}", run
        self._attempts = 0
        self._told: list[Covered] = []

    def write_down(self, holes: Sequence[Hole]) -> None:
        """Add a row to `requests` for each hole; those of an attempt that is redone stay."""
        self._attempts += 1
        page, now = f"{self._run}-restore-{self._attempts}", self._desk.clock.now()
        self._books.store.append("requests", rows(_numbered(holes, page, self._run, self._why, now)))
        self._told += [
            Covered(hole.series, hole.sessions, Standing.MISSING, Reason.NONE, page, page, now)
            for hole in holes
        ]

    def record(self) -> None:
        """Take the holes out of coverage, for plans and for SQL."""
        if self._told:
            store = self._books.store
            self._books.ledger.record(self._told)
            self._books.state.set_tag(store.id, store.version_of("requests"))
            store.publish_extra("coverage", self._books.ledger.table())


def _numbered(holes: Sequence[Hole], page: str, run: str, why: str, now: datetime) -> list[Asked]:
    """Return the rows of `requests`, the stretches of a series counted from 0."""
    counts: dict[Series, int] = {}
    out = list[Asked]()
    for hole in holes:
        number = counts[hole.series] = counts.get(hole.series, -1) + 1
        out.append(
            Asked(
                vendor=hole.series.vendor, symbol=hole.series.symbol, freq=hole.series.freq, endpoint="restore",
                asked_end=None, asked_count=0, adjust="none", proved=hole.sessions, standing=Standing.MISSING,
                rows=0, outcome="withdrawn", reason=why, account="", page_id=page, stretch=number, run=run,
                fetched_at=now, received_bytes=0,
            )
        )  # fmt: skip
    return out
