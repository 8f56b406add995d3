"""What QOS puts on the wire: bodies, typed replies, per-item fallback, words of its error messages.

Field traps: `c` is a code, `cl` a close; `ts` is a time in bars and
snapshots, the number of shares in instrument info; `e` is an end or an exchange.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any, Final, Literal, TypeVar

import msgspec

from ...errors import BadPage, UnknownSymbol
from ...schemas.freq import Freq
from ...schemas.page import PageRequest
from ...schemas.symbol import Symbol
from ..vendor import Instrument, MarketDay, Snapshot

__all__ = [
    "CLIENT", "OK", "Bar", "Item", "body_of", "encoded", "has_data", "instruments", "items_of",
    "joined", "market_days", "meaning_of", "message_of", "names", "products", "snapshots", "symbol_of_code",
]  # fmt: skip

CLIENT: Final = "klake-qos/1"  # the 1 is the parser's version: raise it when `parse` gives other bars
OK: Final = "OK"
_TOO_MANY: Final = 429
_LATEST_S: Final = 4_102_444_800  # 2100: a larger time is no second
Meaning = Literal["key", "products", "symbol", "rate", "unknown"]

_WORD: Final = r"(?:\b|_)(?:api|app|access|secret)?[ _-]?key\b"
_KEY: Final = re.compile(
    rf"{_WORD}.{{0,12}}\b(?:expire|invalid|error|wrong|missing|required|not\b)"
    rf"|\b(?:invalid|unknown|missing|wrong|no|bad)\b.{{0,8}}{_WORD}"
    r"|\bunauthori[sz]ed\b(?! code| symbol)|密钥|过期|未授权", re.IGNORECASE,
)  # fmt: skip
_RATE: Final = re.compile(r"\btoo many requests|frequen|\bper minute\b|\brates?\b|频率|频繁", re.IGNORECASE)
_LIMIT: Final = re.compile(r"\blimit|\btoo many\b|\bexceed|超限|超过|限制|上限", re.IGNORECASE)
_PRODUCTS: Final = re.compile(
    r"\b(?:products?|symbols|codes|instruments)\b|品种|产品|标的|代码数", re.IGNORECASE
)
_SYMBOL: Final = re.compile(
    r"\b(?:codes?|symbols?|instruments?|products?|permissions?)\b|代码|品种|标的|权限", re.IGNORECASE
)
_CODE: Final = re.compile(r"\b(?:SH|SZ|HK|US|CF|FX|CM):[\w^][\w.^-]*", re.IGNORECASE)


class Bar(msgspec.Struct, gc=False):
    """One bar; numbers may come as text or as numbers."""

    c: str
    ts: int
    o: float
    h: float
    l: float
    cl: float
    v: float
    kt: int


class _Item(msgspec.Struct):
    c: str
    k: list[Bar]


class _Reply(msgspec.Struct):
    msg: str
    data: list[_Item]


class _Head(msgspec.Struct):
    msg: str
    data: msgspec.Raw = msgspec.Raw(b"null")


class _Raws(msgspec.Struct):
    data: list[msgspec.Raw]


class _RawItem(msgspec.Struct):
    c: str
    k: list[msgspec.Raw]


class _Code(msgspec.Struct):
    c: str


class _Time(msgspec.Struct):
    ts: int


class _Info(msgspec.Struct):
    c: str
    e: str = ""
    tc: str = ""
    nc: str = ""
    ne: str = ""
    ls: int | None = None


class _Quote(msgspec.Struct):
    c: str
    lp: float
    ts: int
    v: float
    t: float
    h: float = 0.0
    l: float = 0.0
    s: int = 0


class _Product(msgspec.Struct):
    code: str
    name: str = ""


_reply: Final = msgspec.json.Decoder(_Reply, strict=False)
_head: Final = msgspec.json.Decoder(_Head, strict=False)
_raws: Final = msgspec.json.Decoder(_Raws)
_raw_item: Final = msgspec.json.Decoder(_RawItem)
_code: Final = msgspec.json.Decoder(_Code)
_bar: Final = msgspec.json.Decoder(Bar, strict=False)
_time: Final = msgspec.json.Decoder(_Time, strict=False)


@dataclass(slots=True)
class Item:
    """The bars of one code and type in a reply.

    `kt` is None where the item has no bar. `bad`: (rule, JSON text, time if readable) of
    rows that are no bars. `trouble`: why the item could not be read at all.
    """

    code: str
    kt: int | None
    bars: list[Bar]
    bad: list[tuple[str, str, datetime | None]] = field(
        default_factory=list[tuple[str, str, datetime | None]]
    )
    trouble: str = ""


def encoded(body: object) -> bytes:
    """Return a body as JSON."""
    return msgspec.json.encode(body)


def body_of(
    request: PageRequest, spell: Callable[[str], str], kt: Mapping[Freq, int], newest: datetime
) -> bytes:
    """Return the body of `/kline` or `/history`; there, an entry without end asks up to `newest`."""
    entries: list[dict[str, str | int]] = []
    for entry in request.entries:
        one: dict[str, str | int] = {
            "c": spell(entry.symbol),
            "co": entry.count,
            "a": 0,
            "kt": kt[entry.freq],
        }
        if request.endpoint == "/history":
            one["e"] = int((entry.end or newest).timestamp())
        entries.append(one)
    return encoded({"kline_reqs": entries})


def symbol_of_code(code: str, venues: Mapping[str, str]) -> Symbol | None:
    """Return the symbol of `MARKET:CODE`, padded or not; None for a market or form that klake has not."""
    market, colon, plain = code.strip().upper().partition(":")
    venue = venues.get(market)
    if not colon or venue is None or not plain:
        return None
    try:
        return Symbol.parse(f"{plain}.P.{venue}" if market == "CF" else f"{venue}:{plain}")
    except UnknownSymbol:
        return None


def message_of(body: bytes) -> str | None:
    """Return the `msg` of a reply; None when it is not QOS's JSON."""
    try:
        return _head.decode(body).msg
    except msgspec.MsgspecError:
        return None


def has_data(body: bytes) -> bool:
    """Return whether a reply carries a list or an object as data."""
    return bytes(_head.decode(body).data).lstrip()[:1] in (b"[", b"{")


def meaning_of(text: str, codes: Iterable[str] = (), status: int = 200) -> Meaning:
    """Return what an error message is about; U5: only "Key expired." is known, the words are guesses.

    Parameters
    ----------
    codes : iterable of str
        What was asked, such as `US:KEY`: the words of a code say nothing about the key.
    status : int
        Of HTTP; 429 is about the rate whatever else it names.
    """
    plain = _without_codes(text, codes)
    if _KEY.search(plain):
        return "key"
    if status == _TOO_MANY or _RATE.search(plain):
        return "rate"
    if _LIMIT.search(plain):
        return "products" if _PRODUCTS.search(plain) else "rate"
    return "symbol" if _SYMBOL.search(plain) else "unknown"


def _without_codes(text: str, codes: Iterable[str]) -> str:
    """Return `text` with the word "code" in place of every code that it names."""
    text = _CODE.sub("code", text)
    for code in codes:
        # Without its market only as it is written: "Key" at the head of a sentence is no ticker.
        text = re.sub(rf"(?<![\w.]){re.escape(code.partition(':')[2])}(?![\w])", "code", text)
    return text


def names(text: str, code: str) -> bool:
    """Return whether an error message names `code` (`HK:700`, also padded or without its market)."""
    words = {word.upper() for word in re.findall(r"[A-Za-z]{2}:[\w.^]+|[\w.^]+", text)}
    market, _, plain = code.partition(":")
    spellings = (
        {plain, code, plain.zfill(5), f"{market}:{plain.zfill(5)}"} if market == "HK" else {plain, code}
    )
    return bool(words & spellings)


def items_of(body: bytes, vendor: str) -> list[Item]:
    """Return the items of a K-line reply; what cannot be read is kept as `bad` or `trouble`.

    Raises
    ------
    BadPage
        The reply holds no list of items.
    """
    try:
        plain = _reply.decode(body).data
    except msgspec.MsgspecError:
        return _items_one_by_one(body, vendor)
    return [part for item in plain for part in _parts(item.c, item.k, [])]


def _items_one_by_one(body: bytes, vendor: str) -> list[Item]:
    try:
        raws = _raws.decode(body).data
    except msgspec.MsgspecError as error:
        raise BadPage(vendor, f"the reply holds no list of K-lines: {error}") from error
    out: list[Item] = []
    for raw in raws:
        try:
            code = _code.decode(raw).c
        except msgspec.MsgspecError:
            continue  # nobody can say whose it was: the series counts as absent
        try:
            rows = _raw_item.decode(raw).k
        except msgspec.MsgspecError as error:
            out.append(Item(code, None, [], trouble=f"its item has no list of bars: {error}"))
            continue
        out += _rows_one_by_one(code, rows)
    return out


def _rows_one_by_one(code: str, rows: Sequence[msgspec.Raw]) -> list[Item]:
    bars: list[Bar] = []
    bad: list[tuple[str, str, datetime | None]] = []
    for raw in rows:
        try:
            bars.append(_bar.decode(raw))
        except msgspec.MsgspecError:
            bad.append(("unreadable", bytes(raw).decode("utf-8", "replace"), _time_in(raw)))
    return _parts(code, bars, bad)


def _time_in(raw: msgspec.Raw) -> datetime | None:
    try:
        seconds = _time.decode(raw).ts
    except msgspec.MsgspecError:
        return None
    return datetime.fromtimestamp(seconds, UTC) if 0 < seconds < _LATEST_S else None


def _parts(code: str, bars: list[Bar], bad: list[tuple[str, str, datetime | None]]) -> list[Item]:
    """Return one item per type of bar, rows of other codes and impossible times moved to `bad`."""
    if not bars:
        trouble = "none of its rows can be read" if bad else ""
        return [Item(code, None, [], bad, trouble)]
    # Counting is the quickest way to see that all are alike.
    if [bar.c for bar in bars].count(code) != len(bars):
        bars = _kept(bars, bad, "wrong symbol", lambda bar: _plain(bar.c) == _plain(code))
    times = [bar.ts for bar in bars]
    if bars and not 0 < min(times) <= max(times) < _LATEST_S:
        bars = _kept(bars, bad, "impossible time", lambda bar: 0 < bar.ts < _LATEST_S)
    kts = [bar.kt for bar in bars]
    if kts and kts.count(kts[0]) == len(kts):
        return [Item(code, kts[0], bars, bad)]
    kinds = set(kts)
    if not kinds:
        return [Item(code, None, [], bad, "none of its rows can be a bar")]
    return [
        Item(code, kt, [b for b in bars if b.kt == kt], bad if kt == min(kinds) else [])
        for kt in sorted(kinds)
    ]


def _kept(
    bars: list[Bar], bad: list[tuple[str, str, datetime | None]], rule: str, fits: Callable[[Bar], bool]
) -> list[Bar]:
    bad += [(rule, msgspec.json.encode(bar).decode(), None) for bar in bars if not fits(bar)]
    return [bar for bar in bars if fits(bar)]


def _plain(code: str) -> str:
    """HK codes come padded or not (U9); Chinese codes never change."""
    market, _, plain = code.upper().partition(":")
    return f"{market}:{plain.lstrip('0')}" if market == "HK" else f"{market}:{plain}"


def joined(first: Item, second: Item) -> Item:
    """Return two items of one code and type as one: a vendor may split what it repeats."""
    return Item(first.code, first.kt, first.bars + second.bars, first.bad + second.bad)


T = TypeVar("T")


def _data(body: bytes, kind: type[T], vendor: str, what: str) -> T:
    try:
        return msgspec.json.decode(bytes(_head.decode(body).data), type=kind, strict=False)
    except msgspec.MsgspecError as error:
        raise BadPage(vendor, f"{what} cannot be read: {error}") from error


def _each(body: bytes, kind: type[T], vendor: str, what: str) -> Iterable[T]:
    """Yield the readable items of a list; one bad item never loses the others."""
    for raw in _data(body, list[msgspec.Raw], vendor, what):
        try:
            yield msgspec.json.decode(raw, type=kind, strict=False)
        except msgspec.MsgspecError:
            continue


def instruments(body: bytes, vendor: str, symbol: Callable[[str], Symbol | None]) -> list[Instrument]:
    """Return the instruments of an `/instrument-info` reply."""
    return [
        Instrument(known, one.c, known.klass, one.ne, one.nc, one.e, one.tc, one.ls)
        for one in _each(body, _Info, vendor, "instrument info")
        if (known := symbol(one.c)) is not None
    ]


def snapshots(body: bytes, vendor: str, symbol: Callable[[str], Symbol | None]) -> list[Snapshot]:
    """Return the readable snapshots of a `/snapshot` reply."""
    return [
        Snapshot(known, q.lp, q.h, q.l, q.v, q.t, datetime.fromtimestamp(q.ts, UTC), bool(q.s))
        for q in _each(body, _Quote, vendor, "the snapshot")
        if (known := symbol(q.c)) is not None and 0 < q.ts < _LATEST_S
    ]


def products(body: bytes, vendor: str, symbol: Callable[[str], Symbol | None]) -> list[Instrument]:
    """Return the instruments of a `/product-list` reply, by symbol; codes with or without their market."""
    by_market: dict[str, list[_Product]] = _data(body, dict[str, list[_Product]], vendor, "the product list")
    found: dict[Symbol, Instrument] = {}
    for market, items in by_market.items():
        for item in items:
            code = item.code if ":" in item.code else f"{market}:{item.code}"
            if (known := symbol(code)) is not None:
                found[known] = Instrument(known, code, known.klass, item.name, item.name)
    return [found[known] for known in sorted(found)]


def market_days(body: bytes, vendor: str, venues: Mapping[str, str]) -> list[MarketDay]:
    """Return the days of a `/market-calendar` reply: `YYYYMMDD,F` full, `,H` half."""
    by_market: dict[str, Any] = _data(body, dict[str, list[str]], vendor, "the market calendar")
    out: list[MarketDay] = []
    for market in sorted(set(by_market) & set(venues)):
        for text in sorted(by_market[market]):
            match = re.fullmatch(r"(\d{4})(\d{2})(\d{2}),([FH])", text.strip())
            if match:
                year, month, day = (int(match[i]) for i in (1, 2, 3))
                out.append(MarketDay(venues[market], date(year, month, day), match[4] == "H"))
    return out
