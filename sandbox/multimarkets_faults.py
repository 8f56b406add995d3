"""What can go wrong with a MultiMarkets reply: in its data, and on its way."""

import zlib
from collections.abc import Callable, Collection
from typing import Any, Final, cast

from .faults import Rule

__all__ = ["NOISE", "an_object", "as_bytes", "broken", "named_in", "spoiled"]

NOISE: Final = "p(4242424242424242424,1,3,1605509068000001,34545435345,1.5,1.4,1.6,10,12);"
"""A push about something that nobody asked for."""

_HEAVY: Final = 24 * 1024 * 1024  # far more than any page inflates to


def an_object(value: Any) -> dict[str, Any] | None:
    """Return a JSON value where it is an object."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None


def named_in(asked: dict[str, Any] | None) -> list[str]:
    """Return the products that a message names, as `id:type:mode`."""
    data = an_object(asked.get("data")) if asked else None
    if data is None:
        return []
    given: Any = data.get("data_list") or data.get("symbol_list") or ([data] if "symbol_id" in data else [])
    items: list[Any] = given if isinstance(given, list) else []  # pyright: ignore[reportUnknownVariableType]
    rows = [row for one in items if (row := an_object(one))]
    return [":".join(str(row.get(n, "")) for n in ("symbol_id", "trade_type", "trade_mode")) for row in rows]


def spoiled(rule: Rule, ret: int, said: str, data: Any) -> tuple[int, str, Any]:
    """Return (ret, word, data) of a reply with one fault in it; an `error` begins with its code."""
    if rule.kind in {"error", "unnamed"}:
        code, _, text = rule.text.partition(" ")
        return (int(code), text, {}) if code.isdigit() else (500, rule.text, {})
    if rule.kind == "http_429":
        return 429, "too many requests", {}
    if rule.kind in {"no_data", "null_data"}:
        return ret, said, {} if rule.kind == "no_data" else None
    page = an_object(data)
    if ret == 200 and page and "kline_list" in page:
        if rule.kind == "no_k":
            return ret, said, {name: value for name, value in page.items() if name != "kline_list"}
        change = _ROWS.get(rule.kind)
        return ret, said, page | {"kline_list": change(page["kline_list"])} if change else page
    return ret, said, data


def _inverted(rows: list[Any]) -> list[Any]:
    middle = len(rows) // 2
    return [
        row | {"high_price": row["low_price"], "low_price": str(float(row["high_price"]) + 1)}
        if i == middle
        else row
        for i, row in enumerate(rows)
    ]


def _numeric(rows: list[Any]) -> list[Any]:
    return [*rows[:-1], *(row | {"close_price": float(row["close_price"])} for row in rows[-1:])]


_ROWS: Final[dict[str, Callable[[list[Any]], list[Any] | None]]] = {
    "null_k": lambda rows: None,
    "numeric_price": _numeric,
    "duplicate_bar": lambda rows: rows[:1] + rows,
    "descending": lambda rows: rows[::-1],
    "low_above_high": _inverted,
    "empty_page": lambda rows: [],
}


def broken(body: bytes, kinds: Collection[str]) -> bytes:
    """Return a frame that cannot be read: torn, with two false bytes, or far too large once inflated."""
    if "bomb" in kinds:
        return zlib.compress(b"{" + b" " * _HEAVY, 1)
    if "torn" in kinds:
        return body[: len(body) * 2 // 3]
    middle = len(body) // 2
    return body[:middle] + b"\xff\x00" + body[middle + 2 :]


def as_bytes(frame: str | bytes) -> bytes:
    """Return the payload of a frame."""
    return frame.encode() if isinstance(frame, str) else frame
