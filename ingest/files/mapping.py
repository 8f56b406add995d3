"""What a file's owner declares about it: columns, units, zone, label; and what is never guessed."""

from collections.abc import Mapping as Names
from dataclasses import dataclass, field
from datetime import date
from typing import Final, Literal
from zoneinfo import ZoneInfo

from ...errors import BadRequest
from ...schemas.freq import Freq
from ...schemas.placing import Declared, HoursWanted
from ...schemas.session import Anchor

__all__ = ["FIELDS", "Mapping", "located"]

FIELDS: Final = ("symbol", "ts", "date", "time", "open", "high", "low", "close", "volume", "amount")
"""What a column of a file can be; `date` and `time` are for files that split the two."""

_DELIMITERS: Final = ",;|\t :^~!#$%&*"  # what no number and no quote holds

# Columns named otherwise must be declared. Not here on purpose: `turnover` (an amount to some,
# a rate to others), `Adj Close` (not as traded), `count` (a volume to some, trades to others).
_USUAL: Final = {
    "symbol": ("symbol", "code", "ts_code", "ticker", "代码", "股票代码"),
    "ts": ("ts", "datetime", "dt", "timestamp", "date", "day", "trade_date", "trade_time", "open_time", "time",
           "日期", "时间", "交易日期"),
    "open": ("open", "o", "开盘", "开盘价"),
    "high": ("high", "h", "最高", "最高价"),
    "low": ("low", "l", "最低", "最低价"),
    "close": ("close", "c", "收盘", "收盘价"),
    "volume": ("volume", "vol", "成交量"),
    "amount": ("amount", "成交额"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Mapping:
    """How a file's rows become bars; nothing of it is guessed from the values.

    Parameters
    ----------
    freq : Freq
        Of every row.
    columns : mapping of FIELDS to a column's name, or to its number from 0
        What is not named is looked for under its usual names (date, vol, 收盘, …).
    symbol : str
        Whose bars they are, where no column says so.
    label : {"start", "end", "date"}
        What a row's time is; `date` from one day up, `start` or `end` below.
    zone : str
        Where naive times were written; intraday only.
    time_format : str
        A strptime form, or s, ms, us, ns for epochs; empty: the usual forms.
    day : date, optional
        Times are milliseconds since this day's midnight in `zone`.
    price_factor, volume_factor, amount_factor : float
        What a value is multiplied with to become quote currency, shares (100: the file counts
        lots), quote currency (1000: thousands).
    header, delimiter, encoding
        Of text. No header: `columns` are numbers. Empty encoding: UTF-8 with or without BOM,
        or GB18030 where that cannot be read.
    adjust : str
        `none`: prices as traded. Nothing else can be stored as bars.
    hours, break_end_is_last, anchor
        As in `schemas.placing.Declared`.
    """

    freq: Freq
    columns: Names[str, str | int] = field(default_factory=dict[str, "str | int"])
    symbol: str = ""
    label: Literal["", "start", "end", "date"] = ""
    zone: str = ""
    time_format: str = ""
    day: date | None = None
    price_factor: float = 1.0
    volume_factor: float = 1.0
    amount_factor: float = 1.0
    header: bool = True
    delimiter: str = ","
    encoding: str = ""
    adjust: str = "none"
    hours: HoursWanted = "regular"
    break_end_is_last: bool = False
    anchor: Anchor = "session"

    def __post_init__(self) -> None:
        for name in self.columns:
            if name not in FIELDS:
                raise BadRequest("columns", name, FIELDS)
        if self.adjust != "none":
            raise BadRequest(
                "adjust", self.adjust, ("none",), "klake keeps prices as traded and adjusts them on reading",
                "klake 只保存未复权价格，复权在读取时计算",
            )  # fmt: skip
        known = ("start", "end") if self.freq.intraday else ("", "date")
        if self.label not in known:
            raise BadRequest(
                "label", self.label, tuple(k for k in known if k),
                f"say whether a {self.freq.value} row is stamped with its start, its end or its date",
                f"请声明 {self.freq.value} 的时间是起始、结束还是日期",
            )  # fmt: skip
        for name in ("price_factor", "volume_factor", "amount_factor"):
            if not getattr(self, name) > 0:
                raise BadRequest(name, getattr(self, name), hint="a factor is above 0")
        if len(self.delimiter) != 1 or self.delimiter not in _DELIMITERS:
            raise BadRequest(
                "delimiter", self.delimiter, hint="one character, such as a comma, a semicolon or a tab",
                hint_zh="须为一个字符，例如逗号、分号或制表符",
            )  # fmt: skip
        if self.zone:
            _refuse_no_zone(self.zone)

    @property
    def declared(self) -> Declared:
        """Return what `derived` needs to know of the times, once the reader made instants of them."""
        label: Literal["start", "end"] = "end" if self.label == "end" else "start"
        return Declared(
            zone=self.zone, label=label, hours=self.hours, break_end_is_last=self.break_end_is_last,
            anchor=self.anchor,
        )  # fmt: skip


def located(mapping: Mapping, names: list[str]) -> dict[str, int]:
    """Return where each field stands among a file's columns, as numbers from 0.

    Raises
    ------
    BadRequest
        A declared column is not there, or a needed one is neither declared nor found.
    """
    plain = [name.strip().lower() for name in names]
    out: dict[str, int] = {}
    for target in FIELDS:
        if target in mapping.columns:
            out[target] = _declared(mapping.columns[target], names)
            continue
        split = "date" in mapping.columns
        usual = () if target in {"date", "time"} or (target == "ts" and split) else _USUAL[target]
        found = next((plain.index(name) for name in usual if name in plain), None)
        if found is not None and found not in mapping.columns.values():
            out[target] = found
    if mapping.symbol and "symbol" in out:
        raise BadRequest(
            "symbol", mapping.symbol, hint=f"the column {names[out['symbol']]} says already whose rows these are: leave the symbol out",
            hint_zh=f"列 {names[out['symbol']]} 已说明每行属于哪个标的：请不要再给出 symbol",
        )  # fmt: skip
    needed = ("open", "high", "low", "close", "volume", *(() if mapping.symbol else ("symbol",)))
    lacking = [name for name in needed if name not in out]
    lacking += [] if "ts" in out or "date" in out else ["ts"]
    if lacking:
        what = ", ".join(lacking)
        if not mapping.header:
            raise BadRequest(
                "columns", ", ".join(names),
                hint=f"say which number is {what}: without a header columns are numbers from 0, such as ts=0,open=1",
                hint_zh=f"请声明 {what} 是第几列：没有表头时列从 0 开始编号，例如 ts=0,open=1",
            )  # fmt: skip
        raise BadRequest(
            "columns", ", ".join(names), hint=f"say which column is {what}", hint_zh=f"请声明哪一列是 {what}"
        )
    return out


def _declared(column: str | int, names: list[str]) -> int:
    if isinstance(column, int):
        if 0 <= column < len(names):
            return column
        raise BadRequest("columns", column, hint=f"the file has {len(names)} columns, numbered from 0")
    stripped = [name.strip() for name in names]
    if column.strip() not in stripped:
        raise BadRequest("columns", column, tuple(stripped))
    return stripped.index(column.strip())


def _refuse_no_zone(zone: str) -> None:
    try:
        ZoneInfo(zone)
    except (KeyError, ValueError, OSError):  # not there; not a zone's name; a folder of zones
        raise BadRequest(
            "zone",
            zone,
            hint="name an IANA zone, such as Asia/Shanghai",
            hint_zh="请写 IANA 时区名，例如 Asia/Shanghai",
        ) from None
