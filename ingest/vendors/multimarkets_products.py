"""Which product of a MultiMarkets operator is which symbol: from a file of the user's, or the product API.

The ids are each operator's own, so klake ships none. One product is one symbol; what is not
mapped cannot be asked for.
"""

import csv
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from ...errors import (
    BadCredentials,
    BadPage,
    BadRequest,
    ConfigError,
    RateLimited,
    VendorError,
    VendorRefused,
)
from ...schemas.symbol import Symbol
from ..vendor import Instrument
from .multimarkets_wire import Product

__all__ = ["STOCK", "Products", "from_file", "from_list"]

STOCK: Final = 6
_PERPETUAL: Final = (1, 2)  # cross-margin and isolated contract
_FIRST: Final = (6, 1, 5, 2, 3)  # where several products are one symbol, the first of these trade types
_COLUMNS: Final = ("symbol", "symbol_id", "trade_type", "trade_mode")
_MONEY: Final = {
    "AUD", "CAD", "CHF", "CNH", "CZK", "DKK", "EUR", "GBP", "HKD", "HUF", "JPY", "MXN", "NOK", "NZD", "PLN",
    "SEK", "SGD", "THB", "TRY", "USD", "ZAR",
}  # fmt: skip
_METALS: Final = {"XAU", "XAG", "XPT", "XPD"}
_PAIR: Final = re.compile(r"([A-Z]{3})[/-]?([A-Z]{3})")


class _Row(msgspec.Struct):
    symbolId: int
    tradeType: int
    dealMode: int | None = None
    name: str = ""


class _List(msgspec.Struct):
    code: str | int = ""
    message: str | None = None
    data: list[msgspec.Raw] | None = None


_list: Final = msgspec.json.Decoder(_List)
_row: Final = msgspec.json.Decoder(_Row, strict=False)


class Products:
    """A map in both directions; names are there where the product API told them."""

    def __init__(self, pairs: Mapping[Symbol, Product], names: Mapping[Symbol, str] | None = None) -> None:
        self._products = dict(pairs)
        self._symbols = {product: symbol for symbol, product in pairs.items()}
        self._names = dict(names or {})

    def product(self, symbol: Symbol) -> Product | None:
        """Return what `symbol` is called there; None when it is not mapped."""
        return self._products.get(symbol)

    def symbol(self, product: Product) -> Symbol | None:
        """Return the symbol of a product; None when it is not mapped."""
        return self._symbols.get(product)

    def instruments(self) -> list[Instrument]:
        """Return every mapped product, by symbol."""
        return [
            Instrument(symbol, str(self._products[symbol]), symbol.klass, self._names.get(symbol, ""))
            for symbol in sorted(self._products)
        ]


def from_file(path: Path) -> Products:
    """Return the products of a CSV with the columns symbol, symbol_id, trade_type, trade_mode.

    `#` begins a remark; without the column trade_mode every mode is 0.

    Raises
    ------
    ConfigError
        The file cannot be read, a column is missing, a row makes no sense, or one symbol has
        two products or the other way round; names file and line.
    """
    try:
        body = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            str(path), "products_file", str(path), f"cannot be read: {error.strerror}"
        ) from None
    lines = enumerate(_text(body).splitlines(), 1)
    rows = [(number, line) for number, text in lines if (line := text.partition("#")[0].strip())]
    header = [cell.strip().lower() for cell in rows[0][1].split(",")] if rows else []
    lacking = [name for name in _COLUMNS[:3] if name not in header]
    if lacking:
        raise ConfigError(str(path), "header", ",".join(header), f"lacks the column {', '.join(lacking)}")
    pairs: dict[Symbol, Product] = {}
    for number, line in rows[1:]:
        cells = dict(zip(header, (cell.strip() for cell in next(csv.reader([line]))), strict=False))
        symbol, product = _pair(cells, str(path), number)
        if symbol in pairs or product in pairs.values():
            raise ConfigError(
                str(path), f"line {number}", line, "symbol or product stands there twice: one is exactly one"
            )
        pairs[symbol] = product
    return Products(pairs)


def _pair(cells: Mapping[str, str], where: str, number: int) -> tuple[Symbol, Product]:
    try:
        symbol = Symbol.parse(cells.get("symbol", ""))
        ids = [int(cells.get(name) or 0) for name in _COLUMNS[1:]]
    except (BadRequest, ValueError) as error:
        raise ConfigError(where, f"line {number}", ",".join(cells.values()), str(error)) from None
    if min(ids) < 0 or not ids[0] or not ids[1]:
        raise ConfigError(
            where, f"line {number}", ",".join(cells.values()), "symbol_id and trade_type are above 0"
        )
    return symbol, Product(*ids)


def _text(body: bytes) -> str:
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError:
        return body.decode("gb18030", errors="replace")  # what Excel writes on Chinese Windows


def from_list(body: bytes, vendor: str, mask: Callable[[str], str]) -> Products:
    """Return the products of a reply of the product API whose names klake can tell.

    A product without `dealMode` cannot be quoted; of several that are one symbol (cross and
    isolated contract) the first trade type of 6, 1, 5, 2, 3 is taken.

    Raises
    ------
    VendorError
        The API refuses, or what came is no list.
    """
    try:
        reply = _list.decode(body)
    except msgspec.MsgspecError as error:
        raise BadPage(vendor, f"the product list cannot be read: {mask(str(error))}") from None
    if reply.data is None:
        raise _refusal(str(reply.code), mask(reply.message or ""), vendor)
    best: dict[Symbol, tuple[int, Product, str]] = {}
    for row in _rows(reply.data):
        symbol = _named(row)
        if symbol is None or row.dealMode is None or row.tradeType not in _FIRST:
            continue
        mine = (_FIRST.index(row.tradeType), Product(row.symbolId, row.tradeType, row.dealMode), row.name)
        best[symbol] = min(best.get(symbol, mine), mine)
    return Products(
        {symbol: product for symbol, (_, product, _) in best.items()},
        {symbol: name for symbol, (_, _, name) in best.items()},
    )


def _rows(raws: Iterable[msgspec.Raw]) -> Iterable[_Row]:
    for raw in raws:
        try:
            yield _row.decode(raw)
        except msgspec.MsgspecError:
            continue  # one bad row never loses the others


def _named(row: _Row) -> Symbol | None:
    """Return the symbol that a product's name means; where it is no share, the operator makes the price."""
    name = row.name.strip().upper()
    try:
        if row.tradeType == STOCK:
            return Symbol.parse(name)
        pair = _PAIR.fullmatch(name)
        if pair and pair[2] in _MONEY and pair[1] in _MONEY | _METALS:
            return Symbol(pair[1] + pair[2], "FX" if pair[1] in _MONEY else "CM")
        perpetual = ".P" if row.tradeType in _PERPETUAL else ""
        return Symbol.parse(f"{name}{perpetual}.MULTIMARKETS")
    except BadRequest:
        return None


def _refusal(code: str, said: str, vendor: str) -> VendorError:
    text = f"the product API answers {code} {said}".strip()
    if code in {"00012001", "00012003", "00012004", "00012006", "00012007"}:
        return BadCredentials(vendor, text)
    if code == "00012005":
        return RateLimited(vendor, text)
    return VendorRefused(vendor, text)
