"""An index over one manifest: which files hold a series, which vendors hold a symbol."""

from bisect import bisect_right
from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache
from threading import Lock
from typing import Final, cast

from ..schemas.freq import Freq
from .layout import CURRENT, Partition
from .manifest import LiveFile, Manifest

__all__ = ["Held", "Index", "index_of"]

_KEPT: Final = 8


@dataclass(frozen=True, slots=True)
class Held:
    """One live file of current bars and the partition that it lies in; keys count as in `Facts`."""

    file: LiveFile
    where: Partition
    begins: tuple[int, ...]

    def holds(self, place: int) -> bool:
        """Say whether the file holds the symbol at `place` of the manifest's list."""
        at = bisect_right(self.begins, place) - 1
        return at >= 0 and place < self.file.symbols[at][1]

    def overlaps(self, low: int | None, high: int | None) -> bool:
        """Say whether the file can hold a key in `[low, high)`; None: no bound."""
        if not self.file.rows:
            return False
        above = low is None or cast(int, self.file.high) >= low
        return above and (high is None or cast(int, self.file.low) < high)


class Index:
    """What one manifest holds, found without going through all of it."""

    def __init__(self, manifest: Manifest) -> None:
        self.places: Final = {name: place for place, name in enumerate(manifest.symbols)}
        self._files: dict[Freq, list[Held]] = {}
        for file in manifest.files:
            if file.table == "bars" and (where := partition_of(file.path)).era == CURRENT:
                held = Held(file, where, tuple(start for start, _ in file.symbols))
                self._files.setdefault(where.freq, []).append(held)

    def files(self, freq: Freq, vendor: str | None = None) -> list[Held]:
        """Return the files of a freq, of one vendor or all."""
        return [held for held in self._files.get(freq, ()) if vendor in (None, held.where.vendor)]

    def vendors(self, freq: Freq, symbol: str) -> list[str]:
        """Return the vendors that have bars of the symbol, by name."""
        place = self.places.get(symbol)
        if place is None:
            return []
        return sorted({held.where.vendor for held in self._files.get(freq, ()) if held.holds(place)})

    def every_vendor(self) -> list[str]:
        """Return the vendors that have any bar, by name."""
        return sorted({held.where.vendor for files in self._files.values() for held in files})

    def has(self, freq: Freq, symbol: str) -> bool:
        """Say whether any vendor has a bar of the symbol."""
        place = self.places.get(symbol)
        return place is not None and any(held.holds(place) for held in self._files.get(freq, ()))


_guard = Lock()
_made: OrderedDict[int, tuple[Manifest, Index]] = OrderedDict()


def index_of(manifest: Manifest) -> Index:
    """Return the index over `manifest`, made once."""
    with _guard:
        found = _made.get(id(manifest))
        if found is None:
            # The manifest is kept beside its index: while it lives, no other has its id.
            found = _made[id(manifest)] = (manifest, Index(manifest))
            while len(_made) > _KEPT:
                _made.popitem(last=False)
        return found[1]


@lru_cache(maxsize=65_536)
def partition_of(path: str) -> Partition:
    """Return `Partition.parse(path)`."""
    return Partition.parse(path)
