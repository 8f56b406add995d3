"""Parquet and feather (Arrow IPC): read in batches, only the columns that are needed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import feather

from ...errors import BadRequest
from .mapping import Mapping, located
from .piece import ROWS, Piece, piece

__all__ = ["columnar_pieces"]


def columnar_pieces(path: Path, mapping: Mapping) -> Iterator[Piece]:
    """Yield the rows of a Parquet or feather file; `lines` are row numbers from 1.

    Raises
    ------
    BadRequest
        Not such a file, or columns are missing.
    """
    start = 1
    for batch in _batches(path, mapping):
        table = pa.Table.from_batches([batch])
        where = located(mapping, [str(name) for name in table.column_names])
        frame = cast("pl.DataFrame", pl.from_arrow(table))
        picked = frame.select(pl.col(frame.columns[i]).alias(target) for target, i in where.items())
        yield piece(picked.with_row_index("line", offset=start), mapping, [])
        start += table.num_rows


def _batches(path: Path, mapping: Mapping) -> Iterator[Any]:
    try:
        if path.suffix.lower() in {".parquet", ".pq"}:
            with pq.ParquetFile(path) as file:
                names = [str(name) for name in file.schema_arrow.names]
                wanted = sorted(set(located(mapping, names).values()))
                # Numbers mean columns of the file: a declared one keeps its place only if all are read.
                numbered = any(isinstance(column, int) for column in mapping.columns.values())
                columns = None if numbered else [names[i] for i in wanted]
                yield from file.iter_batches(ROWS, columns=columns)
        else:
            table = feather.read_table(path, memory_map=True)
            yield from table.to_batches(max_chunksize=ROWS)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise BadRequest("file", str(path), hint=f"cannot be read as {path.suffix[1:]}: {error}") from error
