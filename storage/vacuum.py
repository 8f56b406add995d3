"""Vacuum: files that no kept manifest names are deleted when nobody can need them any more.

A file that died is kept for one hour when it was hot, for seven days otherwise, so that an
open query ends and an earlier version can be restored. What a crash left is deleted at once,
because its writer's claim is free. Live rows, of either era, are never touched.
"""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final
from uuid import uuid4

import msgspec
from filelock import FileLock, Timeout

from ..errors import LakeDamaged
from ..schemas.clock import Clock
from . import claims, datafiles
from .disk import network_of
from .layout import CATALOG, EXTRAS, MANIFESTS, SEED, SPOOL, Partition, born, listing, token_of
from .manifest import Manifest
from .publisher import Publisher, microseconds
from .tables import TABLES
from .tiers import Tiers

__all__ = ["HOT", "KEPT", "Vacuumed", "vacuum", "vacuumed_at"]

HOT: Final = timedelta(hours=1)
KEPT: Final = timedelta(days=7)
KEEPING: Final = f"{SPOOL}/keep.lock"
"""Held by vacuum and by restore: the one must not delete what the other is bringing back."""

_MARK: Final = f"{SPOOL}/vacuumed"
_DRAFT: Final = re.compile(rf"\.({re.escape(CATALOG)}-)?[0-9a-f]{{32}}(\.wal)?")
_STAGED: Final = "#"  # delta-rs writes a log entry under `<name>#1` and links it to its name
_US: Final = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Vacuumed:
    """The files that were deleted (or would be), relative to the lake, and their bytes together."""

    paths: tuple[str, ...] = ()
    size_bytes: int = 0


def vacuum(root: str, publisher: Publisher, clock: Clock, *, dry_run: bool = False) -> Vacuumed:
    """Return what was deleted; nothing while another vacuum or a restore is at work."""
    publisher.publish()
    publisher.forget()
    lock = FileLock(str(Path(root) / KEEPING))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return Vacuumed()
    try:
        return _vacuum(root, publisher, clock, dry_run)
    finally:
        lock.release()


def vacuumed_at(root: str) -> int:
    """Return when the last vacuum began, in us of the lake's clock; 0 when there was none."""
    try:
        return int((Path(root) / _MARK).read_text())
    except (OSError, ValueError):
        return 0


def _vacuum(root: str, publisher: Publisher, clock: Clock, dry_run: bool) -> Vacuumed:
    now = microseconds(clock.now())
    # The order matters: a file seen here whose claim is free by then has been committed, or never will be.
    found = dict(_files(root))
    claimed = claims.held(root)
    named = _named(root, publisher)
    graves = _graves(publisher, now, found.keys() - named)
    judge = _Judge(root, now, claimed, graves, _disk_time(root), bool(network_of(Path(root))))
    dead = sorted(path for path, stat in found.items() if path not in named and judge.may_go(path, stat))
    if not dry_run:
        for path in dead:
            (Path(root) / path).unlink(missing_ok=True)
        claims.release_dead(root, now - HOT // _US)
        (Path(root) / _MARK).write_text(str(now))
    return Vacuumed(tuple(dead), sum(found[path].st_size for path in dead))


@dataclass(frozen=True, slots=True)
class _Judge:
    """Says of one file that nothing names whether its time has come. Times are in us."""

    root: str
    now: int
    claimed: frozenset[str]
    graves: dict[str, int]
    disk_now: float
    shared: bool

    def may_go(self, path: str, stat: os.stat_result) -> bool:
        """Say whether the file may be deleted."""
        folder, name = path.split("/", 1)[0], path.rsplit("/", 1)[-1]
        made = born(name)
        if folder not in TABLES or made is None:
            # Made by others, or in no commit: only the disk's own clock tells its age.
            keep = HOT if name.startswith(".") or _STAGED in name or folder not in TABLES else KEPT
            return self.disk_now - stat.st_mtime > keep.total_seconds()
        if path in self.graves:
            return self._rested(path, self.graves[path])
        if token_of(name) in self.claimed:
            return False
        # No commit named it in a week. On a disk of several machines their claims are not seen here.
        return not self.shared or self.now - made > KEPT // _US

    def _rested(self, path: str, died: int) -> bool:
        age = self.now - died
        return age > KEPT // _US or (age > HOT // _US and self._hot(path, died))

    def _hot(self, path: str, died: int) -> bool:
        if not path.startswith("bars/"):
            return True  # appended tables: their rows are in the file that replaced it
        try:
            held = datafiles.examine(self.root, path, symbols=False).facts
        except LakeDamaged:
            return False
        if held.rows == 0:
            return True
        return Tiers(Partition.parse(path), died // 86_400_000_000).is_hot(held.low, held.high, held.rows)


def _files(root: str) -> Iterator[tuple[str, os.stat_result]]:
    """Yield every file that vacuum may judge, relative to the lake."""
    for folder in (*TABLES, *EXTRAS, MANIFESTS):
        for where, _, names in os.walk(Path(root) / folder):
            log = where.endswith("_delta_log")
            for name in names:
                data = name.endswith(".parquet") and name[0] != "_" and not log
                if name != SEED and (data or name[0] == "." or _STAGED in name):
                    path = Path(where) / name
                    with suppress(FileNotFoundError):
                        yield path.relative_to(root).as_posix(), path.stat()
    for path in (*Path(root).glob(".*"), *Path(root, SPOOL).glob(".*")):
        if _DRAFT.fullmatch(path.name):  # beside the tables others may keep files of their own
            with suppress(FileNotFoundError):
                yield path.relative_to(root).as_posix(), path.stat()


def _named(root: str, publisher: Publisher) -> set[str]:
    """Return what the newest logs and every kept manifest name, and the manifests' listings."""
    named = {path for log in publisher.logs.values() if log.version() >= 0 for path in log.paths()}
    for path in (Path(root) / MANIFESTS).glob("*.json"):
        try:
            kept = msgspec.json.decode(path.read_bytes(), type=Manifest)
        except (FileNotFoundError, msgspec.DecodeError):
            continue  # garbage is followed by nobody
        named |= {file.path for file in kept.files} | set(kept.extras.values()) | {listing(kept.version)}
    return named


def _graves(publisher: Publisher, now: int, asked: set[str]) -> dict[str, int]:
    """Return when each of the files `asked` was removed, in us, of those removed in the last week."""
    graves: dict[str, int] = {}
    wanted = {path for path in asked if not path.rsplit("/", 1)[-1].startswith(".")}
    for name, log in publisher.logs.items():
        mine = {path for path in wanted if path.startswith(f"{name}/")}
        for entry in log.entries() if mine else ():
            if not mine or entry.note.at_ms * 1000 < now - 2 * (KEPT // _US):
                break
            for path in mine & entry.removed.keys():
                graves[path] = entry.removed[path] * 1000
            mine -= entry.removed.keys()
    return graves


def _disk_time(root: str) -> float:
    """Return the time by the clock that stamps files there, which need not be ours."""
    probe = Path(root) / SPOOL / f".{uuid4().hex}"
    probe.parent.mkdir(parents=True, exist_ok=True)
    try:
        probe.touch()
        return probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)
