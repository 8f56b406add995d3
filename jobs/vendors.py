"""Vendors: what each one declares, how well that is known, and probing what is not."""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from datetime import date, datetime
from pathlib import Path
from typing import Any, Final, cast

from ..errors import BadRequest, CredentialsMissing, LakeError, VendorDown
from ..ingest.canary import fact_names
from ..ingest.vendor import Answer, Vendor
from ..schemas.capability import Capability
from ..schemas.page import Page, PageRequest
from ..schemas.quota import Quota, Quotas
from ..storage.coverage import Ledger
from ..storage.quotas import quotas_path
from .config import vendor_table
from .desk import Desk
from .facts import QUESTIONS, keep, observed
from .status import declared

__all__ = ["FieldFact", "Known", "ProbeReport", "known", "probe"]

_SKIPPED: Final = ("evidence", "platform")


@dataclass(frozen=True, slots=True)
class FieldFact:
    """One field of a Capability, or one fact found out: its value, and how it is known."""

    field: str
    value: str
    basis: str
    seen: date | None

    @property
    def verified(self) -> bool:
        """False when nobody has documented or observed it."""
        return self.basis != "assumed"


@dataclass(frozen=True, slots=True)
class Known:
    """One `[vendors.NAME]`. `credentials`: are its secrets there; `trouble`: why nothing is known of it."""

    name: str
    kind: str
    credentials: bool
    sandbox: bool
    plan: str
    facts: tuple[FieldFact, ...]
    trouble: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return plain values, for `--json`."""
        facts = [
            {**asdict(f), "seen": f.seen.isoformat() if f.seen else None, "verified": f.verified} for f in self.facts
        ]  # fmt: skip
        return {**asdict(self), "facts": facts}


@dataclass(frozen=True, slots=True)
class ProbeReport:
    """What a probe asked and learned, in how many requests; `recording` holds every reply, without the key."""

    vendor: str
    sandbox: bool
    requests: int
    answers: tuple[Answer, ...]
    recording: str

    def as_json(self) -> dict[str, Any]:
        """Return plain values, for `--json`."""
        return asdict(self)


def known(desk: Desk) -> list[Known]:
    """Return every configured vendor, in the order of the file; sends nothing."""
    ledger = _ledger(desk)
    return [_known(desk, name, ledger) for name in desk.settings.vendors]


def probe(desk: Desk, name: str) -> ProbeReport:
    """Ask a vendor what only it can answer, at most five requests under its quota, and keep the answers.

    Raises
    ------
    KlakeError
        The first request fails, or the vendor cannot be opened.
    """
    vendor = desk.vendor(name)
    ledger = desk.books(create=True).ledger
    recorded = _Recorded(vendor, desk.quotas())
    answers: list[Answer] = []
    try:
        # A vendor file's probe asks through the vendor that it is given: here, the one that writes along.
        for told in type(vendor).probe(cast("Vendor", recorded)):
            answers += told
            for answer in told:
                keep(ledger, name, answer, desk.clock.now())
    finally:
        vendor.close()
        kept_at = recorded.keep(
            quotas_path().parent / "probes" / f"{name}-{desk.clock.now():%Y%m%dT%H%M%SZ}.jsonl"
        )
    return ProbeReport(name, desk.sandbox, recorded.sent, tuple(answers), str(kept_at))


def login(desk: Desk, name: str, opened: Callable[[str], None]) -> datetime | None:
    """Log in to a vendor in a browser and return until when that holds; `opened` is told the URL.

    Raises
    ------
    BadRequest
        Its kind has no login, or this account needs none.
    VendorError
        Nobody logged in, or the vendor refused.
    """
    vendor = desk.vendor(name)
    try:
        ask: Callable[[Callable[[str], None]], datetime | None] | None = getattr(vendor, "login", None)
        if ask is None:
            raise BadRequest(
                "vendor", name, hint=f"kind {vendor.kind} has no login: its secrets stand in {desk.settings.where}",
                hint_zh=f"{vendor.kind} 无需登录：密钥写在 {desk.settings.where}",
            )  # fmt: skip
        return ask(opened)
    finally:
        vendor.close()


class _Recorded:
    """A vendor that takes a slot of the quota for each request, and remembers every reply."""

    def __init__(self, vendor: Vendor, quotas: Quotas) -> None:
        self._vendor, self._quotas = vendor, quotas
        self._pages: list[Page] = []
        self.sent = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._vendor, name)

    def send(self, request: PageRequest) -> Page:
        """Return the vendor's reply, and keep it; a page holds no secret."""
        slot = self._quotas.reserve(self._vendor.account, self._vendor.capability.quotas)
        self.sent += 1
        try:
            page = self._vendor.send(request)
        finally:
            self._quotas.settle(slot)
        self._pages.append(page)
        return page

    def keep(self, path: Path) -> Path:
        """Write one JSON line per page to `path` and return it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [
            json.dumps({
                "endpoint": page.request.endpoint, "entries": [asdict(e) for e in page.request.entries],
                "received_at": page.received_at, "status": page.status, "body": page.body.decode(errors="replace"),
            }, ensure_ascii=False, default=str)
            for page in self._pages
        ]  # fmt: skip
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return path


def _ledger(desk: Desk) -> Ledger | None:
    """Return the ledger, None where there is no lake yet: then nothing was found out either."""
    try:
        return desk.books().ledger
    except LakeError:
        return None


def _known(desk: Desk, name: str, ledger: Ledger | None) -> Known:
    kind = str(desk.settings.vendors[name].get("kind", ""))
    try:
        vendor_table(desk.settings, name)
        credentials = True
    except CredentialsMissing:
        credentials = False
    vendor = declared(desk, name)
    if vendor is None:
        return Known(name, kind, False, desk.sandbox, "", (), "its table in the configuration cannot be used")
    try:
        if ledger is not None:
            with suppress(VendorDown):  # a sandbox that is gone has no clock to age facts by
                observed(vendor, ledger, desk.clock.now())
        facts = [*_declared(vendor.capability), *(_found(vendor, ledger) if ledger else ())]
        return Known(name, kind, credentials, desk.sandbox, _plan(vendor.capability), tuple(facts))
    finally:
        vendor.close()


def _plan(capability: Capability) -> str:
    quotas = " and ".join(map(_quota, capability.quotas))
    depth = f"{capability.depth:,} newest bars" if capability.depth else "all bars"
    return f"{quotas}, {capability.products} series per request, {depth}"


def _declared(capability: Capability) -> list[FieldFact]:
    out: list[FieldFact] = []
    for one in fields(capability):
        if one.name in _SKIPPED:
            continue
        evidence = capability.known(one.name)
        out.append(FieldFact(one.name, _shown(getattr(capability, one.name)), evidence.basis, evidence.seen))
    return out


def _found(vendor: Vendor, ledger: Ledger) -> list[FieldFact]:
    """Return what canaries and probes have found out."""
    out: list[FieldFact] = []
    for name in (*fact_names(vendor.capability.venues), *(f"probe {question}" for question in QUESTIONS)):
        fact = ledger.fact(vendor.name, name)
        if fact is not None:
            told, basis = (fact.value, "observed") if name.startswith("volume") else _answer(fact.value)
            out.append(FieldFact(name, told, basis, fact.seen_at.date()))
    return out


def _answer(kept: str) -> tuple[str, str]:
    told = json.loads(kept)
    return str(told["text"]), str(told["basis"])


def _shown(value: object) -> str:
    """Return a field's value on one line: mappings that say the same for all are said once."""
    if isinstance(value, Mapping):
        values = {_plain(v) for v in value.values()}
        if len(values) == 1 and len(value) > 3:
            return f"{values.pop()} (all {len(value)})"
        return ", ".join(_entries(value)) or "none"
    if isinstance(value, tuple):
        return ", ".join(_quota(v) for v in value) or "none"
    return (
        "unknown" if value is None else "yes" if value is True else "no" if value is False else _plain(value)
    )


def _plain(value: object) -> str:
    return str(getattr(value, "value", value))


def _entries(mapping: Mapping[Any, Any]) -> list[str]:
    """Return `KEY: value` of each key; keys of two parts of which the same is said stand together."""
    alike: dict[str, list[Any]] = {}
    for key, value in mapping.items():
        if isinstance(key, tuple):
            alike.setdefault(_plain(value), []).append(key)
    plain = [f"{_key(key)}: {_plain(value)}" for key, value in mapping.items() if not isinstance(key, tuple)]
    return plain + [f"{_keys(keys)}: {text}" for text, keys in alike.items()]


def _keys(keys: Sequence[Any]) -> str:
    """Return keys in short: `SH.1m`, or `SH SZ (1m to 4h)` where each of the first parts has all of the second."""
    firsts, seconds = (list(dict.fromkeys(_plain(key[i]) for key in keys)) for i in (0, 1))
    if len(keys) < 4 or len(keys) < len(firsts) * len(seconds):
        return " ".join(map(_key, keys))
    inner = f"{seconds[0]} to {seconds[-1]}" if len(seconds) > 2 else " ".join(seconds)
    return f"{' '.join(firsts)} ({inner})"


def _key(key: object) -> str:
    return ".".join(map(str, key)) if isinstance(key, tuple) else str(key)


def _quota(value: object) -> str:
    if not isinstance(value, Quota):
        return _plain(value)
    return (
        f"{value.n} symbols a month"
        if value.scope == "month-symbols"
        else f"{value.n} per {value.window_s:g} s"
    )
