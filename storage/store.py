"""The lake as storage sees it: open it, write bars and rows, publish, read."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from datetime import date, datetime, timedelta
from pathlib import Path
from threading import RLock
from typing import Final, Literal

import duckdb
import pyarrow as pa
from filelock import FileLock, Timeout

from ..errors import (
    BadRequest,
    LakeDamaged,
    LakeHolds,
    LakeOrigin,
    LakeUnwritable,
)
from ..schemas.bar import SCHEMA, State
from ..schemas.clock import Clock
from ..schemas.freq import Freq
from ..schemas.report import WriteReport
from . import datafiles, read, views
from .coarse import resampled
from .compact import Compacted, Compactor
from .damage import Damage, damaged, refuse
from .disk import network_of
from .history import Version, history
from .layout import BOOKING, LOCK, MARKER, STATE
from .manifest import Manifest
from .marker import Holds, Marker, Origin, absent, create_lake, holds_bars, marked
from .mend import let_go
from .migrate import finish
from .objects import writing
from .publisher import Publisher, microseconds
from .quotas import quotas_path
from .raw import RawZone
from .relog import LogDamage, mended
from .restore import Restored, Told, restore
from .tables import PUBLISHED, spec
from .vacuum import HOT, Vacuumed, vacuum, vacuumed_at
from .writer import Writer

__all__ = ["Holds", "Origin", "Store"]

_WAIT_S: Final = 30.0


class Store:
    """One lake on disk. Threads may share it; processes open their own."""

    def __init__(self, path: str, marker: Marker, publisher: Publisher, clock: Clock) -> None:
        self.path, self.id, self.origin, self.holds = path, marker.id, marker.origin, marker.holds
        self.clock = clock
        self._publisher = publisher
        self._writer = Writer(path, publisher, clock)
        self._guard = RLock()
        self._reader: duckdb.DuckDBPyConnection | None = None
        self.raw = RawZone(path, clock)

    @classmethod
    def open(
        cls, path: str, clock: Clock, *, origin: Origin | None = None, create: bool = False, holds: Holds = "bars",
        read_only: bool = False,
    ) -> "Store":  # fmt: skip
        """Return the lake at `path`, with its newest manifest as new as its tables.

        Parameters
        ----------
        path : str
            A local folder.
        clock : Clock
            Stamps commits and ages manifests.
        origin : "real" or "sandbox", optional
            What the caller is going to write; None: whatever the lake holds.
        create : bool
            Make the lake when there is none (of origin `origin`, "real" by default).
        holds : "bars" or "pages"
            Whether a lake is meant, or a folder of collected pages.
        read_only : bool
            Write nothing at all, not even a manifest that lags: the folder may be another's.

        Raises
        ------
        LakeError
            There is no lake at `path`.
        LakeTooNew, LakeTooOld, LakeOrigin, LakeHolds, LakeUnwritable, LakeDamaged
            As they say.
        """
        if "://" in path:
            raise BadRequest("lake path", path, hint="only local folders so far")
        root = str(Path(path).resolve())
        if not read_only:
            with writing(root):
                finish(root)
        marker, publisher = marked(root), Publisher(root, clock)
        if marker is None and not create:
            raise absent(path, holds)
        if marker is None:
            if holds_bars(root):
                raise LakeDamaged(
                    f"{path}: tables stand here, but {MARKER}, which says what they are, is gone: put it back from a "
                    "backup, or move the folder away",
                    f"{path}：这里有数据表，但缺少说明其来源的 {MARKER}：请从备份恢复，或移走该目录",
                )
            marker = create_lake(root, publisher, clock, origin or "real", holds)
        if origin is not None and marker.origin != origin:
            raise LakeOrigin(path, marker.origin, origin)
        if marker.holds != holds:
            raise LakeHolds(path, marker.holds)
        store = cls(root, marker, publisher, clock)
        if read_only:
            return store
        try:
            store.publish()
        except LakeUnwritable:
            # Who only reads needs no permission: the newest manifest is whole, if perhaps not the newest of all.
            if origin is not None or publisher.sound() is None:
                raise
        return store

    @property
    def version(self) -> int:
        """The version of the newest manifest; grows with every change that readers can see."""
        return self.snapshot().version

    @property
    def state_path(self) -> str:
        """Where the lake's state database lies: in the lake, or with the user's where the lake is on a network.

        Nothing in it is the only copy of anything.
        """
        if network_of(Path(self.path)):
            return str(quotas_path().with_name(f"{self.id}.sqlite"))
        return str(Path(self.path) / STATE)

    def table(self, relation: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Return all rows of a table other than `bars`, or of a published extra, in no particular order.

        `relation` is a name in `Manifest.names`: requests, actions, coverage, …; n rows × `columns`.
        """
        return _rows(self.path, self.snapshot(), relation, columns)

    def version_of(self, table: str) -> int:
        """Return the version of one Delta table in the newest manifest."""
        return self.snapshot().delta[table]

    def snapshot(self) -> Manifest:
        """Return the newest manifest: live files of all tables with symbol sets and key ranges."""
        with self._guard:
            return self._publisher.newest()

    def told_by(self, run: str) -> None:
        """Name the run that the commits from now on belong to, for `history`."""
        self._writer.run = run

    def upsert(self, bars: pa.Table, *, again: bool = False) -> WriteReport:
        """Return what `bars` changed, in bars; readers see it when this returns.

        Parameters
        ----------
        bars : pyarrow.Table
            The columns of `schemas.bar.INCOMING`, any order of columns and rows, any vendors,
            freqs and symbols; keys may repeat, the winner is taken.
        again : bool
            They were read anew from pages that the lake has seen, by a parser that knows better:
            one that was fetched when the stored one was replaces it where they differ. It never
            replaces one that was fetched later.

        Raises
        ------
        BadRequest
            The table is not of that form.
        LakeUnwritable, CommitConflict
            Nothing was changed.
        """
        with self._guard, writing(self.path):
            return self._writer.upsert(bars, again=again)

    def append(self, table: str, rows: pa.Table) -> int:
        """Return how many of `rows` said something new and are in `table` now.

        Parameters
        ----------
        table : str
            requests, quarantine, findings, actions, instruments, members or choice.
        rows : pyarrow.Table
            The columns of `storage.tables.TABLES[table].incoming`; absent ones are null. `id`
            and `known_at` are made here; an `id` column that comes along is kept.
        """
        with self._guard, writing(self.path):
            return self._writer.append(spec(table), rows)

    def compact(
        self, vendor: str | None = None, freq: Freq | None = None, due_only: bool = False
    ) -> Compacted:
        """Return what was done to bring files of bars into their tiers; no row changes, readers may go on.

        `vendor`, `freq`: only theirs. `due_only`: only where it pays now, for the end of a run.
        LakeDamaged when what was written is not what was read; nothing is changed then.
        """
        with self._guard, writing(self.path):
            return Compactor(self.path, self._publisher, self._writer, self.clock).compact(
                vendor, freq, due_only
            )

    def vacuum(self, dry_run: bool = False) -> Vacuumed:
        """Return the files that were deleted, or would be: no kept manifest names them, and they are old enough."""
        with self._guard, writing(self.path):
            return vacuum(self.path, self._publisher, self.clock, dry_run=dry_run)

    def vacuum_due(self) -> bool:
        """Say whether the last vacuum was an hour ago or more; looks at one small file."""
        return microseconds(self.clock.now()) - vacuumed_at(self.path) >= HOT // timedelta(microseconds=1)

    def history(self, n: int = 20) -> list[Version]:
        """Return the newest `n` versions of `bars`, newest first."""
        with self._guard:
            return history(self.path, self._publisher, n)

    def restore(self, version: int, told: Told | None = None) -> Restored:
        """Return what a new commit did that makes `bars` hold what it held at `version`; see `storage.restore`.

        Coverage does not follow by itself: `told` is told what to take from it, before the
        commit (`jobs.restore` does all of it).
        """
        with self._guard, writing(self.path):
            return restore(self.path, self._publisher, self._writer, version, told)

    @contextmanager
    def booking(self, patience_s: float = 60.0) -> Generator[bool]:
        """Hold the one turn for bars together with what `requests` says of them; yield whether it is held.

        Who stores pages and who restores take turns, or the one would say that bars are held
        which the other has just taken away. It is given up after `patience_s`.
        """
        lock = FileLock(str(Path(self.path) / BOOKING))
        with writing(self.path), suppress(Timeout):
            lock.acquire(timeout=patience_s)
        try:
            yield lock.is_locked
        finally:
            lock.release()

    def damage(self, *, footers: bool = True, deep: bool = False) -> list[Damage]:
        """Return the live files that are not as they were written; see `storage.damage.damaged`."""
        return damaged(self.path, self.snapshot(), footers=footers, deep=deep)

    def refuse_damage(self) -> None:
        """Raise LakeDamaged when a live file is gone or of another size, or when a log differs from the manifest.

        Not for `coverage` and `sessions`, which every run publishes anew.
        """
        refuse([one for one in self.damage(footers=False) if one.table not in {"coverage", "sessions"}])
        manifest = self.snapshot()
        for name, log in self._publisher.logs.items():
            if log.version() == manifest.delta[name] and set(log.paths()) != {
                f.path for f in manifest.of(name)
            }:
                raise log.damaged("it names other files than the manifest", "与清单不一致")

    def let_go(self, found: Sequence[Damage]) -> int:
        """Return how many damaged files were let go of; what they held must have been withdrawn before."""
        with self._guard, writing(self.path):
            return let_go(self.path, self._publisher, self._writer, found)

    def renew(self) -> None:
        """Make anew whatever is made of other things: listing, seeds, `lake.duckdb`."""
        with self._guard, writing(self.path):
            self._publisher.renew()

    @staticmethod
    def mend_logs(path: str, clock: Clock) -> list[LogDamage]:
        """Return the logs of the lake at `path` that were damaged and are whole again; before it is opened."""
        root = str(Path(path).resolve())
        if marked(root) is None:
            return []
        with writing(root), FileLock(str(Path(root) / LOCK), timeout=_WAIT_S):
            return mended(root, Publisher(root, clock), clock)

    def publish(self) -> int:
        """Return the lake's version, after republishing where manifest or views lag."""
        with self._guard, writing(self.path):
            version = self._publisher.publish().version  # first: views are made over the newest manifest
            if self.holds == "bars":
                self._publisher.catalog()
            return version

    def publish_extra(self, name: Literal["coverage", "sessions"], table: pa.Table) -> None:
        """Publish `table` as the SQL view `name`; no change when it is what is there."""
        with self._guard, writing(self.path):
            self._publisher.extra(name, table)

    def views_at(self, mount: str, out: str) -> None:
        """Write the DuckDB file `out`, whose views find this lake at `mount`, where another machine has it.

        DuckDB reads the files while it makes a view, so the lake must be found at `mount` here,
        too: a link will do. BadRequest where it is not.
        """
        if not (Path(mount) / MARKER).is_file():
            raise BadRequest(
                "at", mount, hint=f"the lake must be found there while the views are made: ln -s {self.path} {mount}",
                hint_zh=f"生成视图时必须能在该路径找到数据湖：ln -s {self.path} {mount}",
            )  # fmt: skip
        with writing(out):
            views.write_catalog(out, views.statements(views.SelfResolving(mount)))

    def connect(self) -> duckdb.DuckDBPyConnection:
        """Return an in-memory DuckDB with every view, over the files of the newest version only.

        Later commits are not seen by it. The caller closes it.
        """
        con = read.connection()
        for statement in views.statements(views.Snapshot(self.path, self.snapshot().names)):
            con.execute(statement)
        return con

    def bars(
        self,
        *,
        symbols: Sequence[str] | None,
        freq: Freq,
        start: datetime | date | None = None,
        end: datetime | date | None = None,
        vendor: str | None = None,
        columns: Sequence[str] | None = None,
        states: Sequence[State] | None = None,
    ) -> pa.Table:
        """Return current bars, ascending by (symbol, ts), n rows × `columns` (all 17 when None).

        `start` and `end` are half-open: instants below one day, dates from one day up. Without
        `vendor` each symbol comes from one vendor, as in the view `bars_best`. n = 0: none held.
        """
        wanted = read.Wanted(freq, symbols, start, end, vendor, states)
        with self._guard:
            self._reader = self._reader or read.connection()
            cursor, manifest = self._reader.cursor(), self._publisher.newest()
        with cursor:
            return read.bars(cursor, self.path, manifest, wanted, columns)

    def resampled(
        self,
        freq: Freq,
        source: Freq,
        *,
        start: datetime | date | None = None,
        end: datetime | date | None = None,
        vendor: str | None = None,
        columns: Sequence[str] | None = None,
    ) -> pa.Table:
        """Return the bars of `freq` that all current bars of `source` add up to, n rows × `columns` (all when None).

        Bounds and vendor as in `bars`; BadRequest where `source` does not add up to `freq`.
        """
        wanted = read.Wanted(source, None, start, end, vendor)
        with self._guard:
            self._reader = self._reader or read.connection()
            cursor, manifest = self._reader.cursor(), self._publisher.newest()
        with cursor:
            return resampled(cursor, self.path, manifest, wanted, freq, columns or SCHEMA.names)


def _rows(root: str, manifest: Manifest, relation: str, columns: Sequence[str] | None = None) -> pa.Table:
    schema = PUBLISHED[relation] if relation in PUBLISHED else spec(relation).file_schema
    if columns is not None:
        schema = pa.schema([schema.field(name) for name in columns])
    files = manifest.names.get(relation, ())
    parts = [datafiles.read(root, name, schema.names).select(schema.names) for name in files]
    return pa.concat_tables([schema.empty_table(), *(part.cast(schema) for part in parts)])
