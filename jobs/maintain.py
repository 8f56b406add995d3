"""Maintenance: what is due is done at the end of each run, so that nobody has to remember it."""

from dataclasses import dataclass, field

from ..schemas.session import sessions_table
from ..storage.compact import Compacted
from ..storage.retention import Expired
from ..storage.store import Store
from ..storage.vacuum import Vacuumed
from .desk import Books

__all__ = ["Maintained", "end_run", "expire", "maintain"]


@dataclass(frozen=True, slots=True)
class Maintained:
    """What a run's end did: files folded into their tiers, dead files deleted, raw segments let go of."""

    compacted: Compacted = field(default_factory=Compacted)
    vacuumed: Vacuumed = field(default_factory=Vacuumed)
    expired: Expired = field(default_factory=Expired)


def end_run(books: Books, raw_days: int | None = None) -> Maintained:
    """Seal what was received, publish what SQL sees, and return what was due and is done."""
    store = books.store
    store.raw.seal()
    store.publish_extra("coverage", books.ledger.table())
    store.publish_extra("sessions", sessions_table())
    store.publish()
    return maintain(store, raw_days)


def maintain(store: Store, raw_days: int | None = None) -> Maintained:
    """Return what was due and is done: folding where it pays now, vacuum at most once an hour.

    `raw_days`: how long pages are kept in the raw zone, looked after once a day; None: for ever.
    Nothing due costs a look at the newest manifest. LakeError: the lake is as it was before.
    """
    compacted = store.compact(due_only=True)
    vacuumed = store.vacuum() if store.vacuum_due() else Vacuumed()
    return Maintained(compacted, vacuumed, expire(store, raw_days, due_only=True))


def expire(store: Store, raw_days: int | None, *, dry_run: bool = False, due_only: bool = False) -> Expired:
    """Return the segments of the raw zone that were deleted, or would be; none where pages are kept for ever.

    A folder of collected pages keeps them: who knows whether they have been taken.
    """
    if raw_days is None or store.holds == "pages":
        return Expired()
    return store.raw.expire(
        raw_days, lambda: store.table("requests", ["page_id"])["page_id"].to_pylist(), dry_run=dry_run, due_only=due_only
    )  # fmt: skip
