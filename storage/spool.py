"""The spool: the segments that processes append pages to, until they are sealed into `raw/`.

A segment's lock is held until the run ends, so that others know whose pages are still being
stored. A segment whose process died is adopted by the next one that writes.
"""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final
from uuid import uuid4

import msgspec
from filelock import FileLock, Timeout

from .claims import drop
from .layout import RAW, SPOOL
from .objects import sync_directory
from .records import Head
from .segment import frames

__all__ = ["OPEN", "SEALED", "Segment", "Spool"]

OPEN: Final = ".spool"
SEALED: Final = ".kraw"
_LOCK: Final = ".lock"
_LOOK_S: Final = 10.0


class Segment:
    """The segment that this process appends to for one vendor; its lock dies with the process."""

    def __init__(self, spool: Path, vendor: str) -> None:
        self.vendor, self.stem, self.size = vendor, f"{vendor}.{uuid4().hex}", 0
        self.path = spool / f"{self.stem}{OPEN}"
        # A reader that looks whether the owner lives may hold it for an instant.
        self.lock = FileLock(str(self.path.with_suffix(_LOCK)), timeout=_LOOK_S, thread_local=False)
        self.lock.acquire()
        self._file = self.path.open("xb", buffering=0)  # what a full disk refuses must not wait in a buffer
        sync_directory(spool)

    def append(self, frames_: Sequence[bytes]) -> None:
        """Append whole frames and make them durable; on an error nothing of them stays."""
        try:
            rest = memoryview(b"".join(frames_))
            while rest:
                rest = rest[self._file.write(rest) :]
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


class Spool:
    """The spool of one lake as one process uses it; the caller sees to it that threads take turns."""

    def __init__(self, root: Path) -> None:
        self._raw, self._folder = root / RAW, root / SPOOL
        self._mine: dict[str, Segment] = {}
        self._sealed: list[Segment] = []  # in this run: their locks are still held

    def open(self, vendor: str) -> Segment:
        """Return this process's segment of a vendor, made when there is none."""
        if vendor not in self._mine:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._mine[vendor] = Segment(self._folder, vendor)
        return self._mine[vendor]

    def seal(self, vendor: str) -> None:
        """Move this process's segment of a vendor into `raw/`; its lock stays."""
        segment = self._mine.pop(vendor)
        segment.close()
        self._move(segment.path, vendor)
        self._sealed.append(segment)

    def seal_all(self) -> None:
        """Move this process's segments into `raw/` and say that the run has ended."""
        for vendor in list(self._mine):
            self.seal(vendor)
        while self._sealed:
            self._sealed.pop().unlock()

    def release(self) -> None:
        """Say that the run has ended, though it could not seal: the next one stores what it received."""
        for segment in (*self._mine.values(), *self._sealed):
            segment.close()
            segment.unlock()
        self._mine, self._sealed = {}, []

    def living(self) -> frozenset[str]:
        """Return the segments into which runs of other processes have put pages and have not ended."""
        own = {segment.stem for segment in (*self._mine.values(), *self._sealed)}
        locks = [path for path in self._folder.glob(f"*.*{_LOCK}") if path.stem not in own]
        return frozenset(path.stem for path in locks if _held(path))

    def adopt(self) -> None:
        """Seal the segments of dead processes, cut at their torn tails."""
        mine = {segment.path for segment in self._mine.values()}
        for path in sorted(self._folder.glob(f"*{OPEN}")):
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
        for path in self._folder.glob(f"*.*{_LOCK}"):
            lock = FileLock(str(path), timeout=0)
            if path.stem in own or path.with_suffix(OPEN).exists():
                continue
            with suppress(Timeout):
                lock.acquire()
                drop(path, lock)

    def _move(self, path: Path, vendor: str) -> None:
        arrived, end = None, 0
        for one in frames(path.read_bytes()):
            if not one.torn:
                end = one.end
            if one.payload is not None:
                arrived = msgspec.msgpack.decode(one.payload, type=Head).arrived_at
        if arrived is None:
            path.unlink()
            return
        if end < path.stat().st_size:
            os.truncate(path, end)
        day = self._raw / vendor / arrived.date().isoformat()
        day.mkdir(parents=True, exist_ok=True)
        path.rename(day / f"{path.name.removesuffix(OPEN)}{SEALED}")
        for folder in (day, day.parent, self._raw, self._folder):  # the day's folder may be new, too
            sync_directory(folder)


def _held(lock: Path) -> bool:
    """Return whether somebody holds a lock, by trying it."""
    trial = FileLock(str(lock), timeout=0)
    try:
        trial.acquire()
    except Timeout:
        return True
    trial.release()
    return False
