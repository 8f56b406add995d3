"""Checksums of rows: equal for the same rows in any order, in any number of files."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from .layout import ROW_GROUP

__all__ = ["RowSum"]


@dataclass(slots=True)
class RowSum:
    """Rows, and a sum of their hashes that no order changes."""

    rows: int = 0
    total: int = 0

    def add(self, rows: pa.Table) -> None:
        """Count rows; the same columns, in the same order and types, give the same sum."""
        hashes: Any = cast(pl.DataFrame, pl.from_arrow(rows)).hash_rows(seed=0).to_numpy()
        self.rows += rows.num_rows
        self.total = (self.total + int(hashes.sum(dtype=np.uint64))) % 2**64

    def read(self, files: Iterable[Path], schema: pa.Schema) -> None:
        """Count the rows of Parquet files by the columns of `schema`, a few row groups at a time."""
        for path in files:
            with pq.ParquetFile(path) as file:
                for rows in file.iter_batches(batch_size=4 * ROW_GROUP):
                    self.add(pa.Table.from_batches([rows]).select(schema.names).cast(schema))
