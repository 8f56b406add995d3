"""What can go wrong with a QOS reply: in its data, and on its way."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from ..schemas.clock import SystemClock
from .faults import Dials, Rule
from .http import Reply, in_json

__all__ = ["spoiled_items", "spoiled_reply"]

_GATEWAY: Final = b"<html><head><title>504 Gateway Time-out</title></head><body>nginx</body></html>"


def spoiled_items(data: list[Any] | dict[str, list[Any]], struck: tuple[Rule, ...]) -> dict[str, Any]:
    """Return the JSON value of a good reply, with the faults of its data."""
    for rule in struck:
        if rule.kind == "error":
            return {"msg": rule.text}
        if rule.kind == "no_data":
            return {"msg": "OK"}
        if rule.kind == "null_data":
            return {"msg": "OK", "data": None}
        if isinstance(data, list):
            data = _spoiled_list(data, rule)
    return {"msg": "OK", "data": data}


def spoiled_reply(reply: Reply, struck: tuple[Rule, ...], dials: Dials) -> Reply:
    """Return the reply with the faults of its way; `slow` is waited for here, in wall time."""
    for rule in struck:
        if rule.kind == "slow":
            SystemClock().wait(dials.slow_s)
        elif rule.kind == "http_504":
            reply = Reply(_GATEWAY, 504, {"Content-Type": "text/html"})
        elif rule.kind == "http_429":
            reply = in_json({"msg": dials.limit_text}, 429)
        elif rule.kind == "http_500_ok":
            reply = replace(reply, status=500)
        elif rule.kind in {"reset", "cut"}:
            reply = replace(reply, broken="reset" if rule.kind == "reset" else "cut")
        elif rule.kind == "corrupt":
            middle = len(reply.body) // 2
            reply = replace(reply, body=reply.body[:middle] + b"\xff\x00" + reply.body[middle + 2 :])
    return reply


def _spoiled_list(items: list[Any], rule: Rule) -> list[Any]:
    hit = [i for i, item in enumerate(items) if not rule.codes or item.get("c") in rule.codes]
    if rule.kind == "missing_item":
        return [item for i, item in enumerate(items) if i not in hit]
    spoil = _ITEM.get(rule.kind)
    return [spoil(item) if spoil and i in hit else item for i, item in enumerate(items)]


def _without(item: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in item.items() if name != "k"}


def _bars(change: Callable[[list[Any]], list[Any]]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda item: item | {"k": change(item.get("k") or [])}


def _numeric(bars: list[Any]) -> list[Any]:
    return [*bars[:-1], *({**bar, "cl": float(bar["cl"])} for bar in bars[-1:])]


def _inverted(bars: list[Any]) -> list[Any]:
    """Swap high and low of the bar in the middle, and set them apart where they are equal."""
    middle = len(bars) // 2
    return [
        bar | {"h": bar["l"], "l": str(float(bar["h"]) + 1)} if i == middle else bar
        for i, bar in enumerate(bars)
    ]


_ITEM: Final[dict[str, Callable[[dict[str, Any]], dict[str, Any]]]] = {
    "no_k": _without,
    "null_k": lambda item: item | {"k": None},
    "numeric_price": _bars(_numeric),
    "duplicate_bar": _bars(lambda bars: bars[:1] + bars),
    "descending": _bars(lambda bars: bars[::-1]),
    "low_above_high": _bars(_inverted),
    "empty_page": _bars(lambda bars: []),
}
