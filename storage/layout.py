"""Where everything lies in a lake, and how its Parquet files are shaped.

A path is made of vendor, freq and period only, never of a symbol, so a symbol called `CON`
or `../x` cannot become a path.
"""

import re
from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4

import pyarrow as pa

from ..errors import BadRequest, LakeDamaged
from ..schemas.freq import Freq

__all__ = [
    "CATALOG", "CURRENT", "EXTRAS", "FORMAT", "LOCK", "MANIFESTS", "MARKER", "PAST", "RAW", "ROW_GROUP", "SPOOL", "STATE",
    "Partition", "file_name", "glob", "listing", "seed", "vendor_name", "writer_options",
]  # fmt: skip

FORMAT: Final = 1
"""Version of everything in this module; a lake with a higher one is refused."""

MARKER: Final = "klake-lake.json"
CATALOG: Final = "lake.duckdb"
MANIFESTS: Final = "_manifest"
SPOOL: Final = "_spool"
RAW: Final = "raw"
LOCK: Final = "_spool/commit.lock"
STATE: Final = "_state/state.sqlite"
CURRENT: Final = "current"
PAST: Final = "past"
EXTRAS: Final = ("coverage", "sessions", "yields")
"""Parquet files outside Delta that the manifest names, one live file each."""

ROW_GROUP: Final = 65_536
_VENDOR: Final = re.compile(r"[a-z0-9_-]{1,64}")
_SPLIT: Final = ("amount",)  # few values repeat: byte splitting beats the dictionary by 1.6x
_PACKED: Final = ("ts", "session")


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


def vendor_name(name: str) -> str:
    """Return `name` when it may become a folder; BadRequest otherwise."""
    if not _VENDOR.fullmatch(name):
        raise BadRequest(
            "vendor", name, hint="a vendor name holds a-z, 0-9, _ and - only",
            hint_zh="vendor 名称只能包含 a-z、0-9、_ 和 -",
        )  # fmt: skip
    return name


def file_name(at_us: int) -> str:
    """Return a name that no other file has, sorted by age; begins with a digit, see `seed`."""
    return f"{at_us:016x}-{uuid4().hex}.parquet"


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
    """Return the path of a relation's file of 0 rows, which gives its view the types when nothing is held.

    It must come last in a listing: DuckDB guesses the size of a table from its first file,
    and a first file of 0 rows makes it read every dead file. The underscore hides it from
    Delta's vacuum and from readers that walk folders.
    """
    if relation in {"bars", PAST}:
        era = PAST if relation == PAST else CURRENT
        return f"bars/era={era}/vendor=~/freq=~/period=~/_seed.parquet"
    return f"{relation}/_seed.parquet"


def writer_options(schema: pa.Schema) -> dict[str, Any]:
    """Return the keyword arguments of pyarrow's Parquet writer for files of `schema`."""
    encodings = {name: "BYTE_STREAM_SPLIT" for name in _SPLIT} | {
        name: "DELTA_BINARY_PACKED" for name in _PACKED
    }
    chosen = {name: encodings[name] for name in schema.names if name in encodings}
    return {
        "compression": "zstd",
        "compression_level": 3,
        "use_dictionary": [name for name in schema.names if name not in chosen],
        "column_encoding": chosen,
        "write_statistics": True,
        "version": "2.6",
        "store_schema": False,
    }
