"""Where everything lies in a lake, and how its Parquet files are shaped.

A path is made of vendor, freq and period only, never of a symbol, so a symbol called `CON`
or `../x` cannot become a path.
"""

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import LakeDamaged
from ..schemas.freq import Freq

__all__ = [
    "BOOKING", "CATALOG", "CLAIMS", "CURRENT", "DAMAGED", "EXTRAS", "FORMAT", "LOCK", "MANIFESTS", "MARKER", "PAST",
    "QUICK", "RAW", "ROW_GROUP", "SEED", "SHAPE", "SPOOL", "STATE", "Partition", "born", "file_name", "glob",
    "listing", "seed", "token_of",
    "writer_options",
]  # fmt: skip

FORMAT: Final = 2
"""Version of everything in this module; a lake with a higher one is refused, one with a lower one migrates.

2: a row of era past may be a tombstone (`Flag.WITHDRAWN`), which a klake of format 1 would take for a revision.
"""

MARKER: Final = "klake-lake.json"
CATALOG: Final = "lake.duckdb"
MANIFESTS: Final = "_manifest"
SPOOL: Final = "_spool"
RAW: Final = "raw"
LOCK: Final = "_spool/commit.lock"
BOOKING: Final = "_spool/booking.lock"
CLAIMS: Final = "_spool/claims"
STATE: Final = "_state/state.sqlite"
DAMAGED: Final = "_damaged"
CURRENT: Final = "current"
PAST: Final = "past"
SEED: Final = ".seed.parquet"
EXTRAS: Final = ("coverage", "sessions", "yields")
"""Parquet files outside Delta that the manifest names, one live file each."""

ROW_GROUP: Final = 65_536
_NAME: Final = re.compile(r"\.?([0-9a-f]{16})-([0-9a-f]{12})")
Encoding = Literal["RLE_DICTIONARY", "BYTE_STREAM_SPLIT", "DELTA_BINARY_PACKED"]

# `python -m benchmarks.encodings` measures these again. Bytes per value at zstd 3, dictionary against the
# encoding chosen; SSE index 1m, AAPL and SPY 1d and 1h, 600000.SH 1d. Prices are 1.1 to 1.4x smaller as plain
# doubles where a file holds few symbols, but 1.5x larger in a file of 800, and scan 2x slower, so they keep
# their dictionary.
_ENCODINGS: Final[Mapping[str, Encoding]] = {
    "volume": "BYTE_STREAM_SPLIT",  # 5.2 to 3.1 (1m), 5.5 to 3.1 (1h), 5.7 to 3.8 (1d)
    "amount": "BYTE_STREAM_SPLIT",  # 5.5 to 3.7 (1d)
    "ts": "DELTA_BINARY_PACKED",  # 4.9 to 0.05 (1m), 5.9 to 0.19 (1h), 6.9 to 0.26 (1d)
    "session": "DELTA_BINARY_PACKED",  # 3.9 to 0.09 (1d), 1.0 to 0.06 (1h), 0.02 to 0.02 (1m)
}
SHAPE: Final[Mapping[Freq, Mapping[str, Encoding]]] = {freq: _ENCODINGS for freq in Freq}
"""Encoding by freq and column; a column that is not named is a dictionary."""

QUICK: Final[Mapping[Freq, frozenset[str]]] = {
    freq: frozenset[str]() if freq.intraday else frozenset(("open", "high", "low", "close")) for freq in Freq
}
"""Columns kept in snappy instead of zstd, by freq.

Daily prices are read by every panel and hardly shrink beyond their dictionary: 1.6 to 1.7 bytes
in a file of 800 symbols (4.2 to 5.4 in one of AAPL alone), decoded in 3.9 instead of 5.3 ns.
Minutes are most of a lake's bytes and keep zstd.
"""

# One page per row group: 3 % fewer bytes and 7 % less time to scan than pages of 20,000 rows, which
# newer versions of pyarrow make unless they are told (older ones never did, and cannot be told).
_PAGES: Final[Mapping[str, int]] = {
    "data_page_size": 16 * 2**20,
    **(
        {"max_rows_per_page": ROW_GROUP}
        if "max_rows_per_page" in inspect.signature(pq.write_table).parameters
        else {}
    ),
}


@dataclass(frozen=True, slots=True, order=True)
class Partition:
    """One folder of the table `bars`."""

    era: str
    vendor: str
    freq: Freq
    period: str

    @property
    def path(self) -> str:
        """The folder, relative to the lake."""
        return f"bars/era={self.era}/vendor={self.vendor}/freq={self.freq.value}/period={self.period}"

    @property
    def values(self) -> dict[str, str | None]:
        """The partition values of a Delta action."""
        return {"era": self.era, "vendor": self.vendor, "freq": self.freq.value, "period": self.period}

    @classmethod
    def parse(cls, path: str) -> "Partition":
        """Return the partition that the file `path` (relative to the lake) lies in.

        Raises
        ------
        LakeDamaged
            The path is not one that klake makes.
        """
        parts = dict(part.split("=", 1) for part in path.split("/")[1:-1] if "=" in part)
        try:
            return cls(parts["era"], parts["vendor"], Freq(parts["freq"]), parts["period"])
        except (KeyError, ValueError) as error:
            raise LakeDamaged(
                f"{path}: not a path of the table bars", f"{path}：不是 bars 表的路径"
            ) from error


def file_name(at_us: int, token: str = "") -> str:
    """Return a name that no other file has, sorted by age; begins with a digit, see `seed`.

    `token` (12 hexadecimal digits, see `storage.claims`) says which write the file belongs to.
    """
    return f"{at_us:016x}-{token}{uuid4().hex[len(token) :]}.parquet"


def born(name: str) -> int | None:
    """Return when a file or draft was named, in us since 1970; None where the name does not say."""
    found = _NAME.match(name)
    return int(found[1], 16) if found else None


def token_of(name: str) -> str:
    """Return the token in a name; empty where there is none."""
    found = _NAME.match(name)
    return found[2] if found else ""


def listing(version: int) -> str:
    """Return the path of a manifest's listing, the part of it that views read.

    Names count down, so that the newest is the first of a folder, the one that DuckDB opens
    while it binds; an old one may be deleted at that moment.
    """
    return f"{MANIFESTS}/{10**20 - 1 - version:020d}.parquet"


def glob(relation: str) -> str:
    """Return the pattern of a relation's files; it names every level, or Delta's checkpoints match too.

    `relation` is a table's name, an extra's, `bars` (era current) or `past` (era past).
    """
    if relation in {"bars", PAST}:
        era = PAST if relation == PAST else CURRENT
        return f"bars/era={era}/vendor=*/freq=*/period=*/*.parquet"
    return f"{relation}/*.parquet"


def seed(relation: str) -> str:
    """Return the path of a relation's seed (see `storage.seeds`): the first of its listing, of 0 rows.

    It gives its view the types when nothing is held. The underscore, or point, hides it from
    Delta's vacuum and from readers that walk folders.
    """
    if relation in {"bars", PAST}:
        era = PAST if relation == PAST else CURRENT
        return f"bars/era={era}/vendor=!/freq=~/period=~/_seed.parquet"
    return f"{relation}/{SEED}"


def writer_options(schema: pa.Schema, freq: Freq | None = None) -> dict[str, Any]:
    """Return the keyword arguments of pyarrow's Parquet writer for files of `schema`; `freq` None: not bars."""
    shape, quick = (_ENCODINGS, frozenset[str]()) if freq is None else (SHAPE[freq], QUICK[freq])
    chosen = {name: shape[name] for name in schema.names if name in shape and _fits(schema, name)}
    return {
        **_codecs(schema, quick),
        "use_dictionary": [name for name in schema.names if name not in chosen],
        "column_encoding": chosen,
        "write_statistics": True,
        "write_page_checksum": True,  # 5 bytes a page; without it most bits that turn are read as other values
        "version": "2.6",
        "store_schema": False,
        **_PAGES,
    }


def _codecs(schema: pa.Schema, quick: frozenset[str]) -> dict[str, Any]:
    if not quick:  # by name only where it must be: pyarrow wants the path of a nested column's leaf
        return {"compression": "zstd", "compression_level": 3}
    return {
        "compression": {name: "snappy" if name in quick else "zstd" for name in schema.names},
        "compression_level": {name: 3 for name in schema.names if name not in quick},
    }


def _fits(schema: pa.Schema, name: str) -> bool:
    kind = schema.field(name).type
    return bool(pa.types.is_floating(kind) or pa.types.is_temporal(kind))
