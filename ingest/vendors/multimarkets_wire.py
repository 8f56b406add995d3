"""What MultiMarkets says: requests, K-line replies as columns, pushes of the rolling 24 hours.

Traps: integers of 64 bits may come as text and must never become floats; "ok" without bars
is the end of history only where the reply names the product that was asked.
"""

import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from struct import pack
from typing import Annotated, Any, Final, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from ...errors import BadPage
from ...schemas.freq import Freq
from ...schemas.grid import micros
from ...schemas.page import Entry, PageRequest
from ..normalise import Floats, Rows
from .multimarkets_frames import UNREADABLE

__all__ = [
    "BATCH", "BEAT", "CLIENT", "KLINES", "ROLLING", "TYPES", "Klines", "Product", "Rolling", "Told", "asked", "batch_of",
    "envelope", "is_of", "klines_of", "question", "rolling_of",
]  # fmt: skip

CLIENT: Final = (
    "klake-multimarkets/1"  # the 1 is the parser's version: raise it when `parse` gives other bars
)
BEAT, KLINES, BATCH, ROLLING = 14008, 14012, 14014, 14016

_MANY_US: Final = (
    (10**11, 1_000_000),
    (10**14, 1_000),
    (10**17, 1),
)  # up to here it counts s, ms, us; else ns
_EARLIEST_US: Final = 631_152_000_000_000  # 1990
_LATEST_US: Final = 4_102_444_800_000_000  # 2100
_ROLLED: Final = re.compile(rb"pr\(([^()]{1,400})\)")
_BY_ROW: Final = 1 << 20  # bytes of a list that is read row by row; a page of 1,000 bars has 0.2 MB
_BRACES: Final = 200_000
_Rows = msgspec.Meta(max_length=5_000)  # of one page, copies included
_Products = msgspec.Meta(max_length=100)  # of one batch
TYPES: Final = {
    Freq.M1: 1, Freq.M5: 2, Freq.M15: 3, Freq.M30: 4, Freq.H1: 5, Freq.H2: 6, Freq.H4: 7, Freq.D1: 8,
    Freq.W1: 9, Freq.MO1: 10,
}  # fmt: skip


class Bar(msgspec.Struct, gc=False):
    """One bar; every number may come as text."""

    timestamp: int
    open_price: float
    close_price: float
    high_price: float
    low_price: float
    transactions_number: float
    last_tick_time: msgspec.Raw = msgspec.Raw(b"0")
    last_tick_seq: msgspec.Raw = msgspec.Raw(b"0")


class Product(msgspec.Struct, frozen=True, order=True):
    """What names a series here: the ids are an operator's own."""

    symbol_id: int
    trade_type: int
    trade_mode: int = 0

    def __str__(self) -> str:
        return f"{self.symbol_id}:{self.trade_type}:{self.trade_mode}"

    @classmethod
    def parse(cls, text: str) -> "Product | None":
        """Return the product that `id:type:mode` spells; None where it is none."""
        parts = text.split(":")
        if len(parts) != 3 or not all(part.isascii() and part.isdigit() for part in parts):
            return None
        return cls(*map(int, parts))


class _Klines(msgspec.Struct):
    symbol_id: int
    trade_type: int
    trade_mode: int = 0
    kline_type: int = 0
    kline_list: Annotated[list[Bar], _Rows] | None = None


class _Raws(msgspec.Struct):
    symbol_id: int
    trade_type: int
    trade_mode: int = 0
    kline_type: int = 0
    kline_list: Annotated[list[msgspec.Raw], _Rows] | None = None


class _Batch(msgspec.Struct):
    data_list: Annotated[list[msgspec.Raw], _Products] | None = None


class _Time(msgspec.Struct):
    timestamp: int


@dataclass(slots=True)
class Klines:
    """The bars of one product and type in a reply, as columns.

    `bad`: (rule, JSON text, time if readable) of rows that are no bars.
    """

    product: Product
    kline_type: int
    rows: Rows
    bad: list[tuple[str, str, datetime | None]] = field(
        default_factory=list[tuple[str, str, datetime | None]]
    )


@dataclass(frozen=True, slots=True)
class Rolling:
    """The last 24 hours of one product: volume in the vendor's unit, amount in quote currency."""

    product: Product
    last: float
    high: float
    low: float
    volume: float
    amount: float


_klines: Final = msgspec.json.Decoder(_Klines, strict=False)
_raws: Final = msgspec.json.Decoder(_Raws, strict=False)
_bar: Final = msgspec.json.Decoder(Bar, strict=False)
_batch: Final = msgspec.json.Decoder(_Batch)
_time: Final = msgspec.json.Decoder(_Time, strict=False)
_whole: Final = msgspec.json.Decoder(int, strict=False)


def envelope(cmd: int, number: int, ext: str, data: object) -> str:
    """Return a request as text; `ext` has at most 64 characters."""
    return msgspec.json.encode({"cmd_id": cmd, "seq_id": number, "ext": ext, "data": data}).decode()


def asked(request: PageRequest) -> tuple[int, list[Product]]:
    """Return the command and the products that an endpoint names."""
    cmd, *texts = request.endpoint.split()
    products = [product for text in texts if (product := Product.parse(text))]
    return int(cmd), products


def question(entry: Entry, product: Product) -> dict[str, int]:
    """Return what a K-line request says of one series."""
    end = 0 if entry.end is None else int(entry.end.timestamp())
    return {
        **msgspec.structs.asdict(product), "kline_type": TYPES[entry.freq], "kline_timestamp_end": end,
        "query_kline_num": entry.count,
    }  # fmt: skip


def is_of(found: Klines, product: Product, freq: Freq) -> bool:
    """Return whether a list answers a question; mode and type count where the reply states them."""
    said = found.product
    return (
        (said.symbol_id, said.trade_type) == (product.symbol_id, product.trade_type)
        and said.trade_mode in (0, product.trade_mode)
        and found.kline_type in (0, TYPES[freq])
    )


def klines_of(data: bytes, vendor: str, latest: datetime | None = None) -> Klines:
    """Return the bars of one product in `data` of a reply; rows that cannot be read are kept as `bad`.

    A bar that is said to begin after `latest` has no possible time.

    Raises
    ------
    BadPage
        It names no product, or holds no list.
    """
    bad: list[tuple[str, str, datetime | None]] = []
    one: _Klines | _Raws
    try:
        one = whole = _klines.decode(data)
        bars = whole.kline_list or []
    except UNREADABLE:
        one, bars = _row_by_row(data, vendor, bad)
    product = Product(one.symbol_id, one.trade_type, one.trade_mode)
    return Klines(product, one.kline_type, _columns(*_unique(*_dated(bars, bad, latest))), bad)


def batch_of(data: bytes, vendor: str, latest: datetime | None = None) -> list[Klines]:
    """Return the products of a batch reply, those that cannot be read left out."""
    if data.count(b"{") > _BRACES:
        raise BadPage(vendor, "the batch holds more objects than any batch has bars")
    try:
        raws = _batch.decode(data).data_list or []
    except UNREADABLE as error:
        raise BadPage(vendor, f"the batch cannot be read: {error}") from error
    out: list[Klines] = []
    for raw in raws:
        try:
            out.append(klines_of(bytes(raw), vendor, latest))
        except BadPage:
            continue  # nobody can say whose it was: the series counts as absent
    return out


def _row_by_row(
    data: bytes, vendor: str, bad: list[tuple[str, str, datetime | None]]
) -> tuple[_Raws, list[Bar]]:
    if len(data) > _BY_ROW:
        raise BadPage(vendor, f"a list of {len(data)} bytes holds rows that are no bars")
    try:
        one = _raws.decode(data)
    except UNREADABLE as error:
        raise BadPage(vendor, f"the reply holds no K-lines: {error}") from error
    bars: list[Bar] = []
    for raw in one.kline_list or []:
        try:
            bars.append(_bar.decode(raw))
        except UNREADABLE:
            bad.append(("unreadable", bytes(raw).decode("utf-8", "replace"), _time_in(raw)))
    return one, bars


def _time_in(raw: msgspec.Raw) -> datetime | None:
    try:
        found = _micros(_time.decode(raw).timestamp)
    except UNREADABLE:
        return None
    return datetime.fromtimestamp(found / 1_000_000, UTC) if found else None


def _micros(time: int) -> int:
    """Return microseconds since 1970 of a time in s, ms, us or ns, told by its size; 0: it is none."""
    found = next((time * scale for most, scale in _MANY_US if time < most), time // 1_000)
    return found if _EARLIEST_US < found < _LATEST_US else 0


def _dated(
    bars: list[Bar], bad: list[tuple[str, str, datetime | None]], latest: datetime | None
) -> tuple[list[Bar], npt.NDArray[np.int64]]:
    """Return the bars that have a time, and their times in microseconds; the others go to `bad`."""
    said, most = [bar.timestamp for bar in bars], micros(latest) if latest else _LATEST_US
    if said and min(said) > _EARLIEST_US // 1_000_000 and max(said) < most // 1_000_000:
        return bars, _packed(said, "q").view(np.int64) * 1_000_000  # seconds, as documented
    times = [time if (time := _micros(one)) < most else 0 for one in said]
    bad += [
        ("impossible time", msgspec.json.encode(bar).decode(), None)
        for bar, time in zip(bars, times, strict=True) if not time
    ]  # fmt: skip
    kept = [bar for bar, time in zip(bars, times, strict=True) if time]
    return kept, np.array([time for time in times if time], np.int64)


def _unique(bars: list[Bar], times: npt.NDArray[np.int64]) -> tuple[list[Bar], npt.NDArray[np.int64]]:
    """Return one bar per time where the ticks tell which copy is newer; equal ones stay for the rules."""
    if np.unique(times).size == times.size:
        return bars, times
    ticks, newest = [_tick(bar) for bar in bars], dict[int, tuple[int, int]]()
    for time, tick in zip(times.tolist(), ticks, strict=True):
        newest[time] = max(newest.get(time, tick), tick)
    keep = [tick == newest[time] for time, tick in zip(times.tolist(), ticks, strict=True)]
    return [bar for bar, kept in zip(bars, keep, strict=True) if kept], times[keep]


def _tick(bar: Bar) -> tuple[int, int]:
    """Return (sequence, time) of a bar's last tick; 0 where it does not say."""
    found: list[int] = []
    for raw in (bar.last_tick_seq, bar.last_tick_time):
        try:
            found.append(max(0, _whole.decode(raw)))
        except (msgspec.MsgspecError, UnicodeDecodeError):
            found.append(0)
    return found[0], found[1]


def _columns(bars: Sequence[Bar], times: npt.NDArray[np.int64]) -> Rows:
    return Rows(
        times,
        _packed([b.open_price for b in bars], "d"),
        _packed([b.high_price for b in bars], "d"),
        _packed([b.low_price for b in bars], "d"),
        _packed([b.close_price for b in bars], "d"),
        _packed([b.transactions_number for b in bars], "d"),
    )


def _packed(values: Sequence[float], code: Literal["q", "d"]) -> Floats:
    return np.frombuffer(pack(f"{len(values)}{code}", *values), np.float64)


def rolling_of(body: bytes) -> list[Rolling]:
    """Return the readable `pr(id, type, mode, last, first, high, low, volume, amount)` of a text."""
    out: list[Rolling] = []
    for match in _ROLLED.finditer(body):
        parts: list[Any] = [part.strip() for part in match[1].split(b",")]
        try:
            ids, numbers = [int(part) for part in parts[:3]], [float(part) for part in parts[3:9]]
        except ValueError:
            continue
        if len(ids) == 3 and len(numbers) == 6 and np.isfinite(numbers).all():
            last, _, high, low, volume, amount = numbers
            out.append(Rolling(Product(*ids), last, high, low, volume, amount))
    return out


class Told:
    """The newest rolling push of each product that is waited for."""

    def __init__(self, wanted: set[Product]) -> None:
        self.wanted, self.all = wanted, threading.Event()
        self._found: dict[Product, bytes] = {}

    def push(self, body: bytes) -> None:
        """Take one push; `all` is set once each product has spoken."""
        for one in rolling_of(body):
            if one.product in self.wanted:
                self._found[one.product] = body
        if self._found.keys() >= self.wanted:
            self.all.set()

    def body(self) -> bytes:
        """Return what came, one push per line; empty: nothing did."""
        return b"\n".join(dict.fromkeys(self._found.values()))
