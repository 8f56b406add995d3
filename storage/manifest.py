"""Manifests: which files of every table are live, one immutable object per lake version.

A manifest is a cache of the Delta logs that readers without Delta can follow: they list
manifests first and data files second, so every file of the manifest is already there.
For SQL its `names` are repeated in a small Parquet file, the listing.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Final, TypeVar

import msgspec

from ..errors import LakeDamaged, LakeTooNew
from ..schemas.freq import Freq
from .datafiles import Facts
from .layout import EXTRAS, FORMAT, MANIFESTS, PAST, Partition, listing
from .objects import ObjectStore

__all__ = ["KEPT", "LiveFile", "Manifest", "Manifests"]

T = TypeVar("T")

KEPT: Final = timedelta(minutes=10)
"""How long a manifest stays after it is superseded: a query may have listed it."""


@dataclass(frozen=True, slots=True)
class LiveFile:
    """One live file. `symbols` are half-open ranges of places in `Manifest.symbols`; see `Facts` for keys."""

    table: str
    path: str
    rows: int
    size_bytes: int
    low: int | str
    high: int | str
    symbols: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a lake holds at one version.

    `delta` is the version of each table's log. `symbols` only ever grows at its end from one
    manifest to the next, so ranges stay true. `names` repeats the paths for SQL: by relation
    (a table, an extra, `bars` for era current, `past` for era past).
    """

    version: int
    written_at: datetime
    delta: dict[str, int]
    names: dict[str, tuple[str, ...]]
    symbols: tuple[str, ...]
    files: tuple[LiveFile, ...]
    format: int = FORMAT
    extras: dict[str, str] = field(default_factory=dict[str, str])

    def of(self, table: str) -> list[LiveFile]:
        """Return the live files of one Delta table."""
        return [file for file in self.files if file.table == table]

    def partition(self, partition: Partition) -> list[LiveFile]:
        """Return the live files of one partition of `bars`."""
        head = partition.path + "/"
        return [file for file in self.files if file.path.startswith(head)]

    def symbols_of(self, file: LiveFile) -> frozenset[str]:
        """Return exactly the symbols that `file` holds."""
        return frozenset().union(*(self.symbols[start:end] for start, end in file.symbols))

    def series(self) -> dict[tuple[str, str], frozenset[str]]:
        """Return the symbols of each (vendor, freq) that have current bars."""
        held: dict[tuple[str, str], frozenset[str]] = {}
        for file in self.files:
            if file.table == "bars" and (where := Partition.parse(file.path)).era != PAST:
                key = (where.vendor, where.freq.value)
                held[key] = held.get(key, frozenset()) | self.symbols_of(file)
        return held

    def contested(self) -> bool:
        """Say whether two vendors have current bars of one freq; their symbols may still differ."""
        owners: dict[Freq, str] = {}
        places = {Partition.parse(file.path) for file in self.files if file.table == "bars"}
        return any(
            owners.setdefault(where.freq, where.vendor) != where.vendor
            for where in places
            if where.era != PAST
        )

    def with_table(self, table: str, delta: int, held: Mapping[str, Facts]) -> "Manifest":
        """Return this manifest with other live files of one table, `held` by path."""
        places = {name: place for place, name in enumerate(self.symbols)}
        for facts in held.values():
            for name in sorted(facts.symbols - places.keys()):
                places[name] = len(places)
        live = tuple(_live(table, path, facts, places) for path, facts in sorted(held.items()))
        files = tuple(file for file in self.files if file.table != table) + live
        return replace(self, delta={**self.delta, table: delta}, symbols=tuple(places), files=files)

    def facts_of(self, table: str) -> dict[str, Facts]:
        """Return the facts of one table's files by path."""
        return {
            file.path: Facts(file.rows, file.size_bytes, file.low, file.high, self.symbols_of(file))
            for file in self.of(table)
        }

    def dated(self, version: int, at: datetime) -> "Manifest":
        """Return this manifest as version `version`, with `names` made from files and extras."""
        names: dict[str, list[str]] = {"bars": [], PAST: []}
        for file in self.files:
            past = file.table == "bars" and Partition.parse(file.path).era == PAST
            names.setdefault(PAST if past else file.table, []).append(file.path)
        for extra in EXTRAS:
            names[extra] = [self.extras[extra]] if extra in self.extras else []
        named = {relation: tuple(paths) for relation, paths in names.items()}
        return replace(self, version=version, written_at=at, names=named)


def _live(table: str, path: str, facts: Facts, places: Mapping[str, int]) -> LiveFile:
    ranges = tuple(_ranges(sorted(places[name] for name in facts.symbols)))
    return LiveFile(table, path, facts.rows, facts.size_bytes, facts.low, facts.high, ranges)


def _ranges(numbers: Sequence[int]) -> Iterable[tuple[int, int]]:
    start = end = -1
    for number in numbers:
        if number != end:
            if end > start:
                yield start, end
            start = number
        end = number + 1
    if end > start:
        yield start, end


class Manifests:
    """The manifests of one lake, in an object store."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self._newest: Manifest | None = None

    def newest(self) -> Manifest | None:
        """Return the newest manifest, or None when there is none.

        Raises
        ------
        LakeDamaged
            It cannot be read.
        LakeTooNew
            A later klake wrote it.
        """
        keys = self._keys()
        if not keys:
            return None
        version = _version(keys[-1])
        if self._newest is None or self._newest.version != version:
            self._newest = self._read(keys[-1])
        return self._newest

    def put(self, manifest: Manifest) -> bool:
        """Return True when `manifest` is now the newest, False when its version was taken."""
        body = msgspec.json.encode(manifest)
        return self._objects.put_if_absent(_key(manifest.version), body)

    def last_listed(self) -> int:
        """Return the greatest version that has a listing, also where its manifest is gone; -1 where none has."""
        names = [key.rsplit("/", 1)[1] for key in self._objects.keys(MANIFESTS) if key.endswith(".parquet")]
        numbers = [int(stem) for name in names if (stem := name.removesuffix(".parquet")).isdigit()]
        return 10**20 - 1 - min(numbers) if numbers else -1

    def drop_garbage(self) -> bool:
        """Return whether the newest manifest was no JSON and is deleted: it said nothing that the logs do not."""
        return bool(self._drop_garbage(*self._keys()[-1:]))

    def _drop_garbage(self, *keys: str) -> list[str]:
        gone = list[str]()
        for key in keys:
            try:
                msgspec.json.decode(self._objects.get(key))
            except msgspec.DecodeError:
                self._objects.delete(key)
                gone.append(key)
            except OSError:
                continue  # it may be sound, and only out of reach
        return gone

    def prune(self, now: datetime) -> list[str]:
        """Forget manifests superseded more than `KEPT` ago; return the paths that went out of use with them.

        Those are their listings, and the files of extras that no kept manifest names.
        """
        keys, dropped = self._keys(), list[_Brief]()
        for old, successor in pairwise(keys):
            try:
                if now - self._brief(successor).written_at < KEPT:
                    break
                dropped.append(self._brief(old))
            except LakeDamaged:
                self._drop_garbage(old, *([] if successor == keys[-1] else [successor]))
                return []  # the next time goes on without it
            self._objects.delete(old)
        if not dropped:
            return []
        kept = {path for key in keys[len(dropped) :] for path in self._brief(key).extras.values()}
        extras = {path for gone in dropped for path in gone.extras.values()} - kept
        return [*(listing(gone.version) for gone in dropped), *sorted(extras)]

    def _keys(self) -> list[str]:
        return [key for key in self._objects.keys(MANIFESTS) if key.endswith(".json")]

    def _read(self, key: str) -> Manifest:
        return self._decoded(key, Manifest)

    def _brief(self, key: str) -> "_Brief":
        return self._decoded(key, _Brief)

    def _decoded(self, key: str, kind: type[T]) -> T:
        try:
            body = self._objects.get(key)
            found = msgspec.json.decode(body, type=_Head).format
            if found > FORMAT:
                raise LakeTooNew(key, found, FORMAT)
            return msgspec.json.decode(body, type=kind)
        except (OSError, msgspec.DecodeError) as error:
            raise LakeDamaged(
                f"{key}: this manifest cannot be read ({error}): delete it, klake writes a new one",
                f"{key}：清单无法读取（{error}）：请删除它，klake 会重新生成",
            ) from error


class _Head(msgspec.Struct):
    format: int


class _Brief(msgspec.Struct):
    """What pruning needs of a manifest, a tenth of the time to read."""

    version: int
    written_at: datetime
    extras: dict[str, str] = msgspec.field(default_factory=dict[str, str])


def _key(version: int) -> str:
    return f"{MANIFESTS}/{version:020d}.json"


def _version(key: str) -> int:
    return int(key.rsplit("/", 1)[1].removesuffix(".json"))
