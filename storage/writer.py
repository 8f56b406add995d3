"""Writing: bars by upsert, rows by append, each in one commit that is redone when another writer was first."""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, TypeVar

import pyarrow as pa
from filelock import FileLock, Timeout

from ..errors import CommitConflict
from ..schemas.bar import TIME
from ..schemas.clock import Clock
from ..schemas.report import WriteReport
from . import datafiles
from .batches import Batch, batches
from .claims import claim
from .datafiles import DataFile
from .entries import Note
from .layout import LOCK, PAST, file_name
from .manifest import LiveFile, Manifest
from .publisher import Publisher, microseconds
from .rolling import Rolling
from .tables import TableSpec, identified, unknown
from .tiers import SMALL, Tiers, day_of, newest_day
from .upsert import Change, plan

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
        self.run = ""  # the run whose writes these are, for the history

    def upsert(self, bars: pa.Table, *, again: bool = False) -> WriteReport:
        """Return what `bars` changed, after one commit, or none when they bring nothing new.

        Memory does not grow with `bars`: partitions are written one after another, large ones
        by ranges of symbols. `again`: see `Store.upsert`.

        Raises
        ------
        CommitConflict
            Others were first, ten times over.
        """
        parts = batches(bars)
        report = self.redone(lambda: self._upsert(parts, again))
        return report + WriteReport(version=self._publisher.newest().version)

    def append(self, table: TableSpec, rows: pa.Table) -> int:
        """Return how many of `rows` were new and are stored now; no commit when none was."""
        given = identified(table, rows)
        if given.num_rows == 0:
            return 0
        return self.redone(lambda: self._append(table, given))

    def redone(self, attempt: Callable[[], T]) -> T:
        """Return what `attempt` gives, in this writer's turn, tried again while others are first."""
        with self._taking_turns():
            for _ in range(_TRIES - 1):
                try:
                    return attempt()
                except CommitConflict:
                    continue
            return attempt()

    def commit(
        self,
        table: str,
        added: Sequence[DataFile],
        removed: Sequence[str],
        known_at: int | None,
        operation: str,
        *,
        keep: bool = False,
    ) -> None:
        """Commit files and publish them; those that were added are gone when another was first (unless `keep`).

        After any other failure it is not known whether the commit is there: vacuum finds out.
        """
        at_ms = microseconds(self._clock.now()) // 1000
        try:
            note = self._note(table, added, removed, at_ms, operation)
            self._publisher.logs[table].commit(added, removed, known_at, at_ms, note)
        except CommitConflict:
            self.discard([] if keep else added)
            raise
        self._publisher.publish(added)

    def _note(
        self, table: str, added: Sequence[DataFile], removed: Sequence[str], at_ms: int, operation: str
    ) -> Note:
        gone = set(removed)
        held = [
            (f.path, f.rows, f.size_bytes) for f in self._publisher.newest().of(table) if f.path not in gone
        ]
        held += [(f.path, f.facts.rows, f.size_bytes) for f in added]
        current = [(rows, size) for path, rows, size in held if not path.startswith(f"bars/era={PAST}/")]
        rows, size = (sum(pair[end] for pair in current) for end in (0, 1))
        return Note(at_ms, operation, self.run, rows, size)

    def discard(self, added: Sequence[DataFile]) -> None:
        """Delete files that no commit names."""
        for file in added:
            (Path(self._root) / file.path).unlink(missing_ok=True)

    def stamp(self, table: str) -> int:
        """Return the known_at of the next commit, in us: now, or just after the last one where the clock is behind."""
        return max(microseconds(self._clock.now()), self._publisher.logs[table].last_known_at() + 1)

    def _upsert(self, parts: Sequence[Batch], again: bool) -> WriteReport:
        manifest = self._publisher.current("bars")
        known_at = self.stamp("bars")
        report, added, removed = WriteReport(), list[DataFile](), list[str]()
        with claim(self._root, known_at) as token:
            try:
                for batch in parts:
                    change = self._change(batch, manifest, known_at, again)
                    self._write(change, added, lambda: file_name(known_at, token))
                    removed += change.removed
                    report += change.report
            except BaseException:
                self.discard(added)
                raise
            if not added:
                return report
            self.commit("bars", added, removed, known_at, "upsert")
        size = sum(file.size_bytes for file in added)
        return report + WriteReport(bytes_written=size, commits=1)

    def _change(self, batch: Batch, manifest: Manifest, known_at: int, again: bool) -> Change:
        where = batch.partition
        newest = newest_day(where, manifest.partition(where), self._clock.now())
        tiers = Tiers(where, max(newest, day_of(where.freq, batch.high)))
        return plan(batch, manifest, tiers, self._between, _instant(known_at), again=again)

    def _write(self, change: Change, added: list[DataFile], name: Callable[[], str]) -> None:
        """Write the files of one partition; `added` grows as they are done."""
        sinks = {output: Rolling(self._root, output.partition, name, added) for output in change.outputs}
        try:
            for output, rows in change.pieces():
                sinks[output].write(rows)
            for sink in sinks.values():
                sink.close()
        finally:
            for sink in sinks.values():
                sink.abandon()

    def _between(self, path: str, after: str | None, upto: str | None) -> pa.Table:
        return datafiles.read_between(self._root, path, after, upto)

    def _append(self, table: TableSpec, rows: pa.Table) -> int:
        manifest = self._publisher.current(table.name)
        live = manifest.of(table.name)
        fresh = unknown(table, rows, self._stored(table, live, rows))
        if fresh.num_rows == 0:
            return 0
        known_at = self.stamp(table.name)
        stamps = pa.array([known_at] * fresh.num_rows, pa.int64()).cast(TIME)
        body = fresh.append_column(table.schema.field("known_at"), stamps)
        small = [file.path for file in live if file.rows < SMALL]
        crowd = small if len(small) >= _CROWD else []
        whole = pa.concat_tables([body, *(self._read(table, path) for path in crowd)]).sort_by(
            [("known_at", "ascending"), ("id", "ascending")]
        )
        with claim(self._root, known_at) as token:
            path = f"{table.name}/{file_name(known_at, token)}"
            self.commit(table.name, [datafiles.write(self._root, path, whole)], crowd, known_at, "append")
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
