"""Bars cut out of row groups kept in memory: slices of some symbols, or a panel of some sessions."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from itertools import pairwise
from typing import Any, Final

import pyarrow as pa

from ..schemas.bar import PARTITION, SCHEMA
from ..schemas.compute import pc
from ..schemas.freq import Freq
from . import datafiles
from .index import Held, Index
from .layout import Partition
from .rowgroups import RowGroup, RowGroups

__all__ = ["Piece", "Slab", "Turn", "chosen", "panel", "pieces", "table"]

_EPOCH: Final = date(1970, 1, 1)


@dataclass(frozen=True, slots=True)
class Turn:
    """Sessions `[since, until)`, in days since 1970, in which a series is read from `vendor`; None: no bound."""

    vendor: str
    since: int | None = None
    until: int | None = None


@dataclass(frozen=True, slots=True)
class Piece:
    """Where bars of one symbol may lie: a row group, and the sessions in which its vendor is read."""

    symbol: str
    where: Partition
    group: tuple[str, int]
    turn: Turn


Slab = list[tuple[Partition, tuple[str, int]]]
"""Row groups of a panel, each with the partition that it lies in."""

_Choices = dict[tuple[str, str], tuple[Turn, ...]]


@lru_cache(maxsize=8)
def chosen(root: str, paths: tuple[str, ...]) -> _Choices:
    """Return what the files `paths` of the table `choice` say, as turns by (symbol, freq), ascending."""
    newest: dict[str, dict[str, Any]] = {}
    for path in paths:
        for row in datafiles.read(root, path).to_pylist():
            if row["id"] not in newest or newest[row["id"]]["known_at"] < row["known_at"]:
                newest[row["id"]] = row
    rows: dict[tuple[str, str], list[tuple[int, str]]] = {}
    for row in newest.values():
        since = (row["since"] - _EPOCH).days
        rows.setdefault((row["symbol"], row["freq"]), []).append((since, row["vendor"]))
    out: _Choices = {}
    for series, made in rows.items():
        made.sort()
        ends = [since for since, _ in made[1:]]
        out[series] = tuple(
            Turn(vendor, since, until)
            for (since, vendor), until in zip(made, [*ends, None], strict=True)
            if since != until
        )
    return out


def turns(index: Index, freq: Freq, symbol: str, vendor: str | None, choices: _Choices) -> list[Turn]:
    """Return from which vendor a series is read, and when: `vendor`, or as the view `bars_best` says."""
    if vendor is not None:
        return [Turn(vendor)]
    named = choices.get((symbol, freq.value), ())
    first = index.vendors(freq, symbol)[:1]
    if not named:
        return [Turn(name) for name in first]
    return [*(Turn(name, None, named[0].since) for name in first), *named]


def pieces(
    root: str,
    index: Index,
    groups: RowGroups,
    freq: Freq,
    symbols: Sequence[str],
    bounds: tuple[int | None, int | None],
    vendor: str | None,
    choices: _Choices,
) -> list[Piece] | None:
    """Return where bars of `symbols` with keys in `bounds` lie; None when a file must be read by SQL."""
    out: list[Piece] = []
    files: dict[str | None, list[Held]] = {}
    for symbol in sorted(symbols):
        if (place := index.places.get(symbol)) is None:
            continue
        taken = turns(index, freq, symbol, vendor, choices)
        if freq.intraday and any(turn.since is not None or turn.until is not None for turn in taken):
            return None  # turns are of sessions, and minutes are found by ts
        for turn in taken:
            live = files.get(turn.vendor)
            if live is None:
                live = files[turn.vendor] = [f for f in index.files(freq, turn.vendor) if f.overlaps(*bounds)]
            for held in live:
                if not held.holds(place):
                    continue
                path = f"{root}/{held.file.path}"
                footer = groups.footer(path)
                if not footer.regular:
                    return None
                out += [Piece(symbol, held.where, (path, n), turn) for n in footer.holding(symbol)]
    return out


def table(
    groups: RowGroups,
    found: Sequence[Piece],
    freq: Freq,
    bounds: tuple[int | None, int | None],
    columns: Sequence[str],
    states: Sequence[str] | None,
) -> pa.Table | None:
    """Return the bars of `found`, ascending by (symbol, ts), n rows × `columns`; None: read them by SQL.

    `found` are of ascending symbols, as `pieces` gives them.
    """
    key = "ts" if freq.intraday else "session"
    more: list[str] = [] if states is None else ["state"]
    needed = list(dict.fromkeys([*columns, *more]))
    read = groups.read(dict.fromkeys(piece.group for piece in found), needed, key)
    if read is None:
        return None
    cuts: list[tuple[Piece, RowGroup, int, int]] = []
    for piece in found:
        low, high = _within(bounds, piece.turn) if key == "session" else bounds
        group = read[piece.group]
        start, end = group.rows_of(piece.symbol, key, low, high)
        if start < end:
            cuts.append((piece, group, start, end))
    cuts.sort(key=lambda cut: (cut[0].symbol, cut[1].keys[key][cut[2]]))
    if _overlapping(cuts, key):
        return None
    schema = pa.schema([SCHEMA.field(name) for name in needed])
    made = pa.table([_column(name, cuts) for name in needed], schema=schema)
    if states is not None:
        made = made.filter(pc.is_in(made["state"], pa.array(states, pa.string())))
    return made.select(list(columns))


def panel(
    groups: RowGroups,
    found: Slab,
    freq: Freq,
    bounds: tuple[int, int],
    columns: Sequence[str],
    states: Sequence[str] | None,
) -> pa.Table | None:
    """Return the bars of all symbols with keys in `bounds`, as `table` does, from the row groups `found`."""
    key = "ts" if freq.intraday else "session"
    more: list[str] = [] if states is None else ["state"]
    needed = list(dict.fromkeys([*columns, "symbol", "ts", *more]))
    read = groups.read([group for _, group in found], needed, key)
    if read is None:
        return None
    schema = pa.schema([SCHEMA.field(name) for name in needed])
    parts = [schema.empty_table()]
    for where, place in found:
        group = read[place]
        rows = group.rows_between(key, *bounds)
        if len(rows):
            at = pa.array(rows)
            parts.append(pa.table([_taken(name, group, where, rows, at) for name in needed], schema=schema))
    made = pa.concat_tables(parts)
    if len({path for _, (path, _) in found}) > 1:
        made = made.sort_by([("symbol", "ascending"), ("ts", "ascending")])
    if states is not None:
        made = made.filter(pc.is_in(made["state"], pa.array(states, pa.string())))
    return made.select(list(columns)).combine_chunks()


def _taken(name: str, group: RowGroup, where: Partition, rows: Any, at: pa.Array) -> pa.Array:
    if name == "symbol":
        return group.symbols_at(rows)
    value = pa.scalar(where.values[name]) if name in PARTITION else group.columns[name]
    if isinstance(value, pa.Scalar):
        return pa.repeat(value, len(rows))
    part = value.take(at)
    return part.dictionary_decode() if pa.types.is_dictionary(part.type) else part


def _within(bounds: tuple[int | None, int | None], turn: Turn) -> tuple[int | None, int | None]:
    lows = [n for n in (bounds[0], turn.since) if n is not None]
    highs = [n for n in (bounds[1], turn.until) if n is not None]
    return max(lows, default=None), min(highs, default=None)


def _column(name: str, cuts: Sequence[tuple[Piece, RowGroup, int, int]]) -> pa.Array:
    kind = SCHEMA.field(name).type
    parts: list[pa.Array] = []
    for piece, group, start, end in cuts:
        if name == "symbol":
            value: Any = pa.scalar(piece.symbol)
        elif name in PARTITION:
            value = pa.scalar(piece.where.values[name])
        else:
            value = group.columns[name]
        if isinstance(value, pa.Scalar):
            parts.append(pa.repeat(value, end - start))
            continue
        part = value.slice(start, end - start)
        parts.append(part.dictionary_decode() if pa.types.is_dictionary(part.type) else part)
    return pa.concat_arrays(parts) if parts else pa.array([], kind)


def _overlapping(cuts: Sequence[tuple[Piece, RowGroup, int, int]], key: str) -> bool:
    """Say whether the rows of a symbol's slices interleave, so that laying them end to end is no order."""
    for (before, left, _, end), (after, right, start, _) in pairwise(cuts):
        if before.symbol == after.symbol and left.keys[key][end - 1] >= right.keys[key][start]:
            return True
    return False
