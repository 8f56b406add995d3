"""Logs mended: entries that are torn or gone are replaced, and the manifest says what they said.

A manifest is published after each commit and names every live file, so it knows what a damaged
log has forgotten. Stand-ins that say nothing take the place of entries that cannot be read;
one more commit then makes the log hold what the newest manifest holds. Only a torn entry that
no manifest has seen is lost: its pages are in the raw zone.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake.exceptions import DeltaError

from ..errors import LakeDamaged
from ..schemas.clock import Clock
from . import datafiles
from .datafiles import DataFile, Facts
from .entries import Note, parse
from .layout import DAMAGED, Partition, born
from .manifest import Manifest
from .objects import sync_directory
from .publisher import Publisher, microseconds
from .tables import TABLES, DeltaLog

__all__ = ["LogDamage", "aside", "log_damage", "mended"]

_POINTER: Final = "_last_checkpoint"


@dataclass(frozen=True, slots=True)
class LogDamage:
    """What is wrong with one log: files that cannot be read, and versions that need a stand-in.

    `strays`: so many files are named by the log or by the manifest of its version, and not by both.
    """

    table: str
    torn: tuple[str, ...] = ()
    lacking: tuple[int, ...] = ()
    strays: int = 0

    @property
    def en(self) -> str:
        """What is wrong, in English."""
        return f"{self.table}/_delta_log: {', '.join(self._told())}"

    @property
    def zh(self) -> str:
        """What is wrong, in Chinese."""
        told = [f"{name} 无法读取" for name in self.torn]
        told += [f"缺少版本 {version}" for version in self.lacking if self._name(version) not in self.torn]
        told += [f"有 {self.strays} 个文件与清单不一致"] if self.strays else []
        return f"{self.table}/_delta_log：{'，'.join(told)}"

    def error(self) -> LakeDamaged:
        """Return the error that says it, and the way back."""
        return LakeDamaged(
            f"{self.en}: `klake doctor --repair` mends the log",
            f"{self.zh}：`klake doctor --repair` 可以修复日志",
        )

    def _told(self) -> Iterator[str]:
        yield from (f"{name} cannot be read" for name in self.torn)
        yield from (f"version {v} is gone" for v in self.lacking if self._name(v) not in self.torn)
        if self.strays:
            yield f"{self.strays} file{'' if self.strays == 1 else 's'} differ from the manifest"

    @staticmethod
    def _name(version: int) -> str:
        return f"{version:020d}.json"


def log_damage(root: str, table: str, manifest: Manifest | None) -> LogDamage | None:
    """Return what is wrong with the log of a table; None where it is whole."""
    log = Path(root) / table / "_delta_log"
    known = -1 if manifest is None else manifest.delta.get(table, -1)
    entries = {int(path.stem): path for path in log.glob("*.json") if path.stem.isdigit()}
    checkpoints = {path: int(path.name.split(".")[0]) for path in log.glob("*.checkpoint*.parquet")}
    sound = {version for path, version in checkpoints.items() if _checkpoint_reads(path)}
    torn = [path.name for path, version in checkpoints.items() if version not in sound]
    bad = {version for version, path in entries.items() if not _entry_reads(table, version, path)}
    good = entries.keys() - bad
    top = max([known, *good, *sound], default=-1)
    torn += [entries[version].name for version in sorted(bad)]
    base = max(sound, default=-1)
    lacking = tuple(
        version for version in range(top + 1) if version not in good and (version > base or version in bad)
    )
    if torn or lacking:
        return LogDamage(table, tuple(torn), lacking)
    strays = _strays(root, table, manifest) if manifest is not None and top == known else 0
    # An entry of no bytes is a commit that a crash cut off and nobody saw, unless the manifest knows more.
    blank = tuple(version for version in sorted(entries) if strays and not entries[version].stat().st_size)
    return LogDamage(table, tuple(entries[v].name for v in blank), blank, strays) if strays else None


def mended(root: str, publisher: Publisher, clock: Clock) -> list[LogDamage]:
    """Return the logs that were damaged and are whole again; what could not be read is kept in `_damaged/`."""
    manifest = publisher.sound()
    found = [d for table in TABLES if (d := log_damage(root, table, manifest)) is not None]
    for one in found:
        _mend(root, one, manifest, clock)
    for table in TABLES:
        _drop_unreadable(root, table, manifest, clock)
    return found


def _drop_unreadable(root: str, table: str, manifest: Manifest | None, clock: Clock) -> None:
    """Let go of files that cannot be read and that no manifest describes: no manifest could be made with them."""
    described = set[str]() if manifest is None else {file.path for file in manifest.of(table)}
    log = DeltaLog(root, TABLES[table])
    log.version()
    lost = [path for path in log.paths() if path not in described and not datafiles.is_whole(root, path)]
    if lost:
        now = microseconds(clock.now())
        log.commit([], lost, max(now, log.last_known_at() + 1), now // 1000, Note(now // 1000, "let go"))
    for path in lost:
        aside(root, path)


def _mend(root: str, found: LogDamage, manifest: Manifest | None, clock: Clock) -> int:
    """Return the newest version of the log, after it was mended."""
    table, log = found.table, Path(root) / found.table / "_delta_log"
    log.mkdir(parents=True, exist_ok=True)
    pointer = [_POINTER] if any(name.endswith(".parquet") for name in found.torn) else []
    for name in (*found.torn, *pointer):
        aside(root, f"{table}/_delta_log/{name}")
    at_ms = microseconds(clock.now()) // 1000
    for version in found.lacking:
        _stand_in(root, table, version, at_ms)
    sync_directory(log)
    fresh = DeltaLog(root, TABLES[table])
    newest = fresh.version()
    known = -1 if manifest is None else manifest.delta.get(table, -1)
    if manifest is None or newest < known:
        return newest
    wanted, held = _wanted(root, manifest, table, newest), set(fresh.paths())
    if wanted.keys() == held and all(version > known for version in found.lacking):
        return newest
    added = [_as_added(root, path, facts) for path, facts in wanted.items() if path not in held]
    # Above every known_at that a file's name or the log still tells of: the entry that is gone may have had the newest.
    told = [born(path.rsplit("/", 1)[-1]) or 0 for path in wanted]
    stamp = max([microseconds(clock.now()), fresh.last_known_at() + 1, *(at + 1 for at in told)])
    note = Note(at_ms, "mend log")
    return fresh.commit(added, sorted(held - wanted.keys()), stamp, at_ms, note)


def aside(root: str, path: str) -> Path | None:
    """Return where a damaged file was moved, below `_damaged/`; None where there is none."""
    source, target = Path(root) / path, Path(root) / DAMAGED / path
    if not source.exists():
        return None
    target.parent.mkdir(parents=True, exist_ok=True)
    number = 1
    while target.exists():
        number += 1
        target = target.with_name(f"{source.name}.{number}")
    source.rename(target)
    sync_directory(source.parent)
    return target


def _entry_reads(table: str, version: int, path: Path) -> bool:
    try:
        body = path.read_bytes()
        parse(table, version, body)
    except (OSError, msgspec.DecodeError):
        return False
    return True


def _checkpoint_reads(path: Path) -> bool:
    try:
        with pq.ParquetFile(path) as file:
            file.read()
    except (OSError, pa.ArrowException):
        return False
    return True


def _strays(root: str, table: str, manifest: Manifest) -> int:
    try:
        held = set(DeltaLog(root, TABLES[table]).paths())
    except DeltaError as error:
        raise LakeDamaged(f"{table}/_delta_log: cannot be read ({error})") from error
    return len(held ^ {file.path for file in manifest.of(table)})


def _stand_in(root: str, table: str, version: int, at_ms: int) -> None:
    """Write the entry of a version that is gone: nothing happened then; the first one says what the table is."""
    body = json.dumps({"commitInfo": {"timestamp": at_ms, "operation": "MENDED"}}).encode() + b"\n"
    if version == 0:
        with TemporaryDirectory() as folder:
            DeltaLog(folder, TABLES[table]).create()
            body = (Path(folder) / table / "_delta_log" / f"{0:020d}.json").read_bytes()
    log = Path(root) / table / "_delta_log"
    draft = log / f".{version:020d}.mending"
    with draft.open("wb") as file:
        file.write(body)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(log / f"{version:020d}.json")


def _wanted(root: str, manifest: Manifest, table: str, newest: int) -> dict[str, Facts | None]:
    """Return the files that are live: those of the manifest, and what the entries after it say."""
    live: dict[str, Facts | None] = {**manifest.facts_of(table)}
    for version in range(manifest.delta.get(table, -1) + 1, newest + 1):
        body = (Path(root) / table / "_delta_log" / f"{version:020d}.json").read_bytes()
        entry = parse(table, version, body)
        for path in entry.removed:
            live.pop(path, None)
        live |= dict.fromkeys(entry.added)
    return live


def _as_added(root: str, path: str, facts: Facts | None) -> DataFile:
    try:
        return datafiles.examine(root, path)
    except LakeDamaged:
        if facts is None:
            raise
        # Named all the same, so that what the file held is known when it is let go of.
        where = Partition.parse(path) if path.startswith("bars/") else None
        return DataFile(path, facts.size_bytes, where, json.dumps({"numRecords": facts.rows}), facts)
