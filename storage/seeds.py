"""Seeds: the file of each relation that a view opens first, because it is the first of its listing.

DuckDB opens the first file that it lists, dead or alive, so that file must never be deleted:
a query that has listed it opens it a moment later. It guesses the size of the whole table from
it, too, and reads every dead file where that guess is 0. So a seed holds no rows, but its
footer counts some.
"""

from io import BytesIO
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from .layout import ROW_GROUP, seed
from .objects import LocalObjects

__all__ = ["plant", "seed_bytes"]

_NONE: Final = b"\x16\x00\x19"  # of a Thrift footer: num_rows = 0, then the list of row groups


def plant(root: str, relation: str, schema: pa.Schema) -> None:
    """Make the seed of a relation of the lake at `root`, unless it is there; `schema`: the columns of its files."""
    if not (Path(root) / seed(relation)).exists():
        LocalObjects(root).put_if_absent(seed(relation), seed_bytes(schema))


def seed_bytes(schema: pa.Schema) -> bytes:
    """Return a Parquet file with one row group of 0 rows whose footer counts as many as a full one holds.

    Where pyarrow writes its footers in another way, it counts none: views are slower then, and as right.
    """
    sink = BytesIO()
    pq.write_table(schema.empty_table(), sink, store_schema=False)  # one row group: DuckDB 1.5 looks for it
    plain = sink.getvalue()
    length = int.from_bytes(plain[-8:-4], "little")
    head, footer = plain[: -8 - length], plain[-8 - length : -8]
    if footer.count(_NONE) != 1:
        return plain
    counting = footer.replace(_NONE, _NONE[:1] + _varint(2 * ROW_GROUP) + _NONE[2:])
    made = head + counting + len(counting).to_bytes(4, "little") + plain[-4:]
    found = pq.read_metadata(BytesIO(made))
    return made if (found.num_rows, found.num_row_groups) == (ROW_GROUP, 1) else plain


def _varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])
