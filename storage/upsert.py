"""What an incoming batch changes: new, same, updated, settled and revised bars.

An incoming bar wins by (state rank, fetched_at), open < closed = final. Whole bars are
replaced. When the values of a closed or final bar change, the old row moves to the past.
A batch is judged twice when it is large, by ranges of symbols: first to learn which files
it touches, then to write; so memory does not grow with it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Any, Final, Literal, Protocol, cast

import numpy as np
import polars as pl
import pyarrow as pa

from ..schemas.bar import TIME, VALUES, State
from ..schemas.freq import Freq
from ..schemas.report import WriteReport
from .batches import Batch, rank, short_key
from .body import BODY, framed, nothing
from .layout import PAST, Partition
from .manifest import LiveFile, Manifest
from .rolling import PIECE, Range, ranges, weigh
from .tiers import BASE, SMALL, Tiers, cuts, tier_column

__all__ = ["Change", "Output", "Reads", "plan"]

_FOLD: Final = 32  # a file this many times larger than what comes in is left alone, unless rows in it change
_CROWD: Final = 8
_STORED: Final = [name for name in BODY.names if name != "known_at"]


class Reads(Protocol):
    """Gives rows of a live file with after < symbol <= upto, sorted by (symbol, ts)."""

    def __call__(self, path: str, after: str | None, upto: str | None) -> pa.Table:
        """Return the rows; None: no bound."""
        ...


@dataclass(frozen=True, slots=True)
class Output:
    """One file to be written (several, when it grows too large), and whose rows it takes.

    `tier`: new rows and those of `files` that are of the tiers from the first up to before
    the second (None: no bound). `alone`: what becomes of one file. `past`: the superseded
    rows, and those of `files`.
    """

    partition: Partition
    kind: Literal["tier", "alone", "past"]
    files: frozenset[str]
    tiers: tuple[int, int | None] = (BASE, None)


@dataclass(slots=True)
class Change:
    """What a batch does to one partition; `outputs` is empty when it brings nothing new."""

    batch: Batch
    tiers: Tiers
    reads: Reads
    known_at: Any
    ranges: Sequence[Range]
    symbols: Mapping[str, frozenset[str]]
    candidates: frozenset[str]
    again: bool = False
    report: WriteReport = field(default_factory=WriteReport)
    outputs: tuple[Output, ...] = ()
    removed: tuple[str, ...] = ()
    _kept: "_Piece | None" = None

    def pieces(self) -> Iterator[tuple[Output, pa.Table]]:
        """Yield rows for each output, sorted by (symbol, ts) over all pieces of one output."""
        wanted = self.candidates.union(*(output.files for output in self.outputs if output.kind != "past"))
        for span in self.ranges:
            piece = self._piece(span, wanted)
            for output in self.outputs:
                if piece.fresh is not None and output.kind == "tier" and not output.files:
                    rows = self._stamped(piece.fresh, output)
                else:
                    rows = self._rows(output, piece, span).sort("symbol", "ts").to_arrow().cast(BODY)
                if rows.num_rows:
                    yield output, rows

    def judge(self) -> "_Tally":
        """Return what the batch brings, by tier and file."""
        tally = _Tally()
        for span in self.ranges:
            piece = self._piece(span, self.candidates)
            tally.add(piece, self.tiers)
            self._kept = piece if len(self.ranges) == 1 else None
        repeats = self.batch.rows - tally.judged
        tally.report += WriteReport(same=repeats)
        return tally

    def _piece(self, span: Range, wanted: frozenset[str]) -> "_Piece":
        if self._kept is not None:
            piece = self._kept
            piece.held |= {path: self._held(path, span) for path in sorted(wanted - piece.held.keys())}
            return piece
        batch = self.batch.take(*span)
        held = {path: self._held(path, span) for path in sorted(wanted) if self._meets(path, span)}
        if not held:
            return _Piece(batch.num_rows, {}, batch)
        frame = cast(pl.DataFrame, pl.from_arrow(batch))
        return _Piece(batch.num_rows, held, None, _wins(frame, held, self.batch.partition.freq, self.again))

    def _meets(self, path: str, span: Range) -> bool:
        after, upto = span
        return any((after is None or s > after) and (upto is None or s <= upto) for s in self.symbols[path])

    def _held(self, path: str, span: Range) -> pl.DataFrame:
        return framed(self.reads(path, *span))

    def _stamped(self, fresh: pa.Table, output: Output) -> pa.Table:
        """Return the rows of an output that takes new ones only; they are in order already."""
        if output.tiers != (BASE, None):
            columns = cast(pl.DataFrame, pl.from_arrow(fresh.select(["ts", "session"])))
            fresh = fresh.filter(pa.array(self._inside(columns, output).to_numpy()))
        stamp = pa.scalar(self.known_at, TIME)
        return fresh.append_column(BODY.field("known_at"), pa.repeat(stamp, fresh.num_rows))

    def _rows(self, output: Output, piece: "_Piece", span: Range) -> pl.DataFrame:
        key, names, wins = short_key(self.batch.partition.freq), BODY.names, piece.judged
        if output.kind == "past":
            revised = wins.filter(pl.col("verdict") == "revised").select(key)
            old = [frame.join(revised, on=key, how="semi").select(names) for frame in piece.held.values()]
            return pl.concat(
                [nothing(), *old, *(self._held(path, span).select(names) for path in output.files)]
            )
        theirs = pl.col("file").is_in(list(output.files))
        if output.kind == "tier":
            theirs |= pl.col("file").is_null()
        parts = [_stamped(wins.filter(theirs), self.known_at)]
        for path in sorted(output.files & piece.held.keys()):
            frame, gone = piece.held[path], wins.filter(pl.col("file") == path).select(key)
            parts.append((frame.join(gone, on=key, how="anti") if gone.height else frame).select(names))
        rows = pl.concat(parts)
        if output.kind == "alone" or output.tiers == (BASE, None):
            return rows
        return rows.filter(self._inside(rows, output))

    def _inside(self, rows: pl.DataFrame, output: Output) -> pl.Series:
        first, end = output.tiers
        tier = tier_column(rows, self.tiers)
        return (tier >= first) & (tier < end) if end is not None else tier >= first


@dataclass(slots=True)
class _Piece:
    """A range of symbols: how many rows of the batch, and the stored rows by file.

    `fresh` are the rows of the batch where no file can hold one of their keys: all are new.
    """

    rows: int
    held: dict[str, pl.DataFrame]
    fresh: pa.Table | None = None
    _wins: pl.DataFrame | None = None

    @property
    def judged(self) -> pl.DataFrame:
        """The rows that win, with verdicts."""
        if self._wins is None:
            assert self.fresh is not None
            self._wins = _new(cast(pl.DataFrame, pl.from_arrow(self.fresh)))
        return self._wins


@dataclass(slots=True)
class _Tally:
    """What was judged so far."""

    report: WriteReport = field(default_factory=WriteReport)
    new: dict[int, int] = field(default_factory=dict[int, int])
    touched: set[str] = field(default_factory=set[str])
    judged: int = 0

    def add(self, piece: _Piece, tiers: Tiers) -> None:
        """Count one piece."""
        self.judged += piece.rows
        if piece.fresh is not None:
            fresh = cast(pl.DataFrame, pl.from_arrow(piece.fresh.select(["ts", "session"])))
            self.report += WriteReport(new=piece.rows)
        else:
            wins = piece.judged
            counts = {str(name): int(n) for name, n in wins["verdict"].value_counts().iter_rows()}
            self.report += WriteReport(same=piece.rows - wins.height, **counts)
            self.touched |= set(wins["file"].drop_nulls().unique())
            fresh = wins.filter(pl.col("file").is_null())
        kinds, counted = np.unique(tier_column(fresh, tiers).to_numpy(), return_counts=True)
        for tier, n in zip(kinds.tolist(), counted.tolist(), strict=True):
            self.new[tier] = self.new.get(tier, 0) + n


def plan(
    batch: Batch, manifest: Manifest, tiers: Tiers, reads: Reads, known_at: Any, *, again: bool = False
) -> Change:
    """Return what `batch` does to its partition, judged, not yet written.

    Parameters
    ----------
    batch : Batch
        Of era current.
    manifest : Manifest
        The newest; only its files that may hold a key of the batch are read.
    tiers : Tiers
        Of the partition.
    reads : callable
        Gives rows of a live file.
    known_at : datetime
        Stamps the rows that are new knowledge.
    again : bool
        The rows were read anew from pages that the lake has seen: one that was fetched when the
        stored one was replaces it where they differ.
    """
    live = manifest.partition(batch.partition)
    symbols = {file.path: manifest.symbols_of(file) for file in live}
    asked = batch.held()
    overlapping = [file for file in live if not asked.isdisjoint(symbols[file.path])]
    candidates = [f for f in overlapping if cast(int, f.low) <= batch.high and batch.low <= cast(int, f.high)]
    ranges = _ranges(batch, [*candidates, *(f for f in live if f.rows < SMALL)], symbols)
    held = frozenset(file.path for file in candidates)
    change = Change(batch, tiers, reads, known_at, ranges, symbols, held, again)
    tally = change.judge()
    change.report = tally.report
    if not tally.new and not tally.touched:
        return change
    outputs = _outputs(change, live, {file.path for file in overlapping}, tally)
    if tally.report.revised:
        past = Partition(PAST, batch.partition.vendor, batch.partition.freq, batch.partition.period)
        small = [file.path for file in manifest.partition(past) if file.rows < SMALL]
        outputs.append(Output(past, "past", frozenset(small if len(small) >= _CROWD else ())))
    change.outputs = tuple(outputs)
    change.removed = tuple(sorted({path for output in outputs for path in output.files}))
    return change


def _outputs(change: Change, live: Sequence[LiveFile], overlapping: set[str], tally: _Tally) -> list[Output]:
    """Choose which rows and files go together.

    Small files always fold into the next write, larger ones where rows of their symbols come
    into their tier and are not too few; a touched file that stays out is rewritten alone.
    """
    rows, joining, alone = dict(tally.new), list[LiveFile](), list[str]()
    for file in live:
        tier = change.tiers.of(file)
        if file.rows < SMALL or (file.path in overlapping and file.rows <= _FOLD * tally.new.get(tier, 0)):
            joining.append(file)
            for part, held in change.tiers.shares(file).items():
                rows[part] = rows.get(part, 0) + held
        elif file.path in tally.touched:
            alone.append(file.path)
    starts = [BASE, *cuts(rows)[1:]]
    where = change.batch.partition
    made = list[Output]()
    for start, end in zip(starts, [*starts[1:], None], strict=True):
        files = {f.path for f in joining if _meets(change.tiers.span(f), start, end)}
        made.append(Output(where, "tier", frozenset(files), (start, end)))
    needed = _needed(made, tally)
    return [*(Output(where, "alone", frozenset({path})) for path in alone), *needed]


def _meets(span: tuple[int, int], start: int, end: int | None) -> bool:
    return span[1] >= start and (end is None or span[0] < end)


def _needed(made: Sequence[Output], tally: _Tally) -> list[Output]:
    """Return the outputs that get something, and those that share a file with one of them."""
    asked = set[str](tally.touched)
    keep = [
        out for out in made
        if len(out.files) > 1 or any(_meets((tier, tier), *out.tiers) for tier in tally.new)
    ]  # fmt: skip
    while True:
        asked |= {path for out in keep for path in out.files}
        more = [out for out in made if out in keep or out.files & asked]
        if len(more) == len(keep):
            return more
        keep = more


def _ranges(batch: Batch, files: Sequence[LiveFile], symbols: Mapping[str, frozenset[str]]) -> list[Range]:
    """Cut the symbols so that a range has about `PIECE` rows of batch and files together."""
    total = batch.rows + sum(file.rows for file in files)
    if total <= 2 * PIECE:
        return [(None, None)]
    weights = weigh((file.rows, symbols[file.path]) for file in files)
    for place in np.flatnonzero(batch.counts).tolist():
        weights[batch.symbols[place]] = weights.get(batch.symbols[place], 0.0) + float(batch.counts[place])
    return ranges(weights)


def _stamped(wins: pl.DataFrame, known_at: Any) -> pl.DataFrame:
    """Return the winners as they are stored; one that only settles keeps its known_at."""
    settled = pl.col("verdict") == "settled"
    stamp = pl.when(settled).then(pl.col("known_at_old")).otherwise(pl.lit(known_at))
    return wins.select(*_STORED, stamp.cast(pl.Datetime("us", "UTC")).alias("known_at"))


def _new(batch: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of the batch as `_wins` does when nothing is held."""
    return batch.with_columns(
        pl.lit("new").alias("verdict"),
        pl.lit(None, pl.Datetime("us", "UTC")).alias("known_at_old"),
        pl.lit(None, pl.String).alias("file"),
    )


def _wins(
    batch: pl.DataFrame, held: Mapping[str, pl.DataFrame], freq: Freq, again: bool = False
) -> pl.DataFrame:
    """Return the rows of the batch that change something: verdict, `known_at_old`, and the stored row's file."""
    key = short_key(freq)
    wanted = batch.select(key)
    parts = [
        frame.join(wanted, on=key, how="semi").with_columns(pl.lit(path).alias("file"))
        for path, frame in held.items()
    ]
    stored = pl.concat([part.select(*BODY.names, "file") for part in parts])
    renamed = stored.rename({name: f"{name}_old" for name in stored.columns if name not in {*key, "file"}})
    both = batch.join(renamed, on=key, how="left")
    ours, theirs = rank("state"), rank("state_old")
    equal = _all([pl.col(name).eq_missing(pl.col(f"{name}_old")) for name in VALUES])
    later = _later(["fetched_at", *VALUES])
    wins = (ours > theirs) | ((ours == theirs) & later)
    if again:  # the same page, by a parser that knows better: also where it says that the bar had not ended
        same_page = pl.col("fetched_at") == pl.col("fetched_at_old")
        wins, equal = wins | same_page, equal & ~(same_page & (ours < theirs))
    was_open = pl.col("state_old") == State.OPEN.value
    settles = (pl.col("state_old") == State.CLOSED.value) & (pl.col("state") == State.FINAL.value)
    not_older = pl.col("fetched_at") >= pl.col("fetched_at_old")
    verdict = (
        pl.when(pl.col("file").is_null()).then(pl.lit("new"))
        .when(was_open & (ours > theirs)).then(pl.lit("updated"))
        .when(equal & settles & not_older).then(pl.lit("settled"))
        .when(equal | ~wins).then(pl.lit("same"))
        .when(was_open).then(pl.lit("updated"))
        .otherwise(pl.lit("revised"))
    )  # fmt: skip
    judged = both.with_columns(verdict.alias("verdict")).filter(pl.col("verdict") != "same")
    return judged.select(*batch.columns, "verdict", "known_at_old", "file")


def _all(conditions: list[pl.Expr]) -> pl.Expr:
    return reduce(lambda left, right: left & right, conditions)


def _later(names: list[str]) -> pl.Expr:
    """Say whether the incoming row is greater by the first of `names` that differs; null is least."""
    verdict = pl.lit(False)
    for name in reversed(names):
        new, old = pl.col(name), pl.col(f"{name}_old")
        greater = (new > old).fill_null(new.is_not_null() & old.is_null())
        verdict = pl.when(new.eq_missing(old)).then(verdict).otherwise(greater)
    return verdict
