"""What writers were told is stored, in a file that every process reads; and what a reader's answer must be by it."""

import os
import struct
from collections.abc import Iterable, Sequence
from typing import Any


class Tally:
    """Twelve counts: per writer its own batches, shared batches and sessions grown, as begun, then as stored."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_RDWR)

    def read(self) -> tuple[int, ...]:
        return struct.unpack("<12q", os.pread(self._fd, 96, 0))

    def put(self, writer: int, stored: int, counts: tuple[int, int, int]) -> None:
        os.pwrite(self._fd, struct.pack("<3q", *counts), writer * 48 + stored * 24)


def wrong(
    seen: Iterable[Sequence[Any]],
    whole: int,
    before: Sequence[int],
    after: Sequence[int],
    last: dict[str, float],
) -> list[tuple[Any, ...]]:
    """What is wrong with the rows (group, rows, keys, low, high) of one query; `last` is the answer before it.

    `before` and `after` are the tallies around the query: it must show what was stored then,
    and nothing that was not begun.
    """
    found = {row[0]: row[1:] for row in seen}
    bad: list[tuple[Any, ...]] = []
    for place, name in enumerate("ABS"):
        rows, keys, low, high = found.get(name, (0, 0, -1, -1))
        least = max(before[4], before[10]) if name == "S" else before[3 + 6 * place]
        most = max(after[1], after[7]) if name == "S" else after[6 * place]
        if not rows == keys == whole:
            bad.append(("rows", name, rows, keys))
        if low != high:
            bad.append(("mixed", name, low, high))
        if not max(least, last.get(name, 0)) <= low <= most:
            bad.append(("lost", name, least, last.get(name), low, most))
        last[name] = low
    for place, name in enumerate(("GA", "GB")):
        rows, keys = found.get(name, (0, 0))[:2]
        least, most = before[5 + 6 * place], after[2 + 6 * place]
        if rows != keys or not max(least, last.get(name, 0)) <= rows <= most:
            bad.append(("grown", name, least, rows, keys, most))
        last[name] = rows
    return bad
