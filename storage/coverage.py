"""The ledger: which sessions of which series are accounted for, why, and by which pages."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, datetime
from itertools import groupby, islice
from operator import itemgetter
from typing import Any, Final, NamedTuple

import pyarrow as pa
from sqlalchemy import ColumnElement, bindparam, delete, func, insert, select, update
from sqlalchemy.engine import Connection

from ..schemas.bar import TIME
from ..schemas.coverage import Covered, Reason, Series, Standing
from ..schemas.freq import Freq
from ..schemas.requests import proving
from ..schemas.span import Span
from .state import COVERAGE, FACTS, PARKED, TAG, State, from_us, to_us

__all__ = ["SCHEMA", "Fact", "Ledger", "Parking"]

SCHEMA: Final = pa.schema(
    [
        pa.field("vendor", pa.string(), nullable=False),
        pa.field("symbol", pa.string(), nullable=False),
        pa.field("freq", pa.string(), nullable=False),
        pa.field("start", pa.date32(), nullable=False),
        pa.field("end", pa.date32(), nullable=False),  # exclusive
        pa.field("standing", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("first_request", pa.string(), nullable=False),
        pa.field("last_request", pa.string(), nullable=False),
        pa.field("fetched_at", TIME, nullable=False),
    ]
)
"""The published table `coverage`: one row per stretch, n rows × 10 columns."""

_UNIX_DAY: Final = date(1970, 1, 1).toordinal()
_CHUNK: Final = 500
_BATCH: Final = 20_000
_START: Final = itemgetter(0)
_END: Final = itemgetter(1)
_DAY_US: Final = 86_400_000_000
_SETTLED: Final = 7  # days after which nothing more comes of a session, whatever the vendor
_NO_BAR: Final = (Standing.OPEN, Reason.VENDOR_NONE)  # the session ran and had not traded
_KEYED: Final = [COVERAGE.c[n] == bindparam(f"b_{n}") for n in ("vendor", "symbol", "freq", "start_day")]


class Parking(NamedTuple):
    """Why a series is given up for now, when it is tried again (None: not by itself), after how many tries."""

    error: str
    retry_at: datetime | None
    tries: int


class Fact(NamedTuple):
    """What a probe or a canary found out about a vendor, and when."""

    value: str
    seen_at: datetime


class Stretch(NamedTuple):
    """Days `[start, end)` that stand alike, as the database holds them.

    `fetched` is the oldest proof, by which a stretch falls due; `newest` the youngest, which
    an overlapping proof must not be older than.
    """

    start: int
    end: int
    standing: str
    reason: str
    first: str
    last: str
    fetched: int
    newest: int


class Ledger:
    """Coverage, parked series and vendor facts of one lake, in its state."""

    def __init__(self, state: State) -> None:
        self._state = state

    def covered(self, series: Iterable[Series]) -> dict[Series, list[Covered]]:
        """Return the stretches of each series: ascending, disjoint; empty where nothing is known."""
        wanted = list(dict.fromkeys(series))
        with self._state.reading() as connection:
            held = _read(connection, wanted)
        return {one: [_covered(one, stretch) for stretch in held[one]] for one in wanted}

    def record(self, stretches: Iterable[Covered]) -> None:
        """Lay each proof over what is known, in the order of receipt, in one transaction.

        A proof replaces what it overlaps, unless that was proved later; bars that are held are
        never replaced by the word that there are none. Neighbours that stand alike merge; those
        that are asked again by when they were fetched only if that was together. One that says
        MISSING takes away what is known at that moment: proofs that are recorded after it count,
        whenever they were fetched.
        """
        by_series = _by_series(stretches)
        if by_series:
            with self._state.writing() as connection:
                _merge(connection, by_series)

    def news(self, stretches: Sequence[Covered]) -> list[int]:
        """Return the places of those that would change how a session stands, were they recorded in this order."""
        with self._state.reading() as connection:
            held = _read(connection, list(dict.fromkeys(one.series for one in stretches)))
        out = list[int]()
        for place, one in enumerate(stretches):
            for new in _by_series([one]).get(one.series, ()):
                after = list(held[one.series])
                laid(after, new)
                if _verdicts(after) != _verdicts(held[one.series]):
                    held[one.series] = after
                    out.append(place)
        return out

    def rebuild(self, requests: pa.Table, tag: tuple[str, int] | None = None) -> None:
        """Replace all coverage by what the rows of the table `requests` prove.

        Parameters
        ----------
        requests : Arrow table, n rows with the columns of `schemas.requests.SCHEMA`
            Any order.
        tag : (lake id, lake version), optional
            What the state is an index of from now on, set in the same transaction: the
            version at which `requests` was read, so that who committed meanwhile is noticed.
        """
        with self._state.writing() as connection:
            connection.execute(delete(COVERAGE))
            rows = (_row(series, stretch) for series, held in _replayed(requests) for stretch in held)
            while some := list(islice(rows, _BATCH)):
                connection.execute(insert(COVERAGE), some)
            if tag is not None:
                connection.execute(update(TAG).values(lake_id=tag[0], version=tag[1]))

    def clear(self) -> None:
        """Forget all coverage; parked series and facts stay."""
        with self._state.writing() as connection:
            connection.execute(delete(COVERAGE))

    def table(self) -> pa.Table:
        """Return all coverage: n rows × 10 columns as in `SCHEMA`, ascending by series and start."""
        names = ("vendor", "symbol", "freq", "start_day", "end_day", "standing", "reason",
                 "first_request", "last_request", "fetched_us")  # fmt: skip
        query = select(*(COVERAGE.c[name] for name in names)).order_by(*COVERAGE.primary_key.columns)
        with self._state.reading() as connection:
            found = connection.execute(query).all()
        columns: list[Sequence[object]] = list(zip(*found, strict=True)) if found else [()] * len(names)
        arrays = [_arrow(field.type, values) for field, values in zip(SCHEMA, columns, strict=True)]
        return pa.Table.from_arrays(arrays, schema=SCHEMA)

    def park(self, series: Series, error: str, retry_at: datetime | None) -> None:
        """Give a series up until `retry_at` (None: until it is unparked); counts the tries."""
        with self._state.writing() as connection:
            tries = connection.execute(select(PARKED.c.tries).where(*_is(series))).scalar() or 0
            connection.execute(delete(PARKED).where(*_is(series)))
            retry_us = None if retry_at is None else to_us(retry_at)
            row = {**_key(series), "error": error, "retry_us": retry_us, "tries": tries + 1}
            connection.execute(insert(PARKED).values(row))

    def unpark(self, series: Series) -> None:
        """Take a series back; no harm if it was not parked."""
        with self._state.writing() as connection:
            connection.execute(delete(PARKED).where(*_is(series)))

    def parked(self) -> dict[Series, Parking]:
        """Return every parked series, also those whose time to retry has come."""
        with self._state.reading() as connection:
            found = connection.execute(select(PARKED).order_by(*PARKED.primary_key.columns)).all()
        return {
            Series(row.vendor, row.symbol, Freq(row.freq)): Parking(
                row.error, None if row.retry_us is None else from_us(row.retry_us), row.tries
            )
            for row in found
        }

    def fact(self, vendor: str, name: str) -> Fact | None:
        """Return what was last found out about a vendor under `name`; None: never asked."""
        query = select(FACTS).where(FACTS.c.vendor == vendor, FACTS.c.name == name)
        with self._state.reading() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else Fact(row.value, from_us(row.seen_us))

    def set_fact(self, vendor: str, name: str, value: str, seen_at: datetime) -> None:
        """Keep what a probe or a canary found out; an older answer does not replace a newer one."""
        here = (FACTS.c.vendor == vendor, FACTS.c.name == name)
        with self._state.writing() as connection:
            seen = connection.execute(select(func.max(FACTS.c.seen_us)).where(*here)).scalar()
            if seen is None or seen <= to_us(seen_at):
                connection.execute(delete(FACTS).where(*here))
                row = {"vendor": vendor, "name": name, "value": value, "seen_us": to_us(seen_at)}
                connection.execute(insert(FACTS).values(row))

    def forget_fact(self, name: str) -> None:
        """Forget what was found out under `name`, of every vendor."""
        with self._state.writing() as connection:
            connection.execute(delete(FACTS).where(FACTS.c.name == name))


def laid(held: list[Stretch], new: Stretch) -> None:
    """Lay `new` over `held`, in place: ascending, disjoint and merged before, and after."""
    if new.standing == Standing.MISSING:
        held[:] = [piece for old in held for piece in _outside(old, new) if piece.start < piece.end]
        return
    if not held or held[-1].end <= new.start:  # the usual case: a later day
        held[-1:] = _joined([*held[-1:], new])
        return
    low = bisect_left(held, new.start, key=_END)
    high = bisect_right(held, new.end, key=_START)
    kept = [piece for old in held[low:high] for piece in _left_of(old, new)]
    cursor, fresh = new.start, list[Stretch]()
    for old in kept:
        if cursor < old.start:
            fresh.append(new._replace(start=cursor, end=old.start))
        cursor = max(cursor, old.end)
    if cursor < new.end:
        fresh.append(new._replace(start=cursor))
    held[low:high] = _joined(sorted(kept + fresh))


def _verdicts(held: list[Stretch]) -> list[Stretch]:
    """Return how the sessions stand, whoever proved it and when."""
    nobody = Stretch(0, 0, "", "", "", "", 0, 0)
    return _joined(
        [nobody._replace(start=s.start, end=s.end, standing=s.standing, reason=s.reason) for s in held]
    )


def _left_of(old: Stretch, new: Stretch) -> list[Stretch]:
    """Return what stays of `old` under `new`: all of it if it outranks that, else what sticks out."""
    inside = old._replace(start=max(old.start, new.start), end=min(old.end, new.end))
    if (_has_bars(old), old.newest) > (_has_bars(new), new.fetched):
        if not _beyond(old, new):
            return [old]
        inside = inside._replace(last=new.last, fetched=new.fetched, newest=new.newest)
    else:
        inside = inside._replace(end=inside.start)
    left, right = _outside(old, new)
    return [piece for piece in (left, inside, right) if piece.start < piece.end]


def _outside(old: Stretch, new: Stretch) -> tuple[Stretch, Stretch]:
    """Return what of `old` lies left and right of `new`; of no day where nothing does."""
    return old._replace(end=min(old.end, new.start)), old._replace(start=max(old.start, new.end))


def _has_bars(one: Stretch) -> bool:
    return one.standing != Standing.EMPTY and (one.standing, one.reason) != _NO_BAR


def _beyond(old: Stretch, new: Stretch) -> bool:
    """Return whether `new` says that the unfinished bars of `old` can no longer be completed.

    They stay what they are, but from then on as if asked at that time, so that nobody asks for ever.
    """
    return new.reason == Reason.HORIZON and old.standing != Standing.FINAL and old.newest <= new.fetched


def _joined(ascending: list[Stretch]) -> list[Stretch]:
    out: list[Stretch] = []
    for one in ascending:
        if out and _alike(out[-1], one):
            before = out[-1]
            out[-1] = before._replace(
                end=one.end,
                last=one.last,
                fetched=min(before.fetched, one.fetched),
                newest=max(before.newest, one.newest),
            )
        else:
            out.append(one)
    return out


def _alike(left: Stretch, right: Stretch) -> bool:
    same = (left.end, left.standing, left.reason) == (right.start, right.standing, right.reason)
    return same and (left.fetched == right.fetched or (_settled(left) and _settled(right)))


def _settled(one: Stretch) -> bool:
    """Return whether it does not matter when the stretch was fetched."""
    if one.reason == Reason.VENDOR_NONE:
        return one.standing == Standing.EMPTY and one.fetched // _DAY_US + _UNIX_DAY - one.end > _SETTLED
    return one.standing in (Standing.FINAL, Standing.EMPTY)


def _by_series(stretches: Iterable[Covered]) -> dict[Series, list[Stretch]]:
    """Return the proofs of each series in the order of receipt; those of no day are left out."""
    out: dict[Series, list[Stretch]] = {}
    for one in sorted(stretches, key=lambda one: one.fetched_at):
        if one.sessions:
            at = to_us(one.fetched_at)
            stretch = Stretch(
                one.sessions.start.toordinal(), one.sessions.end.toordinal(), one.standing.value,
                one.reason.value, one.first_request, one.last_request, at, at,
            )  # fmt: skip
            out.setdefault(one.series, []).append(stretch)
    return out


def _replayed(requests: pa.Table) -> Iterator[tuple[Series, list[Stretch]]]:
    """Yield each series with its stretches, as if its proofs were recorded when they came.

    A few years of daily runs are millions of rows: they pass by as integers, batch by batch.
    """
    recorded = ["known_at"] if "known_at" in requests.column_names else []
    order = ["vendor", "symbol", "freq", *recorded, "fetched_at", "page_id", "stretch"]
    ordered = proving(requests).sort_by([(name, "ascending") for name in order])
    rows = (row for batch in ordered.to_batches(max_chunksize=_BATCH) for row in _proofs(batch))
    for (vendor, symbol, freq), proofs in groupby(rows, key=itemgetter(0, 1, 2)):
        held: list[Stretch] = []
        for _, _, _, start, end, standing, reason, page, at in proofs:
            laid(held, Stretch(start + _UNIX_DAY, end + _UNIX_DAY, standing, reason, page, page, at, at))
        yield Series(vendor, symbol, Freq(freq)), held


def _proofs(batch: pa.RecordBatch) -> Iterator[tuple[Any, ...]]:
    days = [batch[name].cast(pa.int32()) for name in ("proved_start", "proved_end")]
    texts = [batch[name] for name in ("vendor", "symbol", "freq", "standing", "reason", "page_id")]
    columns = [*texts[:3], *days, *texts[3:], batch["fetched_at"].cast(pa.int64())]
    return zip(*(column.to_pylist() for column in columns), strict=True)


def _covered(series: Series, stretch: Stretch) -> Covered:
    days = Span(date.fromordinal(stretch.start), date.fromordinal(stretch.end))
    return Covered(
        series, days, Standing(stretch.standing), Reason(stretch.reason),
        stretch.first, stretch.last, from_us(stretch.fetched),
    )  # fmt: skip


def _merge(connection: Connection, by_series: dict[Series, list[Stretch]]) -> None:
    """Lay the proofs over the database's rows, and write only the rows that became different."""
    held = _read(connection, list(by_series))
    gone: list[dict[str, object]] = []
    born: list[dict[str, object]] = []
    for series, news in by_series.items():
        before = set(held[series])
        for new in news:
            laid(held[series], new)
        after = set(held[series])
        gone += [
            {f"b_{n}": v for n, v in {**_key(series), "start_day": s.start}.items()} for s in before - after
        ]
        born += [_row(series, stretch) for stretch in after - before]
    if gone:
        connection.execute(delete(COVERAGE).where(*_KEYED), gone)
    if born:
        connection.execute(insert(COVERAGE), born)


def _read(connection: Connection, series: Sequence[Series]) -> dict[Series, list[Stretch]]:
    """Return the rows of each series, ascending; a query holds some hundred symbols."""
    out: dict[Series, list[Stretch]] = {one: [] for one in series}
    groups: dict[tuple[str, Freq], list[str]] = {}
    for one in series:
        groups.setdefault((one.vendor, one.freq), []).append(one.symbol)
    for (vendor, freq), symbols in groups.items():
        for chunk in range(0, len(symbols), _CHUNK):
            query = (
                select(COVERAGE)
                .where(COVERAGE.c.vendor == vendor, COVERAGE.c.freq == freq.value)
                .where(COVERAGE.c.symbol.in_(symbols[chunk : chunk + _CHUNK]))
                .order_by(COVERAGE.c.symbol, COVERAGE.c.start_day)
            )
            for row in connection.execute(query):
                out[Series(vendor, row.symbol, freq)].append(Stretch(*row[3:]))
    return out


def _row(series: Series, stretch: Stretch) -> dict[str, object]:
    names = [column.name for column in COVERAGE.columns][3:]
    return {**_key(series), **dict(zip(names, stretch, strict=True))}


def _key(series: Series) -> dict[str, object]:
    return {"vendor": series.vendor, "symbol": series.symbol, "freq": series.freq.value}


def _is(series: Series) -> list[ColumnElement[bool]]:
    return [PARKED.c[name] == value for name, value in _key(series).items()]


def _arrow(kind: pa.DataType, values: Sequence[Any]) -> pa.Array:
    """Return a column as Arrow; days and instants are integers in the database."""
    if kind == pa.date32():
        return pa.array([day - _UNIX_DAY for day in values], pa.int32()).cast(kind)
    return pa.array(values, pa.int64()).cast(kind) if kind == TIME else pa.array(values, kind)
