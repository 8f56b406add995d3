"""Where things trade: zone, calendar, nominal open and currency of every venue."""

from dataclasses import dataclass
from datetime import time
from typing import Final

from ..errors import BadRequest

__all__ = ["VENUES", "Venue", "venue"]

_EXCHANGES: Final = (
    "BINANCE", "BITGET", "BITMEX", "BITSTAMP", "BYBIT", "COINBASE", "CRYPTOCOM", "DERIBIT", "GATE", "GEMINI",
    "HTX", "HYPERLIQUID", "KRAKEN", "KUCOIN", "MEXC", "OKX", "UPBIT",
)  # fmt: skip
_VENDORS: Final = ("QOS", "MULTIMARKETS", "XTQUANT", "LONGBRIDGE")  # where the vendor itself makes the price


@dataclass(frozen=True, slots=True)
class Venue:
    """One place of trade.

    `nominal_open` is the local wall time that stamps `ts` of daily and longer bars:
    09:30 for stock venues, 00:00 elsewhere. It never follows half days or late opens.
    """

    name: str
    zone: str
    calendar: str
    nominal_open: time
    currency: str


def _stock(name: str, zone: str, calendar: str, currency: str) -> Venue:
    return Venue(name, zone, calendar, time(9, 30), currency)


VENUES: Final[dict[str, Venue]] = {
    v.name: v
    for v in (
        _stock("SH", "Asia/Shanghai", "XSHG", "CNY"),
        _stock("SZ", "Asia/Shanghai", "XSHE", "CNY"),
        _stock("BJ", "Asia/Shanghai", "XSHG", "CNY"),
        _stock("HK", "Asia/Hong_Kong", "XHKG", "HKD"),
        _stock("US", "America/New_York", "XNYS", "USD"),
        Venue("FX", "UTC", "FX", time(0), "USD"),
        Venue("CM", "UTC", "FX", time(0), "USD"),
        *(Venue(name, "UTC", "24/7", time(0), "USDT") for name in (*_EXCHANGES, *_VENDORS)),
    )
}


def venue(name: str) -> Venue:
    """Return the venue called `name` (upper case); BadRequest when there is none."""
    try:
        return VENUES[name]
    except KeyError:
        raise BadRequest("venue", name, tuple(VENUES)) from None
