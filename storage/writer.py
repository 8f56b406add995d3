"""Writing: bars by upsert, rows by append, each in one commit that is redone when another writer was first."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, TypeVar

import pyarrow as pa
from filelock import FileLock, Timeout

from ..errors import CommitConflict, LakeError
from ..schemas.bar import TIME
from ..schemas.clock import Clock
from ..schemas.report import WriteReport
from . import datafiles
from .datafiles import DataFile
from .layout import LOCK, file_name
from .manifest import LiveFile
from .publisher import Publisher, microseconds
from .tables import TableSpec, identified, unknown
from .upsert import SMALL, Parts, batches, change

__all__ = ["Writer"]

_TRIES: Final = 10
_TURN_S: Final = 30.0  # a writer that hangs must not stop the others: the lock only saves work
_CROWD: Final = 8
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
T = TypeVar("T")


class Writer:
    """Writes into one lake; any number of them may, in any number of processes."""

    def __init__(self, root: str, publisher: Publisher, clock: Clock, *, takes_turns: bool = True) -> None:
        self._root, self._publisher, self._clock = root, publisher, clock
        self._turn = FileLock(str(Path(root) / LOCK), poll_interval=0.005) if takes_turns else None

    def upsert(self, bars: pa.Table) -> WriteReport:
        """Return what `bars` changed, after one commit, or none when they bring nothing new.

        Raises
        ------
        CommitConflict
            Others were first, ten times over.
        """
        parts = batches(bars)
        dropped = bars.num_rows - sum(rows.height for rows in parts.values())
        with self._taking_turns():
            report = self._redone(lambda: self._upsert(parts))
        return report + WriteReport(same=dropped, version=self._publisher.newest().version)

    def append(self, table: TableSpec, rows: pa.Table) -> int:
        """Return how many of `rows` were new and are stored now; no commit when none was."""
        given = identified(table, rows)
        if given.num_rows == 0:
            return 0
        with self._taking_turns():
            return self._redone(lambda: self._append(table, given))

    def _upsert(self, parts: Parts) -> WriteReport:
        manifest = self._publisher.current("bars")
        known_at = self._stamp("bars")
        report, added, removed = WriteReport(), list[DataFile](), list[str]()
        try:
            for partition, rows in parts.items():
                done = change(
                    partition,
                    rows,
                    manifest,
                    lambda path: datafiles.read(self._root, path),
                    _instant(known_at),
                )
                for where, written in done.writes:
                    path = f"{where.path}/{file_name(known_at)}"
                    added.append(datafiles.write(self._root, path, written))
                removed += done.removed
                report += done.report
            if not added:
                return report
            self._commit("bars", added, removed, known_at)
        except LakeError:
            self._discard(added)
            raise
        size = sum(file.size_bytes for file in added)
        return report + WriteReport(bytes_written=size, commits=1)

    def _append(self, table: TableSpec, rows: pa.Table) -> int:
        manifest = self._publisher.current(table.name)
        live = manifest.of(table.name)
        fresh = unknown(table, rows, self._stored(table, live, rows))
        if fresh.num_rows == 0:
            return 0
        known_at = self._stamp(table.name)
        stamps = pa.array([known_at] * fresh.num_rows, pa.int64()).cast(TIME)
        body = fresh.append_column(table.schema.field("known_at"), stamps)
        small = [file.path for file in live if file.rows < SMALL]
        crowd = small if len(small) >= _CROWD else []
        whole = pa.concat_tables([body, *(self._read(table, path) for path in crowd)]).sort_by(
            [("known_at", "ascending"), ("id", "ascending")]
        )
        added = [datafiles.write(self._root, f"{table.name}/{file_name(known_at)}", whole)]
        try:
            self._commit(table.name, added, crowd, known_at)
        except LakeError:
            self._discard(added)
            raise
        return int(fresh.num_rows)

    def _stored(self, table: TableSpec, live: list[LiveFile], rows: pa.Table) -> pa.Table:
        """Return what decides of the stored rows that may share an id with `rows`."""
        ids = rows["id"].to_pylist()
        low, high = min(ids), max(ids)
        names = ["id", *table.values, "known_at"]
        asked = [file.path for file in live if str(file.low) <= high and low <= str(file.high)]
        parts = [datafiles.read(self._root, path, names).select(names) for path in asked]
        blank = pa.schema([table.schema.field(name) for name in names]).empty_table()
        return pa.concat_tables([blank, *(part.cast(blank.schema) for part in parts)])

    def _read(self, table: TableSpec, path: str) -> pa.Table:
        return datafiles.read(self._root, path).select(table.file_schema.names).cast(table.file_schema)

    def _commit(self, table: str, added: list[DataFile], removed: list[str], known_at: int) -> None:
        at_ms = microseconds(self._clock.now()) // 1000
        self._publisher.logs[table].commit(added, removed, known_at, at_ms)
        self._publisher.publish(added)

    def _stamp(self, table: str) -> int:
        """Return the known_at of the next commit, in us: now, or just after the last one where the clock is behind."""
        return max(microseconds(self._clock.now()), self._publisher.logs[table].last_known_at() + 1)

    def _redone(self, attempt: Callable[[], T]) -> T:
        for _ in range(_TRIES - 1):
            try:
                return attempt()
            except CommitConflict:
                continue
        return attempt()

    def _discard(self, added: list[DataFile]) -> None:
        for file in added:
            (Path(self._root) / file.path).unlink(missing_ok=True)

    @contextmanager
    def _taking_turns(self) -> Generator[None]:
        if self._turn is None:
            yield
            return
        try:
            self._turn.acquire(timeout=_TURN_S)
        except Timeout:
            yield
            return
        try:
            yield
        finally:
            self._turn.release()


def _instant(us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=us)
