"""The Delta tables of a lake: their columns, identities, and commits."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, PostCommitHookProperties, Schema, Transaction
from deltalake.exceptions import CommitFailedError, DeltaError
from deltalake.transaction import AddAction, RemoveAction

from ..errors import BadRequest, CommitConflict, LakeDamaged
from ..schemas import action, bar, quality, requests
from ..schemas.bar import TIME
from . import coverage
from .checkpoint import EVERY, checkpoint, checkpointed
from .datafiles import DataFile
from .entries import NOTE, Entry, Note, parse
from .objects import sync_directory

__all__ = ["PUBLISHED", "TABLES", "DeltaLog", "TableSpec", "identified", "spec", "unknown"]

_CLOCK: Final = "known_at"


@dataclass(frozen=True, slots=True)
class TableSpec:
    """One Delta table: its columns, and for tables that are appended to, what makes a row the same row.

    `identity` are the columns that make the deterministic `id`. A row is dropped when the
    newest stored row of its id has the same `values` (none: the same id is enough).
    """

    name: str
    schema: pa.Schema
    partition: tuple[str, ...] = ()
    identity: tuple[str, ...] = ()
    values: tuple[str, ...] = ()

    @property
    def file_schema(self) -> pa.Schema:
        """The columns inside a data file: all but the partition columns."""
        return pa.schema([f for f in self.schema if f.name not in self.partition])

    @property
    def incoming(self) -> pa.Schema:
        """The columns that the caller of `append` brings; an `id` may come with them."""
        return pa.schema([f for f in self.schema if f.name not in {"id", "known_at"}])


def _stamped(schema: pa.Schema) -> pa.Schema:
    """Return the columns of `schema` between `id` and `known_at`."""
    body = [f for f in schema if f.name not in {"id", "known_at"}]
    return pa.schema(
        [pa.field("id", pa.string(), nullable=False), *body, pa.field("known_at", TIME, nullable=False)]
    )


def _columns(columns: Mapping[str, pa.DataType], optional: Sequence[str] = ()) -> pa.Schema:
    return _stamped(pa.schema([pa.field(n, kind, nullable=n in optional) for n, kind in columns.items()]))


_TEXT, _REAL, _DAY = pa.string(), pa.float64(), pa.date32()

TABLES: Final[dict[str, TableSpec]] = {
    table.name: table
    for table in (
        TableSpec("bars", bar.SCHEMA, bar.PARTITION),
        TableSpec("requests", _stamped(requests.SCHEMA), identity=requests.KEY),  # never subject to retention
        TableSpec(
            "quarantine",
            _stamped(quality.QUARANTINE),
            identity=("page_id", "vendor", "symbol", "freq", "ts", "rule", "values"),
        ),
        TableSpec(
            "findings",
            _stamped(quality.FINDINGS),
            identity=("vendor", "symbol", "freq", "session", "ts", "rule", "text"),
        ),
        TableSpec(
            "actions",  # splits, dividends, allotments
            _stamped(action.SCHEMA),
            identity=("vendor", "symbol", "ex_date", "kind"),
            values=("shares", "cash", "price", "ratio", "error"),
        ),
        TableSpec(
            "instruments",
            _columns(
                {
                    "vendor": _TEXT, "symbol": _TEXT, "class": _TEXT, "name": _TEXT, "name_zh": _TEXT,
                    "listed": _DAY, "delisted": _DAY, "lot": _REAL, "spelling": _TEXT, "fetched_at": TIME,
                },
                optional=["name", "name_zh", "listed", "delisted", "lot", "spelling"],
            ),
            identity=("vendor", "symbol"),
            values=("class", "name", "name_zh", "listed", "delisted", "lot", "spelling"),
        ),
        TableSpec(
            "members",  # a universe as it was: the symbol belongs from `since` to before `until`
            _columns({"universe": _TEXT, "symbol": _TEXT, "since": _DAY, "until": _DAY}, optional=["until"]),
            identity=("universe", "symbol", "since"),
            values=("until",),
        ),
        TableSpec(
            "choice",  # which vendor a symbol and freq is read from, from session `since` on
            _columns({"symbol": _TEXT, "freq": _TEXT, "vendor": _TEXT, "since": _DAY}),
            identity=("symbol", "freq", "since"),
            values=("vendor",),
        ),
    )
}  # fmt: skip
"""Every Delta table of a lake by name."""

PUBLISHED: Final[dict[str, pa.Schema]] = {
    "coverage": coverage.SCHEMA,
    "sessions": pa.schema(
        [
            pa.field("calendar", pa.string(), nullable=False),
            pa.field("session", pa.date32(), nullable=False),
            pa.field("open", TIME),
            pa.field("break_start", TIME),
            pa.field("break_end", TIME),
            pa.field("close", TIME),
        ]
    ),
    "yields": pa.schema(
        [pa.field(name, pa.string(), nullable=False) for name in ("vendor", "symbol", "freq")]
    ),
}
"""Parquet outside Delta, one live file each. `yields`: series that stand back behind another
vendor's when no choice is made."""


def spec(name: str) -> TableSpec:
    """Return the table called `name` that rows are appended to; BadRequest when there is none."""
    if name == "bars" or name not in TABLES:
        raise BadRequest("table", name, tuple(t for t in TABLES if t != "bars"))
    return TABLES[name]


def identified(table: TableSpec, rows: pa.Table) -> pa.Table:
    """Return `rows` in the table's column order with a deterministic `id`, without `known_at`.

    Columns may come in any order; an absent nullable one is null; an `id` that the caller
    brings is kept. Of rows with one id the last stays.

    Raises
    ------
    BadRequest
        A column is unknown, absent, null or of another type.
    """
    unknown = [name for name in rows.column_names if name not in table.schema.names]
    if unknown:
        raise BadRequest("columns", ", ".join(unknown), tuple(table.incoming.names))
    columns = [_column(rows, field) for field in table.incoming]
    body = pa.Table.from_arrays(columns, schema=table.incoming)
    ids = rows["id"].to_pylist() if "id" in rows.column_names else _ids(table, body)
    last = {key: place for place, key in enumerate(ids)}
    keep = pa.array(sorted(last.values()), pa.int64())
    return body.add_column(0, table.schema.field("id"), pa.array(ids, pa.string())).take(keep)


def _column(rows: pa.Table, field: pa.Field) -> pa.ChunkedArray:
    if field.name not in rows.column_names:
        column = pa.chunked_array([pa.nulls(rows.num_rows, field.type)])
    else:
        try:
            column = rows[field.name].cast(field.type)
        except pa.ArrowException as error:
            raise BadRequest(field.name, str(rows[field.name].type), (str(field.type),)) from error
    if column.null_count and not field.nullable:
        raise BadRequest(field.name, None, hint="this column holds no nulls")
    return column


def _ids(table: TableSpec, body: pa.Table) -> list[str]:
    rows = body.select(list(table.identity)).to_pylist()
    texts = (json.dumps([table.name, *row.values()], default=str, ensure_ascii=False) for row in rows)
    return [hashlib.sha256(text.encode()).hexdigest()[:32] for text in texts]


def unknown(table: TableSpec, rows: pa.Table, stored: pa.Table) -> pa.Table:
    """Return those of `rows` (as `identified` gives them) that say something new.

    `stored` are rows of the table, any order, that include every id of `rows` that is there.
    """
    newest: dict[str, tuple[object, ...]] = {}
    names = ["id", *table.values]
    for row in stored.sort_by("known_at").select(names).to_pylist():
        newest[row["id"]] = tuple(row.values())
    given = (tuple(row.values()) for row in rows.select(names).to_pylist())
    fresh = [place for place, row in enumerate(given) if newest.get(str(row[0])) != row]
    return rows.take(pa.array(fresh, pa.int64()))


class DeltaLog:
    """One Delta table on disk: its live files and its commits."""

    def __init__(self, lake: str, table: TableSpec) -> None:
        self.spec = table
        self._root = Path(lake) / table.name
        self._handle: DeltaTable | None = None
        self._dated: int | None = None
        self._stamped: tuple[int, int] | None = None

    def create(self) -> None:
        """Make the empty table, unless it is there."""
        if not DeltaTable.is_deltatable(str(self._root)):
            DeltaTable.create(
                str(self._root),
                schema=Schema.from_arrow(self.spec.schema),
                mode="ignore",
                partition_by=list(self.spec.partition),
            )
            self._sync_log(0)

    def version(self) -> int:
        """Return the newest version of the log, after a look at the disk."""
        if self._handle is None:
            self._dated = self._date(int(self._at_hand().version()))
        elif not self._is_newest(int(self._handle.version())):
            self._refresh(self._handle)
            self._dated = self._date(int(self._handle.version()))
        return int(self._at_hand().version())

    def newest_is_blank(self) -> bool:
        """Say whether the newest entry has no bytes; delta-rs takes it for a commit that did nothing."""
        try:
            return self._entry_at(self.version()).stat().st_size == 0
        except FileNotFoundError:
            return False

    def _is_newest(self, version: int) -> bool:
        """Say whether the log ends there, by two names: asking delta-rs takes 100 times as long."""
        return not self._entry_at(version + 1).exists() and self._date(version) == self._dated is not None

    def _date(self, version: int) -> int | None:
        """Return what tells a log entry from another of its number, in a lake that was replaced; None: cleaned up."""
        try:
            found = self._entry_at(version).stat()
        except FileNotFoundError:
            return None
        return found.st_mtime_ns ^ found.st_ino

    def _entry_at(self, version: int) -> Path:
        return self._root / "_delta_log" / f"{version:020d}.json"

    def entries(self) -> Iterator[Entry]:
        """Yield the commits of the log, newest first, as far back as the log goes."""
        for version in range(self.version(), -1, -1):
            try:
                body = self._entry_at(version).read_bytes()
            except FileNotFoundError:
                return
            try:
                yield parse(self.spec.name, version, body)
            except msgspec.DecodeError as error:
                raise self.damaged(f"version {version} cannot be read", f"版本 {version} 无法读取") from error

    def paths_at(self, version: int) -> list[str]:
        """Return the files that were live at an earlier version; BadRequest when the log has forgotten it."""
        try:
            then = DeltaTable(str(self._root), version=version)
        except (DeltaError, FileNotFoundError) as error:
            raise BadRequest(
                "version", version, hint="the log does not reach that far: see `klake history`"
            ) from error
        return [
            f"{self.spec.name}/{path}"
            for path in pa.table(then.get_add_actions(flatten=True))["path"].to_pylist()
        ]

    def paths(self) -> list[str]:
        """Return the live files at the version last looked at, relative to the lake."""
        added = pa.table(self._at_hand().get_add_actions(flatten=True))
        return [f"{self.spec.name}/{path}" for path in added["path"].to_pylist()]

    def last_known_at(self) -> int:
        """Return the newest known_at (in us) at the version last looked at; 0 when there is none.

        It rides in the log as the version of an app transaction, so checkpoints keep it.
        """
        version = int(self._at_hand().version())
        if self._stamped is None or self._stamped[0] != version:
            self._stamped = version, self._at_hand().transaction_version(_CLOCK) or 0
        return self._stamped[1]

    def commit(
        self,
        added: Sequence[DataFile],
        removed: Sequence[str],
        known_at: int | None,
        at_ms: int,
        note: Note | None = None,
    ) -> int:
        """Return the new version after adding and removing files in one commit, made durable.

        Parameters
        ----------
        added : sequence of DataFile
            Durable files inside this table.
        removed : sequence of str
            Live files, relative to the lake.
        known_at : int or None
            In us, above `last_known_at()`. As an app transaction it makes this commit fail
            when anybody stamped the table since it was last looked at: delta-rs alone lets
            two appends of the same key both pass. None: rows only move between files.
        at_ms : int
            The instant of the commit, for the log.
        note : Note, optional
            What is done, for the history.

        Raises
        ------
        CommitConflict
            Somebody else was first; nothing changed. Look again and redo.
        """
        changes = known_at is not None  # else rows only move, and streams over the log need not look
        actions: list[AddAction | RemoveAction] = [self._add(file, at_ms, changes) for file in added]
        actions += [RemoveAction(self._inside(path), changes, at_ms) for path in removed]
        said = {NOTE: msgspec.json.encode(note).decode()} if note else None
        stamp = [] if known_at is None else [Transaction(_CLOCK, known_at)]
        handle = self._at_hand()
        asked = int(handle.version())
        try:
            handle.create_write_transaction(
                actions,
                "append",
                handle.schema(),
                list(self.spec.partition),
                commit_properties=CommitProperties(said, app_transactions=stamp),
                post_commithook_properties=PostCommitHookProperties(False, False),
            )
        except CommitFailedError as error:
            raise CommitConflict(
                f"{self._root}: another writer was first", f"{self._root}：另一个进程先提交了"
            ) from error
        # The handle does not always follow its own commit, so the version is read from the log.
        version = self.version()
        if known_at is not None and version == asked + 1:
            self._stamped = version, known_at
        self._sync_log(version)
        if version - checkpointed(self._root) >= EVERY:
            # Nothing is lost without one: the commit is done, and the next tries again.
            with suppress(OSError, DeltaError):
                checkpoint(self._root.parent, self._root, version)
        return version

    def damaged(self, en: str, zh: str) -> LakeDamaged:
        """Return the error that says what is wrong with this log, and the way back."""
        return LakeDamaged(
            f"{self._root / '_delta_log'}: {en}: `klake doctor --repair` mends the log",
            f"{self._root / '_delta_log'}：{zh}：`klake doctor --repair` 可以修复日志",
        )

    def _at_hand(self) -> DeltaTable:
        if self._handle is None:
            try:
                self._handle = DeltaTable(str(self._root))
            except DeltaError as error:
                raise self._misread(error) from error
        return self._handle

    def _refresh(self, handle: DeltaTable) -> None:
        try:
            handle.update_incremental()
        except DeltaError as error:
            raise self._misread(error) from error

    def _misread(self, error: DeltaError) -> LakeDamaged:
        why = str(error).partition("\n")[0]  # a trace of its threads follows
        return self.damaged(f"the log cannot be read ({why})", f"日志无法读取（{why}）")

    def _inside(self, path: str) -> str:
        return path.removeprefix(f"{self.spec.name}/")

    def _add(self, file: DataFile, at_ms: int, changes: bool) -> AddAction:
        values: Mapping[str, str | None] = file.partition.values if file.partition else {}
        return AddAction(self._inside(file.path), file.size_bytes, values, at_ms, changes, file.stats)

    def _sync_log(self, newest: int) -> None:
        """delta-rs issues no fsync: make the newest log entries durable before anything names them."""
        log = self._root / "_delta_log"
        name = self._entry_at(newest)
        if name.exists():
            with name.open("rb+") as file:
                os.fsync(file.fileno())
        sync_directory(log)
