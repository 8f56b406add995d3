"""Symbols: one canonical spelling `CODE.VENUE`, every spelling that users type, no ambiguity."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from ..errors import AmbiguousSymbol, UnknownSymbol
from .venue import VENUES, Venue

__all__ = ["Class", "Symbol"]


class Class(StrEnum):
    """What an instrument is."""

    STOCK = "stock"
    FUND = "fund"
    BOND = "bond"
    INDEX = "index"
    CRYPTO = "crypto"
    FX = "fx"
    COMMODITY = "commodity"


_VENUE_ALIASES: Final = {
    "SS": "SH", "XSHG": "SH", "SSE": "SH", "SHSE": "SH", "XSHE": "SZ", "SZSE": "SZ", "BSE": "BJ", "XBSE": "BJ",
    "XHKG": "HK", "SEHK": "HK", "HKEX": "HK", "XNAS": "US", "XNYS": "US", "NASDAQ": "US", "NYSE": "US",
    "SMART": "US", "ARCX": "US", "AMEX": "US",
}  # fmt: skip
_CHINA: Final = {"SH", "SZ", "BJ"}
_CODE: Final = re.compile(r"[A-Z0-9^][A-Z0-9.\-]{0,29}")
_INDEX_CODES: Final = re.compile(r"(000\d{3}|88\d{4}|9[3-9]\d{4})\.SH|399\d{3}\.SZ|899\d{3}\.BJ")
_FUND_CODES: Final = re.compile(r"5\d{5}\.SH|1[5-8]\d{4}\.SZ")
_BOND_CODES: Final = re.compile(r"(0[12]\d|1[0-3]\d|2[0-4]\d)\d{3}\.SH|1[0-3]\d{4}\.SZ")
_HK_INDICES: Final = {"HSI", "HSCEI", "HSTECH", "HSCCI", "GEM"}
_SHORTEST: Final = {
    "US": 1,
    "CM": 3,
    "FX": 6,
}  # letters of a code; elsewhere pairs of coins, never below four
_FORM: Final = {
    "": "a code holds letters, digits, dots and dashes only",
    **dict.fromkeys(_CHINA, "a Chinese code has six digits"),
    "HK": "a Hong Kong code has up to five digits, or is an index such as HSI",
}
_BARE: Final = (  # stocks and funds; bonds, repos and indices share their first digits over both venues
    (("92", "4", "83", "87"), "BJ"),
    (("5", "6", "900"), "SH"),
    (("001", "002", "003", "15", "16", "18", "200", "300", "301", "302"), "SZ"),
)
_QUOTES: Final = ("USDT", "USDC", "FDUSD", "BUSD", "USD", "EUR", "BTC", "ETH")


@dataclass(frozen=True, slots=True, order=True)
class Symbol:
    """One instrument at one venue: `600519.SH`, `00700.HK`, `BRK.B.US`, `BTCUSDT.P.BINANCE`.

    Upper case; Chinese codes have six digits, Hong Kong codes five; a perpetual contract
    has `.P` at the end of its code.
    """

    code: str
    venue: str

    def __str__(self) -> str:
        return f"{self.code}.{self.venue}"

    @classmethod
    def parse(cls, text: str) -> "Symbol":
        """Return the symbol that `text` spells.

        Parameters
        ----------
        text : str
            Canonical, or as another tool writes it: `SH:600519`, `sh600519`, `600519.SS`,
            `600519.XSHG`, `700.HK`, `HK.00700`, `BRK-B`, `BTC/USDT:USDT` with a venue, …
            A bare Chinese code takes its venue from its first digits.

        Raises
        ------
        AmbiguousSymbol
            `000001`: an index in Shanghai, a stock in Shenzhen.
        UnknownSymbol
            Nothing that klake knows is spelled so, or the venue is unknown.
        """
        given = text
        plain = text.strip().upper()
        for rule in _RULES:
            found = rule(plain, given)
            if found is not None:
                return found
        raise UnknownSymbol(
            "symbol", given, hint="write CODE.VENUE, such as 600519.SH, 00700.HK, AAPL.US, BTCUSDT.BINANCE",
            hint_zh="请写成 代码.市场，例如 600519.SH、00700.HK、AAPL.US、BTCUSDT.BINANCE",
        )  # fmt: skip

    @property
    def place(self) -> Venue:
        """Return the venue's zone, calendar and nominal open."""
        return VENUES[self.venue]

    @property
    def klass(self) -> Class:
        """Return the class that the code's form implies; the table `instruments` knows better."""
        if self.venue in _CHINA:
            if _INDEX_CODES.fullmatch(str(self)):
                return Class.INDEX
            if _BOND_CODES.fullmatch(str(self)):
                return Class.BOND
            return Class.FUND if _FUND_CODES.fullmatch(str(self)) else Class.STOCK
        if self.venue == "HK":
            return Class.INDEX if self.code in _HK_INDICES else Class.STOCK
        if self.venue == "US":
            return Class.INDEX if self.code.startswith("^") else Class.STOCK
        return {"FX": Class.FX, "CM": Class.COMMODITY}.get(self.venue, Class.CRYPTO)


def _checked(code: str, venue: str, given: str) -> Symbol:
    venue = _VENUE_ALIASES.get(venue, venue)
    if venue not in VENUES:
        raise UnknownSymbol("symbol", given, hint=f"no venue {venue}; known: {', '.join(VENUES)}")
    code = _coded(code, venue)
    if not _CODE.fullmatch(code) or ".." in code or not _fits(code, venue):
        raise UnknownSymbol("symbol", given, hint=_FORM.get(venue, _FORM[""]))
    return Symbol(code, venue)


def _coded(code: str, venue: str) -> str:
    """Return a code as its venue writes it: six digits in China, five in Hong Kong, dots in New York."""
    if venue in _CHINA:
        return code.zfill(6) if code.isdigit() else code
    if venue == "HK":
        return code.lstrip("0").zfill(5) if code.isdigit() else code
    if venue == "US":
        return code.replace("/", ".").replace("-", ".").replace(" ", ".")
    return _pair(code) if VENUES[venue].calendar == "24/7" else code


def _fits(code: str, venue: str) -> bool:
    """Tell whether a code can be one of its venue; tells `US.CM` (a stock CM) from a code at venue CM."""
    if venue in _CHINA:
        return code.isdigit() and len(code) == 6
    if venue == "HK":
        return (code.isdigit() and len(code) == 5) or code in _HK_INDICES
    return len(code) >= _SHORTEST.get(venue, 4)


def _with_colon(plain: str, given: str) -> Symbol | None:
    """`SH:600519` and, for crypto, `BINANCE:BTC/USDT:USDT` (ccxt's perpetual)."""
    head, colon, tail = plain.partition(":")
    if not colon or not tail:
        return None
    if _VENUE_ALIASES.get(head, head) in VENUES:
        return _checked(tail, head, given)
    return None


def _pair(code: str) -> str:
    """`BTC/USDT` → `BTCUSDT`, `BTC/USDT:USDT` and `BTC-USDT-SWAP` → `BTCUSDT.P`."""
    perpetual = ":" in code or code.endswith("-SWAP")
    base = code.split(":")[0].removesuffix("-SWAP")
    if perpetual or base.endswith(tuple(f"{mark}{q}" for mark in "/-" for q in _QUOTES)):
        base = base.replace("/", "").replace("-", "")
    return f"{base}.P" if perpetual else base


def _with_dot(plain: str, given: str) -> Symbol | None:
    """`600519.SH`, `BRK.B.US`, and `SH.600519`, `HK.00700`, `US.AAPL` with the venue first."""
    head, _, tail = plain.rpartition(".")
    first, _, rest = plain.partition(".")
    forms = [(c, _VENUE_ALIASES.get(v, v)) for c, v in ((head, tail), (rest, first)) if c]
    forms = [(code, venue) for code, venue in forms if venue in VENUES]
    for code, venue in forms:
        if _fits(_coded(code, venue), venue):
            return _checked(code, venue, given)
    return _checked(*forms[0], given) if forms else None  # says what is wrong with it


def _with_prefix(plain: str, given: str) -> Symbol | None:
    """`sh600519`, `SZ000001`, `HK00700`."""
    match = re.fullmatch(r"(SH|SZ|BJ)(\d{6})|(HK)(\d{4,5})", plain)
    if not match:
        return None
    venue, code = [part for part in match.groups() if part]
    return _checked(code, venue, given)


def _bare(plain: str, given: str) -> Symbol | None:
    """Six digits take their venue from the first ones, where these name one; `^HSI` and the like are indices."""
    if re.fullmatch(r"\d{6}", plain):
        for heads, venue in _BARE:
            if plain.startswith(heads):
                return Symbol(plain, venue)
        raise AmbiguousSymbol("symbol", given, (f"{plain}.SH", f"{plain}.SZ"))
    code = plain.removeprefix("^")
    return Symbol(code, "HK") if code in _HK_INDICES else None


_RULES: Final[tuple[Callable[[str, str], Symbol | None], ...]] = (_with_colon, _with_dot, _with_prefix, _bare)
