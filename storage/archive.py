"""The archive: the segments of a raw zone, read; sealed ones and those that processes still append to.

Nothing is written here, not even a lock, so that a folder on a read-only disk can be read, and one
that a running collect still fills. What cannot be read is skipped and listed.
"""

from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import msgspec

from ..errors import LakeDamaged
from ..schemas.page import Page
from .layout import RAW, SPOOL
from .records import Head, Record, Ref, page_of, plain
from .segment import frames, payload_at
from .spool import OPEN, SEALED

__all__ = ["Archive"]

T = TypeVar("T", Head, Record)


class Archive:
    """What lies in a raw zone; `problems` lists what could not be read so far, one error per place."""

    def __init__(self, root: Path) -> None:
        self._raw, self._spool = root / RAW, root / SPOOL
        self._places: dict[str, Path] = {}
        self._problems: dict[tuple[str, int], LakeDamaged] = {}

    def problems(self) -> tuple[LakeDamaged, ...]:
        """Return what could not be read so far."""
        return tuple(self._problems.values())

    def spoilt(self, path: Path) -> bool:
        """Return whether something of a segment that was read could not be."""
        return any(name == path.name for name, _ in self._problems)

    def segments(self, vendor: str = "*") -> dict[str, Path]:
        """Return every segment by stem, oldest sealed first.

        The spool is listed first, so that one which is sealed meanwhile is not missed.
        """
        spooled = list(self._spool.glob(f"{vendor}.*{OPEN}"))
        sealed = sorted(self._raw.glob(f"{vendor}/*/*{SEALED}"), key=lambda p: (p.parent.name, p.name))
        found = {path.name.removesuffix(SEALED): path for path in sealed}
        return found | {
            stem: path for path in sorted(spooled) if (stem := path.name.removesuffix(OPEN)) not in found
        }

    def sealed(self, vendor: str = "*") -> dict[str, Path]:
        """Return the sealed segments by stem, oldest first."""
        return {stem: path for stem, path in self.segments(vendor).items() if path.suffix == SEALED}

    def records(self, stem: str, path: Path, kind: type[T]) -> Iterator[tuple[int, T]]:
        """Yield (byte, record) of one segment, each as a `kind`; none when it is gone."""
        for one in frames(self._bytes(stem, path) or b""):
            if one.payload is None:
                if not (one.torn and path.suffix == OPEN):
                    self._complain(path, one.at, "a record cannot be read")
                continue
            try:
                yield one.at, msgspec.msgpack.decode(one.payload, type=kind)
            except msgspec.DecodeError as error:
                self._complain(path, one.at, f"a record is not of a known form ({error})")

    def heads(self, since: datetime | None = None, vendor: str = "*") -> Iterator[tuple[str, int, Head]]:
        """Yield (segment, byte, head) of the records that came into this lake at or after `since`."""
        first = "" if since is None else since.astimezone(UTC).date().isoformat()
        for stem, path in self.segments(vendor).items():
            if path.suffix == SEALED and path.parent.name < first:
                continue
            for at, head in self.records(stem, path, Head):
                if since is None or head.arrived_at >= since:
                    yield stem, at, head

    def page(self, ref: Ref) -> Page | None:
        """Return the page that lies at `ref`; None: it cannot be read, and `problems` says why."""
        payload = self._payload(ref.segment, ref.place)
        if payload is None:
            self._complain(self._place(ref.segment), ref.place, "a record cannot be read")
            return None
        try:
            record = msgspec.msgpack.decode(payload, type=Record)
        except msgspec.DecodeError as error:
            self._complain(self._place(ref.segment), ref.place, f"a record is not of a known form ({error})")
            return None
        body = self.body(record)
        return None if body is None else page_of(record, body)

    def body(self, record: Record) -> bytes | None:
        """Return the plain body of a record, its own or the one that it repeats."""
        if record.body is not None:
            return plain(record)
        payload = self._payload(record.segment, record.place)
        if payload is not None:
            source = msgspec.msgpack.decode(payload, type=Record)
            if source.sha256 == record.sha256 and source.body is not None:
                return plain(source)
        where = self._place(record.segment)
        self._complain(where, record.place, f"the body that page {record.id} repeats is gone")
        return None

    def _place(self, stem: str) -> Path:
        return self._places.get(stem, Path(stem))

    def _payload(self, stem: str, place: int) -> bytes | None:
        """Return one record of a segment, wherever that lies by now; None when it is gone."""
        for again in (False, True):
            if again:
                self._places = self.segments()
            if (path := self._places.get(stem)) is not None:
                with suppress(OSError):  # gone, moved, or not readable: whoever asked says so
                    return payload_at(path, place)
        return None

    def _bytes(self, stem: str, path: Path) -> bytes | None:
        """Return the bytes of a segment, also when it moves between listing and reading."""
        for place in (path, self.segments().get(stem)):
            try:
                if place is not None:
                    return place.read_bytes()
            except FileNotFoundError:
                continue
            except OSError as error:
                self._complain(path, 0, f"a segment cannot be read ({error.strerror})")
                return None
        return None

    def _complain(self, path: Path, at: int, what: str) -> None:
        self._problems[(path.name, at)] = LakeDamaged(
            f"{path}: {what} at byte {at}; it is skipped", f"{path}：第 {at} 字节处的记录无法读取，已跳过"
        )
