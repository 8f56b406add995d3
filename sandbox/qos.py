"""The QOS quote API over HTTP, quirks included, as the vendor documents it and its SDK shows it."""

import gzip
import zlib
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final, TypeAlias

from .clock import SandboxClock
from .faults import Faults, Rule
from .grid import grid
from .http import Asked, Reply, in_json
from .instruments import Instrument
from .journal import Journal, account_of
from .limits import Plan, Windows, secret
from .market import Market
from .noise import key
from .qos_body import Body, Entry, read_body
from .qos_faults import spoiled_items, spoiled_reply
from .qos_quotes import book, info, snapshot, trades
from .qos_wire import KINDS, MARKETS, code_of, series, split_codes, symbol_of

__all__ = ["Qos"]

_KLINES: Final = {"/kline", "/history"}
_QUOTES: Final[dict[str, Callable[[Market, Instrument, float], Any]]] = {
    "/instrument-info": info, "/snapshot": snapshot, "/depth": book,
}  # fmt: skip
_Data: TypeAlias = list[Any] | dict[str, list[Any]]
_POPULAR: Final = 60  # the product list names only the head of the catalogue
_CALENDAR_DAYS: Final = 92
_EPOCH: Final = date(1970, 1, 1)


class Qos:
    """The face of QOS; its keys are `plans`, by name: default, deep, recent, expired."""

    def __init__(self, market: Market, clock: SandboxClock, journal: Journal, faults: Faults) -> None:
        self.market, self.clock, self.journal, self.faults = market, clock, journal, faults
        self.windows = Windows()
        self.reset()

    def reset(self) -> None:
        """Give every key its first plan again and empty the windows."""
        seed = self.market.seed
        plain = {
            name: Plan(name, secret(seed, "qos", name)) for name in ("default", "deep", "recent", "expired")
        }
        self.plans = plain | {
            "deep": replace(plain["deep"], depth=0),
            "recent": replace(plain["recent"], end_mode="ignored"),
            "expired": replace(plain["expired"], expires_s=0.0),
        }
        self.windows.clear()

    def answer(self, asked: Asked) -> Reply:
        """Return the reply to one request, after noting it in the journal."""
        arrived = self.clock.now()
        given = asked.query.get("key") or asked.headers.get("key") or ""
        place = self.journal.add("qos", account_of("qos", given), asked.path, arrived)
        body = read_body(asked.body)
        codes = body.every_code if body else []
        struck = self.faults.draw(asked.path, frozenset(codes))
        reply, msg = self._answer(asked, given, body, struck, arrived.timestamp())
        dials = self.faults.dials
        if dials.gzip and "gzip" in asked.headers.get("accept-encoding", ""):
            headers = {**reply.headers, "Content-Encoding": "gzip"}
            reply = replace(reply, body=gzip.compress(reply.body, 1), headers=headers)
        reply = spoiled_reply(reply, struck, dials)
        self.journal.answer(place, len(codes), 0 if reply.broken else reply.status, msg)
        self.clock.wait(dials.latency_s)
        return reply

    def _answer(
        self, asked: Asked, given: str, body: Body | None, struck: tuple[Rule, ...], now_s: float
    ) -> tuple[Reply, str]:
        """Return (reply, the vendor's word for it); what is wrong with the request comes first."""
        plan = next((p for p in self.plans.values() if p.key == given), None)
        if asked.method != "POST":
            return _refusal("Method not allowed.", 405)
        if plan is None:
            return _refusal("Invalid key." if given else "Key required.")
        if plan.expires_s is not None and plan.expires_s <= now_s:
            return _refusal("Key expired.")
        dials = self.faults.dials
        if dials.limits and not self.windows.admit(plan.key, plan.quotas, now_s):
            return _refusal(dials.limit_text, dials.limit_status)
        if body is None:
            return _refusal("Invalid params.")
        if dials.limits and len(set(body.every_code)) > plan.products:
            return _refusal(dials.products_text)
        data = self._data(asked.path, body, plan, struck, now_s)
        if isinstance(data, str):
            return _refusal(data)
        # Items come in no useful order; the same request always gives the same one.
        start = key(self.market.seed, zlib.crc32(asked.body))
        value = spoiled_items(_shuffled(data, start), struck)
        return in_json(value), value["msg"]

    def _data(
        self, path: str, body: Body, plan: Plan, struck: tuple[Rule, ...], now_s: float
    ) -> "_Data | str":
        """Return the data of a reply, or the text of what is wrong."""
        if path in _KLINES:
            return self._klines(path, body.kline_reqs, plan, struck, now_s)
        if path == "/market-calendar":
            return {m: self._calendar(m, now_s) for m in body.market if m in MARKETS.values()}
        if path == "/product-list":
            return {m: self._products(m) for m in body.market}
        if path not in {*_QUOTES, "/trade"}:
            return "Not found."
        found = (self._instrument(code) for code in body.every_code)
        listed = [inst for inst in found if inst is not None]
        if path == "/trade":
            return [trade for inst in listed for trade in trades(self.market, inst, body.count, now_s)]
        items = (_QUOTES[path](self.market, inst, now_s) for inst in listed)
        return [item for item in items if item is not None]

    def _klines(
        self, path: str, entries: tuple[Entry, ...] | None, plan: Plan, struck: tuple[Rule, ...], now_s: float
    ) -> list[dict[str, Any]] | str:
        if entries is None or any(entry.kt not in KINDS for entry in entries):
            return "Invalid params."
        items: list[dict[str, Any]] = []
        for entry in entries:
            end = entry.e if path == "/history" else None
            for code in split_codes(entry.c):
                inst = self._instrument(code)
                if inst is not None:
                    source, name = self._mistaken(inst, struck), code_of(inst)
                    bars = series(self.market, source, entry.kt, entry.co, end, entry.a == 1, plan, now_s)
                    items.append({"c": name, "k": [bar | {"c": name} for bar in bars]})
                elif self.faults.dials.unknown_codes == "empty":
                    items.append({"c": code, "k": []})
        return items

    def _instrument(self, code: str) -> Instrument | None:
        return self.market.instruments.get(symbol_of(code) or "")

    def _mistaken(self, inst: Instrument, struck: tuple[Rule, ...]) -> Instrument:
        """Return the instrument whose bars are sent: a neighbour's, where a wrong page was ordered."""
        code = code_of(inst)
        if not any(r.kind == "wrong_page" and (not r.codes or code in r.codes) for r in struck):
            return inst
        peers = [i for i in self.market.instruments.values() if i.venue == inst.venue]
        return peers[(peers.index(inst) + 1) % len(peers)]

    def _calendar(self, market: str, now_s: float) -> list[str]:
        venue = next(v for v, m in MARKETS.items() if m == market)
        place = grid(venue)
        today = datetime.fromtimestamp(now_s, UTC).astimezone(place.zone).date()
        first = (today - _EPOCH).days
        days = place.between(first, first + _CALENDAR_DAYS)
        return [
            f"{_EPOCH + timedelta(days=d):%Y%m%d},{'H' if place.short(d) else 'F'}" for d in days.tolist()
        ]

    def _products(self, market: str) -> list[dict[str, str]]:
        head = list(self.market.instruments.values())[:_POPULAR]
        listed = (i for i in head if MARKETS[i.venue] == market and i.traded == 1 and i.delisted is None)
        return [{"code": code_of(inst, padded=True), "name": inst.name_zh} for inst in listed]


def _refusal(msg: str, status: int = 200) -> tuple[Reply, str]:
    return in_json({"msg": msg}, status), msg


def _shuffled(data: _Data, start: int) -> _Data:
    """Return a list in the order that `start` draws, anything else as it is."""
    if not isinstance(data, list):
        return data
    return [data[i] for i in sorted(range(len(data)), key=lambda i: key(start, i))]
