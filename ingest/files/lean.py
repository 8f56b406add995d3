"""QuantConnect Lean zips of trades: what path and name tell of symbol, freq, zone and units."""

from datetime import date, datetime
from pathlib import Path
from typing import Final

from ...errors import BadRequest
from ...schemas.freq import Freq
from ...schemas.symbol import Symbol
from .mapping import Mapping

__all__ = ["lean_mapping"]

_FREQS: Final = {"daily": Freq.D1, "hour": Freq.H1, "minute": Freq.M1}
_CRYPTO: Final = ("crypto", "cryptofuture")
_COLUMNS: Final[dict[str, str | int]] = {"ts": 0, "open": 1, "high": 2, "low": 3, "close": 4, "volume": 5}


def lean_mapping(path: Path) -> Mapping:
    """Return how a Lean zip is to be read, from where it lies.

    `…/daily/aapl.zip`, `…/hour/aapl.zip` and `…/minute/aapl/20140609_trade.zip` are US
    equities: prices × 10000, New York, bar starts. Below `crypto/MARKET/` and
    `cryptofuture/MARKET/` prices are plain, in UTC. Hours of equities count from midnight
    (09:00 holds 09:30 to 10:00), off klake's grid: they are for making days of.

    Raises
    ------
    BadRequest
        A path that does not tell, or quotes instead of trades.
    """
    parts = [part.lower() for part in path.parts]
    resolution = next((part for part in reversed(parts[:-1]) if part in _FREQS), "")
    if not resolution or path.stem.lower().endswith(("_quote", "_openinterest")):
        raise BadRequest(
            "file", str(path), hint="not a Lean zip of trades: expected …/daily|hour|minute/…, _trade.zip",
            hint_zh="不是 Lean 的成交 zip：路径应为 …/daily|hour|minute/…，以 _trade.zip 结尾",
        )  # fmt: skip
    freq = _FREQS[resolution]
    stem = path.stem.lower().removesuffix("_trade")
    kind = next((part for part in reversed(parts) if part in _CRYPTO), "")
    code = path.parent.name if freq is Freq.M1 else stem
    symbol, zone = _symbol(code, parts, kind), "UTC" if kind else "America/New_York"
    day = _day(stem, path) if freq is Freq.M1 else None
    return Mapping(
        freq, _COLUMNS, symbol=str(symbol), label="start" if freq.intraday else "date", zone=zone, day=day,
        price_factor=1.0 if kind else 0.0001, header=False,
        anchor="clock" if freq is Freq.H1 and not kind else "session",
    )  # fmt: skip


def _symbol(code: str, parts: list[str], kind: str) -> Symbol:
    if not kind:
        return Symbol.parse(f"{code}.US")
    # The folder may repeat the word (…/crypto/lean/crypto/coinbase/…): the last one counts.
    market = parts[len(parts) - parts[::-1].index(kind)]
    return Symbol.parse(f"{code}{'.P' if kind == 'cryptofuture' else ''}.{market}")


def _day(stem: str, path: Path) -> date:
    try:
        return datetime.strptime(stem, "%Y%m%d").date()
    except ValueError as error:
        raise BadRequest(
            "file", str(path), hint="a minute zip is named by its day: 20140609_trade.zip"
        ) from error
