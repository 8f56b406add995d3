"""Longbridge through its own SDK: one series per request, backward by offset from a time on the market's clock."""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any, ClassVar, Final, Literal, TypeVar, cast
from zoneinfo import ZoneInfo

import httpx
import msgspec
import numpy as np
from pydantic import Field, SecretStr, model_validator

from ...errors import BadPage, BadRequest, UnknownSymbol, VendorRefused
from ...schemas.bar import INCOMING, empty
from ...schemas.capability import Capability, Evidence, Label
from ...schemas.clock import Clock
from ...schemas.freq import Freq
from ...schemas.page import Entry, Page, PageRequest, SeriesPage
from ...schemas.quota import Quota
from ...schemas.settings import VendorOptions
from ...schemas.symbol import Class, Symbol
from ..canary import check_amounts
from ..canonical import decoded, encoded
from ..normalise import Rows, series_page, symbol_of
from ..vendor import Answer, Instrument, MarketDay, PageIds, Snapshot, account_of, is_sandbox
from . import longbridge_sdk as sdk
from .longbridge_login import expiry_of_file, expiry_of_token, log_in
from .longbridge_probe import probe

__all__ = ["CAPABILITY", "Longbridge", "LongbridgeOptions"]

_PERIODS: Final = {
    Freq.M1: ("1", "Min_1"), Freq.M3: ("3", "Min_3"), Freq.M5: ("5", "Min_5"), Freq.M15: ("15", "Min_15"),
    Freq.M30: ("30", "Min_30"), Freq.H1: ("60", "Min_60"), Freq.H2: ("120", "Min_120"), Freq.H4: ("240", "Min_240"),
    Freq.D1: ("1000", "Day"), Freq.W1: ("2000", "Week"), Freq.MO1: ("3000", "Month"), Freq.Q1: ("3500", "Quarter"),
    Freq.Y1: ("4000", "Year"),
}  # fmt: skip
_LABEL: Final[dict[Freq, Label]] = {freq: "start" if freq.intraday else "date" for freq in _PERIODS}
_CHINA: Final = ("SH", "SZ")
_VENUES: Final = (*_CHINA, "HK", "US")
_CLASSES: Final = (Class.STOCK, Class.FUND, Class.INDEX)
_SHORT: Final = tuple(freq for freq in _PERIODS if freq.intraday and freq.minutes < 60)
_FLOORS: Final = {  # venue → (first minute, first day), 1.2
    **dict.fromkeys(_CHINA, (date(2022, 8, 25), date(1999, 11, 1))),
    "HK": (date(2022, 9, 28), date(2004, 6, 1)),
    "US": (date(2023, 12, 4), date(2010, 6, 1)),
}
_MONTH_S: Final = 31 * 86_400.0
_HISTORY: Final = "history_candlesticks_by_offset"
_NEWEST: Final = "candlesticks"
_CLIENT: Final = "klake-longbridge/1"  # the 1 is the parser's version: raise it when `parse` gives other bars
_SECRETS: Final = ("app_key", "app_secret", "access_token")
_LOGIN_S: Final = 300.0  # to find the browser, and the password
_FUTURE: Final = timedelta(days=1)
T = TypeVar("T")

CAPABILITY: Final = Capability(
    venues=_VENUES,
    classes=_CLASSES,
    freqs={freq: code for freq, (code, _) in _PERIODS.items()},
    label=_LABEL,
    time_unit="datetime",
    zone="venue",
    volume_factor={(venue, klass): 100.0 for venue in _CHINA for klass in _CLASSES},
    amount=True,
    adjusts=("none",),  # forward-adjusted exists; klake adjusts on reading
    page_limit=1000,
    products=1,
    order="ascending",
    end_inclusive=None,
    includes_unfinished=True,
    fills_gaps=False,
    quotas=(Quota(60, 30.0), Quota(10, 1.0), Quota(100, _MONTH_S, "month-symbols")),
    # Ten minutes are said to be enough in China and Hong Kong, but corrections after New York's
    # close have been seen: nothing is final before the evening.
    settle_s={"*": 4 * 3600.0},
    restates=True,
    # The closing auction stands alone, stamped with the end of the session.
    session_extra={(venue, freq): 1 for venue in (*_CHINA, "HK") for freq in _SHORT},
    floor={(venue, freq): _FLOORS[venue][not freq.intraday] for venue in _VENUES for freq in _PERIODS},
    evidence={
        **{
            name: Evidence("documented")
            for name in (
                "freqs",
                "page_limit",
                "products",
                "quotas",
                "amount",
                "floor",
                "adjusts",
                "end_honoured",
            )
        },
        **{name: Evidence("observed", date(2026, 11, 1)) for name in ("time_unit", "label", "fills_gaps")},
    },
)


class LongbridgeOptions(VendorOptions):
    """`[vendors.NAME]` of kind longbridge: the three secrets of an app, or the `client_id` of a login.

    `symbols_a_month`: how many symbols the account may ask the history of in a month (100 for
    a new one, more with more assets); it is counted here, so that none is spent by mistake.
    """

    app_key: SecretStr = Field(min_length=1)
    app_secret: SecretStr = Field(min_length=1)
    access_token: SecretStr = Field(min_length=1)
    url: str = "https://openapi.longbridge.com"
    quote_url: str = "wss://openapi-quote.longbridge.com/v2"
    transport: Literal["ws", "http"] = "ws"
    client_id: str = ""
    symbols_a_month: int = Field(default=100, ge=1)
    timeout_s: float = Field(default=40.0, gt=0)  # the SDK gives up after 30

    @model_validator(mode="before")
    @classmethod
    def _logged_in(cls, given: Any) -> Any:
        """Let `client_id` stand for the three secrets: whoever logged in has none of them."""
        if not isinstance(given, dict):
            return given
        table = cast("dict[str, Any]", given)
        if not table.get("client_id"):
            return table
        doubled = [name for name in _SECRETS if name in table]
        if doubled:
            raise ValueError(f"client_id and {doubled[0]}: give one form, a login or the three secrets")
        return {**dict.fromkeys(_SECRETS, table["client_id"]), **table}


class Longbridge:
    """One Longbridge account."""

    kind: ClassVar[str] = "longbridge"
    options: ClassVar[type[VendorOptions]] = LongbridgeOptions

    def __init__(
        self,
        name: str,
        options: LongbridgeOptions,
        clock: Clock,
        run: str = "",
        client: httpx.Client | None = None,
    ) -> None:
        """Take what every kind takes; `client` is not used, the SDK speaks for itself."""
        self.name, self._clock, self._run = name, clock, run
        month = Quota(options.symbols_a_month, _MONTH_S, "month-symbols")
        self.capability = replace(CAPABILITY, quotas=(*CAPABILITY.quotas[:-1], month))
        app_key = options.app_key.get_secret_value()
        self.account = account_of(self.kind, app_key)
        self.sandbox = is_sandbox(app_key)
        self._login = sdk.Login(
            app_key, options.app_secret.get_secret_value(), options.access_token.get_secret_value(), options.url,
            options.quote_url, options.transport, options.client_id, name,
        )  # fmt: skip
        self._line, self._timeout_s, self._ids = sdk.Share(self._login), options.timeout_s, PageIds()

    def spell(self, symbol: Symbol) -> str | None:
        """Return `700.HK`, `AAPL.US`, `600519.SH`, `.DJI.US`; None when Longbridge cannot have it."""
        if symbol.venue not in _VENUES:
            return None
        if symbol.venue == "HK":
            return f"{symbol.code.lstrip('0')}.HK" if symbol.code.strip("0") else None
        code = f".{symbol.code[1:]}" if symbol.code.startswith("^") else symbol.code
        return f"{code}.{symbol.venue}"

    def symbol(self, spelling: str) -> Symbol | None:
        """Return the symbol of a Longbridge code; None for a market that klake has not."""
        code, _, venue = spelling.strip().upper().rpartition(".")
        if venue not in _VENUES or not code:
            return None
        try:
            return Symbol.parse(f"{f'^{code[1:]}' if code.startswith('.') else code}.{venue}")
        except UnknownSymbol:
            return None

    def request(self, entries: tuple[Entry, ...]) -> PageRequest:
        """Return one request: the newest candles, or those going back from an end.

        Raises
        ------
        BadRequest
            Not exactly one entry, a freq or adjustment that Longbridge has not, a symbol that it
            cannot spell, a count outside 1 to 1000: it would be cut without a word.
        """
        if len(entries) != 1:
            raise BadRequest("entries", len(entries), hint="one fits one request")
        entry = entries[0]
        self._code(entry.symbol)
        if entry.freq not in self.capability.freqs:
            raise BadRequest("freq", entry.freq.value, tuple(f.value for f in self.capability.freqs))
        if entry.adjust not in self.capability.adjusts:
            raise BadRequest("adjust", entry.adjust, self.capability.adjusts)
        if not 1 <= entry.count <= self.capability.page_limit:
            raise BadRequest("count", entry.count, hint=f"1 to {self.capability.page_limit}")
        return PageRequest(self.name, _NEWEST if entry.end is None else _HISTORY, entries)

    def send(self, request: PageRequest) -> Page:
        """Return what the SDK gave for one request, in the canonical encoding."""
        (entry,) = request.entries
        code = self._code(entry.symbol)
        wall, count = _wall(entry)

        async def call(context: Any, api: Any) -> dict[str, list[Any]]:
            period = getattr(api.Period, _PERIODS[entry.freq][1])
            how = {"adjust_type": api.AdjustType.NoAdjust, "trade_sessions": api.TradeSessions.Intraday}
            if wall is None:
                found = await context.candlesticks(symbol=code, period=period, count=count, **how)
            else:
                found = await context.history_candlesticks_by_offset(
                    symbol=code, period=period, forward=False, count=count, time=wall, **how
                )
            return sdk.columns_of(found)

        return self._page(request, {code: self._asked(call, entry.symbol)})

    def parse(self, page: Page) -> list[SeriesPage]:
        """Return the one series of a page; candles younger than the end are left out, wrong units stop it."""
        (entry,) = page.request.entries
        symbol = symbol_of(entry.symbol)
        columns = decoded(page.body, _Columns, page.request.vendor).get(self._code(entry.symbol))
        if columns is None:
            return [SeriesPage(entry, "absent", empty(INCOMING), (), "the kept reply is of another symbol")]
        rows = _rows(columns, page.request.vendor)
        limit = entry.end or page.received_at + _FUTURE
        rows = rows.taken(rows.time <= int(limit.timestamp() * 1_000_000))
        got = series_page(entry, rows, page.request.vendor, self.capability, page.received_at)
        check_amounts(
            page.request.vendor, symbol, got.bars, self.capability.factor(symbol.venue, symbol.klass)
        )
        return [got]

    def instruments(self, symbols: Sequence[Symbol]) -> list[Instrument]:
        """Return what the vendor's static information says of `symbols`; one request, 500 at most."""
        codes = [code for symbol in symbols if (code := self.spell(symbol))]
        if not codes:
            return []

        async def call(context: Any, api: Any) -> list[Any]:
            return list(await context.static_info(codes))

        found = self._asked(call, ", ".join(map(str, symbols)))
        return [
            Instrument(known, one.symbol, known.klass, one.name_en, one.name_cn, one.exchange, one.currency, one.lot_size)
            for one in found
            if (known := self.symbol(one.symbol)) is not None
        ]  # fmt: skip

    def find(self, text: str) -> list[Instrument]:
        """Return the instrument whose symbol `text` is: Longbridge has no search and no list."""
        try:
            return self.instruments([Symbol.parse(text)])
        except BadRequest:
            return []

    def product_list(self) -> list[Instrument]:
        """Refuse: Longbridge lists nothing.

        Raises
        ------
        VendorRefused
            Always.
        """
        raise VendorRefused(self.name, "it has no list of instruments", "没有品种列表")

    def market_calendar(self) -> list[MarketDay]:
        """Return the trading days of Hong Kong for the last 30 days: one market fits one request."""
        today = self._clock.now().date()

        async def call(context: Any, api: Any) -> Any:
            return await context.trading_days(api.Market.HK, today - timedelta(days=30), today)

        found = self._asked(call, "HK")
        full = [MarketDay("HK", day, False) for day in found.trading_days]
        half = [MarketDay("HK", day, True) for day in found.half_trading_days]
        return sorted([*full, *half], key=lambda one: one.session)

    def snapshot(self, symbols: Sequence[Symbol]) -> Page:
        """Return the newest daily candles of the first of `symbols`: they tell volume and turnover."""
        return self.send(self.request((Entry(str(symbols[0]), Freq.D1, None, 2),)))

    def snapshots(self, page: Page) -> list[Snapshot]:
        """Return the totals of the newest day of a page; none where nothing was traded."""
        (entry,) = page.request.entries
        symbol = symbol_of(entry.symbol)
        columns = decoded(page.body, _Columns, page.request.vendor).get(self._code(entry.symbol))
        if columns is None or not columns.timestamp:
            return []
        rows = _rows(columns, page.request.vendor)
        at = int(np.argmax(rows.time))
        turnover = 0.0 if rows.amount is None else float(rows.amount[at])
        when = datetime.fromtimestamp(int(rows.time[at]) // 1_000_000, UTC)
        last, high, low, volume = (float(c[at]) for c in (rows.close, rows.high, rows.low, rows.volume))
        return [Snapshot(symbol, last, high, low, volume, turnover, when, False)]

    def probe(self, symbols: Sequence[Symbol] = ()) -> Iterator[tuple[Answer, ...]]:
        """Yield what the vendor leaves open: is the anchor's own candle given, and on whose clock is it."""
        return probe(self, self._clock, symbols)

    @property
    def expires_at(self) -> datetime | None:
        """Return when the access ends, as far as its token says."""
        login = self._login
        return expiry_of_file(login.client_id) if login.client_id else expiry_of_token(login.access_token)

    def login(self, opened: Callable[[str], None]) -> datetime | None:
        """Return when the access ends that somebody gives now in a browser, at the URL that `opened` is told.

        Raises
        ------
        BadRequest
            The account is given by three secrets: there is nothing to log in to.
        VendorError
            Nobody did in time, or the vendor refused.
        """
        client_id = self._login.client_id
        if not client_id:
            raise BadRequest(
                "vendor", self.name, hint='it has its secrets: only one with `client_id = "…"` logs in',
                hint_zh='它已配置密钥：只有写了 client_id = "…" 的才需要登录',
            )  # fmt: skip
        api = sdk.sdk()
        try:
            return log_in(api, client_id, opened, _LOGIN_S)
        except sdk.errors() as error:
            raise sdk.failure(error, self.name, "", self._login.secrets) from None

    def close(self) -> None:
        """Give the connection back; the last who does ends it."""
        self._line.close()

    def _code(self, symbol: str) -> str:
        code = self.spell(symbol_of(symbol))
        if code is None:
            raise BadRequest("symbol", symbol, hint=f"{self.name} has no spelling for it")
        return code

    def _asked(self, call: Callable[[Any, Any], Awaitable[T]], symbol: str) -> T:
        try:
            return self._line.ask(call, self._timeout_s)
        except sdk.errors() as error:
            # `from None`: the foreign error may hold the secrets.
            raise sdk.failure(error, self.name, symbol, self._login.secrets) from None

    def _page(self, request: PageRequest, tables: dict[str, dict[str, list[Any]]]) -> Page:
        now = self._clock.now()
        return Page(
            id=self._ids.next(now), run=self._run, kind=self.kind, account=self.account, request=request,
            received_at=now, status=200, client=_CLIENT, body=encoded(sdk.version(), tables),
        )  # fmt: skip


class _Columns(msgspec.Struct):
    """Candles as the raw page has them."""

    timestamp: list[int]
    open: list[float]
    high: list[float]
    low: list[float]
    close: list[float]
    volume: list[float]
    turnover: list[float]


def _rows(columns: _Columns, vendor: str) -> Rows:
    """Return the candles in the vendor's units; BadPage where the columns are not equally long."""
    values = [columns.open, columns.high, columns.low, columns.close, columns.volume, columns.turnover]
    if any(len(column) != len(columns.timestamp) for column in values):
        raise BadPage(vendor, "the kept reply has columns of different lengths")
    times = np.array(columns.timestamp, np.int64) * 1_000_000
    return Rows(times, *(np.array(column, np.float64) for column in values))


def _wall(entry: Entry) -> tuple[datetime | None, int]:
    """Return (end on the market's own clock, naive, as the SDK takes it; count); None for the newest candles.

    Whether the candle at the anchor is given is not known, so an end that is no candle's own
    start is moved behind the last candle that is wanted: to the next minute, or the next day.
    """
    if entry.end is None:
        return None, entry.count
    place = symbol_of(entry.symbol).place
    local = entry.end.astimezone(ZoneInfo(place.zone))
    if entry.freq.intraday:
        late = local.replace(second=0, microsecond=0)
        return (late if late == local else late + timedelta(minutes=1)).replace(tzinfo=None), entry.count
    day = local.replace(tzinfo=None)
    if local.time() <= place.nominal_open:
        return day, entry.count
    return day + timedelta(days=1), min(entry.count + 1, CAPABILITY.page_limit)
