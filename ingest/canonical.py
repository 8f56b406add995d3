"""The one encoding of what an SDK returned: the raw page of a vendor that gives no wire bytes.

JSON: `{"sdk": "longbridge 5.3.0", "tables": {"700.HK": {"timestamp": [1650384000], "close": ["362.000"]}}}`.
One table per series under the vendor's own spelling, one list per column under the SDK's own
name, rows in the SDK's order. Integers stay integers; decimals are text, digit for digit;
floats have as many digits as tell them apart, and a value that is none is null; times are
what the vendor file made of them, because an SDK's own form may depend on the host.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Generic, TypeVar, cast

import msgspec

from ..errors import BadPage

__all__ = ["decoded", "encoded"]

T = TypeVar("T")


class _Kept(msgspec.Struct, Generic[T]):
    sdk: str
    tables: dict[str, T]


def encoded(sdk: str, tables: Mapping[str, Mapping[str, Sequence[object]]]) -> bytes:
    """Return the bytes of some tables; `sdk` names the library and its version."""
    return msgspec.json.encode({"sdk": sdk, "tables": tables})


def decoded(body: bytes, columns: type[T], vendor: str) -> dict[str, T]:
    """Return the tables of a page, each read as `columns` (a msgspec Struct of lists), by series.

    Numbers that stand as text are read as what `columns` says.

    Raises
    ------
    BadPage
        These are no tables, or one lacks a column.
    """
    try:
        kept = _decoder(cast("Any", columns)).decode(body)
    except msgspec.MsgspecError as error:
        raise BadPage(vendor, f"the kept reply cannot be read: {error}") from error
    return cast("dict[str, T]", kept.tables)


@lru_cache
def _decoder(columns: type[Any]) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(cast("Any", _Kept)[columns], strict=False)
