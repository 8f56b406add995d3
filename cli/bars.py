"""`klake bars`: bars of some symbols in one freq."""

from typing import Annotated, Final

import typer

from .rows import FormatOption, OutOption, form_of, put
from .session import session_of
from .work import listed

__all__ = ["bars"]

_DAILY: Final = ("symbol", "session", "open", "high", "low", "close", "volume", "amount", "state", "vendor")
_INTRADAY: Final = ("symbol", "ts", "open", "high", "low", "close", "volume", "amount", "state", "vendor")


def bars(
    ctx: typer.Context,
    symbols: Annotated[str, typer.Argument(metavar="SYMBOL", help="One or more, separated by commas.")],
    freq: Annotated[str, typer.Argument(metavar="FREQ", help="1m 3m 5m 15m 30m 1h 2h 4h 1d 1w 1mo 1q 1y")] = "1d",
    start: Annotated[str, typer.Option("--start", metavar="WHEN", help="Inclusive.")] = "",
    end: Annotated[
        str, typer.Option("--end", metavar="WHEN", help="A date is inclusive, an instant is not.")
    ] = "",
    last: Annotated[int | None, typer.Option("--last", min=1, metavar="N", help="The newest N of each symbol.")] = None,
    vendor: Annotated[str, typer.Option("--vendor", metavar="NAME", help="Default: the one that `choice` names.")] = "",
    state: Annotated[
        str, typer.Option("--state", metavar="open|closed|final", help="The least state wanted.")
    ] = "",
    form: FormatOption = "",
    out: OutOption = "",
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> None:  # fmt: skip
    """Show bars as traded, one row per bar, times in UTC."""
    form = form_of(form, out, as_json=as_json)
    with session_of(ctx).lake() as lake:
        found = lake.bars(
            listed(symbols), freq, start=start or None, end=end or None, last=last, vendor=vendor or None,
            state=state or None,  # type: ignore[arg-type]
        )  # fmt: skip
        table = found.arrow()
        if form == "table":
            table = table.select(list(_INTRADAY if found.freq.intraday else _DAILY))
        put(table, form, out)
