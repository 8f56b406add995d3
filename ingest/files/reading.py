"""Which reader a file needs, and how its rows are declared."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

from ...errors import BadRequest
from .columnar import columnar_pieces
from .lean import lean_mapping
from .mapping import Mapping
from .piece import Piece
from .tdx import tdx_mapping, tdx_pieces
from .text import text_pieces

__all__ = ["KINDS", "Kind", "fits", "kind_of", "mapping_of", "pieces"]

Kind = Literal["csv", "parquet", "feather", "tdx", "lean"]
KINDS: Final[tuple[Kind, ...]] = ("csv", "parquet", "feather", "tdx", "lean")

_SUFFIXES: Final[dict[str, Kind]] = {
    ".csv": "csv", ".txt": "csv", ".tsv": "csv", ".gz": "csv", ".zip": "csv", ".parquet": "parquet",
    ".pq": "parquet", ".feather": "feather", ".arrow": "feather", ".day": "tdx",
}  # fmt: skip


def kind_of(path: Path) -> Kind:
    """Return what kind of file `path` is, by its suffix; a zip is taken for zipped CSV, not for Lean."""
    kind = _SUFFIXES.get(path.suffix.lower())
    if kind is None:
        raise BadRequest(
            "file", str(path), hint=f"say which kind of file this is: {', '.join(KINDS)}",
            hint_zh=f"请声明文件种类：{', '.join(KINDS)}",
        )  # fmt: skip
    return kind


def fits(path: Path, kind: Kind | None) -> bool:
    """Return whether a file of a folder can be of `kind` (None: of any), by its name."""
    if not path.is_file():
        return False
    if kind == "lean":
        return path.suffix.lower() == ".zip" and not path.stem.lower().endswith(("_quote", "_openinterest"))
    found = _SUFFIXES.get(path.suffix.lower())
    return found is not None and kind in {None, found}


def mapping_of(path: Path, kind: Kind) -> Mapping:
    """Return the mapping that path and kind tell by themselves; only TDX and Lean files do.

    Raises
    ------
    BadRequest
        A kind whose units and labels must be declared.
    """
    if kind == "tdx":
        return tdx_mapping(path)
    if kind == "lean":
        return lean_mapping(path)
    raise BadRequest(
        "file", str(path), hint=f"a {kind} file does not tell its freq, units and label: declare them (--freq, --label, …)",
        hint_zh=f"{kind} 文件不说明周期、单位与时间标签：请声明（--freq、--label 等）",
    )  # fmt: skip


def pieces(path: Path, mapping: Mapping, kind: Kind) -> Iterator[Piece]:
    """Yield a file's rows, in pieces of at most `piece.ROWS` rows, each with what could not be read.

    Raises
    ------
    BadRequest
        The file as a whole cannot be read; says why.
    """
    if not path.is_file():
        raise BadRequest("file", str(path), hint="there is no such file", hint_zh="文件不存在")
    if kind == "tdx":
        return tdx_pieces(path, mapping)
    return columnar_pieces(path, mapping) if kind in {"parquet", "feather"} else text_pieces(path, mapping)
