"""Canaries: does the vendor's volume count what its Capability says? Asked once per group of symbols.

A daily or minute bar of QOS has no amount, so that lots and shares look alike; a snapshot
has a turnover, and turnover ÷ (volume × price) tells them apart. A group is a venue and class;
Shanghai's STAR board is one of its own, because its lots are not those of the main board.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import log10
from statistics import median
from typing import Final, NamedTuple, Protocol

import numpy as np
import pyarrow as pa

from ..errors import BadPage, RateLimited, SymbolRefused, UnitMismatch, VendorDown, VendorError, VendorRefused
from ..schemas.page import Page
from ..schemas.symbol import Class, Symbol
from .vendor import Snapshot, Vendor

__all__ = ["Fact", "Facts", "Unverified", "canaries", "check_amounts", "fact_names", "implied_factor"]

# The mean price of a day may lie outside the sampled low and high by so much: trades outside
# the regular hours count in the turnover. A false unit is wrong by a factor of two at least.
_SLACK: Final = 0.1
_STAR: Final = ("688", "689")
_NO_PRICE: Final = {Class.INDEX}  # what an index costs is not what its members' shares cost


class _Group(NamedTuple):
    """Symbols whose volume counts alike; `board` is empty but for Shanghai's STAR board."""

    venue: str
    klass: Class
    board: str = ""

    @property
    def fact(self) -> str:
        """Return the name of the fact about it: `volume SH.stock`, `volume SH.stock.688`."""
        return f"volume {self.venue}.{self.klass}{self.board and f'.{self.board}'}"


@dataclass(frozen=True, slots=True)
class Fact:
    """Something found out about a vendor, to be kept: `volume SH.stock` → `100 (600519.SH: 99.7)`."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Unverified:
    """A group whose canary could not be asked, and why: the next run asks again."""

    name: str
    why: str


class Kept(Protocol):
    """A fact as it is kept."""

    @property
    def value(self) -> str:
        """Return what was found out."""
        ...


class Facts(Protocol):
    """Where facts about a vendor are kept."""

    def fact(self, vendor: str, name: str) -> Kept | None:
        """Return what is kept under `name`; None when nothing is."""
        ...


def canaries(
    vendor: Vendor, symbols: Sequence[Symbol], facts: Facts, asked: Callable[[Callable[[], Page]], Page]
) -> Iterator[Fact | Unverified]:
    """Yield a fact for each group of `symbols` whose volume unit is confirmed now.

    At most one request, none when all is known as it is declared now. No trade today or no
    snapshot leave a group unverified without a word, an index always; where the request
    fails, each group is yielded as `Unverified`.

    Parameters
    ----------
    asked : callable
        Runs a request under the quota, with retries.

    Raises
    ------
    UnitMismatch
        The volume of some symbol is not what is declared; says how to go on.
    VendorError
        The key is not accepted, or the month's allowance is spent.
    """
    groups: dict[_Group, list[Symbol]] = defaultdict(list)
    for symbol in symbols:
        group = _group(symbol)
        if group.klass not in _NO_PRICE and vendor.spell(symbol) and not _known(vendor, group, facts):
            groups[group].append(symbol)
    chosen = _chosen(groups, vendor.capability.snapshots or vendor.capability.products)
    if not chosen:
        return
    by_group: dict[_Group, list[Snapshot]] = defaultdict(list)
    try:
        for snapshot in vendor.snapshots(asked(lambda: _page(vendor, chosen))):
            by_group[_group(snapshot.symbol)].append(snapshot)
    except (BadPage, RateLimited, SymbolRefused, VendorDown, VendorRefused) as error:
        yield from _unverified(chosen, error)
        return
    for group, snapshots in sorted(by_group.items()):
        told = _judged(vendor, group, snapshots)
        if told is not None:
            yield Fact(group.fact, told)


def check_amounts(vendor: str, symbol: Symbol, bars: pa.Table, factor: float) -> None:
    """Refuse a page whose amounts say that its volume counts something else than is declared.

    `bars`: columns of INCOMING, volume already in shares by `factor`. What has no amount, no
    trade or no price of its own (an index) says nothing.

    Raises
    ------
    UnitMismatch
        Amount ÷ (volume × close) of the page's middle bar is not between one half and two.
    """
    if symbol.klass in _NO_PRICE or not bars.num_rows:
        return
    volume, amount, close = (bars[name].to_numpy() for name in ("volume", "amount", "close"))
    told = (volume > 0) & (amount > 0) & (close > 0)
    if not told.any():
        return
    ratio = float(np.median(amount[told] / (volume[told] * close[told])))
    if 0.5 < ratio < 2:
        return
    group = _group(symbol)
    line = f'volume_factor = {{ "{group.venue}.{group.klass}" = {10.0 ** round(log10(ratio * factor)):g} }}'
    raise UnitMismatch(
        vendor,
        f"volume of {symbol}: declared as {factor:g} per unit, but amount ÷ (volume × close) says "
        f"{ratio * factor:.4g}; nothing of this page was stored. If the vendor is right, write {line} under "
        f"[vendors.{vendor}.capability]",
        f"{symbol} 的成交量单位声明为 {factor:g}，但 成交额÷(成交量×收盘价) 为 {ratio * factor:.4g}；本页未写入。"
        f"若以供应商为准，请在 [vendors.{vendor}.capability] 下写 {line}",
    )


def fact_names(venues: Collection[str]) -> list[str]:
    """Return the name of every fact that canaries can find out about symbols of `venues`."""
    groups = [_Group(venue, klass) for venue in venues for klass in Class if klass not in _NO_PRICE]
    if "SH" in venues:
        groups.append(_Group("SH", Class.STOCK, _STAR[0]))
    return [group.fact for group in groups]


def implied_factor(snapshot: Snapshot) -> float | None:
    """Return turnover ÷ (volume × last price): near the shares per unit; None without trade."""
    if snapshot.volume <= 0 or snapshot.turnover <= 0 or snapshot.last <= 0:
        return None
    return snapshot.turnover / (snapshot.volume * snapshot.last)


def _group(symbol: Symbol) -> _Group:
    star = symbol.venue == "SH" and symbol.klass is Class.STOCK and symbol.code.startswith(_STAR)
    return _Group(symbol.venue, symbol.klass, _STAR[0] if star else "")


def _known(vendor: Vendor, group: _Group, facts: Facts) -> bool:
    """Return whether the factor that is declared now is the one that was confirmed."""
    kept = facts.fact(vendor.name, group.fact)
    return kept is not None and kept.value.partition(" ")[0] == _declared(vendor, group)


def _declared(vendor: Vendor, group: _Group) -> str:
    return f"{vendor.capability.factor(group.venue, group.klass):g}"


def _page(vendor: Vendor, symbols: Sequence[Symbol]) -> Page:
    page = vendor.snapshot(symbols)
    if page is None:
        raise VendorRefused(vendor.name, "it has no snapshot")
    return page


def _unverified(symbols: Iterable[Symbol], error: VendorError) -> Iterator[Unverified]:
    for group in sorted({_group(symbol) for symbol in symbols}):
        yield Unverified(group.fact, str(error))


def _chosen(groups: dict[_Group, list[Symbol]], most: int) -> list[Symbol]:
    """Return symbols for one request: the first of every group, then the second, while there is room."""
    deepest = max((len(members) for members in groups.values()), default=0)
    turns = [members[i] for i in range(deepest) for members in groups.values() if i < len(members)]
    return turns[:most]


def _judged(vendor: Vendor, group: _Group, snapshots: Sequence[Snapshot]) -> str | None:
    """Return what confirms a group: every symbol that was traded must fit."""
    declared = vendor.capability.factor(group.venue, group.klass)
    implied = {s.symbol: found for s in snapshots if (found := implied_factor(s)) is not None}
    if not implied:
        return None
    false = {s.symbol: implied[s.symbol] for s in snapshots if s.symbol in implied and not _fits(s, declared)}
    if false:
        raise _mismatch(vendor, group, false, some=group.board != "" or len(false) < len(implied))
    best = min(implied, key=lambda symbol: abs(implied[symbol] / declared - 1))
    return f"{_declared(vendor, group)} ({best}: {implied[best]:.4g})"


def _mismatch(vendor: Vendor, group: _Group, false: dict[Symbol, float], *, some: bool) -> UnitMismatch:
    """Return the error that names the symbols that do not fit, and the lines that would make them fit."""
    name, declared = f"{group.venue} {group.klass}", _declared(vendor, group)
    told = ", ".join(f"{symbol} {found:.4g}" for symbol, found in false.items())
    line = f'volume_factor = {{ "{group.venue}.{group.klass}" = {10.0 ** round(log10(median(false.values()))):g} }}'
    how = f"If the vendor is right, write {line} under [vendors.{vendor.name}.capability]"
    how_zh = f"若以供应商为准，请在 [vendors.{vendor.name}.capability] 下写 {line}"
    if some:  # one factor cannot serve both
        how = f"Leave these out (exclude), or fetch them through a second [vendors.…] of the same key with {line}"
        how_zh = f"请排除这些代码（exclude），或用同一密钥另设 [vendors.…] 并写 {line}"
    return UnitMismatch(
        vendor.name,
        f"volume of {name}: declared as {declared} per unit, but turnover ÷ (volume × price) is: {told}; "
        f"nothing was stored. {how}",
        f"{name} 的成交量单位声明为 {declared}，但 成交额÷(成交量×价格) 为：{told}；未写入任何数据。{how_zh}",
    )


def _fits(snapshot: Snapshot, factor: float) -> bool:
    mean = snapshot.turnover / (snapshot.volume * factor)
    low = min(snapshot.low or snapshot.last, snapshot.last) * (1 - _SLACK)
    return low <= mean <= max(snapshot.high, snapshot.last) * (1 + _SLACK)
