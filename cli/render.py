"""What a person reads: tables, numbers, durations, drawn for the terminal that is there."""

import os
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Final, TextIO
from unicodedata import east_asian_width

if TYPE_CHECKING:
    from rich.console import Console

__all__ = [
    "clock_time", "console", "count", "duration", "heading", "instant", "padded", "plural", "say_table", "size", "spread", "table_to",
    "tongue",
]  # fmt: skip

_WIDE: Final = 10_000  # where nobody looks, lines are as long as they are
_GAP: Final = 2  # blanks between two columns
_INDENT: Final = 4  # of a row's second line on a narrow terminal


def console(stream: TextIO) -> "Console":
    """Return a rich console for `stream`: colours and boxes only as far as it can show them."""
    from rich.console import Console

    seen = stream.isatty()
    return Console(file=stream, width=None if seen else _WIDE, highlight=False, emoji=False, markup=False)


def table_to(
    stream: TextIO, header: Sequence[str], rows: Iterable[Sequence[object]], *, title: str = "",
    right: Sequence[str] = (), fit: bool = False,
) -> None:  # fmt: skip
    """Draw a table of n rows; columns named in `right` are numbers and stand on the right.

    No cell is ever cut. On a terminal that is too narrow a row goes on in an indented line,
    between two columns; with `fit` long texts wrap within their column instead.
    """
    texts = [["" if cell is None else str(cell) for cell in row] for row in rows]
    if fit and stream.isatty():
        _drawn(stream, header, texts, title, right)
    else:
        _written(stream, header, texts, title, right)


def _drawn(
    stream: TextIO, header: Sequence[str], rows: Sequence[Sequence[str]], title: str, right: Sequence[str]
) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    out = console(stream)
    drawn = Table(
        box=SIMPLE_HEAD, title=Text(title) if title else None, title_justify="left", title_style="bold",
        header_style="bold", pad_edge=False, show_edge=False, safe_box=True, padding=(0, 1, 0, 0),
    )  # fmt: skip
    for name in header:
        drawn.add_column(Text(name), justify="right" if name in right else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(cell) for cell in row))
    out.print(drawn, crop=False)


def _written(
    stream: TextIO, header: Sequence[str], rows: Sequence[Sequence[str]], title: str, right: Sequence[str]
) -> None:
    """Write plain lines, columns two blanks apart; rich would take minutes for what SQL can answer."""
    widths = [max(map(_width, column)) for column in zip(header, *rows, strict=True)]
    seen = console(stream) if stream.isatty() else None
    groups = _groups(widths, seen.width if seen else _WIDE)
    longest = (
        max(sum(widths[n] + _GAP for n in group) + (group.start > 0) * _INDENT for group in groups) - _GAP
    )
    line = "-" if not (stream.encoding or "").lower().startswith("utf") else "\u2500"

    def laid(cells: Sequence[str]) -> str:
        told = [" " * (w - _width(c)) + c if name in right else c + " " * (w - _width(c))
                for name, c, w in zip(header, cells, widths, strict=True)]  # fmt: skip
        lines = ((" " * _GAP).join(told[n] for n in group).rstrip() for group in groups)
        return "\n".join((" " * _INDENT if number else "") + text for number, text in enumerate(lines)) + "\n"

    for text in filter(None, (title and f"{title}\n", laid(header))):
        if seen:
            seen.print(text, style="bold", soft_wrap=True, end="")
        else:
            stream.write(text)
    stream.write(line * longest + "\n")
    stream.writelines(laid(row) for row in rows)


def _groups(widths: Sequence[int], width: int) -> list[range]:
    """Return which columns stand beside each other in lines of `width`; lines but the first are indented."""
    groups, first, used = [], 0, 0
    for number, taken in enumerate(widths):
        if number > first and used + taken > width:
            groups.append(range(first, number))
            first, used = number, _INDENT
        used += taken + _GAP
    return [*groups, range(first, len(widths))]


def _width(text: str) -> int:
    """Return how many columns of a terminal `text` takes: a Chinese character takes two."""
    return len(text) if text.isascii() else sum(2 if east_asian_width(c) in "WF" else 1 for c in text)


def padded(text: str, columns: int) -> str:
    """Return `text` with blanks up to `columns` columns of a terminal."""
    return text + " " * (columns - _width(text))


def say_table(header: Sequence[str], rows: Iterable[Sequence[object]], **how: object) -> None:
    """Draw a table on stdout."""
    table_to(sys.stdout, header, rows, **how)  # type: ignore[arg-type]


def tongue(en: str, zh: str) -> str:
    """Return the sentence in the language that KLAKE_LANG asks for, English by default."""
    return zh if os.environ.get("KLAKE_LANG", "").lower().startswith("zh") else en


def plural(number: float, word: str) -> str:
    """Return a count with its word: `1 request`, `2,000 requests`."""
    return f"{count(number)} {word}{'' if number == 1 else 's'}"


def heading(text: str) -> None:
    """Draw a heading on stderr: bold on a terminal, underlined elsewhere."""
    out = console(sys.stderr)
    if out.is_terminal:
        out.print(f"\n{text}", style="bold cyan", soft_wrap=True)
    else:
        out.print(f"\n{text}\n{'-' * _width(text)}", soft_wrap=True)


def count(number: float) -> str:
    """Return a whole number with thousands apart: `12,345`."""
    return f"{number:,.0f}"


def size(number: float) -> str:
    """Return bytes in the unit that fits: `0 B`, `12.3 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} B" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


def duration(seconds: float) -> str:
    """Return a duration in two units at most: `0.4 s`, `3 min 20 s`, `2 h 5 min`, `4 d 3 h`."""
    if seconds < 9.95:
        return f"{max(0.0, seconds):.1f} s"
    whole = round(seconds)
    for long, name, short, rest in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= long:
            more = whole % long // short
            return f"{whole // long} {name} {more} {rest}" if more else f"{whole // long} {name}"
    return f"{whole} s"


def instant(at: datetime | None) -> str:
    """Return an instant to the minute, in UTC: `2026-11-20 08:30Z`; `-` for none."""
    return "-" if at is None else f"{at.astimezone(UTC):%Y-%m-%d %H:%MZ}"


def clock_time(now: datetime, at: datetime) -> str:
    """Return when something ends, for a person in local time: `16:05`, or with the date when it is far."""
    local, here = at.astimezone(), now.astimezone()
    near = local.date() == here.date() or at - now < timedelta(hours=12)
    return f"{local:%H:%M:%S}" if near else f"{local:%Y-%m-%d %H:%M}"


def spread(first: date | None, last: date | None) -> str:
    """Return a range of dates: `2020-01-02 to 2026-11-20`; `-` for none."""
    return "-" if first is None or last is None else tongue(f"{first} to {last}", f"{first} 至 {last}")
