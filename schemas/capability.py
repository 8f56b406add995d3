"""What a vendor kind can do, as data: units, labels, limits, and how well each is known."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Literal

from .freq import Freq
from .quota import Quota
from .symbol import Class

__all__ = ["Adjust", "Capability", "Evidence", "Label"]

Label = Literal["start", "end", "date"]
Adjust = Literal["none", "qfq", "hfq", "split", "unknown"]
Basis = Literal["documented", "observed", "assumed"]


@dataclass(frozen=True, slots=True)
class Evidence:
    """How a field is known: documented by the vendor, observed (on `seen`), or assumed."""

    basis: Basis
    seen: date | None = None


@dataclass(frozen=True, slots=True)
class Capability:
    """What one vendor kind can do; any field may be overridden in the config.

    Fields that are not listed in `evidence` are assumed.
    """

    venues: tuple[str, ...]
    classes: tuple[Class, ...]
    freqs: Mapping[Freq, str]  # freq → the vendor's wire code
    label: Mapping[Freq, Label]  # what the vendor's time of a bar means
    time_unit: Literal["s", "ms", "us", "datetime"]
    zone: str  # zone of naive times; "venue": local to each venue
    volume_factor: Mapping[tuple[str, Class], float]  # (venue, class) → shares per unit; default 1
    amount: bool
    adjusts: tuple[Adjust, ...]
    page_limit: int  # bars per entry
    products: int  # entries per request
    order: Literal["ascending", "descending", "unknown"]
    end_inclusive: bool | None  # None: unknown, both are accepted
    includes_unfinished: bool
    fills_gaps: bool
    quotas: tuple[Quota, ...]
    settle_s: Mapping[str, float]  # venue → seconds after a bar's end until it is final; "*" for others
    restates: bool
    session_extra: Mapping[tuple[str, Freq], int] = field(default_factory=dict[tuple[str, Freq], int])
    # (venue, freq) → bars per session beyond the regular grid: auction prints that stand alone on the wire
    depth: int = 0  # newest bars per series that the vendor gives; 0: no known floor
    end_honoured: bool = True  # False: every page is the newest one
    end_ignored: tuple[
        str, ...
    ] = ()  # venues of which every page is the newest one, whatever holds elsewhere
    floor: Mapping[tuple[str, Freq], date] = field(default_factory=dict[tuple[str, Freq], date])
    snapshots: int = 0  # symbols per snapshot; 0: as many as `products`
    platform: str = "any"
    evidence: Mapping[str, Evidence] = field(default_factory=dict[str, Evidence])

    def factor(self, venue: str, klass: Class) -> float:
        """Return how many shares or base units one unit of the vendor's volume is."""
        return self.volume_factor.get((venue, klass), 1.0)

    def at(self, venue: str) -> "Capability":
        """Return what holds for symbols of one venue."""
        return replace(self, end_honoured=False) if venue in self.end_ignored else self

    @property
    def reach(self) -> int:
        """Return how many of its newest bars a series can give; 0: all of them, as far as known."""
        return self.depth or (0 if self.end_honoured else self.page_limit)

    def settle(self, venue: str) -> float:
        """Return the seconds after a bar's end until the vendor no longer corrects it."""
        return self.settle_s.get(venue, self.settle_s.get("*", 0.0))

    def known(self, name: str) -> Evidence:
        """Return how well the field `name` is known."""
        return self.evidence.get(name, Evidence("assumed"))
