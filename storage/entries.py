"""Entries of a Delta log, as far as history and vacuum read them."""

from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

import msgspec

__all__ = ["NOTE", "Entry", "Note", "parse"]

NOTE: Final = "klake"
"""The key of a commit's metadata under which its note is."""


class Note(msgspec.Struct, omit_defaults=True):
    """What a commit says of itself: when (ms), what, by which run, and rows and bytes that are current after it."""

    at_ms: int
    operation: str
    run: str = ""
    rows: int = 0
    size_bytes: int = 0


class _Change(msgspec.Struct):
    path: str
    at: int = msgspec.field(default=0, name="deletionTimestamp")


class _Info(msgspec.Struct):
    timestamp: int = 0
    operation: str = ""
    klake: str = ""


class _Line(msgspec.Struct):
    """One line of a log entry."""

    add: _Change | None = None
    remove: _Change | None = None
    info: _Info | None = msgspec.field(default=None, name="commitInfo")


_LINES: Final = msgspec.json.Decoder(_Line)


@dataclass(frozen=True, slots=True)
class Entry:
    """One commit of a log: paths relative to the lake; removed ones with the time, in ms."""

    version: int
    note: Note
    added: tuple[str, ...]
    removed: dict[str, int]


def parse(table: str, version: int, body: bytes) -> Entry:
    """Return what the bytes of one log entry of `table` say."""
    lines = _LINES.decode_lines(body)
    info = next((line.info for line in lines if line.info), _Info())
    said = msgspec.json.decode(info.klake, type=Note) if info.klake else None
    note = said or Note(info.timestamp, info.operation.lower())
    added = tuple(f"{table}/{unquote(line.add.path)}" for line in lines if line.add)
    removed = {f"{table}/{unquote(line.remove.path)}": line.remove.at for line in lines if line.remove}
    return Entry(version, note, added, removed)
