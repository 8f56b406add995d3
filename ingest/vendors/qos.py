"""QOS (qos.hk): HTTP only, up to ten series per request, each with its own end and count."""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from struct import pack
from typing import ClassVar, Final, Literal

import httpx
import numpy as np
from pydantic import Field, SecretStr

from ...errors import (
    BadCredentials,
    BadPage,
    BadRequest,
    RateLimited,
    SymbolRefused,
    VendorError,
    VendorRefused,
)
from ...schemas.bar import INCOMING, empty
from ...schemas.capability import Capability, Evidence, Label
from ...schemas.clock import Clock
from ...schemas.freq import Freq
from ...schemas.page import Entry, Outcome, Page, PageRequest, Reject, SeriesPage
from ...schemas.quota import Quota
from ...schemas.settings import VendorOptions
from ...schemas.symbol import Class, Symbol
from ..http import Http, Reply, client_for
from ..normalise import Floats, Rows, series_page, symbol_of
from ..probe import probe
from ..vendor import Answer, Instrument, MarketDay, PageIds, Snapshot, account_of, is_sandbox
from . import qos_wire as wire

__all__ = ["CAPABILITY", "Qos", "QosOptions"]

_KT: Final = {
    Freq.M1: 1, Freq.M5: 5, Freq.M15: 15, Freq.M30: 30, Freq.H1: 60, Freq.H2: 120, Freq.H4: 240,
    Freq.D1: 1001, Freq.W1: 1007, Freq.MO1: 1030, Freq.Y1: 2001,
}  # fmt: skip
_LABEL: Final[dict[Freq, Label]] = {freq: "start" for freq in _KT}
_MARKETS: Final = {"SH": "SH", "SZ": "SZ", "HK": "HK", "US": "US", "QOS": "CF", "FX": "FX", "CM": "CM"}
_VENUES: Final = {market: venue for venue, market in _MARKETS.items()}
_LISTED: Final = ("HK", "US", "SH", "SZ", "CF")
_UNLABELLED: Final = {"FX", "CM"}  # U11: nobody has seen what a daily bar of these is labelled with
_UNKNOWN_LABEL: Final = "how QOS labels daily and longer bars of {} is not known (U11)"
_CHINESE: Final = tuple((venue, c) for venue in ("SH", "SZ") for c in (Class.STOCK, Class.FUND, Class.INDEX))
_TOMORROW: Final = timedelta(days=1)  # a future end acts as now (1.5), and forgives a clock that is slow
_HOUR_S: Final = 3600.0

CAPABILITY: Final = Capability(
    venues=tuple(_MARKETS),
    classes=(Class.STOCK, Class.FUND, Class.INDEX, Class.CRYPTO, Class.FX, Class.COMMODITY),
    freqs={freq: str(kt) for freq, kt in _KT.items()},
    label=_LABEL,
    time_unit="s",
    zone="venue",
    volume_factor=dict.fromkeys(_CHINESE, 100.0),
    amount=False,
    adjusts=("none",),  # forward-adjusted exists (a=1); klake adjusts on reading
    page_limit=1000,
    products=10,
    order="ascending",
    end_inclusive=None,
    includes_unfinished=True,
    fills_gaps=False,
    quotas=(Quota(10, 60.0),),
    # The closing-auction trade was missing from a daily bar fetched right after the close
    # (vendor sample of 2025-03-14): nothing is final before the evening.
    settle_s={"*": 4 * _HOUR_S, "QOS": 600.0, "FX": 600.0, "CM": 600.0},
    restates=True,
    session_extra={("US", f): 1 for f in (Freq.M1, Freq.M5, Freq.M15, Freq.M30)},  # the 16:00 closing auction
    depth=1000,
    evidence={
        **{
            name: Evidence("documented")
            for name in ("freqs", "time_unit", "page_limit", "products", "quotas", "depth")
        },
        **{name: Evidence("documented") for name in ("amount", "adjusts", "includes_unfinished")},
    },
)


class QosOptions(VendorOptions):
    """`[vendors.NAME]` of kind qos."""

    key: SecretStr = Field(min_length=1)
    url: str = "https://api.qos.hk"
    key_in: Literal["header", "query"] = "header"
    timeout_s: float = Field(default=20.0, gt=0)


class Qos:
    """One QOS key."""

    kind: ClassVar[str] = "qos"
    options: ClassVar[type[VendorOptions]] = QosOptions

    def __init__(
        self, name: str, options: QosOptions, clock: Clock, run: str = "", client: httpx.Client | None = None
    ) -> None:
        self.name, self._clock, self._run = name, clock, run
        self.capability = CAPABILITY
        self._key, self._key_in = options.key.get_secret_value(), options.key_in
        self.account = account_of(self.kind, self._key)
        self.sandbox = is_sandbox(self._key)
        client = client or client_for(options.url, options.timeout_s)
        self._http = Http(name, options.url, clock, (self._key,), client)
        self._ids = PageIds()
        self._products: list[Instrument] | None = None

    def spell(self, symbol: Symbol) -> str | None:
        """Return `US:AAPL`, `HK:700`, `SH:600519`, `CF:BTCUSDT`; None when QOS cannot have it."""
        code, market = symbol.code, _MARKETS.get(symbol.venue)
        if market is None or code.startswith("^"):
            return None
        if market == "HK":
            return f"HK:{code.lstrip('0')}" if code.isdigit() else None
        if market == "CF":  # perpetual contracts only
            return f"CF:{code.removesuffix('.P')}" if code.endswith(".P") else None
        return f"{market}:{code}"

    def symbol(self, spelling: str) -> Symbol | None:
        """Return the symbol of a QOS code, padded or not; None when klake has no venue for it."""
        return wire.symbol_of_code(spelling, _VENUES)

    def request(self, entries: tuple[Entry, ...]) -> PageRequest:
        """Return one request: `/kline` when all entries want the newest bars, else `/history`.

        Raises
        ------
        BadRequest
            No entry, too many, one series twice, a freq or adjustment that QOS has not, a
            symbol that it cannot spell, a series of whose bars nobody knows the day.
        """
        if not 1 <= len(entries) <= self.capability.products:
            raise BadRequest("entries", len(entries), hint=f"1 to {self.capability.products} fit one request")
        if len({(e.symbol, e.freq) for e in entries}) < len(entries):
            raise BadRequest("entries", "one series twice", hint="the reply could not be told apart")
        for entry in entries:
            self._check(entry)
        newest = all(entry.end is None for entry in entries)
        return PageRequest(self.name, "/kline" if newest else "/history", entries)

    def send(self, request: PageRequest) -> Page:
        """Return the reply to one request; errors are classed by `failure` of this file."""
        body = wire.body_of(request, self._code, _KT, self._clock.now() + _TOMORROW)
        reply = self._post(request.endpoint, body, tuple(e.symbol for e in request.entries))
        return self._page(request, reply)

    def parse(self, page: Page) -> list[SeriesPage]:
        """Return one SeriesPage per entry: items come shuffled, so they are matched by code and type."""
        items = wire.items_of(page.body, page.request.vendor)
        by_series: dict[tuple[Symbol, int], wire.Item] = {}
        bare: dict[Symbol, list[wire.Item]] = {}
        for item in items:
            symbol = self.symbol(item.code)
            if symbol is None:
                continue
            if item.kt is None:
                bare.setdefault(symbol, []).append(item)
            else:
                earlier = by_series.get((symbol, item.kt))
                by_series[symbol, item.kt] = item if earlier is None else wire.joined(earlier, item)
        return [self._series(entry, by_series, bare, page) for entry in page.request.entries]

    def instruments(self, symbols: Sequence[Symbol]) -> list[Instrument]:
        """Return what `/instrument-info` knows of `symbols`, which must fit one request."""
        if len(symbols) > self.capability.products:
            raise BadRequest(
                "symbols", len(symbols), hint=f"at most {self.capability.products} fit one request"
            )
        codes = [code for symbol in symbols if (code := self.spell(symbol))]
        if not codes:
            return []
        reply = self._post("/instrument-info", wire.encoded({"codes": codes}), tuple(map(str, symbols)))
        return wire.instruments(reply.body, self.name, self.symbol)

    def find(self, text: str) -> list[Instrument]:
        """Return listed products whose code or name holds `text`; QOS has no search, its list is partial."""
        if self._products is None:
            self._products = self.product_list()
        wanted = text.casefold()
        return [
            item
            for item in self._products
            if wanted in f"{item.symbol} {item.spelling} {item.name_en} {item.name_zh}".casefold()
        ]

    def product_list(self) -> list[Instrument]:
        """Return what `/product-list` names: a popular subset only."""
        reply = self._post("/product-list", wire.encoded({"market": list(_LISTED)}), ())
        return wire.products(reply.body, self.name, self.symbol)

    def market_calendar(self) -> list[MarketDay]:
        """Return about three months of trading days of HK, US, SH, SZ."""
        markets = [market for market in _LISTED if market != "CF"]
        reply = self._post("/market-calendar", wire.encoded({"market": markets}), ())
        return wire.market_days(reply.body, self.name, _VENUES)

    def snapshot(self, symbols: Sequence[Symbol]) -> Page:
        """Return the reply of `/snapshot`; at most as many symbols as fit one request."""
        codes = [code for symbol in symbols if (code := self.spell(symbol))]
        reply = self._post("/snapshot", wire.encoded({"codes": codes}), tuple(map(str, symbols)))
        return self._page(PageRequest(self.name, "/snapshot", ()), reply)

    def snapshots(self, page: Page) -> list[Snapshot]:
        """Return the readable totals of a `/snapshot` page."""
        return wire.snapshots(page.body, self.name, self.symbol)

    def probe(self, symbols: Sequence[Symbol] = ()) -> Iterator[tuple[Answer, ...]]:
        """Yield what the vendor leaves open (is the end inclusive, honoured, …): at most five requests."""
        return probe(self, self._clock, symbols)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _code(self, symbol: str) -> str:
        code = self.spell(symbol_of(symbol))
        if code is None:
            raise BadRequest("symbol", symbol, hint=f"{self.name} has no spelling for it")
        return code

    def _check(self, entry: Entry) -> None:
        self._code(entry.symbol)
        if entry.freq not in self.capability.freqs:
            raise BadRequest("freq", entry.freq.value, tuple(f.value for f in self.capability.freqs))
        if _unlabelled(symbol_of(entry.symbol), entry.freq):
            raise BadRequest("freq", entry.freq.value, hint=_UNKNOWN_LABEL.format(entry.symbol))
        if entry.adjust not in self.capability.adjusts:
            raise BadRequest("adjust", entry.adjust, self.capability.adjusts)
        if not 1 <= entry.count <= self.capability.page_limit:
            raise BadRequest("count", entry.count, hint=f"1 to {self.capability.page_limit}")

    def _page(self, request: PageRequest, reply: Reply) -> Page:
        now = self._clock.now()
        return Page(
            id=self._ids.next(now), run=self._run, kind=self.kind, account=self.account, request=request,
            received_at=now, status=reply.status, client=wire.CLIENT, body=reply.body,
        )  # fmt: skip

    def _post(self, path: str, body: bytes, symbols: tuple[str, ...]) -> Reply:
        headers = {"content-type": "application/json"}
        params: dict[str, str] | None = None
        if self._key_in == "header":
            headers["key"] = self._key
        else:
            params = {"key": self._key}
        reply = self._http.post(path, body, headers, params)
        error = self._failure(reply, symbols)
        if error is not None:
            raise error
        return reply

    def _failure(self, reply: Reply, symbols: tuple[str, ...]) -> VendorError | None:
        """Return why a reply is no data: what the vendor says goes before what HTTP says."""
        said = wire.message_of(reply.body)
        classed = self._http.failure(reply)
        if said is None:
            return classed or BadPage(self.name, "the reply is not the JSON that QOS sends")
        if said == wire.OK:
            if classed is None and not wire.has_data(reply.body):
                return BadPage(self.name, "the reply says OK and brings no data")
            return classed
        return self._said(self._http.mask(said), classed, reply, symbols)

    def _said(
        self, text: str, classed: VendorError | None, reply: Reply, symbols: tuple[str, ...]
    ) -> VendorError:
        """Return the error that a message of QOS means; only "Key expired." is documented (1.8)."""
        meaning = wire.meaning_of(text, [self._code(s) for s in symbols], reply.status)
        if meaning == "key":
            return BadCredentials(self.name, f"{text}: check the key of [vendors.{self.name}]")
        if meaning == "products":
            return VendorRefused(
                self.name, f"{text}: your plan takes fewer products; set `products` under [vendors.{self.name}]",
                f"{text}：套餐允许的品种数更少；请在 [vendors.{self.name}] 下设置 products",
            )  # fmt: skip
        if meaning == "rate":
            return RateLimited(self.name, text, reply.retry_after_s)
        if meaning == "symbol" and symbols:
            named = [s for s in symbols if wire.names(text, self._code(s))]
            return SymbolRefused(self.name, ",".join(named or symbols), text)
        # U5: an unknown text is final after some tries, and never "no data".
        return classed or BadPage(self.name, f"QOS answers {text!r}")

    def _series(
        self, entry: Entry, by_series: dict[tuple[Symbol, int], wire.Item], bare: dict[Symbol, list[wire.Item]],
        page: Page,
    ) -> SeriesPage:  # fmt: skip
        symbol = symbol_of(entry.symbol)
        if _unlabelled(symbol, entry.freq):
            return _without(entry, "refused", _UNKNOWN_LABEL.format(entry.symbol))
        item = by_series.get((symbol, _KT[entry.freq]))
        if item is None:
            return self._bare(entry, by_series, bare.get(symbol, []), page)
        rejects = tuple(Reject(entry.symbol, entry.freq, rule, text, ts) for rule, text, ts in item.bad)
        return series_page(
            entry, rows_of(item), page.request.vendor, self.capability, page.received_at, rejects
        )

    def _bare(
        self, entry: Entry, by_series: dict[tuple[Symbol, int], wire.Item], bare: list[wire.Item], page: Page
    ) -> SeriesPage:
        """Return what items without bars mean for an entry: they do not say of which type they are."""
        symbol = symbol_of(entry.symbol)
        asked = [e for e in page.request.entries if symbol_of(e.symbol) == symbol]
        open_ends = [e for e in asked if (symbol, _KT[e.freq]) not in by_series]
        if len(bare) < len(open_ends):
            return _without(entry, "absent", f"{page.request.vendor} left it out of its reply")
        trouble = next((item for item in bare if item.trouble), None)
        if trouble is None:
            return _without(entry, "empty", "")
        rejects = tuple(Reject(entry.symbol, entry.freq, rule, text, ts) for rule, text, ts in trouble.bad)
        return SeriesPage(entry, "failed", empty(INCOMING), rejects, trouble.trouble)


def rows_of(item: wire.Item) -> Rows:
    """Return the bars of one item as columns: seconds → microseconds, still in the vendor's units."""
    bars = item.bars
    return Rows(
        _packed([b.ts for b in bars], "q").view(np.int64) * 1_000_000,
        _packed([b.o for b in bars], "d"),
        _packed([b.h for b in bars], "d"),
        _packed([b.l for b in bars], "d"),
        _packed([b.cl for b in bars], "d"),
        _packed([b.v for b in bars], "d"),
    )


def _packed(values: Sequence[float], code: Literal["q", "d"]) -> Floats:
    """Return numbers as an array; packing takes half the time of `np.array` (2026-11-20)."""
    return np.frombuffer(pack(f"{len(values)}{code}", *values), np.float64)


def _unlabelled(symbol: Symbol, freq: Freq) -> bool:
    return symbol.venue in _UNLABELLED and not freq.intraday


def _without(entry: Entry, outcome: Outcome, reason: str) -> SeriesPage:
    return SeriesPage(entry, outcome, empty(INCOMING), (), reason)
