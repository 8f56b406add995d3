"""Compaction: hot files fold into their tier, small ones merge, large ones are cut; no row changes.

What was written is read back, counted and summed before it is committed. A partition that
another writer changed meanwhile is done again from a fresh read.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Final, cast

import polars as pl
import pyarrow as pa

from ..errors import LakeDamaged
from ..schemas.clock import Clock
from ..schemas.freq import Freq
from . import datafiles
from .body import BODY
from .checksum import RowSum
from .claims import claim
from .datafiles import DataFile
from .layout import Partition, file_name
from .manifest import LiveFile, Manifest
from .publisher import Publisher, microseconds
from .rolling import Rolling, ranges, weigh
from .tiers import BASE, FULL, SMALL, Tiers, cuts, newest_day, tier_column
from .writer import Writer

__all__ = ["Compacted", "Compactor"]

_MANY: Final = 8
_SHARE: Final = (
    4  # a merge is due when it brings at least a quarter of the largest file: each row moves log times
)


@dataclass(frozen=True, slots=True)
class Compacted:
    """What a compaction did: partitions rewritten (one commit each), files before and after, rows and bytes moved."""

    partitions: int = 0
    files_before: int = 0
    files_after: int = 0
    rows: int = 0
    bytes_written: int = 0

    def __add__(self, other: "Compacted") -> "Compacted":
        """Return both together."""
        return Compacted(
            self.partitions + other.partitions,
            self.files_before + other.files_before,
            self.files_after + other.files_after,
            self.rows + other.rows,
            self.bytes_written + other.bytes_written,
        )


class Compactor:
    """Rewrites the files of one lake, beside any writers and readers."""

    def __init__(self, root: str, publisher: Publisher, writer: Writer, clock: Clock) -> None:
        self._root, self._publisher, self._writer, self._clock = root, publisher, writer, clock

    def compact(self, vendor: str | None, freq: Freq | None, due_only: bool) -> Compacted:
        """Return what was done; a partition that is in order is not touched."""
        done, manifest = Compacted(), self._publisher.newest()
        folders: dict[str, list[LiveFile]] = {}
        for file in manifest.of("bars"):
            folders.setdefault(file.path.rsplit("/", 1)[0], []).append(file)
        for live in folders.values():
            where = Partition.parse(live[0].path)
            asked = vendor in (None, where.vendor) and freq in (None, where.freq)
            if asked and self._jobs(manifest, where, live, due_only):
                done += self._writer.redone(partial(self._partition, where, due_only))
        return done

    def _jobs(
        self, manifest: Manifest, partition: Partition, live: Sequence[LiveFile], due_only: bool
    ) -> list["_Job"]:
        tiers = Tiers(partition, newest_day(partition, live, self._clock.now()))
        wanted = [job for job in _jobs(live, tiers) if not due_only or _due(job)]
        return [job for job in wanted if not _tidy(job, manifest)]

    def _partition(self, partition: Partition, due_only: bool) -> Compacted:
        manifest = self._publisher.current("bars")
        jobs = self._jobs(manifest, partition, manifest.partition(partition), due_only)
        if not jobs:
            return Compacted()
        added, removed = list[DataFile](), [file.path for job in jobs for file in job.files]
        at = microseconds(self._clock.now())
        with claim(self._root, at) as token:
            try:
                for job in jobs:
                    added += self._merge(job, manifest, lambda: file_name(at, token))
            except BaseException:
                self._writer.discard(added)
                raise
            self._writer.commit("bars", added, removed, None, "compact")
        rows, size = sum(f.facts.rows for f in added), sum(f.size_bytes for f in added)
        return Compacted(1, len(removed), len(added), rows, size)

    def _merge(self, job: "_Job", manifest: Manifest, name: Callable[[], str]) -> list[DataFile]:
        done, before = list[DataFile](), RowSum()
        sinks = [Rolling(self._root, job.tiers.partition, name, done) for _ in job.starts]
        try:
            for after, upto in ranges(weigh((file.rows, manifest.symbols_of(file)) for file in job.files)):
                parts = [datafiles.read_between(self._root, file.path, after, upto) for file in job.files]
                rows = pa.concat_tables([part.select(BODY.names).cast(BODY) for part in parts])
                before.add(rows)
                for sink, share in zip(sinks, job.split(rows), strict=True):
                    if share.num_rows:
                        sink.write(share)
            for sink in sinks:
                sink.close()
            self._verify(job.files, before, done)
        except BaseException:
            self._writer.discard(done)
            raise
        finally:
            for sink in sinks:
                sink.abandon()
        return done

    def _verify(self, group: Sequence[LiveFile], before: RowSum, done: Sequence[DataFile]) -> None:
        """Read back what was written; LakeDamaged unless it holds the very rows."""
        after = RowSum()
        after.read((Path(self._root) / made.path for made in done), BODY)
        if before != after or before.rows != sum(file.rows for file in group):
            raise LakeDamaged(
                f"compaction of {group[0].path} and {len(group) - 1} more: {after.rows} rows were written for "
                f"{before.rows}, or their values differ: nothing was changed",
                f"压实 {group[0].path} 等 {len(group)} 个文件：写入的行与原有的行不一致，未做任何更改",
            )


@dataclass(frozen=True, slots=True)
class _Job:
    """Files that are rewritten together, and the first tier of each file that they become."""

    tiers: Tiers
    files: tuple[LiveFile, ...]
    starts: tuple[int, ...]

    def split(self, rows: pa.Table) -> list[pa.Table]:
        """Return the rows of each new file, sorted by (symbol, ts)."""
        frame = cast(pl.DataFrame, pl.from_arrow(rows)).sort("symbol", "ts")
        if len(self.starts) == 1:
            return [frame.to_arrow().cast(BODY)]
        tier = tier_column(frame, self.tiers)
        ends = [*self.starts[1:], None]
        inside = [
            (tier >= start) & (tier < end) if end is not None else tier >= start
            for start, end in zip(self.starts, ends, strict=True)
        ]
        return [frame.filter(mask).to_arrow().cast(BODY) for mask in inside]


def _jobs(live: Sequence[LiveFile], tiers: Tiers) -> list[_Job]:
    """Return the files by what they shall become; those of several tiers hold the jobs of these together."""
    counts: dict[int, int] = {}
    for file in live:
        for tier, rows in tiers.shares(file).items():
            counts[tier] = counts.get(tier, 0) + rows
    jobs = list[_Job]()
    for start in [BASE, *cuts(counts)[1:]]:
        jobs.append(_Job(tiers, (), (start,)))
    for file in sorted(live, key=lambda file: tiers.of(file)):
        first, last = tiers.span(file)
        met = [job for job in jobs if job.starts[0] <= last and _end(jobs, job) > first]
        joined = _Job(
            tiers, (*(f for job in met for f in job.files), file), sum((job.starts for job in met), ())
        )
        jobs = sorted([*(job for job in jobs if job not in met), joined], key=lambda job: job.starts)
    return [job for job in jobs if job.files]


def _end(jobs: Sequence[_Job], job: _Job) -> float:
    return min((other.starts[0] for other in jobs if other.starts > job.starts), default=math.inf)


def _tidy(job: _Job, manifest: Manifest) -> bool:
    """Say whether the files are as compaction would leave them: one, or full ones cut by symbols."""
    if len(job.starts) > 1 or any(file.rows > 2 * FULL for file in job.files):
        return False
    if len(job.files) == 1:
        return True
    spans = sorted(
        (min(held), max(held), file.rows) for file in job.files if (held := manifest.symbols_of(file))
    )
    apart = all(left[1] < right[0] for left, right in pairwise(spans))
    return apart and len(spans) == len(job.files) and all(rows >= FULL for _, _, rows in spans[:-1])


def _due(job: _Job) -> bool:
    """Say whether it pays now: hot files that cooled down, many files, or one that would grow by a quarter."""
    if len(job.starts) > 1:
        return True
    rows = sorted(file.rows for file in job.files)
    if len(rows) == 1:
        return rows[0] > 2 * FULL
    if len(rows) >= _MANY or any(job.tiers.stale(file) for file in job.files):
        return True
    return sum(rows) >= 4 * SMALL and _SHARE * sum(rows[:-1]) >= rows[-1]
