"""The raw zone: every page that a vendor sent, durable before it is used.

Each process appends to segments of its own in the spool, one per vendor. A segment of 8 MB,
or the last one of a run, is sealed: it moves to `raw/<vendor>/<day of its last page>/`.
A segment's lock is held until the run ends, so that others know whose pages are still being
stored. A segment whose process died is adopted by the next one that writes.
"""

import hashlib
import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from threading import RLock
from typing import Final, cast
from uuid import uuid4

import msgspec
import pyarrow as pa
from filelock import FileLock, Timeout

from ..errors import LakeDamaged
from ..schemas.clock import Clock
from ..schemas.page import Page, PageRequest
from ..schemas.vendor import vendor_name
from .claims import drop
from .layout import RAW, SPOOL
from .objects import sync_directory, writing
from .segment import frame, frames, payload_at

__all__ = ["SEAL_BYTES", "RawZone"]

SEAL_BYTES: Final = 8 * 1024 * 1024
_OPEN, _SEALED, _LOCK = ".spool", ".kraw", ".lock"
_LOOK_S: Final = 10.0
_REMEMBERED: Final = 4  # newest segments of a vendor in which a repeated body is looked up


class _Record(msgspec.Struct):
    """One page as stored. `body` is zstd; None: it is the body of the record at `place` of segment `segment`."""

    id: str
    run: str
    kind: str
    account: str
    request: PageRequest
    received_at: datetime
    status: int
    client: str
    size: int
    sha256: bytes
    body: bytes | None
    segment: str = ""
    place: int = 0


@dataclass(frozen=True, slots=True)
class _Body:
    """Where the last body of a request lies."""

    sha256: bytes
    segment: str
    place: int


class _Segment:
    """The segment that this process appends to for one vendor; its lock dies with the process."""

    def __init__(self, spool: Path, vendor: str) -> None:
        self.vendor, self.stem, self.size = vendor, f"{vendor}.{uuid4().hex}", 0
        self.path = spool / f"{self.stem}{_OPEN}"
        # A reader that looks whether the owner lives may hold it for an instant.
        self.lock = FileLock(str(self.path.with_suffix(_LOCK)), timeout=_LOOK_S, thread_local=False)
        self.lock.acquire()
        self._file = self.path.open("xb")
        sync_directory(spool)

    def append(self, frames_: Sequence[bytes]) -> None:
        """Append whole frames and make them durable; on an error nothing of them stays."""
        try:
            self._file.write(b"".join(frames_))
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError:
            with suppress(OSError):
                self._file.truncate(self.size)
                self._file.seek(self.size)
            raise
        self.size += sum(map(len, frames_))

    def close(self) -> None:
        """Close the file; the lock stays until the run has ended."""
        self._file.close()

    def unlock(self) -> None:
        """Say that the run has ended: what it did not store others may."""
        self.lock.release()
        self.path.with_suffix(_LOCK).unlink(missing_ok=True)


class RawZone:
    """The pages of one lake. Threads may share it."""

    def __init__(self, root: str, clock: Clock) -> None:
        self._root, self._clock = Path(root), clock
        self._spool = self._root / SPOOL
        self._mine: dict[str, _Segment] = {}
        self._sealed: list[_Segment] = []  # in this run: their locks are still held
        self._last: dict[str, dict[bytes, _Body]] = {}
        self._problems: dict[tuple[str, int], LakeDamaged] = {}
        self._guard = RLock()
        self._adopted = False
        self._places: dict[str, Path] = {}

    def append(self, pages: Sequence[Page]) -> None:
        """Store `pages`; they are durable when this returns.

        Raises
        ------
        LakeUnwritable
            No permission or no space: none of the failing vendor's pages was stored.
        """
        with self._guard, writing(str(self._root)):
            if not self._adopted:
                self._spool.mkdir(parents=True, exist_ok=True)
                self._adopt()
            by_vendor: dict[str, list[Page]] = {}
            for page in pages:
                by_vendor.setdefault(vendor_name(page.request.vendor), []).append(page)
            for vendor, some in by_vendor.items():
                self._append(vendor, some)

    def seal(self) -> None:
        """Move this process's segments, and those of dead processes, into `raw/`; call it at the end of a run."""
        with self._guard, writing(str(self._root)):
            for vendor in list(self._mine):
                self._seal(vendor)
            while self._sealed:
                self._sealed.pop().unlock()
            self._adopt()

    def pages(self, since: datetime | None = None) -> Iterator[Page]:
        """Yield the pages received at or after `since` (all when None), in no order across vendors.

        Spool and sealed segments alike. Torn tails are dropped; records that cannot be read
        are skipped and listed by `problems`.
        """
        for record in self._records(since):
            body = self._body(record)
            if body is not None:
                yield _page(record, body)

    def unsettled(
        self, known_ids: set[str], since: datetime | None = None, living: Collection[str] = ()
    ) -> Iterator[Page]:
        """Yield the pages whose id is not in `known_ids`: received by a run that did not come to storing them.

        Those in segments of `living`, and of other processes that live now, are left out: their
        run is storing them.
        """
        busy = {*living, *self.living()}
        for record in self._records(since, busy):
            if record.id not in known_ids and (body := self._body(record)) is not None:
                yield _page(record, body)

    def living(self) -> frozenset[str]:
        """Return the segments into which runs of other processes have put pages and have not ended."""
        with self._guard:
            own = {segment.stem for segment in (*self._mine.values(), *self._sealed)}
        locks = [path for path in self._spool.glob(f"*{_LOCK}") if path.stem not in own]
        return frozenset(path.stem for path in locks if _held(path))

    def problems(self) -> tuple[LakeDamaged, ...]:
        """Return what could not be read so far, one error per place."""
        return tuple(self._problems.values())

    def _append(self, vendor: str, pages: Sequence[Page]) -> None:
        segment = self._mine.get(vendor) or _Segment(self._spool, vendor)
        self._mine[vendor] = segment
        last = self._last.setdefault(vendor, {}) or self._remembered(vendor)
        made, place, learnt = list[bytes](), segment.size, dict[bytes, _Body]()
        for page in pages:
            key, digest = _key(page.request), hashlib.sha256(page.body).digest()
            before = learnt.get(key) or last.get(key)
            known = before if before is not None and before.sha256 == digest else None
            made.append(frame(msgspec.msgpack.encode(_record(page, digest, known))))
            if known is None:
                learnt[key] = _Body(digest, segment.stem, place)
            place += len(made[-1])
        segment.append(made)
        self._last[vendor] = {**last, **learnt}
        if segment.size >= SEAL_BYTES:
            self._seal(vendor)

    def _seal(self, vendor: str) -> None:
        segment = self._mine.pop(vendor)
        segment.close()
        self._move(segment.path, vendor)
        self._sealed.append(segment)

    def _adopt(self) -> None:
        """Seal the segments of dead processes, cut at their torn tails."""
        self._adopted = True
        mine = {segment.path for segment in self._mine.values()}
        for path in sorted(self._spool.glob(f"*{_OPEN}")):
            if path in mine:
                continue
            lock = FileLock(str(path.with_suffix(_LOCK)), timeout=0)
            try:
                lock.acquire()
            except Timeout:
                continue  # its process lives
            try:
                if path.exists():
                    self._move(path, path.name.split(".")[0])
            finally:
                lock.release()
                path.with_suffix(_LOCK).unlink(missing_ok=True)
        self._tidy()

    def _tidy(self) -> None:
        """Remove the locks that dead processes left: of segments they had sealed, or had not begun."""
        own = {segment.stem for segment in (*self._mine.values(), *self._sealed)}
        for path in self._spool.glob(f"*.*{_LOCK}"):
            lock = FileLock(str(path), timeout=0)
            if path.stem in own or path.with_suffix(_OPEN).exists():
                continue
            with suppress(Timeout):
                lock.acquire()
                drop(path, lock)

    def _move(self, path: Path, vendor: str) -> None:
        received, end = None, 0
        for one in frames(path.read_bytes()):
            if not one.torn:
                end = one.end
            if one.payload is not None:
                received = msgspec.msgpack.decode(one.payload, type=_Record).received_at
        if received is None:
            path.unlink()
            return
        if end < path.stat().st_size:
            os.truncate(path, end)
        day = self._root / RAW / vendor / received.date().isoformat()
        day.mkdir(parents=True, exist_ok=True)
        path.rename(day / f"{path.name.removesuffix(_OPEN)}{_SEALED}")
        sync_directory(day)
        sync_directory(self._spool)

    def _segments(self, vendor: str = "*") -> dict[str, Path]:
        """Every segment by stem; the spool is listed first, so one that is sealed meanwhile is not missed."""
        spooled = list(self._spool.glob(f"{vendor}.*{_OPEN}"))
        sealed = sorted(
            (self._root / RAW).glob(f"{vendor}/*/*{_SEALED}"), key=lambda p: (p.parent.name, p.name)
        )
        found = {path.name.removesuffix(_SEALED): path for path in sealed}
        return found | {
            stem: path for path in sorted(spooled) if (stem := path.name.removesuffix(_OPEN)) not in found
        }

    def _bytes(self, stem: str, path: Path) -> bytes | None:
        """Return the bytes of a segment, also when it moves between listing and reading."""
        for place in (path, self._segments().get(stem)):
            try:
                if place is not None:
                    return place.read_bytes()
            except FileNotFoundError:
                continue
            except OSError as error:
                raise LakeDamaged(
                    f"{place}: cannot be read ({error})", f"{place}：无法读取（{error}）"
                ) from error
        return None

    def _records(self, since: datetime | None, busy: Collection[str] = ()) -> Iterator[_Record]:
        for stem, path in self._segments().items():
            if stem in busy:
                continue
            if since is not None and path.suffix == _SEALED and path.parent.name < since.date().isoformat():
                continue
            data = self._bytes(stem, path)
            for _, record in self._decoded(path, data or b""):
                if since is None or record.received_at >= since:
                    yield record

    def _decoded(self, path: Path, data: bytes) -> Iterator[tuple[int, _Record]]:
        for one in frames(data):
            if one.payload is None:
                if not (one.torn and path.suffix == _OPEN):
                    self._complain(path, one.at, "a record cannot be read")
                continue
            try:
                yield one.at, msgspec.msgpack.decode(one.payload, type=_Record)
            except msgspec.DecodeError as error:
                self._complain(path, one.at, f"a record is not of a known form ({error})")

    def _body(self, record: _Record) -> bytes | None:
        if record.body is not None:
            return _plain(record)
        payload = self._payload(record.segment, record.place)
        if payload is not None:
            source = msgspec.msgpack.decode(payload, type=_Record)
            if source.sha256 == record.sha256 and source.body is not None:
                return _plain(source)
        self._complain(Path(record.segment), record.place, f"the body that page {record.id} repeats is gone")
        return None

    def _payload(self, stem: str, place: int) -> bytes | None:
        """Return one record of a segment, wherever that lies by now; None when it is gone."""
        for listed in (self._places, None):
            self._places = self._segments() if listed is None else listed
            if (path := self._places.get(stem)) is not None:
                with suppress(FileNotFoundError):
                    return payload_at(path, place)
        return None

    def _remembered(self, vendor: str) -> dict[bytes, _Body]:
        """Return the last body of each request in the vendor's newest segments."""
        out: dict[bytes, _Body] = {}
        newest = [(s, p) for s, p in self._segments(vendor).items() if p.suffix == _SEALED][-_REMEMBERED:]
        near = {stem for stem, _ in newest}
        for stem, path in newest:
            for place, record in self._decoded(path, self._bytes(stem, path) or b""):
                key = _key(record.request)
                if record.body is not None:
                    out[key] = _Body(record.sha256, stem, place)
                elif record.segment in near:
                    out[key] = _Body(record.sha256, record.segment, record.place)
                else:
                    out.pop(key, None)
        return out

    def _complain(self, path: Path, at: int, what: str) -> None:
        self._problems[(path.name, at)] = LakeDamaged(
            f"{path}: {what} at byte {at}; it is skipped", f"{path}：第 {at} 字节处的记录无法读取，已跳过"
        )


def _held(lock: Path) -> bool:
    """Return whether somebody holds a lock, by trying it."""
    trial = FileLock(str(lock), timeout=0)
    try:
        trial.acquire()
    except Timeout:
        return True
    trial.release()
    return False


def _record(page: Page, digest: bytes, known: _Body | None) -> _Record:
    body = None if known else cast(bytes, pa.compress(page.body, codec="zstd", asbytes=True))
    return _Record(
        page.id, page.run, page.kind, page.account, page.request, page.received_at, page.status, page.client,
        len(page.body), digest, body, known.segment if known else "", known.place if known else 0,
    )  # fmt: skip


def _page(record: _Record, body: bytes) -> Page:
    return Page(
        record.id, record.run, record.kind, record.account, record.request, record.received_at, record.status,
        record.client, body,
    )  # fmt: skip


def _plain(record: _Record) -> bytes:
    if not record.size:
        return b""
    return cast(bytes, pa.decompress(record.body, decompressed_size=record.size, codec="zstd", asbytes=True))


def _key(request: PageRequest) -> bytes:
    return hashlib.sha256(msgspec.msgpack.encode(request)).digest()
