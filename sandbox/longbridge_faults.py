"""What can go wrong inside an answer of Longbridge: rows that are empty, doubled, strange or out of order."""

from collections.abc import Callable
from typing import Any, Final, TypeAlias

from .faults import Rule

__all__ = ["spoiled"]

_Candles: TypeAlias = list[dict[str, Any]]
_WEEK_S: Final = 7 * 86_400


def spoiled(rows: _Candles, struck: tuple[Rule, ...]) -> _Candles:
    """Return the candles with the faults of their data."""
    for rule in struck:
        spoil = _SPOILERS.get(rule.kind)
        rows = spoil(rows) if spoil and rows else rows
    return rows


def _unpriced(rows: _Candles) -> _Candles:
    """Return them with one price empty: the SDK makes a zero of it, without a word."""
    middle = len(rows) // 2
    return [row | {"close": ""} if i == middle else row for i, row in enumerate(rows)]


def _stray(rows: _Candles) -> _Candles:
    """Return them with one more, a week younger than the newest that was asked for."""
    return [*rows, rows[-1] | {"timestamp": max(row["timestamp"] for row in rows) + _WEEK_S}]


def _inverted(rows: _Candles) -> _Candles:
    middle = len(rows) // 2
    wrong = rows[middle] | {"high": rows[middle]["low"], "low": f"{float(rows[middle]['high']) + 1:.3f}"}
    return [*rows[:middle], wrong, *rows[middle + 1 :]]


def _shuffled(rows: _Candles) -> _Candles:
    return [*rows[1::2], *rows[::2]]


_SPOILERS: Final[dict[str, Callable[[_Candles], _Candles]]] = {
    "empty_price": _unpriced,
    "stray_bar": _stray,
    "low_above_high": _inverted,
    "unsorted": _shuffled,
    "descending": lambda rows: rows[::-1],
    "duplicate_bar": lambda rows: rows[:1] + rows,
    "empty_page": lambda rows: [],
}
