"""Mending: damaged files are let go of in one commit per table, and kept aside."""

from collections.abc import Sequence
from functools import partial

from .damage import Damage
from .layout import EXTRAS
from .publisher import Publisher
from .relog import aside
from .writer import Writer

__all__ = ["let_go"]


def let_go(root: str, publisher: Publisher, writer: Writer, found: Sequence[Damage]) -> int:
    """Return how many files were let go of: no version after this names them, and they lie in `_damaged/`.

    What they held must have been withdrawn from coverage before: a crash in between then costs
    asking again, and never says that bars are held which are not.
    """
    by_table: dict[str, list[str]] = {}
    for one in found:
        by_table.setdefault(one.table, []).append(one.path)
    gone = 0
    for table, paths in by_table.items():
        if table not in EXTRAS:
            gone += writer.redone(partial(_removed, publisher, writer, table, paths))
    for one in found:
        aside(root, one.path)
    return gone


def _removed(publisher: Publisher, writer: Writer, table: str, paths: Sequence[str]) -> int:
    live = {file.path for file in publisher.current(table).of(table)}
    named = [path for path in paths if path in live]  # another writer may have replaced it meanwhile
    if named:
        writer.commit(table, [], named, writer.stamp(table), "let go")
    return len(named)
