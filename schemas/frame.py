"""Tables as people hold them (Arrow, polars, pandas, anything with the Arrow C stream) → one Arrow table."""

from typing import Any

import polars as pl
import pyarrow as pa

from ..errors import BadRequest, MissingExtra

__all__ = ["as_arrow"]


def as_arrow(frame: object) -> pa.Table:
    """Return `frame` as an Arrow table, its columns as they are.

    Parameters
    ----------
    frame : Arrow table, batch or reader; polars DataFrame or LazyFrame; pandas DataFrame; or
        anything with `__arrow_c_stream__`
        A pandas index becomes columns: levels by their names, a nameless DatetimeIndex as `ts`;
        a plain row number is dropped.

    Raises
    ------
    BadRequest
        Nothing that holds a table.
    """
    given: Any = frame
    if isinstance(given, pa.Table):
        return given
    if isinstance(given, pa.RecordBatch):
        return pa.Table.from_batches([given])
    if isinstance(given, pl.LazyFrame):
        return as_arrow(given.collect())
    if type(given).__module__.partition(".")[0] == "pandas" and hasattr(given, "columns"):
        return _from_pandas(given)
    if isinstance(given, pl.DataFrame):
        return given.to_arrow(
            compat_level=pl.CompatLevel.oldest()
        )  # no string views: they cannot be taken from
    if hasattr(given, "__arrow_c_stream__"):
        return pa.table(given)
    raise BadRequest(
        "table", type(given).__name__, ("Arrow table", "polars DataFrame", "pandas DataFrame"),
        hint="give a table with the columns symbol, ts or session, open, high, low, close, volume",
        hint_zh="请给出含有 symbol、ts 或 session、open、high、low、close、volume 列的表",
    )  # fmt: skip


def _from_pandas(frame: Any) -> pa.Table:
    try:
        import pandas as pd
    except ImportError as error:
        raise MissingExtra("pandas", "pandas") from error
    index = frame.index
    names = [name if name is not None else _name_of(level, pd) for name, level in _levels(index, pd)]
    if any(names):
        kept = [str(name) if name else f"level_{i}" for i, name in enumerate(names)]
        doubled = [name for name in kept if name in frame.columns]
        frame = frame.drop(columns=doubled) if doubled else frame
        frame = frame.set_axis(index.set_names(kept if len(kept) > 1 else kept[0]), axis=0).reset_index()
    return pa.Table.from_pandas(frame, preserve_index=False)


def _levels(index: Any, pd: Any) -> list[tuple[object, Any]]:
    if isinstance(index, pd.MultiIndex):
        return [(name, index.levels[i]) for i, name in enumerate(index.names)]
    return [(index.name, index)]


def _name_of(level: Any, pd: Any) -> str:
    """Return `ts` for a nameless index of times, `symbol` for one of texts, else nothing."""
    return "ts" if isinstance(level, pd.DatetimeIndex) else ""
