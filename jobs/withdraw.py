"""Withdraw: sessions whose bars are lost become missing, so that replay or the next sync brings them again."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final
from uuid import uuid4

from ..ingest.proof import expected, session_of
from ..schemas.compute import pc
from ..schemas.coverage import Covered, Reason, Series, Standing
from ..schemas.freq import Freq
from ..schemas.requests import Asked, rows
from ..schemas.session import calendar
from ..schemas.span import Span, missing
from ..schemas.symbol import Symbol
from .desk import Books

__all__ = ["Lost", "missing_rows", "outstanding", "unheld", "withdraw"]

_NO_BAR: Final = (Standing.OPEN, Reason.VENDOR_NONE)
_CHUNK: Final = 500
_ENDPOINT: Final = "repair"  # of rows that no page made


@dataclass(frozen=True, slots=True)
class Lost:
    """Series of one vendor and freq whose bars of `days` are not in the lake any more."""

    vendor: str
    freq: Freq
    symbols: frozenset[str]
    days: Span[date]


def withdraw(books: Books, lost: Iterable[Lost], why: str, now: datetime) -> None:
    """Make the sessions of `lost` missing: first in `requests`, then in the ledger.

    A crash in between leaves a state of an older version, which is rebuilt from `requests`. What
    the raw pages prove again is accounted for by `jobs.replay.replay_again`; for the rest the next
    sync asks.
    """
    given = [
        (Series(one.vendor, symbol, one.freq), one.days) for one in lost for symbol in sorted(one.symbols)
    ]
    if not given:
        return
    asked, covered = missing_rows(given, f"lost-{uuid4().hex}", "repair", why, now, endpoint=_ENDPOINT)
    books.store.append("requests", rows(asked))
    books.ledger.record(covered)
    books.state.set_tag(books.store.id, books.store.version_of("requests"))


def missing_rows(
    holes: Iterable[tuple[Series, Span[date]]], page: str, run: str, why: str, now: datetime, *, endpoint: str
) -> tuple[list[Asked], list[Covered]]:
    """Return what `requests` and the ledger are told of sessions whose bars are not held any more.

    `page` names the event, and must be new; `endpoint` is what stands in for a vendor's word.
    """
    counts, asked, covered = Counter[Series](), list[Asked](), list[Covered]()
    for series, days in holes:
        asked.append(
            Asked(
                vendor=series.vendor, symbol=series.symbol, freq=series.freq, endpoint=endpoint, asked_end=None,
                asked_count=0, adjust="none", proved=days, standing=Standing.MISSING, rows=0, outcome="withdrawn",
                reason=why, account="", page_id=page, stretch=counts[series], run=run, fetched_at=now,
                received_bytes=0,
            )
        )  # fmt: skip
        covered.append(Covered(series, days, Standing.MISSING, Reason.NONE, page, page, now))
        counts[series] += 1
    return asked, covered


def outstanding(books: Books) -> bool:
    """Say whether sessions were withdrawn that nothing accounts for yet: a repair may have been cut off."""
    names = ["vendor", "symbol", "freq", "proved_start", "proved_end", "endpoint"]
    told = books.store.table("requests", names)
    for row in told.filter(pc.equal(told["endpoint"], _ENDPOINT)).to_pylist():
        series = Series(row["vendor"], row["symbol"], Freq(row["freq"]))
        held = [one.sessions for one in books.ledger.covered([series])[series]]
        days = calendar(Symbol.parse(series.symbol).place.calendar)
        if any(
            expected(days, series.freq, hole)
            for hole in missing(held, Span(row["proved_start"], row["proved_end"]))
        ):
            return True
    return False


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
