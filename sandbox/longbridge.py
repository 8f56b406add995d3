"""What Longbridge's quote service decides, whatever the transport: accounts, limits, candles, refusals."""

import threading
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final, Literal, TypeAlias
from zoneinfo import ZoneInfo

from ..errors import BadRequest, KlakeError
from .clock import SandboxClock
from .faults import Faults, Rule
from .grid import grid, number
from .instruments import Instrument
from .journal import Journal, account_of
from .limits import Windows, secret
from .longbridge_faults import spoiled
from .longbridge_wire import FLOORS, PERIODS, Query, candles, day_text, market_of, symbol_of
from .market import Market

__all__ = ["Account", "Dials", "Longbridge", "Trouble"]

HISTORY: Final = "/quote/history-candlesticks"
NEWEST: Final = "/quote/candlesticks"
_MONTH_ZONE: Final = ZoneInfo("Asia/Hong_Kong")  # the allowance is one of calendar months, there
_SUBSCRIPTIONS: Final = 500
_LONGEST: Final = 31  # days of trading days in one call
_BOARD: Final = {"SH": "SHMainConnect", "SZ": "SZMainConnect", "HK": "HKEquity", "US": "USMain"}
_EXCHANGE: Final = {"SH": "SH", "SZ": "SZ", "HK": "SEHK", "US": "NASD"}
_CALENDAR: Final = {"HK": "HK", "US": "US", "CN": "SH"}
_Candles: TypeAlias = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Account:
    """One account and what it bought.

    `symbols`: distinct symbols a month whose history may be asked. `connections`: how many
    long connections may stand at once. `markets`: of which quotes are given. `rates`: what
    the profile tells the SDK, (command, tokens per second, burst). `quotas`: (n, seconds)
    pairs that history is held to; `calls`: those of every request.
    """

    name: str
    app_key: str
    app_secret: str
    access_token: str
    symbols: int = 1000
    connections: int = 10
    markets: tuple[str, ...] = ("HK", "US", "CN")
    rates: tuple[tuple[int, int, int], ...] = ((19, 10, 10), (27, 10, 60))
    quotas: tuple[tuple[int, float], ...] = ((60, 30.0),)
    calls: tuple[tuple[int, float], ...] = ((10, 1.0),)
    expires_s: float | None = None


@dataclass(frozen=True, slots=True)
class Dials:
    """How the stand-in behaves where Longbridge's way is not known.

    `anchor`: is the candle at the anchor given. `newest_counts`: does command 19 spend the
    month's symbols. `numbers`: how the HTTP transport writes them. `session_field`: is
    trade_session sent. `online`: connections that others hold.
    """

    anchor: Literal["inclusive", "exclusive"] = "inclusive"
    newest_counts: bool = False
    numbers: Literal["plain", "text"] = "plain"
    session_field: bool = True
    online: int = 0


class Trouble(KlakeError):
    """A refusal: the protocol's status byte (3 bad request, 5 unauthenticated, 7 server), code and words."""

    def __init__(self, status: int, code: int, message: str) -> None:
        self.status, self.code, self.message = status, code, message
        super().__init__(message)


class Longbridge:
    """The service behind both transports; its accounts are `accounts`, by name."""

    def __init__(self, market: Market, clock: SandboxClock, journal: Journal, faults: Faults) -> None:
        self.market, self.clock, self.journal, self.faults = market, clock, journal, faults
        self.calls, self.history = Windows(), Windows()
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        """Give every account its first plan again; empty windows and ledgers."""
        seed = self.market.seed
        made = {name: _account(seed, name) for name in ("default", "poor", "none", "american", "expired")}
        self.accounts = made | {
            "poor": replace(made["poor"], symbols=2),
            "none": replace(made["none"], symbols=0),
            "american": replace(made["american"], markets=("US",)),
            "expired": replace(made["expired"], expires_s=0.0),
        }
        self.dials = Dials()
        self._months: dict[tuple[str, str], set[str]] = {}
        self.calls.clear()
        self.history.clear()

    def turn(self, changes: dict[str, Any]) -> None:
        """Turn dials and change accounts: `{"anchor": "exclusive", "accounts": {"default": {"symbols": 3}}}`."""
        known = tuple(f.name for f in fields(Dials))
        accounts = changes.get("accounts", {})
        for name in changes:
            if name not in (*known, "accounts"):
                raise BadRequest("longbridge", name, (*known, "accounts"))
        changed = {
            name: replace(self.accounts[name], **_tuples(account)) for name, account in accounts.items()
        }
        self.dials = replace(self.dials, **{name: value for name, value in changes.items() if name in known})
        self.accounts |= changed

    @property
    def secrets(self) -> dict[str, str]:
        """Return the secrets of every account, as `default.app_key`."""
        parts = ("app_key", "app_secret", "access_token")
        return {f"{a.name}.{part}": getattr(a, part) for a in self.accounts.values() for part in parts}

    def shown(self) -> dict[str, Any]:
        """Return dials and accounts as JSON values, without secrets."""
        hidden = {"app_key", "app_secret", "access_token"}
        plans = {
            a.name: {k: v for k, v in asdict(a).items() if k not in hidden} for a in self.accounts.values()
        }
        return {**asdict(self.dials), "accounts": plans}

    def arrived(self, account: Account | None, endpoint: str) -> int:
        """Note the arrival of a request; return its place in the journal."""
        name = account.app_key if account else ""
        return self.journal.add("longbridge", account_of("longbridge", name), endpoint, self.clock.now())

    def account(self, app_key: str, token: str) -> Account:
        """Return the account of a key and a token; a Trouble where they are none."""
        found = next((a for a in self.accounts.values() if a.app_key == app_key), None)
        if found is None:
            raise Trouble(5, 403203, "apikey illegal")
        if token != found.access_token:
            raise Trouble(5, 401004, "token invalid")
        if found.expires_s is not None and found.expires_s <= self.clock.now().timestamp():
            raise Trouble(5, 401003, "token expired")
        return found

    def admit(self, account: Account, *, history: bool) -> None:
        """Count a request in its windows; a Trouble where one of them is full."""
        if not self.faults.dials.limits:
            return
        now_s = self.clock.now().timestamp()
        if not self.calls.admit(account.app_key, account.calls, now_s):
            raise Trouble(3, 301606, "request rate limit")
        if history and not self.history.admit(account.app_key, account.quotas, now_s):
            raise Trouble(3, 301606, "request rate limit")

    def candles(self, account: Account, query: Query, struck: tuple[Rule, ...]) -> _Candles:
        """Return the candles of one query, with the faults of their data; a Trouble where it is refused."""
        inst = self._permitted(account, query.symbol)
        self._check(inst, query)
        if query.way != "latest" or self.dials.newest_counts:
            self._spend(account, query.symbol)
        now_s = self.clock.now().timestamp()
        found = candles(self.market, inst, query, now_s, inclusive=self.dials.anchor == "inclusive")
        return spoiled(found, struck)

    def static_info(self, codes: list[str]) -> list[dict[str, Any]]:
        """Return what is known of some symbols, unknown ones left out."""
        found = ((code, self._instrument(code)) for code in codes)
        return [_info(code, inst) for code, inst in found if inst is not None]

    def trading_days(self, market: str, first: str, last: str) -> tuple[list[str], list[str]]:
        """Return full and half trading days of a market, as YYYYMMDD; at most a month, of the last year."""
        venue = _CALENDAR.get(market)
        begin, end = (_date(text) for text in (first, last))
        today = self.clock.now().date()
        if venue is None or begin is None or end is None or (end - begin).days > _LONGEST:
            raise Trouble(7, 301600, "invalid request")
        if begin < today - timedelta(days=366):
            raise Trouble(7, 301600, "only the last year is given")
        place = grid(venue)
        days = place.between(number(begin), number(end)).tolist()
        return (
            [day_text(d) for d in days if not place.short(d)],
            [day_text(d) for d in days if place.short(d)],
        )

    def subscribed(self, account: Account, code: str, held: int) -> Instrument:
        """Return the instrument of a subscription; `held` symbols are subscribed already."""
        if held >= _SUBSCRIPTIONS:
            raise Trouble(7, 301605, "too many subscriptions")
        return self._permitted(account, code)

    def _instrument(self, code: str) -> Instrument | None:
        inst = self.market.instruments.get(symbol_of(code))
        return inst if inst is not None and market_of(inst) else None

    def _permitted(self, account: Account, code: str) -> Instrument:
        inst = self._instrument(code)
        if inst is None:
            raise Trouble(7, 301600, "invalid symbol")
        if market_of(inst) not in account.markets:
            raise Trouble(7, 301604, "no quote access")
        return inst

    def _check(self, inst: Instrument, query: Query) -> None:
        if query.period not in PERIODS or query.adjust not in (0, 1):
            raise Trouble(7, 301600, "invalid request")
        if query.count > 1000:
            raise Trouble(7, 301607 if query.way == "latest" else 301600, "too many candlesticks")
        asked = query.day or query.start
        begin = _date(asked)
        if (asked and begin is None) or (query.minute and len(query.minute) != 4):
            raise Trouble(7, 301600, "invalid request")
        minutes_since = FLOORS[market_of(inst)][0]
        if begin is not None and PERIODS[query.period].intraday and begin < minutes_since:
            raise Trouble(7, 301600, "out of minute kline begin date")

    def _spend(self, account: Account, code: str) -> None:
        """Count a symbol of this month; a Trouble where the allowance holds no further one."""
        if not self.faults.dials.limits:
            return
        month = f"{self.clock.now().astimezone(_MONTH_ZONE):%Y-%m}"
        with self._lock:
            seen = self._months.setdefault((account.app_key, month), set())
            if code not in seen and len(seen) >= account.symbols:
                raise Trouble(7, 301607, "history kline symbol count out of limit")
            seen.add(code)


def _account(seed: int, name: str) -> Account:
    key, signing, token = (
        secret(seed, "longbridge", f"{name}-{part}") for part in ("key", "secret", "token")
    )
    return Account(name, key, signing, token)


def _info(code: str, inst: Instrument) -> dict[str, Any]:
    lot = inst.lot // 10**inst.volume_decimals
    return {
        "symbol": code, "name_cn": inst.name_zh, "name_en": inst.name_en, "name_hk": inst.name_zh,
        "exchange": _EXCHANGE[inst.venue], "currency": inst.symbol.place.currency, "lot_size": lot,
        "total_shares": inst.shares, "circulating_shares": inst.shares, "hk_shares": 0, "eps": "0", "eps_ttm": "0",
        "bps": "0", "dividend_yield": f"{inst.yearly:.4f}", "stock_derivatives": [], "board": _BOARD[inst.venue],
    }  # fmt: skip


def _date(text: str) -> date | None:
    try:
        return datetime.strptime(text, "%Y%m%d").replace(tzinfo=UTC).date()
    except ValueError:
        return None


def _tuples(changes: dict[str, Any]) -> dict[str, Any]:
    """JSON has lists where an account has tuples."""
    return {name: _tuple(value) for name, value in changes.items()}


def _tuple(value: Any) -> Any:
    return tuple(map(_tuple, value)) if isinstance(value, list) else value
