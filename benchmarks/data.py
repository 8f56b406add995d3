"""Synthetic bars: random walks with two digits, volume in lots of 100, amount to the cent."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa

from klake.schemas.bar import INCOMING, TIME
from klake.storage.store import Store

__all__ = ["DEFAULT", "FULL", "NOW", "Scale", "daily", "fill", "minutes", "names", "sessions"]

NOW = datetime(2026, 11, 20, 8, 30, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured: `symbols` × `days` daily bars, `minute_symbols` × `minute_days` × 240 minutes."""

    name: str
    symbols: int
    days: int
    minute_symbols: int
    minute_days: int


DEFAULT = Scale("default", 1_000, 2_500, 100, 60)
FULL = Scale("full", 5_000, 2_500, 500, 60)


def names(count: int) -> list[str]:
    """Return `count` symbols, ascending."""
    return [f"{600000 + n}.SH" for n in range(count)]


def sessions(count: int, until: str = "2026-08-01") -> np.ndarray:
    """Return the last `count` weekdays before `until`, as datetime64[D]."""
    days = np.arange(np.datetime64(until) - 2 * count - 10, np.datetime64(until))
    return days[np.is_busday(days)][-count:]


def daily(
    symbols: int, days: np.ndarray, *, vendor: str = "bench", state: str = "final", seed: int = 1
) -> pa.Table:
    """Return symbols × days daily bars as `INCOMING`, sorted by (symbol, ts)."""
    at = days.astype("datetime64[us]") + np.timedelta64(90, "m")
    return _bars(symbols, at, days, "1d", vendor, state, seed)


def minutes(symbols: int, days: np.ndarray, *, vendor: str = "bench", seed: int = 2) -> pa.Table:
    """Return symbols × days × 240 one-minute bars as `INCOMING`, sorted by (symbol, ts)."""
    grid = np.concatenate([np.arange(90, 210), np.arange(300, 420)]).astype("timedelta64[m]")
    at = (days.astype("datetime64[us]")[:, None] + grid[None, :]).ravel()
    return _bars(symbols, at, np.repeat(days, 240), "1m", vendor, "final", seed)


def _bars(
    symbols: int, at: np.ndarray, days: np.ndarray, freq: str, vendor: str, state: str, seed: int
) -> pa.Table:
    random = np.random.default_rng(seed)
    shape = (symbols, len(at))
    close = np.round(
        20 * np.exp(np.cumsum(random.normal(0, 0.02 if freq == "1d" else 0.001, shape), axis=1)), 2
    ).clip(1)
    opened = np.round(close * (1 + random.normal(0, 0.01, shape)), 2).clip(1)
    volume = random.integers(1_000, 100_000, shape) * 100.0
    n = close.size
    columns = {
        "vendor": pa.repeat(vendor, n), "freq": pa.repeat(freq, n),
        "symbol": pa.array(names(symbols)).take(pa.array(np.repeat(np.arange(symbols), len(at)))),
        "ts": pa.array(np.tile(at, symbols)).cast(TIME),
        "session": pa.array(np.tile(days.astype("datetime64[D]"), symbols)),
        "open": opened.ravel(), "high": np.maximum(opened, close).ravel(), "low": np.minimum(opened, close).ravel(),
        "close": close.ravel(), "volume": volume.ravel(),
        "amount": np.round(volume * (opened + close) / 2, 2).ravel(),
        "state": pa.repeat(state, n), "flags": pa.array(np.zeros(n, np.int32)),
        "fetched_at": pa.repeat(pa.scalar(NOW, TIME), n),
    }  # fmt: skip
    return pa.table({name: columns[name] for name in INCOMING.names}).cast(INCOMING)


def parts(
    symbols: int, days: np.ndarray, *, monthly: bool = False, vendor: str = "bench"
) -> Iterator[pa.Table]:
    """Yield bars period by period: daily ones by year, or minutes by month."""
    periods = days.astype("datetime64[M]" if monthly else "datetime64[Y]")
    for number, period in enumerate(np.unique(periods)):
        some = days[periods == period]
        make = minutes if monthly else daily
        yield make(symbols, some, vendor=vendor, seed=number)


def fill(store: Store, scale: Scale) -> None:
    """Put the scale's daily and minute bars into an empty lake."""
    for table in parts(scale.symbols, sessions(scale.days)):
        store.upsert(table)
    for table in parts(scale.minute_symbols, sessions(scale.minute_days), monthly=True):
        store.upsert(table)
