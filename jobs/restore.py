"""Restore: the bars of an earlier version come back, and coverage says what is not held any more.

The table `requests` learns of the holes before the bars go, the ledger after: a crash between
any two of these steps leaves sessions that are asked for once too often, never one that is
called held and is not. The next opening of the books rebuilds the ledger from `requests`.
"""

from collections.abc import Sequence

from ..errors import CommitConflict
from ..schemas.coverage import Covered
from ..schemas.requests import rows
from ..storage.restore import Hole, Restored
from ..storage.runs import run_id
from .desk import Books, Desk
from .withdraw import missing_rows

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
        page, spans = (
            f"{self._run}-restore-{self._attempts}",
            [(hole.series, hole.sessions) for hole in holes],
        )
        asked, covered = missing_rows(
            spans, page, self._run, self._why, self._desk.clock.now(), endpoint="restore"
        )
        self._books.store.append("requests", rows(asked))
        self._told += covered

    def record(self) -> None:
        """Take the holes out of coverage, for plans and for SQL."""
        if self._told:
            store = self._books.store
            self._books.ledger.record(self._told)
            self._books.state.set_tag(store.id, store.version_of("requests"))
            store.publish_extra("coverage", self._books.ledger.table())
