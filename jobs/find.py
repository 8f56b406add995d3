"""Find: which symbols a text can mean, as far as vendors list them."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import AmbiguousSymbol, BadRequest, KlakeError, UnknownSymbol
from ..ingest.vendor import Instrument, Vendor
from ..schemas.symbol import Symbol
from .desk import Desk

__all__ = ["Finding", "Found", "find"]


@dataclass(frozen=True, slots=True, order=True)
class Found:
    """One symbol that a vendor (or the spelling alone: vendor empty) offers for a text."""

    symbol: str
    klass: str
    name_en: str
    name_zh: str
    vendor: str
    spelling: str


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found, ascending by symbol, and which vendors could not be asked."""

    text: str
    sandbox: bool
    found: tuple[Found, ...]
    troubles: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the answer as plain values, for `--json`."""
        return asdict(self)


def find(desk: Desk, text: str, vendor: str = "") -> Finding:
    """Return the symbols that `text` can mean: by spelling, and by name where vendors list names.

    One request per vendor at most, under its quota. A vendor that fails is told in
    `troubles` when others were asked, too.

    Raises
    ------
    BadRequest
        An empty text, or an unknown vendor.
    KlakeError
        The only vendor asked fails.
    """
    if not text.strip():
        raise BadRequest("text", text, hint="give a code or a part of a name")
    names = [vendor] if vendor else list(desk.settings.vendors)
    found, troubles = set[Found](), list[str]()
    meant = _meant(text)
    for name in names:
        try:
            found |= set(_asked(desk, name, text, meant))
        except KlakeError as error:
            if len(names) == 1 and (vendor or not meant):
                raise
            troubles.append(str(error))
    said = {f.symbol for f in found}
    found |= {Found(str(s), s.klass.value, "", "", "", "") for s in meant if str(s) not in said}
    return Finding(text, desk.sandbox, tuple(sorted(found)), tuple(troubles))


def _meant(text: str) -> list[Symbol]:
    """Return the symbols that the spelling alone can mean: none, one, or all of an ambiguous one."""
    try:
        return [Symbol.parse(text)]
    except AmbiguousSymbol as error:
        return [Symbol.parse(known) for known in error.known]
    except UnknownSymbol:
        return []


def _asked(desk: Desk, name: str, text: str, meant: Iterable[Symbol]) -> Iterable[Found]:
    vendor = desk.vendor(name)
    try:
        listed = _counted(desk, vendor, text)
    finally:
        vendor.close()
    for one in listed:
        yield Found(str(one.symbol), one.klass.value, one.name_en, one.name_zh, name, one.spelling)
    named = {one.symbol for one in listed}
    for symbol in meant:
        spelling = vendor.spell(symbol)
        if symbol not in named and spelling is not None:
            yield Found(str(symbol), symbol.klass.value, "", "", name, spelling)


def _counted(desk: Desk, vendor: Vendor, text: str) -> list[Instrument]:
    """Return what the vendor lists for `text`, under its quota."""
    quotas = desk.quotas()
    slot = quotas.reserve(vendor.account, vendor.capability.quotas)
    try:
        return vendor.find(text)
    finally:
        quotas.settle(slot)
