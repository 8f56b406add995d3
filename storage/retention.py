"""Retention: sealed segments that are old enough, wholly stored, and repeated by nobody are deleted."""

from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Final

from .archive import Archive
from .records import Head

__all__ = ["REMEMBERED", "Expired", "expire"]

REMEMBERED: Final = 4
"""The newest segments of a vendor, in which a process that begins now looks up repeated bodies: they stay."""


@dataclass(frozen=True, slots=True)
class Expired:
    """The segments that were deleted (or would be), relative to the lake, and their bytes together."""

    paths: tuple[str, ...] = ()
    size_bytes: int = 0


@dataclass(slots=True)
class _Leaf:
    """One segment: the other ones whose bodies its records repeat, and the pages in it."""

    repeats: set[str] = field(default_factory=set[str])
    pages: list[str] = field(default_factory=list[str])


def expire(
    root: Path,
    archive: Archive,
    before: date,
    stored: Callable[[], Collection[str]],
    *,
    dry_run: bool = False,
) -> Expired:
    """Return what was deleted: segments whose newest page came before the day `before`.

    Parameters
    ----------
    stored : callable
        Gives the ids of the pages that are stored; asked only where a segment is old enough.

    Kept are segments with a page that is not stored or a record that cannot be read, those
    that a record of a kept segment repeats, and the newest of each vendor.
    """
    sealed = archive.sealed()
    old = {stem: path for stem, path in sealed.items() if path.parent.name < before.isoformat()}
    for vendor in {stem.split(".")[0] for stem in old}:
        for stem in list(archive.sealed(vendor))[-REMEMBERED:]:
            old.pop(stem, None)
    if not old:
        return Expired()
    leaves = dict[str, _Leaf]()
    for stem, path in archive.segments().items():
        leaves[stem] = leaf = _Leaf()
        for _, head in archive.records(stem, path, Head):
            leaf.repeats |= {head.segment} - {"", stem}
            if stem in old:
                leaf.pages.append(head.id)
        if archive.spoilt(path):  # whoever looks for what is damaged shall still find it
            old.pop(stem, None)
    known = frozenset(stored())
    gone = _closed({stem for stem in old if known.issuperset(leaves[stem].pages)}, leaves)
    size = sum(old[stem].stat().st_size for stem in gone)
    told = tuple(sorted(old[stem].relative_to(root).as_posix() for stem in gone))
    if not dry_run:
        _delete(gone, old, leaves)
    return Expired(told, size)


def _closed(gone: set[str], leaves: dict[str, _Leaf]) -> set[str]:
    """Return `gone` without the segments that one which stays needs, and those that these need."""
    while needed := gone & {stem for one, leaf in leaves.items() if one not in gone for stem in leaf.repeats}:
        gone = gone - needed
    return gone


def _delete(gone: set[str], old: dict[str, Path], leaves: dict[str, _Leaf]) -> None:
    """Delete whoever repeats before whom it repeats, so that a crash leaves no record without its body."""
    left = set(gone)
    while left:
        needed = {stem for one in left for stem in leaves[one].repeats}
        for stem in sorted(left - needed or left):
            old[stem].unlink(missing_ok=True)
            with suppress(OSError):
                old[stem].parent.rmdir()  # only where it is empty now
            left.discard(stem)
