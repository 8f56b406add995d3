"""Segments: files of framed records that survive a crash at any byte.

A frame is a mark, the length and the CRC-32 of its payload, then the payload. A frame that
does not check is skipped by looking for the next mark; one that ends early is a torn tail.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["Frame", "frame", "frames", "payload_at"]

_MARK: Final = b"\xabKR1"
_HEAD: Final = struct.Struct("<4sII")


@dataclass(frozen=True, slots=True)
class Frame:
    """One record at byte `at`; `payload` None: what lies there up to `end` cannot be read.

    `torn`: it cannot be read and no good frame follows, as after a crash while appending.
    """

    at: int
    end: int
    payload: bytes | None
    torn: bool = False


def frame(payload: bytes) -> bytes:
    """Return the bytes of one frame."""
    return _HEAD.pack(_MARK, len(payload), zlib.crc32(payload)) + payload


def frames(data: bytes, start: int = 0) -> Iterator[Frame]:
    """Yield the frames of a segment's bytes from byte `start` on, in order, bad stretches included."""
    at = start
    while at < len(data):
        good = _good(data, at)
        if good is not None:
            yield good
            at = good.end
            continue
        following = _next(data, at + 1)
        yield Frame(at, following, None, torn=following == len(data))
        at = following


def payload_at(path: Path, at: int) -> bytes | None:
    """Return the payload of the frame at byte `at` of a segment; None when there is no good one."""
    with path.open("rb") as file:
        file.seek(at)
        head = file.read(_HEAD.size)
        if len(head) < _HEAD.size:
            return None
        found = _good(head + file.read(_HEAD.unpack(head)[1]), 0)
    return None if found is None else found.payload


def _good(data: bytes, at: int) -> Frame | None:
    if len(data) - at < _HEAD.size:
        return None
    mark, length, checksum = _HEAD.unpack_from(data, at)
    body = at + _HEAD.size
    if mark != _MARK or body + length > len(data):
        return None
    payload = data[body : body + length]
    return Frame(at, body + length, payload) if zlib.crc32(payload) == checksum else None


def _next(data: bytes, at: int) -> int:
    """Where the next good frame begins, or the end."""
    while (at := data.find(_MARK, at)) >= 0:
        if _good(data, at) is not None:
            return at
        at += 1
    return len(data)
