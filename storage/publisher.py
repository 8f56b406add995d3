"""Publishing: manifests that follow the Delta logs, and the views that follow the manifests."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final
from uuid import uuid4

import pyarrow as pa

from ..errors import CommitConflict, LakeDamaged
from ..schemas.clock import Clock
from . import datafiles, views
from .datafiles import DataFile, Facts
from .layout import CATALOG, EXTRAS, MANIFESTS, PAST, file_name, listing, seed
from .manifest import Manifest, Manifests
from .objects import LocalObjects
from .seeds import plant
from .tables import PUBLISHED, TABLES, DeltaLog

__all__ = ["Publisher", "microseconds"]

_TRIES: Final = 100
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def microseconds(at: datetime) -> int:
    """Return `at` as us since 1970."""
    return (at - _EPOCH) // timedelta(microseconds=1)


class Publisher:
    """Keeps one lake's manifests in step with its logs, and `lake.duckdb` in step with its views."""

    def __init__(self, root: str, clock: Clock) -> None:
        self._root, self._clock = root, clock
        self._objects = LocalObjects(root)
        self._manifests = Manifests(self._objects)
        self.logs: Final = {name: DeltaLog(root, table) for name, table in TABLES.items()}

    def sound(self) -> Manifest | None:
        """Return the newest manifest that can be read, None where there is none; garbage is deleted on the way."""
        while True:
            try:
                return self._manifests.newest()
            except LakeDamaged:
                if not self._manifests.drop_garbage():
                    raise

    def newest(self) -> Manifest:
        """Return the newest manifest; LakeDamaged when there is none."""
        found = self._manifests.newest()
        if found is None:
            raise LakeDamaged(f"{self._root}: the lake has no manifest", f"{self._root}：数据湖没有清单")
        return found

    def current(self, table: str) -> Manifest:
        """Return a manifest that is exactly as new as the handle of `table`; publishes where it lags."""
        log = self.logs[table]
        for _ in range(_TRIES):
            manifest, version = self.newest(), log.version()
            if manifest.delta[table] == version:
                return manifest
            if manifest.delta[table] < version:
                self.publish()
        raise CommitConflict(
            f"{self._root}: others commit without a pause", f"{self._root}：其他进程持续提交"
        )

    def publish(self, written: Iterable[DataFile] = (), extras: Mapping[str, str] | None = None) -> Manifest:
        """Return the newest manifest, after writing one if the logs are ahead of it.

        Parameters
        ----------
        written : iterable of DataFile
            Files just committed, whose contents need not be read again.
        extras : mapping of str to str, optional
            Paths of published files outside Delta that replace the ones before.
        """
        known = {file.path: file.facts for file in written}
        for _ in range(_TRIES):
            listed = self._manifests.last_listed()  # first: a listing that is newer has lost its manifest
            newest = self.sound()
            ahead = self._ahead(newest, listed, known, extras or {})
            if ahead is None:
                self._list(self.newest())
                return self.newest()
            if self._manifests.put(ahead):
                self._list(ahead)
                self.forget()
                return ahead
        raise CommitConflict(
            f"{self._root}: others publish without a pause", f"{self._root}：其他进程持续发布"
        )

    def extra(self, name: str, rows: pa.Table) -> None:
        """Publish `rows` for SQL under `name`, unless they are what is published already."""
        schema = PUBLISHED[name]
        self.publish(extras=self._extra(self.newest(), name, rows.select(schema.names).cast(schema)))

    def renew(self) -> None:
        """Make anew what is made of other things: damaged seeds and listings, series that stand back, `lake.duckdb`."""
        root = Path(self._root)
        for path in [*map(seed, views.RELATIONS), listing(self.newest().version)]:
            if not datafiles.is_whole(self._root, path):
                (root / path).unlink(missing_ok=True)
        (root / MANIFESTS / "views").unlink(missing_ok=True)
        self.publish(extras=self._yields(self.newest()))
        self.catalog()

    def catalog(self) -> None:
        """Write `lake.duckdb` and the seeds, unless they are as they should be."""
        made = views.statements(views.SelfResolving(self._root))
        mark, path = Path(self._root) / MANIFESTS / "views", Path(self._root) / CATALOG
        text = views.fingerprint(made)
        if path.exists() and mark.exists() and mark.read_text() == text:
            return
        for relation, schema in views.RELATIONS.items():
            folded = [
                f for f in schema if relation not in {"bars", PAST} or f.name not in TABLES["bars"].partition
            ]
            plant(self._root, relation, pa.schema(folded))
        try:
            views.write_catalog(str(path), made)
        except PermissionError:
            if not path.exists():
                raise
            return  # a reader holds it (Windows): its views still serve, the next publish tries again
        draft = mark.with_name(f".{uuid4().hex}")
        draft.write_text(text)
        draft.replace(mark)

    def _ahead(
        self, newest: Manifest | None, listed: int, known: Mapping[str, Facts], extras: Mapping[str, str]
    ) -> Manifest | None:
        base = newest or Manifest(-1, self._clock.now(), {}, {}, (), ())
        if listed > base.version:  # manifests are gone
            base = replace(base, version=listed)
        if newest is None or listed > newest.version:
            base = replace(base, extras=self._extras_found())
        fresh = base
        for name, log in self.logs.items():
            version, held = log.version(), base.delta.get(name, -1)
            if version < held or (version == held and log.newest_is_blank() and self._differs(base, name)):
                raise log.damaged(f"version {held} is gone", f"版本 {held} 丢失")
            if version > held:
                fresh = self._moved(fresh, name, version, log.paths(), known)
        if fresh.delta.get("bars") != base.delta.get("bars"):
            fresh = replace(fresh, extras={**fresh.extras, **self._yields(fresh)})
        fresh = replace(fresh, extras={**fresh.extras, **extras})
        if newest is not None and fresh == newest:
            return None
        # The number of a manifest that is gone is not given again: readers may hold that one.
        return fresh.dated(base.version + 1, self._clock.now())

    def _differs(self, manifest: Manifest, name: str) -> bool:
        return set(self.logs[name].paths()) != {file.path for file in manifest.of(name)}

    def _extras_found(self) -> dict[str, str]:
        """Return the newest file of each extra, for a lake whose manifests are gone; names sort by age."""
        root = Path(self._root)
        files = {name: sorted(root.glob(f"{name}/[0-9a-f]*-*.parquet")) for name in EXTRAS}
        return {name: some[-1].relative_to(root).as_posix() for name, some in files.items() if some}

    def _moved(
        self, before: Manifest, name: str, version: int, paths: list[str], known: Mapping[str, Facts]
    ) -> Manifest:
        """Return the manifest with the files `paths` for one table; those it had already are not looked at again."""
        live = set(paths)
        kept = {file.path: file for file in before.of(name) if file.path in live}
        self._refuse_forgotten(before, name, {file.path for file in before.of(name)} - live)
        fresh = {
            path: known[path] if path in known else datafiles.facts(self._root, path)
            for path in paths if path not in kept
        }  # fmt: skip
        after = before.with_table(name, version, fresh)
        mine = kept | {file.path: file for file in after.of(name)}
        others = [file for file in after.files if file.table != name]
        return replace(after, files=(*others, *(mine[path] for path in sorted(mine))))

    def _refuse_forgotten(self, before: Manifest, name: str, gone: set[str]) -> None:
        """Raise LakeDamaged where files left a table though no entry of its log removes them: the log is damaged."""
        known = before.delta.get(name, -1)
        for entry in self.logs[name].entries() if gone else ():
            if entry.version <= known or not gone:
                break
            gone -= entry.removed.keys()
        else:
            return  # the log does not reach that far back
        if gone:
            lost = min(gone)
            raise self.logs[name].damaged(f"it has forgotten {lost}", f"日志丢失了 {lost}")

    def _yields(self, manifest: Manifest) -> dict[str, str]:
        """Publish the series that stand back: another vendor, first by name, has the symbol and freq too."""
        if "yields" not in manifest.extras and not manifest.contested():
            return {}
        seen: dict[str, set[str]] = {}
        behind: list[tuple[str, str, str]] = []
        for (vendor, freq), symbols in sorted(manifest.series().items()):
            before = seen.setdefault(freq, set())
            behind += [(vendor, symbol, freq) for symbol in sorted(symbols & before)]
            before |= symbols
        if not behind and "yields" not in manifest.extras:
            return {}
        schema = PUBLISHED["yields"]
        columns = [pa.array(column, pa.string()) for column in zip(*behind, strict=True)] if behind else None
        rows = pa.Table.from_arrays(columns, schema=schema) if columns else schema.empty_table()
        return self._extra(manifest, "yields", rows)

    def _extra(self, manifest: Manifest, name: str, rows: pa.Table) -> dict[str, str]:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, rows.schema) as stream:
            stream.write_table(rows.combine_chunks())
        digest = hashlib.sha256(sink.getvalue()).hexdigest()[:32]
        held = manifest.extras.get(name, "")
        if held.endswith(f"-{digest}.parquet") and datafiles.is_whole(self._root, held):
            return {}
        stem = file_name(microseconds(self._clock.now())).removesuffix(".parquet")
        path = f"{name}/{stem}-{digest}.parquet"
        datafiles.put(self._root, path, rows)
        return {name: path}

    def _list(self, manifest: Manifest) -> None:
        """Write a manifest's listing, unless it is there; whoever writes it writes the same."""
        path = listing(manifest.version)
        if not (Path(self._root) / path).exists():
            columns = [
                pa.array([manifest.names.get(name, ())], pa.list_(pa.string())) for name in views.RELATIONS
            ]
            datafiles.put(self._root, path, pa.table(columns, names=list(views.RELATIONS)))

    def forget(self) -> None:
        """Delete manifests that were superseded long enough ago, with what only they named."""
        for path in self._manifests.prune(self._clock.now()):
            self._objects.delete(path)
