"""The control face: the clock, the log, the truth, and the dials, for klake and for tests."""

from dataclasses import asdict, replace
from datetime import date, datetime, timedelta
from typing import Any, Protocol, cast

from ..errors import BadRequest
from ..schemas.freq import Freq
from .clock import SandboxClock
from .daily import events
from .faults import Faults
from .grid import grid, number
from .http import Asked, Reply, in_json, parsed
from .instruments import Instrument
from .journal import Journal, stamp
from .limits import Plan
from .market import Market, Restatement
from .qos import Qos

__all__ = ["Control"]


class Switched(Protocol):
    """A stand-in that has switches of its own."""

    def turn(self, changes: dict[str, Any]) -> None:
        """Turn some switches; BadRequest names what is unknown."""
        ...

    def shown(self) -> dict[str, Any]:
        """Return the switches as JSON values."""
        ...

    def reset(self) -> None:
        """Return to the usual switches."""
        ...


class Control:
    """Answers GET /, /clock, /requests, /truth, /instruments, /faults; POST /clock, /faults, /reset.

    A request that makes no sense gets status 400 and {"error": sentence}.
    """

    def __init__(
        self,
        market: Market,
        clock: SandboxClock,
        journal: Journal,
        faults: Faults,
        qos: Qos,
    ) -> None:
        self.market, self.clock, self.journal, self.faults, self.qos = market, clock, journal, faults, qos
        self.about: dict[str, Any] = {}  # URLs and secrets, once the doors are open
        self.faces: dict[str, Switched] = {}  # vendors whose own switches stand under their names in /faults

    def answer(self, asked: Asked) -> Reply:
        """Return the reply to one request."""
        routes = {
            ("GET", "/"): lambda: self.about,
            ("GET", "/clock"): self._time,
            ("POST", "/clock"): lambda: self._put_clock(_object(asked)),
            ("GET", "/requests"): lambda: [asdict(row) for row in self.journal.rows()],
            ("GET", "/truth"): lambda: self._truth(asked),
            ("GET", "/instruments"): lambda: [self._shown(i) for i in self.market.instruments.values()],
            ("GET", "/faults"): self._dials,
            ("POST", "/faults"): lambda: self._put_faults(_object(asked)),
            ("POST", "/reset"): self._reset,
        }
        route = routes.get((asked.method, asked.path))
        if route is None:
            known = ", ".join(f"{method} {path}" for method, path in routes)
            return in_json({"error": f"{asked.method} {asked.path} is none of {known}"}, 404)
        try:
            return in_json(route())
        except (BadRequest, KeyError, TypeError, ValueError) as error:
            return in_json({"error": f"{type(error).__name__}: {error}"}, 400)

    def _time(self) -> dict[str, Any]:
        return {"now": stamp(self.clock.now()), "rate": self.clock.rate}

    def _put_clock(self, given: dict[str, Any]) -> dict[str, Any]:
        unknown = set(given) - {"now", "rate", "advance_s", "reach"}
        if unknown or not given:
            raise BadRequest("clock", sorted(unknown), ("now", "rate", "advance_s", "reach"))
        if "now" in given or "rate" in given:
            now = _instant(given["now"]) if "now" in given else None
            self.clock.put(now, float(given["rate"]) if "rate" in given else None)
        if "advance_s" in given:
            self.clock.advance(float(given["advance_s"]))
        if "reach" in given:
            self.clock.reach(_instant(given["reach"]))
        return self._time()

    def _truth(self, asked: Asked) -> list[dict[str, Any]]:
        query = asked.query
        freq = Freq.parse(query["freq"])
        read = _instant if freq.intraday else date.fromisoformat
        now = _instant(query["now"]) if "now" in query else self.clock.now()
        table = self.market.truth(query["symbol"], freq, read(query["start"]), read(query["end"]), now)
        return [
            row | {"ts": stamp(row["ts"]), "session": row["session"].isoformat()} for row in table.to_pylist()
        ]

    def _shown(self, inst: Instrument) -> dict[str, Any]:
        place = grid(inst.venue)
        return {
            "symbol": str(inst.symbol), "class": inst.klass.value, "name_en": inst.name_en, "name_zh": inst.name_zh,
            "currency": inst.symbol.place.currency, "lot": inst.lot / 10**inst.volume_decimals,
            "tick": inst.tick / 10**inst.decimals, "listed": inst.listed.isoformat(),
            "delisted": inst.delisted and inst.delisted.isoformat(),
            "halts": [[start.isoformat(), end.isoformat()] for start, end in inst.halts],
            "actions": [
                {"ex": _day(e.day), "kind": e.action.kind, "ratio": e.action.ratio, "cash": e.cash,
                 "prev_close": e.prev_close, "factor": e.factor}
                for e in events(inst, place)
            ] if len(self.market.instruments) <= 200 else [],
        }  # fmt: skip

    def _dials(self) -> dict[str, Any]:
        plans = {p.name: {k: v for k, v in asdict(p).items() if k != "key"} for p in self.qos.plans.values()}
        own = {name: face.shown() for name, face in self.faces.items()}
        return self.faults.shown() | {"keys": plans, "closing_delay_s": self.market.closing_delay_s} | own

    def _put_faults(self, given: dict[str, Any]) -> dict[str, Any]:
        """`rules` replaces the rules, `dials`, `keys`, `closing_delay_s` and a vendor's name turn, `restate` adds."""
        known = ("rules", "dials", "keys", "closing_delay_s", "restate", *self.faces)
        for name in given:
            if name not in known:
                raise BadRequest("faults", name, known)
        plans = {name: self._plan(name, changes) for name, changes in given.get("keys", {}).items()}
        delay = float(given.get("closing_delay_s", self.market.closing_delay_s))
        restated = [self._restatement(one) for one in given.get("restate", ())]
        self.faults.put(given.get("rules"), given.get("dials", {}))
        for name in self.faces.keys() & given.keys():
            self.faces[name].turn(given[name])
        # Nothing is turned until everything has been understood.
        self.qos.plans |= plans
        self.market.closing_delay_s = delay
        for change in restated:
            self.market.restate(change)
        return self._dials()

    def _plan(self, name: str, changes: dict[str, Any]) -> Plan:
        if "quotas" in changes:
            changes = changes | {"quotas": tuple((int(n), float(s)) for n, s in changes["quotas"])}
        return replace(self.qos.plans[name], **changes)

    def _restatement(self, given: dict[str, Any]) -> Restatement:
        first, last = date.fromisoformat(given["start"]), date.fromisoformat(given["end"])
        at = _instant(given["at"]) if "at" in given else self.clock.now()
        symbol = str(self.market.instrument(given["symbol"]).symbol)
        return Restatement(symbol, number(first), number(last), at.timestamp())

    def _reset(self) -> dict[str, Any]:
        """Forget log, faults, plans, windows and restatements; the clock stays."""
        self.journal.clear()
        self.faults.reset()
        self.qos.reset()
        for face in self.faces.values():
            face.reset()
        self.market.calm()
        return self._time()


def _object(asked: Asked) -> dict[str, Any]:
    body = parsed(asked.body)
    if not isinstance(body, dict):
        raise BadRequest("body", asked.body[:80].decode(errors="replace"), hint="send a JSON object")
    return cast("dict[str, Any]", body)


def _instant(text: str) -> datetime:
    instant = datetime.fromisoformat(text)
    if instant.tzinfo is None:
        raise BadRequest("instant", text, hint="give it with a zone, such as 2026-11-20T08:00:00Z")
    return instant


def _day(day: int) -> str:
    return (date(1970, 1, 1) + timedelta(days=day)).isoformat()
