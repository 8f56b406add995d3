"""MultiMarkets: one WebSocket per kind of product, one series per request, paged back by an end in seconds."""

import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from secrets import token_hex
from typing import ClassVar, Final

import httpx
import msgspec
from pydantic import Field, SecretStr

from ...errors import (
    BadCredentials,
    BadPage,
    BadRequest,
    ConfigError,
    RateLimited,
    SymbolRefused,
    VendorDown,
    VendorError,
)
from ...schemas.bar import INCOMING, empty
from ...schemas.capability import Capability, Evidence, Label
from ...schemas.clock import Clock
from ...schemas.freq import Freq
from ...schemas.page import Entry, Outcome, Page, PageRequest, Reject, SeriesPage
from ...schemas.quota import Quota
from ...schemas.settings import VendorOptions
from ...schemas.symbol import Class, Symbol
from ...schemas.venue import VENUES
from ..http import Http, client_for, is_loopback, masked
from ..normalise import series_page, symbol_of
from ..vendor import Answer, Instrument, MarketDay, PageIds, Snapshot, account_of, is_sandbox
from ..websocket import Link, WebSocket
from . import multimarkets_frames as frames
from . import multimarkets_wire as wire
from .multimarkets_days import dated, labelled_by_end
from .multimarkets_probe import probe
from .multimarkets_products import STOCK, Products, from_file, from_list
from .multimarkets_wire import Product

__all__ = ["CAPABILITY", "MultiMarkets", "MultiMarketsOptions"]

_LABEL: Final[dict[Freq, Label]] = {freq: "start" for freq in wire.TYPES}
_ADJUSTABLE: Final = {Class.STOCK, Class.FUND, Class.BOND}
_UNLABELLED: Final = {"FX", "CM"}
_KEYS: Final = {401, 604}
_RATES: Final = {429, 605, 606}
_CLOSING: Final = {401, 606}  # the connection ends behind these: the next request needs another one
_NOT_THIS: Final = {400, 402, 600, 601, 603}
_HOUR_S: Final = 3600.0
_AHEAD: Final = timedelta(days=32)  # a month may be dated by its last day
_ROLLING_S: Final = 5.0  # a push of the rolling 24 hours comes at least so often, or not at all
_BY_END: Final = (
    "its bars look labelled with their end, not their start; if they are, write "
    'label = {{ "{freq}" = "end" }} under [vendors.{vendor}.capability]'
)
_LIST_PATH: Final = "/openapi-c/global/config.app.AppSymbolDubboService.getSymbolBaseList"

CAPABILITY: Final = Capability(
    venues=tuple(VENUES),
    classes=tuple(Class),
    freqs={freq: str(number) for freq, number in wire.TYPES.items()},
    label=_LABEL,
    time_unit="s",
    zone="venue",
    volume_factor={},
    amount=False,
    adjusts=("unknown",),  # no parameter, no word about it (M13)
    page_limit=500,
    products=1,
    order="unknown",
    end_inclusive=None,
    includes_unfinished=True,
    fills_gaps=False,
    quotas=(Quota(1, 1.0),),
    snapshots=5,
    settle_s={"*": 600.0, **dict.fromkeys(("SH", "SZ", "BJ", "HK", "US"), 4 * _HOUR_S)},
    restates=True,
    evidence={
        name: Evidence("documented")
        for name in ("freqs", "time_unit", "amount", "includes_unfinished", "end_honoured")
    },
)


class MultiMarketsOptions(VendorOptions):
    """`[vendors.NAME]` of kind multimarkets; `url` and all ids are the operator's."""

    url: str = Field(min_length=1)
    token: SecretStr = SecretStr("")  # none: a guest, who sees crypto and currencies only
    products_file: str = ""
    products_url: str = ""
    company_id: str = ""
    timeout_s: float = Field(default=20.0, gt=0)
    heartbeat_s: float = Field(default=10.0, gt=0)
    connections: int = Field(default=1, ge=1)


class MultiMarkets:
    """One token of one operator."""

    kind: ClassVar[str] = "multimarkets"
    options: ClassVar[type[VendorOptions]] = MultiMarketsOptions

    def __init__(
        self, name: str, options: MultiMarketsOptions, clock: Clock, run: str = "",
        client: httpx.Client | None = None,
    ) -> None:  # fmt: skip
        self.name, self._options, self._clock, self._run = name, options, clock, run
        self.capability = CAPABILITY
        self._token, self._url = options.token.get_secret_value(), options.url.rstrip("/")
        self.account = account_of(self.kind, self._token or f"guest {self._url}")
        self.sandbox = is_sandbox(self._token) if self._token else is_loopback(self._url)
        self._client = client
        self._ids, self._trace = PageIds(), f"klake-{token_hex(8)}"
        self._numbers = itertools.cycle(range(1, 1 << 32))  # one count for requests and heartbeats
        self._sockets: dict[str, WebSocket] = {}
        self._turn, self._listing = threading.Lock(), threading.Lock()
        self._listed: Products | None = None
        self._closed = False
        if options.products_file:
            self._listed = from_file(Path(options.products_file))
        elif not options.products_url:
            raise ConfigError(
                f"[vendors.{name}]", "products_file", "", "every operator has its own ids: write products_file (a CSV "
                "with symbol, symbol_id, trade_type, trade_mode), or products_url for its product API",
                "各运营商的品种 ID 互不相同：请写 products_file（CSV：symbol, symbol_id, trade_type, trade_mode），"
                "或其产品接口 products_url",
            )  # fmt: skip

    def spell(self, symbol: Symbol) -> str | None:
        """Return `symbol_id:trade_type:trade_mode`; None when the symbol is not mapped, or not for guests."""
        product = self._products().product(symbol)
        if product is None or (product.trade_type == STOCK and not self._token):
            return None
        return str(product)

    def symbol(self, spelling: str) -> Symbol | None:
        """Return the symbol that a product is mapped to; None when it is mapped to none."""
        product = Product.parse(spelling)
        return self._products().symbol(product) if product else None

    def request(self, entries: tuple[Entry, ...]) -> PageRequest:
        """Return one request; its endpoint names the products, so that a page is read without the map.

        Raises
        ------
        BadRequest
            No entry, too many, a symbol that is not mapped, twice, or of another address; a
            freq that the kind has not; prices of which nobody knows whether they are adjusted.
        """
        if not 1 <= len(entries) <= self.capability.products:
            raise BadRequest("entries", len(entries), hint=f"1 to {self.capability.products} fit one request")
        products = [self._checked(entry) for entry in entries]
        if len(set(products)) < len(products) or len({p.trade_type == STOCK for p in products}) > 1:
            raise BadRequest(
                "entries", " ".join(map(str, products)), hint="the reply could not be told apart"
            )
        cmd = wire.KLINES if len(entries) == 1 else wire.BATCH
        return PageRequest(self.name, f"{cmd} {' '.join(map(str, products))}", entries)

    def send(self, request: PageRequest) -> Page:
        """Return the reply to one request; errors are classed by `_failure` of this file."""
        cmd, products = wire.asked(request)
        asked = [
            wire.question(entry, product) for entry, product in zip(request.entries, products, strict=True)
        ]
        data = asked[0] if cmd == wire.KLINES else {"data_list": asked}
        frame, head = self._ask(cmd, data, stock=products[0].trade_type == STOCK)
        if head.ret != frames.OK:
            raise self._failure(head, tuple(e.symbol for e in request.entries), products)
        return self._page(request, frame)

    def parse(self, page: Page) -> list[SeriesPage]:
        """Return one SeriesPage per entry, matched by the ids that the reply repeats."""
        cmd, products = wire.asked(page.request)
        vendor = page.request.vendor
        data = bytes(frames.head_of(page.body, vendor).data)
        latest = page.received_at + _AHEAD
        batch = cmd == wire.BATCH
        found = wire.batch_of(data, vendor, latest) if batch else [wire.klines_of(data, vendor, latest)]
        pairs = zip(page.request.entries, products, strict=True)
        return [self._series(entry, product, found, page) for entry, product in pairs]

    def instruments(self, symbols: Sequence[Symbol]) -> list[Instrument]:
        """Return what the map holds of `symbols`."""
        wanted = set(symbols)
        return [one for one in self._products().instruments() if one.symbol in wanted]

    def find(self, text: str) -> list[Instrument]:
        """Return mapped products whose symbol, ids or name hold `text`, any case."""
        wanted = text.casefold()
        return [
            one for one in self._products().instruments()
            if wanted in f"{one.symbol} {one.spelling} {one.name_en}".casefold()
        ]  # fmt: skip

    def product_list(self) -> list[Instrument]:
        """Return every mapped product."""
        return self._products().instruments()

    def market_calendar(self) -> list[MarketDay]:
        """Return nothing: the protocol has no calendar."""
        return []

    def snapshot(self, symbols: Sequence[Symbol]) -> Page | None:
        """Return the pushes of the rolling 24 hours, which alone carry amounts; None where none come in time.

        They need a subscription, which ends with the connection: the next request opens another one.
        """
        products = [p for s in symbols if (p := self._products().product(s)) and self.spell(s)]
        if not products:
            return None
        stock = products[0].trade_type == STOCK
        told = wire.Told({p for p in products if (p.trade_type == STOCK) == stock})
        rows = [msgspec.structs.asdict(product) for product in sorted(told.wanted)]
        with self._turn:
            socket = self._socket(stock, told.push)
            try:
                number = next(self._numbers)
                data = {"symbol_list": rows, "update_speed": 1000}
                frame = socket.ask(
                    number, self._envelope(wire.ROLLING, number, data), self._options.timeout_s
                )
                head = frames.head_of(frame, self.name)
                if head.ret != frames.OK:
                    raise self._failure(head, tuple(map(str, symbols)), sorted(told.wanted))
                told.all.wait(_ROLLING_S)
            finally:
                socket.close()
        body = told.body()
        return self._page(PageRequest(self.name, str(wire.ROLLING), ()), body) if body else None

    def snapshots(self, page: Page) -> list[Snapshot]:
        """Return the readable totals of the last 24 hours."""
        products = self._products()
        return [
            Snapshot(symbol, one.last, one.high, one.low, one.volume, one.amount, page.received_at, False)
            for one in wire.rolling_of(page.body)
            if (symbol := products.symbol(one.product)) is not None
        ]

    def probe(self, symbols: Sequence[Symbol] = ()) -> Iterator[tuple[Answer, ...]]:
        """Yield what the vendor leaves open (is the end honoured, are prices as traded, …)."""
        return probe(self, self._clock, symbols)

    def close(self) -> None:
        """Close the connections; who still waits gets VendorDown."""
        self._closed = True
        for socket in list(self._sockets.values()):
            socket.close()

    def _products(self) -> Products:
        """Return the map; the product API is asked once, when the first symbol is spelled."""
        with self._listing:
            if self._listed is None:
                url = self._options.products_url
                client = self._client or client_for(url, self._options.timeout_s)
                http = Http(self.name, url, self._clock, (self._token,), client)
                try:
                    self._listed = self._fetched(http)
                finally:
                    http.close()
            return self._listed

    def _fetched(self, http: Http) -> Products:
        headers = {
            "content-type": "application/json", "companyId": self._options.company_id, "token": self._token,
            "trace": self._trace, "timestamp": str(int(self._clock.now().timestamp() * 1000)),
        }  # fmt: skip
        reply = http.post(_LIST_PATH, b"{}", headers)
        error = http.failure(reply)
        if error is not None:
            raise error
        return from_list(reply.body, self.name, http.mask)

    def _checked(self, entry: Entry) -> Product:
        symbol = symbol_of(entry.symbol)
        product = self._products().product(symbol)
        if product is None or self.spell(symbol) is None:
            raise BadRequest("symbol", entry.symbol, hint=f"{self.name} has no product for it")
        if entry.freq not in self.capability.freqs:
            raise BadRequest("freq", entry.freq.value, tuple(f.value for f in self.capability.freqs))
        if symbol.venue in _UNLABELLED and not entry.freq.intraday:
            raise BadRequest(
                "freq", entry.freq.value, hint=f"where a day of {entry.symbol} begins is not known (M12)"
            )
        if symbol.klass in _ADJUSTABLE and entry.adjust not in self.capability.adjusts:
            raise BadRequest(
                "adjust", entry.adjust, self.capability.adjusts,
                hint=f"whether {self.name} adjusts the prices of shares is not known, and adjusted bars must not "
                f"stand among traded ones: run `klake vendors probe {self.name}`, or, if you know that they are as "
                f'traded, write adjusts = ["none"] under [vendors.{self.name}.capability]',
                hint_zh=f"{self.name} 的股票价格是否复权未知，复权价不能与成交价混放：请运行 `klake vendors probe "
                f'{self.name}`；若确知未复权，请在 [vendors.{self.name}.capability] 下写 adjusts = ["none"]',
            )  # fmt: skip
        if not 1 <= entry.count <= self.capability.page_limit:
            raise BadRequest("count", entry.count, hint=f"1 to {self.capability.page_limit}")
        return product

    def _ask(self, cmd: int, data: object, *, stock: bool) -> tuple[bytes, frames.Head]:
        """Return the reply to one command; one is under way at a time, so that an error without a name is its own."""
        with self._turn:
            number, socket = next(self._numbers), self._socket(stock)
            frame = socket.ask(number, self._envelope(cmd, number, data), self._options.timeout_s)
            head = frames.head_of(frame, self.name)
            if head.ret in _CLOSING:
                socket.drop()
            return frame, head

    def _socket(self, stock: bool, push: Callable[[bytes], None] | None = None) -> WebSocket:
        """Return the connection for shares or for all else; others are closed where one token allows fewer."""
        if self._closed:
            raise VendorDown(self.name, "it was closed", "已关闭")
        path = "/quote_stock" if stock else "/quote" if self._token else "/quote_guest"
        socket = self._sockets.pop(path, None)
        if socket is None or push is not None:
            if socket is not None:
                socket.close()
            link = Link(
                vendor=self.name, url=f"{self._url}{path}" + (f"?token={self._token}" if self._token else ""),
                secrets=(self._token,), hear=frames.heard, beat=self._beat, beat_s=self._options.heartbeat_s,
                largest=frames.LARGEST,
            )  # fmt: skip
            socket = WebSocket(link, push) if push else WebSocket(link)
        if push is None:
            self._sockets[path] = socket  # the newest last
        while len(self._sockets) > self._options.connections - (push is not None):
            self._sockets.pop(next(iter(self._sockets))).close()
        return socket

    def _beat(self) -> str:
        return self._envelope(wire.BEAT, next(self._numbers), {})

    def _envelope(self, cmd: int, number: int, data: object) -> str:
        return wire.envelope(cmd, number, f"{self._trace}-{number}", data)

    def _page(self, request: PageRequest, body: bytes) -> Page:
        now = self._clock.now()
        return Page(
            id=self._ids.next(now), run=self._run, kind=self.kind, account=self.account, request=request,
            received_at=now, status=frames.OK, client=wire.CLIENT, body=body,
        )  # fmt: skip

    def _failure(
        self, head: frames.Head, symbols: tuple[str, ...], products: Sequence[Product]
    ) -> VendorError:
        """Return what a `ret` means; the codes are those of the sibling service, until others are seen (M1)."""
        said = masked(f"ret {head.ret} {head.msg}".strip(), (self._token,))
        if head.ret in _KEYS:
            return BadCredentials(
                self.name, f"{said}: check the token of [vendors.{self.name}]",
                f"{said}：请检查 [vendors.{self.name}] 的 token",
            )  # fmt: skip
        if head.ret in _RATES:
            return RateLimited(self.name, said)
        if head.ret in _NOT_THIS:
            return SymbolRefused(self.name, ",".join(symbols), said)
        return BadPage(self.name, f"the answer is {said}, asked for {' '.join(map(str, products))}")

    def _series(self, entry: Entry, product: Product, found: Sequence[wire.Klines], page: Page) -> SeriesPage:
        vendor = page.request.vendor
        one = next((k for k in found if wire.is_of(k, product, entry.freq)), None)
        if one is None:
            return _without(entry, "absent", f"{vendor} answers about something else than {product}")
        rejects = tuple(Reject(entry.symbol, entry.freq, rule, text, ts) for rule, text, ts in one.bad)
        why = "" if entry.freq.intraday else dated(one.rows, symbol_of(entry.symbol), entry.freq)
        if why:
            return SeriesPage(entry, "refused", empty(INCOMING), rejects, why)
        series = series_page(entry, one.rows, vendor, self.capability, page.received_at, rejects)
        doubtful = entry.freq.intraday and self.capability.label[entry.freq] == "start"
        if doubtful and labelled_by_end(series.bars, symbol_of(entry.symbol), entry.freq, page.received_at):
            return _without(entry, "refused", _BY_END.format(freq=entry.freq, vendor=vendor))
        return series


def _without(entry: Entry, outcome: Outcome, reason: str) -> SeriesPage:
    return SeriesPage(entry, outcome, empty(INCOMING), (), reason)
