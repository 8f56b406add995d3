"""Withdraw: sessions whose bars are lost become missing, so that replay or the next sync brings them again."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

import pyarrow as pa

from ..ingest.proof import expected, session_of
from ..schemas import requests
from ..schemas.compute import pc
from ..schemas.coverage import Covered, Reason, Series, Standing
from ..schemas.freq import Freq
from ..schemas.session import calendar
from ..schemas.span import Span
from ..schemas.symbol import Symbol
from .desk import Books
from .replay import look_back

__all__ = ["Lost", "unheld", "withdraw"]

_NO_BAR: Final = (Standing.OPEN, Reason.VENDOR_NONE)
_CHUNK: Final = 500


@dataclass(frozen=True, slots=True)
class Lost:
    """Series of one vendor and freq whose bars of `days` are not in the lake any more."""

    vendor: str
    freq: Freq
    symbols: frozenset[str]
    days: Span[date]


def withdraw(books: Books, lost: Iterable[Lost], why: str) -> int:
    """Return of how many pages something was withdrawn; the next replay takes them up again.

    Each row of `requests` that proved some of the lost days gets a successor that says MISSING
    for those; rows of the same series that touch them or prove nothing get one too, because
    the session at the edge of a page is proved by both of its pages. What no page in the raw
    zone proves again stays missing, and the next sync asks for it.
    """
    given = list(lost)
    if not given:
        return 0
    look_back(books.ledger)
    rows = _successors(_newest(books), given, why)
    if rows.num_rows:
        books.store.append("requests", rows)
    version = books.store.version_of("requests")
    books.ledger.rebuild(books.store.table("requests"), tag=(books.store.id, version))
    return len(set(rows["page_id"].to_pylist()))


def unheld(books: Books) -> list[Lost]:
    """Return the sessions that coverage calls held and of which `bars` holds no row.

    Those with a row in quarantine are left out: they may well be held without a bar.
    """
    by_span: dict[tuple[str, Freq, Span[date]], set[str]] = defaultdict(set)
    refused, series = _sessions_refused(books), _series(books)
    for some in (series[start : start + _CHUNK] for start in range(0, len(series), _CHUNK)):
        held = _sessions_held(books, some)
        for one, stretches in books.ledger.covered(some).items():
            unit = Freq.D1 if one.freq.intraday else one.freq
            for session in _sessions_claimed(one, stretches) - held[one] - refused[one]:
                by_span[one.vendor, one.freq, Span(session, unit.following(session))].add(one.symbol)
    return [Lost(vendor, freq, frozenset(symbols), span) for (vendor, freq, span), symbols in by_span.items()]


def _series(books: Books) -> list[Series]:
    """Return every series of which coverage says anything, ascending."""
    rows = books.ledger.table().select(["vendor", "symbol", "freq"])
    found = rows.group_by(rows.column_names).aggregate([]).to_pylist()
    return sorted(Series(row["vendor"], row["symbol"], Freq(row["freq"])) for row in found)


def _sessions_claimed(series: Series, stretches: Sequence[Covered]) -> set[date]:
    """Return the sessions that coverage says bars are held of."""
    days = calendar(Symbol.parse(series.symbol).place.calendar)
    spans = [
        one.sessions for one in stretches
        if one.standing is not Standing.EMPTY and (one.standing, one.reason) != _NO_BAR
    ]  # fmt: skip
    return {session for span in spans for session in expected(days, series.freq, span)}


def _sessions_held(books: Books, series: Sequence[Series]) -> dict[Series, set[date]]:
    """Return the sessions of each series with at least one current bar."""
    out: dict[Series, set[date]] = defaultdict(set)
    symbols = sorted({one.symbol for one in series})
    query = "SELECT DISTINCT vendor, symbol, freq, session FROM bars WHERE symbol IN (SELECT unnest(?))"
    with books.store.connect() as con:
        for vendor, symbol, freq, session in con.execute(query, [symbols]).fetchall():
            out[Series(vendor, symbol, Freq(freq))].add(session)
    return out


def _sessions_refused(books: Books) -> dict[Series, set[date]]:
    """Return the sessions of which a row is in quarantine."""
    out: dict[Series, set[date]] = defaultdict(set)
    for row in books.store.table("quarantine", ["vendor", "symbol", "freq", "ts"]).to_pylist():
        freq = Freq(row["freq"])
        day = session_of(row["symbol"], freq, row["ts"]) if row["ts"] else None
        if day is not None:
            out[Series(row["vendor"], row["symbol"], freq)].add(day)
    return out


def _newest(books: Books) -> pa.Table:
    """Return the rows of `requests`, of those with one id the last."""
    rows = books.store.table("requests").sort_by("known_at")
    last = {key: place for place, key in enumerate(rows["id"].to_pylist())}
    return rows.take(pa.array(sorted(last.values()), pa.int64()))


def _successors(asked: pa.Table, lost: Sequence[Lost], why: str) -> pa.Table:
    """Return the rows that withdraw `lost` from the rows `asked`, with the ids of those."""
    names = ["id", *requests.SCHEMA.names]
    asked = asked.select(names)
    parts = [asked.slice(0, 0)]
    for one in lost:
        low, high = (pa.scalar(day, pa.date32()) for day in (one.days.start, one.days.end))
        mine = pc.and_(pc.equal(asked["vendor"], one.vendor), pc.equal(asked["freq"], one.freq.value))
        mine = pc.and_(mine, pc.is_in(asked["symbol"], value_set=pa.array(sorted(one.symbols), pa.string())))
        mine = pc.and_(mine, pc.fill_null(pc.not_equal(asked["standing"], Standing.MISSING.value), True))
        touch = pc.and_(
            pc.less_equal(asked["proved_start"], high), pc.greater_equal(asked["proved_end"], low)
        )
        some = asked.filter(pc.and_(mine, pc.fill_null(touch, True)))
        parts.append(_cut(some, one.days))
    return _one_each(pa.concat_tables(parts), names, why)


def _cut(rows: pa.Table, days: Span[date]) -> pa.Table:
    """Return the rows with what they proved cut to `days`; null where nothing is left."""
    start = pc.max_element_wise(rows["proved_start"], pa.scalar(days.start, pa.date32()), skip_nulls=False)
    end = pc.min_element_wise(rows["proved_end"], pa.scalar(days.end, pa.date32()), skip_nulls=False)
    some = pc.less(start, end)
    for name, column in (("proved_start", start), ("proved_end", end)):
        kept = pc.if_else(some, column, pa.scalar(None, pa.date32()))
        rows = rows.set_column(rows.schema.get_field_index(name), rows.schema.field(name), kept)
    return rows


def _one_each(rows: pa.Table, names: Sequence[str], why: str) -> pa.Table:
    """Return one MISSING row per id, from the first to the last day that any of its rows has."""
    days = rows.group_by("id").aggregate([("proved_start", "min"), ("proved_end", "max")])
    first = {key: place for place, key in reversed(list(enumerate(rows["id"].to_pylist())))}
    single = rows.take(pa.array([first[key] for key in days["id"].to_pylist()], pa.int64()))
    columns: dict[str, Any] = {name: single[name] for name in names}
    columns |= {"proved_start": days["proved_start_min"], "proved_end": days["proved_end_max"]}
    return pa.table(columns | _said(single.num_rows, why))


def _said(count: int, why: str) -> dict[str, Any]:
    return {
        "standing": pa.array([Standing.MISSING.value] * count, pa.string()),
        "rows": pa.array([0] * count, pa.int32()),
        "reason": pa.array([why] * count, pa.string()),
    }
