"""Faults on demand, the same ones every time: rules, dials, and one seeded draw per request."""

import threading
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Final, Literal, get_args

from ..errors import BadRequest
from .noise import key

__all__ = ["Dials", "FaultKind", "Faults", "Rule"]

FaultKind = Literal[
    "http_504", "http_429", "http_500_ok", "slow", "reset", "cut", "corrupt", "error",
    "no_data", "null_data", "no_k", "null_k", "numeric_price", "duplicate_bar", "descending", "low_above_high", "empty_page",
    "missing_item", "wrong_page", "drop", "twice", "late", "torn", "bomb", "unnamed",
    "close", "bad_error", "empty_price", "stray_bar", "unsorted", "http_429_json", "not_json",
    "late_trade", "eod_quote", "lost_push",
]  # fmt: skip
_KINDS: Final = get_args(FaultKind)


@dataclass(frozen=True, slots=True)
class Rule:
    """When a fault strikes: the next `next` matching requests, or each with `probability`.

    `endpoint` and `codes` narrow it (empty: any); a fault inside the data strikes the items
    of `codes`, as the vendor spells them. `text` is the message of the kind `error`, `code` its
    number where the vendor has numbers.
    """

    kind: FaultKind
    next: int = 0
    probability: float = 0.0
    endpoint: str = ""
    codes: tuple[str, ...] = ()
    text: str = "Internal error."
    code: int = 0


@dataclass(frozen=True, slots=True)
class Dials:
    """How a stand-in behaves where the vendor's way is unknown, and how slow it is.

    `latency_s` is sandbox time before each reply (it moves a standing clock), `slow_s` wall
    time of the fault `slow`. `limit_status` and `limit_text` are the answer to a broken limit.
    """

    latency_s: float = 0.0
    slow_s: float = 11.0
    limits: bool = True
    limit_status: int = 200
    limit_text: str = "Request frequency exceeded."
    products_text: str = "Product count exceeded."
    unknown_codes: Literal["omit", "empty"] = "omit"
    gzip: bool = False


class Faults:
    """The rules and dials in force; the n-th request since the last reset draws the same faults."""

    def __init__(self, seed: int) -> None:
        self._seed, self._lock = seed, threading.Lock()
        self.reset()

    def reset(self) -> None:
        """Return to a well-behaved vendor, and start counting requests anew."""
        self.rules: tuple[Rule, ...] = ()
        self.dials = Dials()
        self._count = 0

    def put(self, rules: list[dict[str, Any]] | None, dials: dict[str, Any]) -> None:
        """Replace the rules (None: keep them) and turn some dials; BadRequest names what is unknown."""
        fresh = None if rules is None else tuple(_rule(r) for r in rules)
        known = tuple(f.name for f in fields(Dials))
        for name in dials:
            if name not in known:
                raise BadRequest("dial", name, known)
        with self._lock:
            self.rules = self.rules if fresh is None else fresh
            self.dials = replace(self.dials, **dials)

    def shown(self) -> dict[str, Any]:
        """Return rules and dials as JSON values."""
        with self._lock:
            return {"rules": [asdict(rule) for rule in self.rules], "dials": asdict(self.dials)}

    def draw(self, endpoint: str, codes: frozenset[str]) -> tuple[Rule, ...]:
        """Return the rules that strike this request, and use up one of `next` of each."""
        with self._lock:
            self._count += 1
            struck: list[Rule] = []
            kept: list[Rule] = []
            for place, rule in enumerate(self.rules):
                fits = rule.endpoint in {"", endpoint} and (not rule.codes or bool(codes & set(rule.codes)))
                hit = fits and (rule.next > 0 or self._chance(place) < rule.probability)
                if hit:
                    struck.append(rule)
                used = replace(rule, next=rule.next - 1) if hit and rule.next else rule
                if used.next or used.probability:
                    kept.append(used)
            self.rules = tuple(kept)
            return tuple(struck)

    def _chance(self, place: int) -> float:
        return key(self._seed, "fault", self._count, place) / 2.0**64


def _rule(given: dict[str, Any]) -> Rule:
    known = tuple(f.name for f in fields(Rule))
    for name in given:
        if name not in known:
            raise BadRequest("rule", name, known)
    if given.get("kind") not in _KINDS:
        raise BadRequest("kind", given.get("kind"), _KINDS)
    fitted: dict[str, Any] = {**given, "codes": tuple(given.get("codes", ()))}
    return Rule(**fitted)
