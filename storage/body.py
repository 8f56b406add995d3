"""The rows of a file of bars: its columns, in Arrow and as a polars frame."""

from typing import Final, cast

import polars as pl
import pyarrow as pa

from ..schemas.bar import PARTITION, SCHEMA

__all__ = ["BODY", "framed", "nothing"]

BODY: Final = pa.schema([f for f in SCHEMA if f.name not in PARTITION])
"""Every column but those of the partition, which the path tells."""


def framed(rows: pa.Table) -> pl.DataFrame:
    """Return rows with the columns of `BODY` as a frame: in this order, times as Datetime[us, UTC]."""
    frame = cast(pl.DataFrame, pl.from_arrow(rows.select(BODY.names).cast(BODY)))
    return frame.with_columns(pl.col("ts", "fetched_at", "known_at").cast(pl.Datetime("us", "UTC")))


def nothing() -> pl.DataFrame:
    """Return a frame of these columns and 0 rows."""
    return framed(BODY.empty_table())
