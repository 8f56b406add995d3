"""History: the versions of the table `bars`."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from .layout import CURRENT, Partition
from .publisher import Publisher

__all__ = ["Version", "history"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Version:
    """One commit to `bars`: when, what it was, by which run (empty: unknown), current rows and bytes after it.

    `rows` and `size_bytes` are 0 where another program made the commit. `restorable`: every
    file of its current bars is still there; the past is never cut.
    """

    version: int
    at: datetime
    operation: str
    run: str
    rows: int
    size_bytes: int
    restorable: bool


def history(root: str, publisher: Publisher, n: int) -> list[Version]:
    """Return the newest `n` versions of `bars` that the log remembers, newest first."""
    log = publisher.logs["bars"]
    log.version()
    missing = _gone(root, log.paths())
    found = list[Version]()
    for entry in log.entries():
        if len(found) == n:
            break
        note = entry.note
        at = _EPOCH + timedelta(milliseconds=note.at_ms)
        found.append(
            Version(entry.version, at, note.operation, note.run, note.rows, note.size_bytes, not missing)
        )
        missing -= set(entry.added)
        missing |= _gone(root, entry.removed)
    return found


def _gone(root: str, paths: Iterable[str]) -> set[str]:
    """Return those files of current bars that are not there."""
    current = (path for path in paths if Partition.parse(path).era == CURRENT)
    return {path for path in current if not (Path(root) / path).exists()}
