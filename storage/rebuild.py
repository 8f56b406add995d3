"""Building a lake of this format from one of an older format, in a folder of its own, and comparing the two."""

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec
import pyarrow as pa

from ..errors import LakeDamaged
from ..schemas.clock import ManualClock
from .checkpoint import ASIDE
from .checksum import RowSum
from .layout import CATALOG, CLAIMS, EXTRAS, FORMAT, MANIFESTS, MARKER, RAW, SPOOL, STATE
from .manifest import Manifest, Manifests
from .objects import LocalObjects, sync_directory
from .publisher import Publisher
from .tables import TABLES, DeltaLog

__all__ = ["NOTE", "STEPS", "Marker", "Said", "build", "trace"]

NOTE: Final = f"{SPOOL}/migration.json"
"""Where a lake that is being built says what it is built from; the marker comes last, this first."""

_TABLES: Final = (*TABLES, *EXTRAS)

Said = Callable[[str], None]
"""Is told of each change to the disk before it is made, as `rename <path>`."""


def step_1_to_2(lake: Path) -> None:
    """Leave the files as they are: format 1 wrote no tombstone, so its rows mean the same in format 2."""


STEPS: Final[dict[int, Callable[[Path], None]]] = {1: step_1_to_2}
"""What leads from a format to the next. A step may add, replace and remove files of the lake that is being
built, but never write into one: it may be a link to the old lake's."""


class Marker(msgspec.Struct):
    """What a migration reads of the marker of a lake, of whatever format."""

    format: int
    created_at: datetime


class _Published(msgspec.Struct):
    """What is taken from the newest manifest of the old lake."""

    version: int
    written_at: datetime
    extras: dict[str, str] = msgspec.field(default_factory=dict[str, str])


def trace(root: Path) -> dict[str, int]:
    """Return what any write to a lake changes: its log entries and pages, by path, with their bytes."""
    found = [path for name in TABLES for path in (root / name / "_delta_log").glob("*.json")]
    found += [*(root / RAW).rglob("*.kraw"), *(root / SPOOL).glob("*.spool")]
    return {path.relative_to(root).as_posix(): path.stat().st_size for path in sorted(found)}


def build(root: Path, draft: Path, found: int, note: bytes, said: Said) -> None:
    """Make the lake `draft` from the one at `root`, of format `found`; compare them, and mark the new one as whole.

    `note` is what stands in the new lake from the beginning. LakeDamaged: a file cannot be
    read, or what was built differs; the caller removes it.
    """
    said(f"make {draft.name}")
    (draft / SPOOL).mkdir(parents=True)
    LocalObjects(str(draft)).put_if_absent(NOTE, note)
    _bring(root, draft, said)
    for number in range(found, FORMAT):
        said(f"step {number}")
        STEPS[number](draft)
    _verify(root, draft, _publish(root, draft, said), said)
    for folder, _, _ in os.walk(draft):
        sync_directory(folder)
    body: dict[str, object] = msgspec.json.decode((root / MARKER).read_bytes())
    said(f"mark {draft.name}")
    LocalObjects(str(draft)).put_if_absent(MARKER, msgspec.json.encode({**body, "format": FORMAT}))
    sync_directory(root.parent)


def _bring(root: Path, draft: Path, said: Said) -> None:
    """Link what never changes, copy what may, leave what is made anew."""
    linked = True
    for name in _brought(root):
        source, target = root / name, draft / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if name == STATE:
            said(f"copy {name}")
            _copy_state(source, target)
            continue
        if linked and _immutable(name):
            said(f"link {name}")
            try:
                os.link(source, target)
                continue
            except OSError:
                linked = False  # this disk has no hard links
        said(f"copy {name}")
        shutil.copy2(source, target)
        with target.open("rb+") as file:
            os.fsync(file.fileno())


def _brought(root: Path) -> Iterator[str]:
    """Yield the files that come along, relative to the lake."""
    for folder, _, names in sorted(os.walk(root)):
        for name in sorted(names):
            path = (Path(folder) / name).relative_to(root).as_posix()
            if not _left(path):
                yield path


def _left(path: str) -> bool:
    """Say whether a file stays behind: it is made anew, or is a lock or draft of somebody who is gone."""
    top, _, name = path.partition("/")
    if path in (MARKER, CATALOG, NOTE) or top == MANIFESTS or path.startswith((CLAIMS, ASIDE)):
        return True
    if top in _TABLES and "/_delta_log/" not in path:
        return not name.endswith(".parquet") or name.rsplit("/", 1)[-1][0] in "._"
    state = path.startswith(STATE) and path != STATE and ".broken-" not in path
    return state or (top in (SPOOL, Path(STATE).parent.name) and name.endswith(".lock"))


def _immutable(path: str) -> bool:
    data = path.split("/", 1)[0] in _TABLES and "/_delta_log/" not in path
    return data or (path.startswith(f"{RAW}/") and path.endswith(".kraw"))


def _copy_state(source: Path, target: Path) -> None:
    """Copy a database that a reader may hold open; a damaged one stays behind: the next run makes it anew."""
    try:
        with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(target)) as new:
            old.backup(new)
    except sqlite3.DatabaseError:
        target.unlink(missing_ok=True)


def _publish(root: Path, draft: Path, said: Said) -> Manifest:
    """Return the first manifest of the new lake; its number goes on where the old lake's end.

    A klake of the old format that has the newest manifest in its memory must find a newer one, and stop.
    """
    before = _published(root)
    there = {name: path for name, path in before.extras.items() if (draft / path).exists()}
    objects = LocalObjects(str(draft))
    manifests = Manifests(objects)
    base = Manifest(before.version, before.written_at, {}, {}, (), (), extras=there)
    said(f"publish {draft.name}")
    if before.version >= 0:
        manifests.put(base)
    made = Publisher(str(draft), ManualClock(before.written_at)).publish()
    if before.version >= 0:
        objects.delete(f"{MANIFESTS}/{before.version:020d}.json")
    return made


def _published(root: Path) -> _Published:
    """Return the newest manifest of the old lake that can be read; version -1 where none can."""
    for path in sorted((root / MANIFESTS).glob("*.json"), reverse=True):
        try:
            return msgspec.json.decode(path.read_bytes(), type=_Published)
        except msgspec.DecodeError:
            continue
    marker = msgspec.json.decode((root / MARKER).read_bytes(), type=Marker)
    return _Published(-1, marker.created_at)


def _verify(root: Path, draft: Path, manifest: Manifest, said: Said) -> None:
    """Read every row of both lakes; LakeDamaged unless each folder of the new one holds the very rows."""
    for name, table in TABLES.items():
        said(f"verify {name}")
        log = DeltaLog(str(root), table)
        log.version()
        old = _sums(root, log.paths(), table.file_schema)
        new = _sums(draft, [file.path for file in manifest.of(name)], table.file_schema)
        rows = sum(file.rows for file in manifest.of(name))
        if old != new or rows != sum(found.rows for found in old.values()):
            raise LakeDamaged(
                f"{root}: the migrated table {name} does not hold the rows of the old one: nothing was changed",
                f"{root}：迁移后的表 {name} 与原表的行不一致，未做任何更改",
            )
    pages = {path: size for path, size in trace(root).items() if not path.endswith(".json")}
    if pages != {path: size for path, size in trace(draft).items() if not path.endswith(".json")}:
        raise LakeDamaged(
            f"{root}: the migrated raw pages are not those of the old lake: nothing was changed",
            f"{root}：迁移后的原始页与原数据湖不一致，未做任何更改",
        )


def _sums(lake: Path, paths: list[str], schema: pa.Schema) -> dict[str, RowSum]:
    """Return the sum of the rows of each folder."""
    sums: dict[str, RowSum] = {}
    for path in paths:
        sums.setdefault(path.rsplit("/", 1)[0], RowSum()).read([lake / path], schema)
    return sums
