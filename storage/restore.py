"""Restore: the bars of an earlier version come back as new knowledge, in one commit; nothing learned since is forgotten.

Where a bar differs from what it was, the bar of then comes back and the one of now moves to
the past. A bar that was not there then moves to the past beside a tombstone, a row that says
that from this commit on there is no such bar. So as-of answers for every instant before the
restore stay what they were.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import polars as pl
import pyarrow as pa
from filelock import FileLock, Timeout

from ..errors import LakeError
from ..schemas.bar import Flag, State
from ..schemas.coverage import Series
from ..schemas.span import Span
from . import datafiles
from .batches import short_key
from .body import BODY, framed, nothing
from .claims import claim
from .datafiles import DataFile
from .layout import CURRENT, PAST, Partition, file_name
from .manifest import LiveFile, Manifest
from .publisher import Publisher
from .rolling import Range, ranges, roll, weigh
from .vacuum import KEEPING
from .writer import Writer

__all__ = ["Hole", "Restored", "Told", "restore"]

_WAIT_S: Final = 60.0
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SETTLED: Final = {State.OPEN.value: 0, State.CLOSED.value: 1, State.FINAL.value: 2}
_APART: Final = timedelta(days=15)  # no exchange rests longer: what lies farther apart are two stretches


@dataclass(frozen=True, slots=True)
class Hole:
    """A stretch of sessions of a series that loses bars in a restore, or whose bars become less settled."""

    series: Series
    sessions: Span[date]


Told = Callable[[Sequence[Hole]], None]


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore did, in bars: how many are as they were, are there again, are gone.

    `version` is that of the table `bars` now.
    """

    version: int
    changed: int = 0
    returned: int = 0
    withdrawn: int = 0


def restore(
    root: str, publisher: Publisher, writer: Writer, version: int, told: Told | None = None
) -> Restored:
    """Return what a commit did that makes `bars` hold what it held at `version`; none when it does.

    Parameters
    ----------
    version : int
        Of the table `bars`, as `history` lists them.
    told : callable, optional
        Is told the holes just before the commit, again when that is redone: whoever keeps
        account of what is held can write them down first, so that no crash hides them.

    Raises
    ------
    BadRequest
        There is no such version, or the log has forgotten it.
    LakeError
        Files of it are deleted, or a vacuum does not end.
    """
    lock = FileLock(str(Path(root) / KEEPING))
    try:
        lock.acquire(timeout=_WAIT_S)
    except Timeout as error:
        raise LakeError(
            f"{root}: a vacuum is at work: try again", f"{root}：清理正在进行：请稍后再试"
        ) from error
    try:
        return writer.redone(lambda: _restore(root, publisher, writer, version, told))
    finally:
        lock.release()


def _restore(root: str, publisher: Publisher, writer: Writer, version: int, told: Told | None) -> Restored:
    manifest, log = publisher.current("bars"), publisher.logs["bars"]
    differing = _differing(root, manifest, log.paths_at(version), version)
    known_at = writer.stamp("bars")
    added, removed, holes = list[DataFile](), list[str](), list[Hole]()
    done = Restored(log.version())
    with claim(root, known_at) as token:
        try:
            for partition, (then, now) in sorted(differing.items()):
                part = _Part(root, partition, then, now, _EPOCH + timedelta(microseconds=known_at))
                tally = part.judge()
                roll(root, part.pieces(tally.touched), lambda: file_name(known_at, token), added)
                removed += sorted(tally.touched)
                holes += tally.holes
                done = Restored(
                    done.version,
                    done.changed + tally.changed,
                    done.returned + tally.returned,
                    done.withdrawn + tally.withdrawn,
                )
            if told is not None and holes:
                told(holes)
        except BaseException:
            writer.discard(added)
            raise
        if not added and not removed:
            return done
        writer.commit("bars", added, removed, known_at, f"restore {version}")
    return Restored(log.version(), done.changed, done.returned, done.withdrawn)


_Symbols = Mapping[str, tuple[int, frozenset[str]]]
"""Rows and symbols of files, by path."""


def _differing(
    root: str, manifest: Manifest, paths: Sequence[str], version: int
) -> dict[Partition, tuple[_Symbols, _Symbols]]:
    """Return the files of then and of now that are not of both, by partition of era current.

    A key that a file of both holds is in no other of either: these files need not be read.
    """
    live = {f.path: f for f in manifest.of("bars") if Partition.parse(f.path).era == CURRENT}
    then = {path for path in paths if Partition.parse(path).era == CURRENT}
    _refuse_gone(root, version, sorted(then - live.keys()))
    out: dict[Partition, tuple[dict[str, Any], dict[str, Any]]] = {}
    for path in sorted(then - live.keys()):
        facts = datafiles.facts(root, path)
        out.setdefault(Partition.parse(path), ({}, {}))[0][path] = (facts.rows, facts.symbols)
    for path in sorted(live.keys() - then):
        out.setdefault(Partition.parse(path), ({}, {}))[1][path] = _told_by(manifest, live[path])
    return dict(out)


def _told_by(manifest: Manifest, file: LiveFile) -> tuple[int, frozenset[str]]:
    return file.rows, manifest.symbols_of(file)


def _refuse_gone(root: str, version: int, paths: Sequence[str]) -> None:
    gone = [path for path in paths if not (Path(root) / path).exists()]
    if gone:
        raise LakeError(
            f"version {version} cannot be restored: {len(gone)} of its files are deleted, such as {gone[0]}: "
            "`klake history` shows the versions that can",
            f"无法恢复到版本 {version}：其中 {len(gone)} 个文件已删除，例如 {gone[0]}："
            "`klake history` 会列出可恢复的版本",
        )


@dataclass(frozen=True, slots=True)
class _Output:
    """One file to be written: what becomes of the file `path` of now, of the bars that return, or of the past."""

    partition: Partition
    path: str | None = None


@dataclass(frozen=True, slots=True)
class _Piece:
    """A range of symbols, compared.

    `now`: stored rows with their `file`. `back`: rows of then that come back, with the file of
    the row that they take the place of, or null. `out`: rows of `now` that go, with what
    `comes` in their place (its state, or null).
    """

    now: pl.DataFrame
    back: pl.DataFrame
    out: pl.DataFrame

    @property
    def ended(self) -> pl.DataFrame:
        """The rows that go and were closed or final: history, unlike open ones."""
        return self.out.filter(pl.col("state") != State.OPEN.value)

    @property
    def withdrawn(self) -> pl.DataFrame:
        """Those of them that no closed or final bar takes the place of."""
        return self.ended.filter(pl.col("comes").is_null() | (pl.col("comes") == State.OPEN.value))


@dataclass(slots=True)
class _Tally:
    """What a restore does to one partition."""

    touched: set[str] = field(default_factory=set[str])
    holes: list[Hole] = field(default_factory=list[Hole])
    changed: int = 0
    returned: int = 0
    withdrawn: int = 0


@dataclass(slots=True)
class _Part:
    """One partition, compared then and now by ranges of symbols, so that memory does not grow with it."""

    root: str
    partition: Partition
    then: _Symbols
    now: _Symbols
    known_at: datetime
    _only: _Piece | None = None

    def judge(self) -> _Tally:
        """Return what is going to change."""
        tally, spans = _Tally(), self._ranges()
        for span in spans:
            piece = self._compared(span)
            tally.touched |= set(piece.out["file"].unique())
            tally.holes += self._holes(piece)
            tally.changed += piece.out.filter(pl.col("comes").is_not_null()).height
            tally.returned += piece.back.filter(pl.col("file").is_null()).height
            tally.withdrawn += piece.out.filter(pl.col("comes").is_null()).height
            self._only = piece if len(spans) == 1 else None
        return tally

    def pieces(self, touched: Iterable[str]) -> Iterator[tuple[_Output, pa.Table]]:
        """Yield rows for each file to be written, sorted by (symbol, ts) over all pieces of one.

        `touched`: the files of now that lose a row; the others stay.
        """
        for span in self._ranges():
            piece = self._only or self._compared(span)
            for path in sorted(touched):
                yield from self._sorted(_Output(self.partition, path), self._left(piece, path))
            yield from self._sorted(_Output(self.partition), self._back(piece, pl.col("file").is_null()))
            past = Partition(PAST, self.partition.vendor, self.partition.freq, self.partition.period)
            yield from self._sorted(_Output(past), self._past(piece))

    def _sorted(self, output: _Output, rows: pl.DataFrame) -> Iterator[tuple[_Output, pa.Table]]:
        if rows.height:
            yield output, rows.sort("symbol", "ts", "known_at").to_arrow().cast(BODY)

    def _left(self, piece: _Piece, path: str) -> pl.DataFrame:
        key, mine = short_key(self.partition.freq), pl.col("file") == path
        kept = piece.now.filter(mine).join(piece.out.filter(mine).select(key), on=key, how="anti")
        return pl.concat([kept.select(BODY.names), self._back(piece, mine)])

    def _back(self, piece: _Piece, which: pl.Expr) -> pl.DataFrame:
        return self._stamped(piece.back.filter(which))

    def _past(self, piece: _Piece) -> pl.DataFrame:
        """Return the rows that are history from now on, and the tombstones of those that have no successor."""
        tombs = piece.withdrawn.with_columns((pl.col("flags") | Flag.WITHDRAWN).cast(pl.Int32))
        return pl.concat([piece.ended.select(BODY.names), self._stamped(tombs)])

    def _stamped(self, rows: pl.DataFrame) -> pl.DataFrame:
        stamp = pl.lit(self.known_at).cast(pl.Datetime("us", "UTC")).alias("known_at")
        return rows.with_columns(stamp).select(BODY.names)

    def _ranges(self) -> list[Range]:
        return ranges(weigh([*self.then.values(), *self.now.values()]))

    def _compared(self, span: Range) -> _Piece:
        key = short_key(self.partition.freq)
        rest = [name for name in BODY.names if name not in {*key, "known_at"}]
        then, now = self._read(self.then, span), self._read(self.now, span)
        held = now.select(*key, "file", *(pl.col(name).alias(f"{name}_now") for name in rest))
        both = then.drop("file").join(held, on=key, how="left")
        differs = pl.any_horizontal(pl.col(name).ne_missing(pl.col(f"{name}_now")) for name in rest)
        back = both.filter(pl.col("file").is_null() | differs).select(*BODY.names, "file")
        comes = back.filter(pl.col("file").is_not_null()).select(*key, pl.col("state").alias("comes"))
        gone = now.join(then.select(key), on=key, how="anti")
        gone = gone.with_columns(pl.lit(None, pl.String).alias("comes"))
        return _Piece(now, back, pl.concat([gone, now.join(comes, on=key, how="inner").select(gone.columns)]))

    def _read(self, files: _Symbols, span: Range) -> pl.DataFrame:
        """Return the rows of a range of symbols, each with its file."""
        parts = [nothing().with_columns(pl.lit(None, pl.String).alias("file"))]
        for path, (_, symbols) in files.items():
            if any((span[0] is None or s > span[0]) and (span[1] is None or s <= span[1]) for s in symbols):
                rows = framed(datafiles.read_between(self.root, path, *span))
                parts.append(rows.with_columns(pl.lit(path).alias("file")))
        return pl.concat(parts)

    def _holes(self, piece: _Piece) -> Iterator[Hole]:
        """Yield the stretches of sessions that lose something; one whose bars stay ends a stretch."""
        went, came = (
            pl.col(name).replace_strict(_SETTLED, return_dtype=pl.Int8) for name in ("state", "comes")
        )
        less = pl.col("comes").is_null() | (came < went)
        sessions = ["symbol", "session"]
        lost = piece.out.filter(less).select(sessions).unique()
        if not lost.height:
            return
        kept = piece.now.select(sessions).unique().join(lost, on=sessions, how="anti")
        whole = pl.concat([lost.with_columns(lost=True), kept.with_columns(lost=False)]).sort(sessions)
        apart = (pl.col("session") - pl.col("session").shift()) > self._reach()
        begins = apart | (pl.col("symbol") != pl.col("symbol").shift()) | ~pl.col("lost").shift()
        marked = whole.with_columns(begins.fill_null(True).cum_sum().alias("stretch")).filter(pl.col("lost"))
        ends = marked.group_by("symbol", "stretch").agg(
            pl.col("session").min().alias("first"), pl.col("session").max().alias("last")
        )
        freq = self.partition.freq
        for symbol, first, last in ends.sort("symbol", "first").select("symbol", "first", "last").iter_rows():
            yield Hole(Series(self.partition.vendor, symbol, freq), Span(first, freq.following(last)))

    def _reach(self) -> timedelta:
        """Return how far apart neighbours of one stretch may lie: bars of a year begin a year apart."""
        first = date(2000, 1, 1)
        return self.partition.freq.following(first) - first + _APART
