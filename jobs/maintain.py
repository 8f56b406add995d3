"""Maintenance: what is due is done at the end of each run, so that nobody has to remember it."""

from dataclasses import dataclass, field

from ..storage.compact import Compacted
from ..storage.store import Store
from ..storage.vacuum import Vacuumed

__all__ = ["Maintained", "maintain"]


@dataclass(frozen=True, slots=True)
class Maintained:
    """What a run's end did: files folded into their tiers, dead files deleted."""

    compacted: Compacted = field(default_factory=Compacted)
    vacuumed: Vacuumed = field(default_factory=Vacuumed)


def maintain(store: Store) -> Maintained:
    """Return what was due and is done: folding where it pays now, vacuum at most once an hour.

    Nothing due costs a look at the newest manifest. LakeError: the lake is as it was before.
    """
    compacted = store.compact(due_only=True)
    return Maintained(compacted, store.vacuum() if store.vacuum_due() else Vacuumed())
