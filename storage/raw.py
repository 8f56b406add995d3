"""The raw zone: every page that a vendor sent, durable before it is used.

Each process appends to segments of its own in the spool, one per vendor. A segment of 8 MB,
or the last one of a run, is sealed: it moves to `raw/<vendor>/<day of its last page>/`.
"""

import hashlib
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import RLock
from typing import Final

import msgspec

from ..errors import LakeDamaged
from ..schemas.clock import Clock
from ..schemas.page import Page
from ..schemas.vendor import vendor_name
from .archive import Archive
from .layout import SPOOL
from .objects import writing
from .records import Body, Head, Record, Ref, key_of, page_of, record_of
from .retention import REMEMBERED, Expired, expire
from .segment import frame
from .spool import Spool

__all__ = ["SEAL_BYTES", "RawZone"]

SEAL_BYTES: Final = 8 * 1024 * 1024


class RawZone:
    """The pages of one lake. Threads may share it."""

    def __init__(self, root: str, clock: Clock) -> None:
        self._root, self._clock = Path(root), clock
        self._archive, self._spool = Archive(self._root), Spool(self._root)
        self._last: dict[str, dict[bytes, Body]] = {}
        self._guard = RLock()
        self._adopted = False

    def append(self, pages: Sequence[Page], taken_at: datetime | None = None) -> None:
        """Store `pages`; they are durable when this returns.

        `taken_at`: when they were taken from a folder of collected pages; None: just received.

        Raises
        ------
        LakeUnwritable
            No permission or no space: none of the failing vendor's pages was stored.
        """
        with self._guard, writing(str(self._root)):
            if not self._adopted:
                self._adopt()
            by_vendor: dict[str, list[Page]] = {}
            for page in pages:
                by_vendor.setdefault(vendor_name(page.request.vendor), []).append(page)
            for vendor, some in by_vendor.items():
                self._append(vendor, some, taken_at)

    def seal(self) -> None:
        """Move this process's segments, and those of dead processes, into `raw/`; call it at the end of a run."""
        with self._guard, writing(str(self._root)):
            self._spool.seal_all()
            self._adopt()

    def release(self) -> None:
        """Say that the run has ended, whatever became of it: others may store its pages; nothing to do after `seal`."""
        with self._guard:
            self._spool.release()

    def pages(self, since: datetime | None = None) -> Iterator[Page]:
        """Yield the pages received at or after `since` (all when None), in no order across vendors.

        Spool and sealed segments alike. Torn tails are dropped; records that cannot be read
        are skipped and listed by `problems`.
        """
        archive = self._archive
        for stem, path in archive.segments().items():
            for _, record in archive.records(stem, path, Record):
                if since is not None and record.received_at < since:
                    continue
                if (body := archive.body(record)) is not None:
                    yield page_of(record, body)

    def unsettled(
        self, known_ids: Collection[str], since: datetime | None = None, living: Collection[str] = (), vendor: str = "*"
    ) -> list[Ref]:  # fmt: skip
        """Return the pages whose id is not in `known_ids`, in the order of receipt: no run came to storing them.

        Only those that came into this lake at or after `since`. Those in segments of `living`,
        and of other processes that live now, are left out: their run is storing them.
        """
        busy = {*living, *self.living()}
        found = self.refs(since, vendor, lambda head: head.id not in known_ids)
        return [ref for ref in found if ref.segment not in busy]

    def refs(
        self, since: datetime | None = None, vendor: str = "*", wanted: Callable[[Head], bool] | None = None
    ) -> list[Ref]:
        """Return the pages that came into this lake at or after `since`, in the order of receipt.

        `wanted` looks at each of them; None: all are. Damaged ones are listed by `problems`.
        """
        return sorted(
            Ref(h.received_at, h.id, sys.intern(h.run), h.request.vendor, stem, at)
            for stem, at, h in self._archive.heads(since, vendor) if wanted is None or wanted(h)
        )  # fmt: skip

    def page(self, ref: Ref) -> Page | None:
        """Return the page that lies at `ref`; None: it cannot be read, and `problems` says why."""
        return self._archive.page(ref)

    def vendors(self) -> list[str]:
        """Return the vendors of whom there are pages, ascending."""
        return sorted({stem.split(".")[0] for stem in self._archive.segments()})

    def expire(
        self,
        days: int,
        stored: Callable[[], Collection[str]],
        *,
        dry_run: bool = False,
        due_only: bool = False,
    ) -> Expired:
        """Return the segments that were deleted: nothing of them came in the last `days` days; see `retention`.

        `stored` gives the ids of the pages that are stored. Nothing while runs of other
        processes are at work: their next page may repeat a body. `due_only`: once a day at most.
        """
        today = self._clock.now().astimezone(UTC).date()
        mark, told = self._root / SPOOL / "expired", f"{today} {days}"
        if due_only and mark.exists() and mark.read_text() == told:
            return Expired()
        with self._guard, writing(str(self._root)):
            if self._spool.living():
                return Expired()
            done = expire(self._root, self._archive, today - timedelta(days=days), stored, dry_run=dry_run)
            self._last.clear()
            if due_only:
                mark.parent.mkdir(exist_ok=True)
                mark.write_text(told)
        return done

    def living(self) -> frozenset[str]:
        """Return the segments into which runs of other processes have put pages and have not ended."""
        with self._guard:
            return self._spool.living()

    def problems(self) -> tuple[LakeDamaged, ...]:
        """Return what could not be read so far, one error per place."""
        return self._archive.problems()

    def _append(self, vendor: str, pages: Sequence[Page], taken_at: datetime | None) -> None:
        segment = self._spool.open(vendor)
        if vendor not in self._last:
            self._last[vendor] = self._remembered(vendor)
        last, made, place, learnt = self._last[vendor], list[bytes](), segment.size, dict[bytes, Body]()
        for page in pages:
            key, digest = key_of(page.request), hashlib.sha256(page.body).digest()
            before = learnt.get(key) or last.get(key)
            known = before if before is not None and before.sha256 == digest else None
            made.append(frame(msgspec.msgpack.encode(record_of(page, digest, known, taken_at))))
            if known is None:
                learnt[key] = Body(digest, segment.stem, place)
            place += len(made[-1])
        segment.append(made)
        last.update(learnt)
        if segment.size >= SEAL_BYTES:
            self._spool.seal(vendor)

    def _adopt(self) -> None:
        self._adopted = True
        self._spool.adopt()

    def _remembered(self, vendor: str) -> dict[bytes, Body]:
        """Return the last body of each request in the vendor's newest segments."""
        out: dict[bytes, Body] = {}
        newest = list(self._archive.sealed(vendor).items())[-REMEMBERED:]
        near = {stem for stem, _ in newest}
        for stem, path in newest:
            for place, head in self._archive.records(stem, path, Head):
                key = key_of(head.request)
                if not head.segment:
                    out[key] = Body(head.sha256, stem, place)
                elif head.segment in near:
                    out[key] = Body(head.sha256, head.segment, head.place)
                else:
                    out.pop(key, None)
        return out
