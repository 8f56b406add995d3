"""TDX `.day` files: 32-byte records of one Shanghai, Shenzhen or Beijing instrument."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from ...errors import BadRequest
from ...schemas.freq import Freq
from ...schemas.symbol import Class, Symbol
from .mapping import Mapping
from .piece import Broken, Piece, piece

__all__ = ["tdx_mapping", "tdx_pieces"]

_RECORD: Final = np.dtype(
    [("date", "<u4"), ("open", "<u4"), ("high", "<u4"), ("low", "<u4"), ("close", "<u4"),
     ("amount", "<f4"), ("volume", "<u4"), ("reserved", "<u4")]
)  # fmt: skip
_A_SHARES: Final = {"SH": ("60", "68"), "SZ": ("00", "30"), "BJ": ("4", "8", "92")}


def tdx_mapping(path: Path) -> Mapping:
    """Return the units of a `.day` file, told by its name: `sh600000.day`, `sz399001.day`.

    Prices are 1/100 yuan or point, amount yuan; volume shares for A-shares, lots for indices
    (both measured on real files). Funds, bonds and B-shares have other units, which are not
    known for sure: they must be declared.

    Raises
    ------
    BadRequest
        A name that tells no symbol, or a class whose units must be declared.
    """
    symbol = Symbol.parse(path.stem)
    heads = _A_SHARES.get(symbol.venue, ())
    index = symbol.klass is Class.INDEX and not symbol.code.startswith("900")
    if not index and not symbol.code.startswith(heads or ("-",)):
        raise BadRequest(
            "file", path.name, hint=f"the units of {symbol} are not known: declare price_factor and volume_factor",
            hint_zh=f"{symbol} 的单位未知：请声明 price_factor 与 volume_factor",
        )  # fmt: skip
    return Mapping(
        Freq.D1, symbol=str(symbol), label="date", price_factor=0.01, volume_factor=100.0 if index else 1.0
    )


def tdx_pieces(path: Path, mapping: Mapping) -> Iterator[Piece]:
    """Yield the records of a `.day` file; `lines` are record numbers from 1.

    A torn last record is told as broken; the whole ones are read.
    """
    if mapping.freq is not Freq.D1:
        raise BadRequest("freq", mapping.freq.value, ("1d",), hint="a .day file holds days")
    body = path.read_bytes()
    whole = len(body) // _RECORD.itemsize
    records = np.frombuffer(body, _RECORD, whole)
    broken = []
    if len(body) % _RECORD.itemsize:
        rest = body[whole * _RECORD.itemsize :]
        broken.append(
            Broken(whole + 1, rest.hex(), f"a record of {len(rest)} bytes instead of {_RECORD.itemsize}")
        )
    raw = pl.DataFrame({name: records[name] for name in _RECORD.names or () if name != "reserved"})
    raw = raw.rename({"date": "ts"}).with_row_index("line", offset=1)
    yield piece(raw, replace(mapping, symbol=mapping.symbol or str(Symbol.parse(path.stem))), broken)
