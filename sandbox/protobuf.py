"""As much of the Protocol Buffers wire format as a stand-in needs: varints and length-delimited fields."""

from collections.abc import Iterable
from typing import TypeAlias

__all__ = ["Fields", "field", "number", "packed", "parsed", "text"]

Fields: TypeAlias = dict[int, list[int | bytes]]


def field(place: int, value: int | str | bytes) -> bytes:
    """Return one field; nothing where the value is zero or empty, as proto3 leaves those out."""
    if not value:
        return b""
    if isinstance(value, int):
        return _varint(place << 3) + _varint(value & (1 << 64) - 1)
    raw = value.encode() if isinstance(value, str) else value
    return _varint(place << 3 | 2) + _varint(len(raw)) + raw


def packed(place: int, messages: Iterable[bytes]) -> bytes:
    """Return a repeated field of messages, empty ones included."""
    head = _varint(place << 3 | 2)
    return b"".join(head + _varint(len(one)) + one for one in messages)


def parsed(body: bytes) -> Fields:
    """Return the fields of a message by number, each with its values in order; ValueError where it is torn."""
    out: Fields = {}
    at = 0
    while at < len(body):
        tag, at = _read(body, at)
        if tag & 7 == 0:
            value, at = _read(body, at)
            out.setdefault(tag >> 3, []).append(value)
        elif tag & 7 == 2:
            size, at = _read(body, at)
            if at + size > len(body):
                raise ValueError("the message is torn")
            out.setdefault(tag >> 3, []).append(body[at : at + size])
            at += size
        else:
            raise ValueError(f"wire type {tag & 7} is not spoken here")
    return out


def number(fields: Fields, place: int) -> int:
    """Return a number; 0 where it was left out."""
    value = fields.get(place, [0])[-1]
    return value if isinstance(value, int) else 0


def text(fields: Fields, place: int) -> str:
    """Return a text; empty where it was left out."""
    value = fields.get(place, [b""])[-1]
    return value.decode(errors="replace") if isinstance(value, bytes) else ""


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read(body: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(body) and shift < 70:
        byte = body[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise ValueError("a number is torn")
