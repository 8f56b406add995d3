"""What was found out about a vendor, kept in the state and laid over what its kind declares."""

import dataclasses
import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from ..ingest.vendor import Answer, Vendor
from ..schemas.capability import Capability, Evidence
from ..storage.coverage import Ledger

__all__ = ["QUESTIONS", "ignored", "keep", "observed"]

QUESTIONS: Final = tuple(f"{letter}{number}" for letter in "ULMX" for number in range(1, 20))
"""What probes may be asked, as the vendors' files number them."""

_LASTS: Final = timedelta(days=30)  # a plan may be upgraded, and a vendor mend its ways
_VALUES: Final[dict[str, object]] = {"true": True, "false": False}
_LISTS: Final = {"adjusts", "end_ignored"}  # fields that hold words


def keep(ledger: Ledger, vendor: str, answer: Answer, seen_at: datetime) -> None:
    """Keep one answer of a probe (or one that a run came upon); a later one replaces it."""
    kept = json.dumps(dataclasses.asdict(answer), ensure_ascii=False)
    ledger.set_fact(vendor, f"probe {answer.question}", kept, seen_at)


def ignored(capability: Capability, venues: Sequence[str]) -> Answer:
    """Return what a run came upon: that pages are always the newest ones.

    Of the whole key, unless the vendor documents that it honours an end: then of `venues`.
    """
    text, evidence = (
        "the end is ignored: this key gives the newest bars only",
        "a page came back with the newest bars",
    )
    if capability.known("end_honoured").basis != "documented":
        return Answer("U2", text, evidence, "observed", "end_honoured", "false")
    every = sorted({*capability.end_ignored, *venues})
    return Answer("U2", f"{text} of {', '.join(every)}", evidence, "observed", "end_ignored", " ".join(every))


def observed(vendor: Vendor, ledger: Ledger, now: datetime) -> None:
    """Lay the kept answers over the vendor's Capability, as observed; what is documented stays.

    An answer older than 30 days counts no more.
    """
    capability = vendor.capability
    changes: dict[str, Any] = {}
    evidence = dict(capability.evidence)
    for question in QUESTIONS:
        fact = ledger.fact(vendor.name, f"probe {question}")
        if fact is None or now - fact.seen_at > _LASTS:
            continue
        answer = Answer(**json.loads(fact.value))
        if capability.known(answer.field).basis == "documented":
            continue
        value = tuple(answer.value.split()) if answer.field in _LISTS else _VALUES.get(answer.value)
        if value is not None:
            changes[answer.field] = value
            evidence[answer.field] = Evidence("observed", fact.seen_at.date())
    if changes:
        vendor.capability = dataclasses.replace(capability, **changes, evidence=evidence)
