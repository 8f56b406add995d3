"""Bring: bars of files into the lake (`klake import`). What cannot be read or stored is told, the rest goes on.

Files are read in pieces of bounded size; a piece ends between sessions, so that auction
prints meet their bars and hours add up to whole days. Bringing the same file again changes nothing.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final, cast

import polars as pl
import pyarrow as pa

from ..errors import BadRequest, KlakeError, LakeError
from ..ingest.files.canary import check_label, check_places, check_units
from ..ingest.files.mapping import Mapping
from ..ingest.files.piece import Broken, Piece
from ..ingest.files.reading import Kind, fits, kind_of, mapping_of, pieces
from ..schemas.bar import INCOMING
from ..schemas.clock import Clock
from ..schemas.derive import Derived, derived
from ..schemas.events import Committed, Events, Quiet
from ..schemas.freq import Freq
from ..schemas.page import Reject
from ..schemas.quality import check, quarantined
from ..schemas.report import WriteReport
from ..schemas.resample import resample
from ..schemas.session import calendar
from ..schemas.symbol import Symbol
from ..schemas.vendor import vendor_name
from ..storage.layout import MARKER
from ..storage.store import Store

__all__ = ["SPELLED", "BringReport", "FileReport", "bring"]

SPELLED: Final = 3
"""Rows of one file and reason that are spelled out; the quarantine holds all."""

_ROWS: Final = 250_000  # bars gathered for one commit: about 64 MB of Arrow
_REASONS: Final = 20  # told apart per file


@dataclass(slots=True)
class FileReport:
    """What became of one file, in rows.

    `read` became `bars` (fewer where auction prints were folded in or days were made);
    `broken` could not be read; `rejected` by a rule; `left_out` outside regular hours and not
    wanted. `reasons` counts the rows that are not stored by why, `problems` spells the first
    `SPELLED` of each reason out. `error`: why the file as a whole was given up.
    """

    path: str
    freq: str = ""
    read: int = 0
    bars: int = 0
    broken: int = 0
    rejected: int = 0
    left_out: int = 0
    problems: list[str] = field(default_factory=list[str])
    reasons: dict[str, int] = field(default_factory=dict[str, int])
    error: str = ""

    def tell(self, reason: str, problem: str) -> None:
        """Count a row that is not stored, and keep it among the first ones of its reason."""
        if reason not in self.reasons and len(self.reasons) >= _REASONS:
            reason = "other reasons"
        self.reasons[reason] = self.reasons.get(reason, 0) + 1
        if self.reasons[reason] <= SPELLED:
            self.problems.append(problem)


@dataclass(slots=True)
class BringReport:
    """What an import did: file by file, and what was written."""

    files: list[FileReport] = field(default_factory=list[FileReport])
    written: WriteReport = field(default_factory=WriteReport)

    @property
    def exit_code(self) -> int:
        """0: every row of every file is in the lake or was left out on purpose; 1: some are not."""
        return 1 if any(f.error or f.broken or f.rejected for f in self.files) else 0

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain values, for `--json`."""
        return {**asdict(self), "exit_code": self.exit_code}


def bring(
    store: Store,
    paths: Sequence[Path],
    *,
    vendor: str,
    clock: Clock,
    mapping: Mapping | None = None,
    kind: Kind | None = None,
    to: Freq | None = None,
    events: Events | None = None,
    run: str = "import",
) -> BringReport:
    """Return what bringing the bars of `paths` into the lake did.

    Parameters
    ----------
    paths : sequence of Path
        Files; of a folder those in it and below that can be of that kind, in order of name,
        but nothing hidden, and nothing of a lake.
    vendor : str
        The name under which the lake keeps the bars.
    mapping : Mapping, optional
        What the files hold; TDX and Lean files tell it themselves.
    kind : optional
        By suffix if left out; `lean` must be said, because its zips look like zipped CSV.
    to : Freq, optional
        Store bars of this freq made from the files' ones (flag DERIVED), up to 1d. Needed for
        hours that count from midnight, which are off klake's grid.

    Raises
    ------
    BadRequest
        There is no file, or `to` cannot be made. A file that cannot be read raises nothing:
        its report says why, and the next one is read.
    """
    if to is not None and not (to.intraday or to is Freq.D1):
        raise BadRequest(
            "to", to.value, hint="files bring bars of at most 1d; longer ones are made on reading"
        )
    files = _files(paths, kind)
    bringer = _Bringer(store, vendor_name(vendor), clock.now(), run, events or Quiet())
    for path in files:
        told = FileReport(str(path))
        bringer.report.files.append(told)
        try:
            bringer.file(path, told, mapping, kind, to)
        except LakeError:
            raise
        except KlakeError as error:
            told.error = _why(error, path)
        except OSError as error:
            told.error = f"cannot be read: {error.strerror or error}"
    bringer.flush()
    bringer.report.written += WriteReport(version=store.version)
    return bringer.report


class _Bringer:
    """Gathers bars and refusals of many files and commits them every `_ROWS` bars and at the end."""

    def __init__(self, store: Store, vendor: str, now: datetime, run: str, events: Events) -> None:
        self._store, self._vendor, self._now, self._run, self._events = store, vendor, now, run, events
        self._bars: list[pa.Table] = []
        self._refused: list[pa.Table] = []
        self._rows = 0
        self.report = BringReport()

    def file(
        self, path: Path, told: FileReport, mapping: Mapping | None, kind: Kind | None, to: Freq | None
    ) -> None:
        """Read one file, piece by piece."""
        if not path.exists():
            raise BadRequest("file", str(path), hint="there is no such file", hint_zh="文件不存在")
        form = kind or kind_of(path)
        said = mapping or mapping_of(path, form)
        told.freq = (to or said.freq).value
        page = f"file:{path.name}:{_digest(path)}"
        _refuse_off_grid(said, to)
        for number, part in enumerate(_whole_sessions(pieces(path, said, form))):
            if number == 0:
                check_units(part.table)
                check_label(part.table, said)
            self._piece(part, told, said, to, page)

    def flush(self) -> None:
        """Commit what was gathered: refusals first, so that a crash in between loses none of them."""
        refused = 0
        if self._refused:
            refused = self._store.append("quarantine", pa.concat_tables(self._refused))
        done = WriteReport(quarantined=refused)
        if self._rows:
            bars = pa.concat_tables(self._bars)
            done = done + self._store.upsert(bars)
            if done.commits:
                self._events.emit(Committed(bars.num_rows, done.version))
        self.report.written = self.report.written + done
        self._bars, self._refused, self._rows = [], [], 0

    def _piece(self, part: Piece, told: FileReport, said: Mapping, to: Freq | None, page: str) -> None:
        made = derived(part.table, vendor=self._vendor, freq=said.freq, now=self._now, declared=said.declared)
        if not told.read:
            check_places(made, part.table.num_rows)
        rejects = [*_unreadable(part, said), *_numbered(made, part, told)]
        bars = made.bars if to is None else _made_of(made.bars, to)
        checked = check(bars, page_id=page, run=self._run, now=self._now, severities=("reject",))
        refused = quarantined(rejects, vendor=self._vendor, page_id=page, run=self._run, now=self._now)
        for broken in part.broken:
            told.tell(broken.why, f"line {broken.line}: {broken.why}: {broken.text[:200]}")
        for row in checked.rejected.select(["rule", "symbol", "ts"]).to_pylist():
            when = _when(row["symbol"], row["ts"], daily=not (to or said.freq).intraday)
            told.tell(row["rule"], f"{row['symbol']} {when}: {row['rule']}")
        told.read += part.table.num_rows
        told.bars += checked.kept.num_rows
        told.broken += len(part.broken)
        told.rejected += len(made.rejected) + checked.rejected.num_rows
        told.left_out += made.left_out
        self._bars.append(checked.kept)
        self._refused += [t for t in (refused, checked.rejected) if t.num_rows]
        self._rows += checked.kept.num_rows
        if self._rows >= _ROWS:
            self.flush()


def _files(paths: Sequence[Path], kind: Kind | None) -> list[Path]:
    out: list[Path] = []
    for path in paths:
        out += sorted(_below(path, kind)) if path.is_dir() else [path]
    if not out:
        raise BadRequest(
            "paths", ", ".join(map(str, paths)),
            hint="there is no file that holds bars; lakes and what is hidden are passed over",
            hint_zh="没有可导入的文件；数据湖与隐藏文件会被跳过",
        )  # fmt: skip
    return out


def _below(folder: Path, kind: Kind | None) -> Iterator[Path]:
    """Yield the files of a folder that can be of `kind`; what a lake keeps is in a lake already."""
    home = folder.resolve()
    if any((place / MARKER).exists() for place in home.parents):
        return
    for place, folders, names in os.walk(folder):
        if MARKER in names:
            folders.clear()
            continue
        folders[:] = [name for name in folders if not name.startswith(".")]
        seen = (Path(place, name) for name in names if not name.startswith("."))
        yield from (path for path in seen if fits(path, kind))


def _why(error: KlakeError, path: Path) -> str:
    """Return what an error says, without the file's name: its report has it."""
    given = f"file={str(path)!r}"
    return str(error).removeprefix(f"{given} cannot be used: ").removeprefix(f"{given} 无效：")


def _when(symbol: str, ts: datetime, *, daily: bool) -> str:
    """Return the day of a bar of days, else its start, as a person reads it."""
    if daily:
        return str(calendar(Symbol.parse(symbol).place.calendar).session_of(ts) or ts.date())
    return f"{ts:%Y-%m-%d %H:%M}Z"


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _refuse_off_grid(said: Mapping, to: Freq | None) -> None:
    if said.anchor == "clock" and to is not Freq.D1:
        raise BadRequest(
            "freq", (to or said.freq).value,
            hint=f"{said.freq.value} bars of this file count from midnight, klake's from the open: make days of them, --to 1d",
            hint_zh=f"该文件的 {said.freq.value} 从零点起算，klake 从开盘起算：只能合成日线，--to 1d",
        )  # fmt: skip


def _made_of(bars: pa.Table, to: Freq) -> pa.Table:
    return resample(bars, to).cast(INCOMING) if bars.num_rows else bars


def _whole_sessions(parts: Iterator[Piece]) -> Iterator[Piece]:
    """Yield the same rows in pieces that end between days, in whatever order the days stand."""
    held: Piece | None = None
    for part in parts:
        whole = part if held is None else _together(held, part)
        cut = _cut(whole.table)
        if cut:
            yield replace(whole, table=whole.table.slice(0, cut), lines=whole.lines.slice(0, cut))
            whole = Piece(whole.table.slice(cut), whole.lines.slice(cut))
        held = whole
    if held is not None:
        yield held


def _together(first: Piece, second: Piece) -> Piece:
    lines = pa.chunked_array([first.lines, second.lines]).combine_chunks()
    return Piece(pa.concat_tables([first.table, second.table]), lines, first.broken + second.broken)


def _cut(table: pa.Table) -> int:
    """Return how many rows stand before the last two days of the table (0: all of it is one stretch)."""
    if "ts" not in table.column_names or not table.num_rows:
        return int(table.num_rows)
    days = cast("pl.Series", pl.from_arrow(table["ts"])).dt.date()
    far = (days - days[-1]).dt.total_days().abs() > 1
    before = far.arg_true()
    return int(before[-1]) + 1 if len(before) else 0


def _unreadable(part: Piece, said: Mapping) -> list[Reject]:
    return [_broken_reject(broken, said) for broken in part.broken]


def _broken_reject(broken: Broken, said: Mapping) -> Reject:
    values = json.dumps({"line": broken.line, "text": broken.text, "why": broken.why}, ensure_ascii=False)
    return Reject(said.symbol, said.freq, "unreadable row", values)


def _numbered(made: Derived, part: Piece, told: FileReport) -> Iterator[Reject]:
    """Yield the rejects of a piece with the line that they stand on."""
    for reject, row in zip(made.rejected, made.rejected_rows, strict=True):
        line, values = part.lines[row].as_py(), json.loads(reject.values)
        cells = ", ".join(f"{name}={value}" for name, value in values.items() if value is not None)
        told.tell(reject.rule, f"line {line}: {reject.rule}: {cells[:200]}")
        yield replace(reject, values=json.dumps({"line": line, **values}, ensure_ascii=False))
