"""Files of one partition written one after another, each full before the next begins."""

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from typing import Final, Protocol, TypeVar

import pyarrow as pa

from .datafiles import DataFile, Sink
from .layout import Partition
from .tiers import FULL

__all__ = ["PIECE", "Range", "Rolling", "ranges", "roll", "weigh"]

PIECE: Final = 262_144
"""Rows that are in memory at a time, about 100 MB with everything that is made of them."""

Range = tuple[str | None, str | None]
"""after < symbol <= upto; None: no bound."""


def weigh(files: Iterable[tuple[int, Collection[str]]]) -> dict[str, float]:
    """Return about how many rows each symbol has in files of so many rows and these symbols."""
    weights: dict[str, float] = {}
    for rows, symbols in files:
        for name in symbols:
            weights[name] = weights.get(name, 0.0) + rows / len(symbols)
    return weights


def ranges(weights: Mapping[str, float]) -> list[Range]:
    """Return ranges that cover every symbol, with about `PIECE` rows each."""
    bounds: list[str | None] = [None]
    total, names = 0.0, sorted(weights)
    for name in names[:-1]:
        total += weights[name]
        if total >= PIECE:
            bounds.append(name)
            total = 0.0
    bounds.append(None)
    return [(bounds[n], bounds[n + 1]) for n in range(len(bounds) - 1)]


class Rolling:
    """Takes rows sorted by (symbol, ts), in pieces that end between symbols; makes no file when none comes."""

    def __init__(
        self, root: str, partition: Partition, name: Callable[[], str], done: list[DataFile]
    ) -> None:
        self._root, self._partition, self._name, self._done = root, partition, name, done
        self._sink: Sink | None = None

    def write(self, rows: pa.Table) -> None:
        """Add rows; a file that is full by then is closed."""
        if self._sink is None:
            path = f"{self._partition.path}/{self._name()}"
            self._sink = Sink(self._root, path, rows.schema, self._partition)
        self._sink.write(rows)
        if self._sink.rows >= FULL:
            self.close()

    def close(self) -> None:
        """Finish the file that is open, if any; it is in `done` then."""
        if self._sink is not None:
            self._done.append(self._sink.close())
            self._sink = None

    def abandon(self) -> None:
        """Leave no draft; does nothing after `close`."""
        if self._sink is not None:
            self._sink.abandon()


class _Output(Hashable, Protocol):
    @property
    def partition(self) -> Partition: ...


T = TypeVar("T", bound=_Output)


def roll(
    root: str, pieces: Iterable[tuple[T, pa.Table]], name: Callable[[], str], done: list[DataFile]
) -> None:
    """Write the files of several outputs side by side; `done` grows as they are finished.

    The pieces of one output come sorted and end between symbols; `name` gives each file its own.
    """
    sinks: dict[T, Rolling] = {}
    try:
        for output, rows in pieces:
            if output not in sinks:
                sinks[output] = Rolling(root, output.partition, name, done)
            sinks[output].write(rows)
        for sink in sinks.values():
            sink.close()
    finally:
        for sink in sinks.values():
            sink.abandon()
