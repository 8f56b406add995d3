"""What the sandbox market lists: known names first, then as many made-up ones as asked for."""

import math
from dataclasses import dataclass
from datetime import date
from typing import Final, Literal

from ..schemas.symbol import Class, Symbol
from .noise import key

__all__ = ["Action", "Instrument", "catalogue"]

ActionKind = Literal["split", "dividend", "bonus", "reform"]
_SINCE: Final = date(2001, 1, 2)  # the market's own history begins here
_FIRST_EX_YEAR, _LAST_EX_YEAR = 2005, 2030


@dataclass(frozen=True, slots=True)
class Action:
    """One corporate action, effective on the first session at or after `ex`.

    split, bonus: `ratio` new shares for each old one. dividend: `ratio` is the yield; the
    cash per share follows from the price of the day before. reform: `ratio` further shares
    for each old one, paid by the holders of non-tradable shares: the price falls, but
    nobody adjusts for it.
    """

    ex: date
    kind: ActionKind
    ratio: float

    @property
    def drop(self) -> float:
        """Return the factor by which the as-traded price moves on that day."""
        if self.kind == "dividend":
            return 1.0 - self.ratio
        return 1.0 / (1.0 + self.ratio) if self.kind == "reform" else 1.0 / self.ratio


@dataclass(frozen=True, slots=True)
class Instrument:
    """One listed thing; prices are counted in ticks of `tick` / 10**`decimals`.

    `price` is the close around 2026-01-01, `daily` the usual volume of a day in steps of
    `lot` / 10**`volume_decimals` shares or base units, `traded` the share of minutes in
    which somebody trades, `halts` the half-open ranges of days without trade.
    """

    symbol: Symbol
    klass: Class
    name_en: str
    name_zh: str
    price: float
    daily: int
    key: int
    decimals: int = 2
    tick: int = 1
    lot: int = 1
    volume_decimals: int = 0
    swing: float = 0.018  # deviation of a day's move
    traded: float = 1.0
    listed: date = _SINCE
    delisted: date | None = None  # the first day without it
    halts: tuple[tuple[date, date], ...] = ()
    events: tuple[Action, ...] = ()
    yearly: float = 0.0  # dividend yield

    @property
    def actions(self) -> tuple[Action, ...]:
        """Return events and regular dividends, ascending by ex; a dividend starts after a year of listing."""
        months = _EX_MONTHS.get(self.venue, ()) if self.yearly else ()
        dividends = (
            Action(
                date(year, month, 8 + (self.key >> (year + month) % 48) % 14),
                "dividend",
                self.yearly / len(months),
            )
            for year in range(max(self.listed.year + 1, _FIRST_EX_YEAR), _LAST_EX_YEAR + 1)
            for month in months
        )
        return tuple(sorted((*self.events, *dividends), key=lambda a: a.ex))

    @property
    def venue(self) -> str:
        """Return the name of the venue."""
        return self.symbol.venue

    @property
    def shares(self) -> int:
        """Return the number of shares outstanding; 0 where there are none."""
        return 0 if self.klass in {Class.CRYPTO, Class.INDEX} else self.daily * self.lot * 250


@dataclass(frozen=True, slots=True)
class _Row:
    """One line of the list below; only what differs from the usual."""

    symbol: str
    en: str
    zh: str
    price: float
    daily: int  # shares or base units
    klass: Class = Class.STOCK
    more: tuple[tuple[str, object], ...] = ()
    yield_: float = 0.0
    events: tuple[Action, ...] = ()


def _d(text: str) -> date:
    return date.fromisoformat(text)


def _split(day: str, ratio: float) -> Action:
    return Action(_d(day), "split", ratio)


def _bonus(day: str, ratio: float) -> Action:
    return Action(_d(day), "bonus", ratio)


# Each list is in order of fame: a small sandbox takes the head of every one.
_SH: Final = (
    _Row("600519.SH", "Kweichow Moutai", "贵州茅台", 1480.0, 3_200_000, yield_=0.018,
         more=(("listed", _d("2001-08-27")),), events=(_bonus("2014-06-25", 1.1), _bonus("2015-07-17", 1.1))),
    _Row("600000.SH", "SPD Bank", "浦发银行", 11.2, 62_000_000, yield_=0.03,
         events=(Action(_d("2006-05-12"), "reform", 0.3), _bonus("2016-06-23", 1.1), _bonus("2017-05-25", 1.3))),
    _Row("000300.SH", "CSI 300", "沪深300", 4520.0, 14_000_000_000, Class.INDEX, more=(("swing", 0.012),)),
    _Row("510300.SH", "CSI 300 ETF", "沪深300ETF", 4.612, 900_000_000, Class.FUND, yield_=0.012,
         more=(("decimals", 3), ("listed", _d("2012-05-28")))),
    _Row("601398.SH", "ICBC", "工商银行", 7.1, 310_000_000, yield_=0.04, more=(("listed", _d("2006-10-27")),)),
    _Row("600087.SH", "Nanjing Tanker", "退市长油", 0.83, 9_000_000,
         more=(("delisted", _d("2014-06-05")), ("halts", ((_d("2013-05-14"), _d("2014-04-21")),)))),
    _Row("688999.SH", "Klake Semi", "湖芯科技", 58.0, 11_000_000, more=(("listed", _d("2026-09-15")),)),
    _Row("601318.SH", "Ping An", "中国平安", 62.0, 55_000_000, yield_=0.03,
         more=(("listed", _d("2007-03-01")),), events=(_bonus("2015-07-27", 2.0),)),
    _Row("600036.SH", "China Merchants Bank", "招商银行", 43.0, 60_000_000, yield_=0.035,
         more=(("listed", _d("2002-04-09")),), events=(Action(_d("2006-02-27"), "reform", 0.17),)),
    _Row("000001.SH", "SSE Composite", "上证指数", 3920.0, 38_000_000_000, Class.INDEX, more=(("swing", 0.011),)),
)  # fmt: skip
_SZ: Final = (
    _Row("000001.SZ", "Ping An Bank", "平安银行", 11.6, 110_000_000, yield_=0.03,
         events=(_bonus("2013-06-20", 1.6), _bonus("2015-04-13", 1.2))),
    _Row("000002.SZ", "Vanke A", "万科A", 6.4, 130_000_000, yield_=0.02,
         more=(("halts", ((_d("2015-12-18"), _d("2016-07-04")),)),)),
    _Row("300750.SZ", "CATL", "宁德时代", 378.0, 26_000_000, yield_=0.01,
         more=(("listed", _d("2018-06-11")), ("swing", 0.024)), events=(_bonus("2023-04-26", 1.8),)),
    _Row("002594.SZ", "BYD", "比亚迪", 101.0, 41_000_000, yield_=0.006,
         more=(("listed", _d("2011-06-30")),), events=(_bonus("2025-07-29", 3.0),)),
    _Row("000333.SZ", "Midea", "美的集团", 78.0, 29_000_000, yield_=0.04,
         more=(("listed", _d("2013-09-18")), ("halts", ((_d("2026-11-12"), _d("2026-11-27")),)))),
    _Row("301777.SZ", "Quiet Tools", "静谧工具", 23.4, 120_000, more=(("listed", _d("2021-03-08")), ("traded", 0.3))),
    _Row("159915.SZ", "ChiNext ETF", "创业板ETF", 2.871, 700_000_000, Class.FUND,
         more=(("decimals", 3), ("listed", _d("2011-12-09")))),
    _Row("000858.SZ", "Wuliangye", "五粮液", 118.0, 21_000_000, yield_=0.03),
)  # fmt: skip
_HK: Final = (
    _Row("00700.HK", "Tencent", "腾讯控股", 612.0, 19_000_000, yield_=0.007,
         more=(("listed", _d("2004-06-16")), ("decimals", 3), ("tick", 200)), events=(_split("2014-05-15", 5.0),)),
    _Row("09988.HK", "Alibaba", "阿里巴巴", 158.4, 70_000_000,
         more=(("listed", _d("2019-11-26")), ("decimals", 3), ("tick", 100), ("swing", 0.026))),
    _Row("00005.HK", "HSBC", "汇丰控股", 104.3, 22_000_000, yield_=0.05,
         more=(("decimals", 3), ("tick", 50), ("lot", 400))),
    _Row("08609.HK", "Sleepy Harbour", "慢港控股", 0.231, 900_000,
         more=(("listed", _d("2017-01-13")), ("decimals", 3), ("lot", 4000), ("traded", 0.04), ("swing", 0.03))),
    _Row("00001.HK", "CKH Holdings", "长和", 52.4, 6_000_000, yield_=0.04,
         more=(("decimals", 3), ("tick", 50), ("lot", 500))),
    _Row("03690.HK", "Meituan", "美团", 101.2, 41_000_000,
         more=(("listed", _d("2018-09-20")), ("decimals", 3), ("tick", 50), ("swing", 0.03))),
    _Row("01810.HK", "Xiaomi", "小米集团", 44.08, 160_000_000,
         more=(("listed", _d("2018-07-09")), ("decimals", 3), ("tick", 20), ("lot", 200))),
)  # fmt: skip
_US: Final = (
    _Row("AAPL.US", "Apple", "苹果", 271.0, 48_000_000, yield_=0.005,
         events=(_split("2005-02-28", 2.0), _split("2014-06-09", 7.0), _split("2020-08-31", 4.0))),
    _Row("BRK.B.US", "Berkshire Hathaway B", "伯克希尔B", 502.0, 4_100_000, events=(_split("2010-01-21", 50.0),)),
    _Row("CON.US", "Console Holdings", "康索控股", 14.2, 310_000,
         more=(("listed", _d("2016-04-01")), ("traded", 0.55))),
    _Row("MSFT.US", "Microsoft", "微软", 483.0, 21_000_000, yield_=0.008, events=(_split("2003-02-18", 2.0),)),
    _Row("TSLA.US", "Tesla", "特斯拉", 449.0, 82_000_000, more=(("listed", _d("2010-06-29")), ("swing", 0.034)),
         events=(_split("2020-08-31", 5.0), _split("2022-08-25", 3.0))),
    _Row("TWTR.US", "Twitter", "推特", 51.0, 16_000_000,
         more=(("listed", _d("2013-11-07")), ("delisted", _d("2022-10-28")))),
    _Row("NAN.US", "Nanosilver", "纳银", 3.1, 95_000,
         more=(("listed", _d("2019-07-01")), ("traded", 0.2)), events=(_split("2024-03-18", 0.1),)),
    _Row("SPY.US", "S&P 500 ETF", "标普500ETF", 684.0, 71_000_000, Class.FUND, yield_=0.012,
         more=(("swing", 0.011),)),
    _Row("TRUE.US", "Truth Analytics", "真析", 41.0, 730_000, more=(("listed", _d("2026-10-05")), ("traded", 0.9))),
)  # fmt: skip
_CF: Final = (
    _Row("BTCUSDT.P.QOS", "Bitcoin perpetual", "比特币永续", 88000.0, 160_000, Class.CRYPTO,
         more=(("decimals", 1), ("volume_decimals", 3), ("swing", 0.026), ("listed", _d("2019-09-08")))),
    _Row("ETHUSDT.P.QOS", "Ether perpetual", "以太坊永续", 2980.0, 3_900_000, Class.CRYPTO,
         more=(("volume_decimals", 3), ("swing", 0.034), ("listed", _d("2019-11-27")))),
    _Row("1000PEPEUSDT.P.QOS", "1000 PEPE perpetual", "千佩佩永续", 0.0051, 900_000_000, Class.CRYPTO,
         more=(("decimals", 7), ("swing", 0.05), ("listed", _d("2023-05-05")))),
    _Row("SOLUSDT.P.QOS", "Solana perpetual", "索拉纳永续", 128.0, 21_000_000, Class.CRYPTO,
         more=(("volume_decimals", 2), ("swing", 0.04), ("listed", _d("2020-09-14")))),
    _Row("XMRUSDT.P.QOS", "Monero perpetual", "门罗币永续", 402.0, 21_000, Class.CRYPTO,
         more=(("volume_decimals", 3), ("swing", 0.035), ("listed", _d("2020-02-03")), ("traded", 0.6))),
    _Row("DOGEUSDT.P.QOS", "Dogecoin perpetual", "狗狗币永续", 0.148, 3_000_000_000, Class.CRYPTO,
         more=(("decimals", 5), ("swing", 0.045), ("listed", _d("2020-07-10")))),
)  # fmt: skip
_LISTS: Final = {"SH": _SH, "SZ": _SZ, "HK": _HK, "US": _US, "QOS": _CF}
_USUAL_LOT: Final = {"SH": 100, "SZ": 100, "HK": 100}
_EX_MONTHS: Final = {"SH": (6,), "SZ": (6,), "HK": (5, 9), "US": (2, 5, 8, 11)}


def catalogue(seed: int, count: int) -> tuple[Instrument, ...]:
    """Return the first `count` instruments of the market `seed`; a larger count only adds some."""
    known = [_known(seed, row) for row in _interleaved()]
    return (*known[:count], *(_made(seed, i) for i in range(max(0, count - len(known)))))


def _interleaved() -> list[_Row]:
    """Return the known rows, one of each venue in turn, so that any head has every venue."""
    longest = max(len(rows) for rows in _LISTS.values())
    return [rows[i] for i in range(longest) for rows in _LISTS.values() if i < len(rows)]


def _known(seed: int, row: _Row) -> Instrument:
    symbol = Symbol.parse(row.symbol)
    more = dict(row.more)
    lot = int(str(more.pop("lot", _USUAL_LOT.get(symbol.venue, 1))))
    steps = row.daily * 10 ** int(str(more.get("volume_decimals", 0))) // lot
    number = key(seed, row.symbol)
    return Instrument(
        symbol, row.klass, row.en, row.zh, row.price, max(steps, 1), number, lot=lot, events=row.events, yearly=row.yield_,
        **more,  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    )  # fmt: skip


def _made(seed: int, index: int) -> Instrument:
    """Return a made-up instrument: mostly A-shares and US shares, one in forty a perpetual."""
    number = key(seed, "made", index)
    venue = ("SH", "SZ", "US", "SH", "SZ", "HK", "US", "SZ")[index % 8] if index % 40 else "QOS"
    year, price = 2001 + number % 22, round(4.0 * math.exp(number % 997 / 300), 2)
    bonus = () if number % 3 else (Action(date(year + 2, 6, 20), "bonus", 1.0 + number % 5 / 5 + 0.2),)
    klass = Class.CRYPTO if venue == "QOS" else Class.STOCK
    return Instrument(
        Symbol(_made_code(venue, index), venue), klass, f"Made {index}", f"虚构{index}", price,
        100 + number % 90_000, number, lot=_USUAL_LOT.get(venue, 1), decimals=3 if venue == "HK" else 2,
        tick=20 if venue == "HK" else 1, volume_decimals=2 if venue == "QOS" else 0,
        swing=0.012 + number % 17 / 1000, traded=0.3 + number % 71 / 100, listed=date(year, 1 + number % 12, 1),
        events=bonus, yearly=number % 4 / 100,
    )  # fmt: skip


def _made_code(venue: str, index: int) -> str:
    if venue == "SH":
        return f"{603_001 + index:06d}"
    if venue == "SZ":
        return f"{3_001 + index:06d}"
    if venue == "HK":
        return f"{10_001 + index:05d}"
    letters, rest = "", index
    for _ in range(4):
        letters, rest = chr(65 + rest % 26) + letters, rest // 26
    return f"Z{letters}" if venue == "US" else f"Z{letters}USDT.P"
