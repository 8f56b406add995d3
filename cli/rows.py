"""Rows out: an Arrow table as a table to read, CSV, JSON or Parquet, on stdout or in a file."""

import json
import math
import os
import sys
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, Final

import typer

from ..errors import BadRequest
from .render import say_table

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["FORMATS", "FormatOption", "OutOption", "put"]

FORMATS: Final = ("table", "csv", "json", "parquet")
FormatOption = Annotated[
    str,
    typer.Option("--format", metavar="|".join(FORMATS), help="Default: a table, or what FILE's ending says."),
]
OutOption = Annotated[
    str, typer.Option("-o", "--output", metavar="FILE", help="Write there instead of stdout.")
]

_CHUNK: Final = 1_000_000  # characters of CSV that are held at once
_SHOWN: Final = 40  # rows of a table on a terminal; elsewhere all


def put(table: "pa.Table", form: str, out: str) -> None:
    """Write n rows in `form` to the file `out`, or to stdout when it is empty.

    A file is put in place whole or not at all. Times are UTC; JSON is one array of objects.

    Raises
    ------
    BadRequest
        An unknown form; Parquet to a terminal; a file that cannot be written.
    """
    form = form_of(form, out)
    if out:
        with _replacing(Path(out)) as handle:
            _write(table, form, handle)
    elif form == "table":
        _show(table)
    elif form == "parquet" and sys.stdout.isatty():
        raise BadRequest(
            "format", form, hint="this is no text: give -o FILE", hint_zh="这不是文本：请给出 -o FILE"
        )
    else:
        sys.stdout.flush()
        _write(table, form, sys.stdout.buffer)
        sys.stdout.buffer.flush()


def form_of(form: str, out: str, *, as_json: bool = False) -> str:
    """Return the form that is meant: what was said, what the file's ending says, or a table.

    A file without an ending is CSV.

    Raises
    ------
    BadRequest
        An unknown form or ending, or two things that contradict each other.
    """
    if as_json and form:
        raise BadRequest(
            "format", form, hint="give either --json or --format", hint_zh="--json 与 --format 只能用一个"
        )
    form = "json" if as_json else form
    if form and form not in FORMATS:
        raise BadRequest("format", form, FORMATS)
    if not out:
        return form or "table"
    if form == "table":
        raise BadRequest("format", form, FORMATS[1:], hint="a file holds csv, json or parquet")
    ending = Path(out).suffix.lstrip(".").lower()
    if ending not in ("", *FORMATS[1:]) and not form:
        raise BadRequest(
            "output", out, hint=f"klake writes {', '.join(FORMATS[1:])}: end the name so, or say --format",
            hint_zh=f"klake 可写 {', '.join(FORMATS[1:])}：请使用这样的后缀，或给出 --format",
        )  # fmt: skip
    if form and ending in FORMATS and ending != form:
        raise BadRequest("output", out, hint=f"the ending says {ending}, the options say {form}",
                         hint_zh=f"后缀为 {ending}，而选项要求 {form}")  # fmt: skip
    return form or ending or "csv"


@contextmanager
def _replacing(target: Path) -> Generator[BinaryIO, None, None]:
    """Hand out a file beside `target` that takes its place when all went well."""
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with beside.open("wb") as handle:
            yield handle
        beside.replace(target)
    except OSError as error:
        why = error.strerror or str(error)
        raise BadRequest(
            "output", str(target), hint=f"cannot be written: {why}", hint_zh=f"无法写入：{why}"
        ) from None
    finally:
        if beside.exists():
            beside.unlink()


def _write(table: "pa.Table", form: str, handle: BinaryIO) -> None:
    if form == "parquet":
        import pyarrow.parquet as pq

        pq.write_table(table, handle, compression="zstd")
    elif form == "csv":
        _csv(table, handle)
    else:
        handle.write(b"[")
        for number, row in enumerate(_rows(table)):
            text = json.dumps(
                dict(zip(table.column_names, row, strict=True)), ensure_ascii=False, default=plain
            )
            handle.write((",\n " if number else "\n ").encode() + text.encode())
        handle.write(b"\n]\n" if table.num_rows else b"]\n")


def _csv(table: "pa.Table", handle: BinaryIO) -> None:
    import csv
    import io

    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow(table.column_names)
    for row in _rows(table):
        out.writerow(["" if v is None else plain(v) for v in row])
        if text.tell() > _CHUNK:
            handle.write(text.getvalue().encode())
            text.seek(0)
            text.truncate()
    handle.write(text.getvalue().encode())


def _rows(table: "pa.Table") -> Iterator[tuple[Any, ...]]:
    for batch in table.to_batches(max_chunksize=20_000):
        columns = [column.to_pylist() for column in batch.columns]
        for row in zip(*columns, strict=True):
            yield tuple(None if isinstance(v, float) and not math.isfinite(v) else v for v in row)


def plain(value: Any) -> Any:
    """Return a value as text where it is neither number nor text: ISO dates, UTC times with Z."""
    if isinstance(value, datetime):
        if value.tzinfo is None:
            return value.isoformat()
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, date):
        return value.isoformat()
    return value if isinstance(value, bool | int | float | str) else str(value)


def _show(table: "pa.Table") -> None:
    """Draw a table: on a terminal the first and the last rows, elsewhere all."""
    seen, total = sys.stdout.isatty(), table.num_rows
    cut = seen and total > _SHOWN
    parts: Sequence[Any] = [table.slice(0, _SHOWN // 2), table.slice(total - _SHOWN // 2)] if cut else [table]
    rows = [[_cell(v) for v in row] for part in parts for row in _rows(part)]
    if cut:
        rows.insert(_SHOWN // 2, ["..." for _ in table.column_names])
    numbers = [
        f.name for f in table.schema if str(f.type).startswith(("int", "uint", "double", "float", "decimal"))
    ]
    say_table(table.column_names, rows, right=numbers)
    if seen:
        more = "; --format csv gives them all" if cut else ""
        print(f"{total:,} row{'' if total == 1 else 's'}{more}", file=sys.stderr)


def _cell(value: Any) -> str:
    """Return a value as a person reads it: no trailing zeros, times to the second."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.15g}"
    if isinstance(value, datetime):
        text = f"{value:%Y-%m-%d %H:%M:%S}" if value.second else f"{value:%Y-%m-%d %H:%M}"
        return f"{text}Z" if value.tzinfo else text
    return str(value)
