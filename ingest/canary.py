"""Canaries: does the vendor's volume count what its Capability says? Asked once per venue and class.

A daily or minute bar of QOS has no amount, so that lots and shares look alike; a snapshot
has a turnover, and turnover ÷ (volume × price) tells them apart.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import log10
from statistics import median
from typing import Final, Protocol

from ..errors import BadPage, SymbolRefused, UnitMismatch, VendorDown, VendorRefused
from ..schemas.page import Page
from ..schemas.symbol import Class, Symbol
from .vendor import Snapshot, Vendor

__all__ = ["Fact", "Facts", "canaries", "implied_factor"]

_SLACK: Final = 0.02  # the mean price of a day may lie outside the sampled low and high by so much
Group = tuple[str, Class]


@dataclass(frozen=True, slots=True)
class Fact:
    """Something found out about a vendor, to be kept: `volume SH.stock` → `100 (600519.SH: 99.7)`."""

    name: str
    value: str


class Facts(Protocol):
    """Where facts about a vendor are kept."""

    def fact(self, vendor: str, name: str) -> object | None:
        """Return what is kept under `name`; None when nothing is."""
        ...


def canaries(
    vendor: Vendor, symbols: Sequence[Symbol], facts: Facts, counted: Callable[[Callable[[], Page]], Page]
) -> Iterator[Fact]:
    """Yield a fact for each (venue, class) of `symbols` whose volume unit is confirmed now.

    At most one request, none when all is known. No trade today, no snapshot or a refused
    request leave a group unverified: nothing is yielded for it, the next run asks again.

    Parameters
    ----------
    counted : callable
        Runs a request under the quota.

    Raises
    ------
    UnitMismatch
        A group's volume is not what is declared; says how to go on.
    """
    groups: dict[Group, list[Symbol]] = defaultdict(list)
    for symbol in symbols:
        group = (symbol.venue, symbol.klass)
        if facts.fact(vendor.name, _name(group)) is None and vendor.spell(symbol):
            groups[group].append(symbol)
    chosen = _chosen(groups, vendor.capability.products)
    if not chosen:
        return
    try:
        page = counted(lambda: _asked(vendor, chosen))
    except (BadPage, SymbolRefused, VendorDown, VendorRefused):
        return
    by_group: dict[Group, list[Snapshot]] = defaultdict(list)
    for snapshot in vendor.snapshots(page):
        by_group[snapshot.symbol.venue, snapshot.symbol.klass].append(snapshot)
    for group, snapshots in sorted(by_group.items()):
        told = _judged(vendor, group, snapshots)
        if told is not None:
            yield Fact(_name(group), told)


def implied_factor(snapshot: Snapshot) -> float | None:
    """Return turnover ÷ (volume × last price): near the shares per unit; None without trade."""
    if snapshot.volume <= 0 or snapshot.turnover <= 0 or snapshot.last <= 0:
        return None
    return snapshot.turnover / (snapshot.volume * snapshot.last)


def _asked(vendor: Vendor, symbols: Sequence[Symbol]) -> Page:
    page = vendor.snapshot(symbols)
    if page is None:
        raise VendorRefused(vendor.name, "it has no snapshot")
    return page


def _chosen(groups: dict[Group, list[Symbol]], most: int) -> list[Symbol]:
    """Return symbols for one request: the first of every group, then the second, while there is room."""
    deepest = max((len(members) for members in groups.values()), default=0)
    turns = [members[i] for i in range(deepest) for members in groups.values() if i < len(members)]
    return turns[:most]


def _judged(vendor: Vendor, group: Group, snapshots: Sequence[Snapshot]) -> str | None:
    declared = vendor.capability.factor(*group)
    traded = [s for s in snapshots if implied_factor(s) is not None]
    if not traded:
        return None
    if any(_fits(s, declared) for s in traded):
        best = min(traded, key=lambda s: abs((implied_factor(s) or 0) / declared - 1))
        return f"{declared:g} ({best.symbol}: {implied_factor(best):.4g})"
    found = median(f for s in traded if (f := implied_factor(s)) is not None)
    venue, klass = group
    likely = 10.0 ** round(log10(found))
    raise UnitMismatch(
        vendor.name,
        f"volume of {venue} {klass}: declared as {declared:g} per unit, but turnover ÷ (volume × price) of "
        f"{traded[0].symbol} is {found:.4g}; nothing was stored. If the vendor is right, write "
        f'volume_factor = {{ "{venue}.{klass}" = {likely:g} }} under [vendors.{vendor.name}.capability]',
        f"{venue} {klass} 的成交量单位声明为 {declared:g}，但 {traded[0].symbol} 的 成交额÷(成交量×价格) 为 {found:.4g}；"
        f"未写入任何数据。若以供应商为准，请在 [vendors.{vendor.name}.capability] 下写 "
        f'volume_factor = {{ "{venue}.{klass}" = {likely:g} }}',
    )


def _fits(snapshot: Snapshot, factor: float) -> bool:
    mean = snapshot.turnover / (snapshot.volume * factor)
    low = min(snapshot.low or snapshot.last, snapshot.last) * (1 - _SLACK)
    return low <= mean <= max(snapshot.high, snapshot.last) * (1 + _SLACK)


def _name(group: Group) -> str:
    venue, klass = group
    return f"volume {venue}.{klass}"
