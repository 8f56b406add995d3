"""The QOS quote API over HTTP, quirks included: what vendors/qos.md says of the real one."""

import gzip
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

from .clock import SandboxClock
from .faults import Faults, Rule
from .grid import grid
from .http import Asked, Reply, in_json, parsed
from .instruments import Instrument
from .journal import Journal, account_of
from .limits import Plan, Windows, secret
from .market import Market
from .noise import key
from .qos_faults import spoiled_items, spoiled_reply
from .qos_quotes import book, info, snapshot, trades
from .qos_wire import KINDS, MARKETS, code_of, series, split_codes, symbol_of

__all__ = ["Qos"]

_KLINES: Final = {"/kline", "/history"}
_QUOTES: Final[dict[str, Callable[[Market, Instrument, float], Any]]] = {
    "/instrument-info": info, "/snapshot": snapshot, "/depth": book,
}  # fmt: skip
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
        body = parsed(asked.body)
        body = body if isinstance(body, dict) else {}
        codes = _codes(body)
        struck = self.faults.draw(asked.path, frozenset(codes))
        reply, msg = self._answer(asked, given, body, codes, struck, arrived.timestamp())
        dials = self.faults.dials
        if dials.gzip and "gzip" in asked.headers.get("accept-encoding", ""):
            reply = replace(
                reply,
                body=gzip.compress(reply.body, 1),
                headers={**reply.headers, "Content-Encoding": "gzip"},
            )
        reply = spoiled_reply(reply, struck, dials)
        self.journal.answer(place, len(codes), 0 if reply.broken else reply.status, msg)
        self.clock.wait(dials.latency_s)
        return reply

    def _answer(
        self,
        asked: Asked,
        given: str,
        body: dict[str, Any],
        codes: list[str],
        struck: tuple[Rule, ...],
        now_s: float,
    ) -> tuple[Reply, str]:
        """Return (reply, the vendor's word for it); what is wrong with the request comes first."""
        plan = next((p for p in self.plans.values() if p.key == given), None)
        refusal = self._refused(asked, plan, codes, now_s)
        if refusal is not None or plan is None:
            msg, status = refusal or ("Invalid key.", 200)
            return in_json({"msg": msg}, status), msg
        data = self._data(asked.path, body, plan, struck, now_s)
        if isinstance(data, str):
            return in_json({"msg": data}), data
        value = spoiled_items({"msg": "OK", "data": data}, struck)
        return in_json(value), value["msg"]

    def _refused(
        self, asked: Asked, plan: Plan | None, codes: list[str], now_s: float
    ) -> tuple[str, int] | None:
        dials = self.faults.dials
        if asked.method != "POST":
            return "Method not allowed.", 405
        if plan is None:
            return (
                "Invalid key." if asked.query.get("key") or "key" in asked.headers else "Key required."
            ), 200
        if plan.expires_s is not None and plan.expires_s <= now_s:
            return "Key expired.", 200
        if dials.limits and not self.windows.admit(plan.key, plan.quotas, now_s):
            return dials.limit_text, dials.limit_status
        if dials.limits and len(set(codes)) > plan.products:
            return dials.products_text, 200
        return None

    def _data(
        self, path: str, body: dict[str, Any], plan: Plan, struck: tuple[Rule, ...], now_s: float
    ) -> Any:
        """Return the data of a reply, or the text of what is wrong."""
        if path in _KLINES:
            return self._klines(path, body.get("kline_reqs"), plan, struck, now_s)
        if path == "/market-calendar":
            return {m: self._calendar(m, now_s) for m in _markets(body) if m in MARKETS.values()}
        if path == "/product-list":
            return {m: self._products(m) for m in _markets(body)}
        if path not in {*_QUOTES, "/trade"}:
            return "Not found."
        items: list[Any] = []
        for code in _codes(body):
            inst = self._instrument(code)
            if inst is not None and path == "/trade":
                items += trades(self.market, inst, int(body.get("count") or 1), now_s)
            elif inst is not None:
                items.append(_QUOTES[path](self.market, inst, now_s))
        return self._shuffled([item for item in items if item is not None], body)

    def _klines(self, path: str, entries: Any, plan: Plan, struck: tuple[Rule, ...], now_s: float) -> Any:
        if not isinstance(entries, list) or not all(isinstance(e, dict) and "c" in e for e in entries):
            return "Invalid params."
        items: list[dict[str, Any]] = []
        for entry in entries:
            kt, count = entry.get("kt"), entry.get("co", 1)
            end = entry.get("e") if path == "/history" else None
            if kt not in KINDS or not isinstance(count, int) or not isinstance(end, int | None):
                return "Invalid params."
            for code in split_codes(str(entry["c"])):
                inst = self._instrument(code)
                if inst is not None:
                    source = self._mistaken(inst, struck)
                    bars = series(self.market, source, kt, count, end, entry.get("a") == 1, plan, now_s)
                    name = code_of(inst)
                    items.append(
                        {"c": name, "k": [bar | {"c": name} for bar in bars] if source is not inst else bars}
                    )
                elif self.faults.dials.unknown_codes == "empty":
                    items.append({"c": code, "k": []})
        return self._shuffled(items, {"kline_reqs": entries})

    def _instrument(self, code: str) -> Instrument | None:
        return self.market.instruments.get(symbol_of(code) or "")

    def _mistaken(self, inst: Instrument, struck: tuple[Rule, ...]) -> Instrument:
        """Return the instrument whose bars are sent: a neighbour's, where a wrong page was ordered."""
        code = code_of(inst)
        if not any(r.kind == "wrong_page" and (not r.codes or code in r.codes) for r in struck):
            return inst
        peers = [i for i in self.market.instruments.values() if i.venue == inst.venue]
        return peers[(peers.index(inst) + 1) % len(peers)]

    def _shuffled(self, items: list[Any], body: dict[str, Any]) -> list[Any]:
        """Items come in no useful order; the same request always gives the same one."""
        start = key(self.market.seed, repr(sorted(body.items())))
        order = sorted(range(len(items)), key=lambda i: key(start, i))
        return [items[i] for i in order]

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


def _codes(body: dict[str, Any]) -> list[str]:
    """Return every code that a body names, one per entry."""
    entries = body.get("kline_reqs")
    if isinstance(entries, list):
        texts = [str(e.get("c", "")) for e in entries if isinstance(e, dict)]
    else:
        given = body.get("codes")
        texts = [str(c) for c in given] if isinstance(given, list) else []
    return [code for text in texts for code in split_codes(text)]


def _markets(body: dict[str, Any]) -> list[str]:
    given = body.get("market")
    return [str(m) for m in given] if isinstance(given, list) else []
