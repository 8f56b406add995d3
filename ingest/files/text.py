"""CSV and its kin, plain, gzipped or zipped: a broken row is told by line and text, the rest is read."""

import codecs
import csv
import gzip
import io
import zipfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any, Final, cast

import polars as pl
import pyarrow as pa
import pyarrow.csv as arrow_csv

from ...errors import BadRequest
from .mapping import Mapping, located
from .piece import ROWS, Broken, Piece, piece

__all__ = ["text_pieces"]

_SNIFF: Final = 1 << 16  # bytes looked at to tell the encoding


def text_pieces(path: Path, mapping: Mapping) -> Iterator[Piece]:
    """Yield the rows of a delimited text file, of every member of a zip one after the other.

    Raises
    ------
    BadRequest
        The file cannot be opened or decoded, columns are missing, or no row of it can be read.
    """
    for stream in _streams(path):
        yield from _pieces(_numbered(_decoded(stream, mapping, path)), mapping, path)


def _streams(path: Path) -> Iterator[IO[bytes]]:
    try:
        if path.suffix.lower() == ".zip":
            with zipfile.ZipFile(path) as archive:
                for name in sorted(n for n in archive.namelist() if not n.endswith("/")):
                    with archive.open(name) as member:
                        yield member
        elif path.suffix.lower() == ".gz":
            with gzip.open(path, "rb") as unpacked:
                yield cast("IO[bytes]", unpacked)
        else:
            with path.open("rb") as stream:
                yield stream
    except zipfile.BadZipFile as error:
        raise BadRequest("file", str(path), hint=f"not a zip, or a torn one ({error})") from error


def _decoded(stream: IO[bytes], mapping: Mapping, path: Path) -> io.TextIOWrapper:
    """Return the stream as text; bytes that the encoding cannot read become marks in their row."""
    buffered = io.BufferedReader(cast("Any", stream), _SNIFF)
    head = buffered.peek(_SNIFF)[:_SNIFF]
    encoding = mapping.encoding or ("utf-8-sig" if _is_utf8(head) else "gb18030")
    try:
        return io.TextIOWrapper(buffered, encoding, errors="replace", newline=None)
    except LookupError as error:
        raise BadRequest("encoding", encoding, hint=f"{path.name}: no such encoding") from error


def _is_utf8(head: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head, final=False)
    except UnicodeDecodeError:
        return False
    return True


def _numbered(stream: io.TextIOWrapper) -> Iterator[tuple[int, str]]:
    """Yield (line from 1, text) of every line that is not blank."""
    for number, line in enumerate(stream, 1):
        text = line.rstrip("\r\n")
        if text.strip():
            yield number, text


def _pieces(lines: Iterator[tuple[int, str]], mapping: Mapping, path: Path) -> Iterator[Piece]:
    first = next(lines, None)
    if first is None:
        raise BadRequest("file", str(path), hint="the file is empty", hint_zh="文件为空")
    head = next(csv.reader([first[1]], delimiter=mapping.delimiter))
    names = head if mapping.header else [str(i) for i in range(len(head))]
    where = located(mapping, names)
    chunk = list(islice(lines, ROWS))
    chunk = chunk if mapping.header else [first, *chunk]
    read = 0
    while chunk:
        made = _piece(chunk, where, len(head), mapping, alone=read == 0)
        if read == 0 and made.broken and not made.table.num_rows:
            worst = made.broken[0]
            raise BadRequest("file", str(path), hint=f"no row can be read; line {worst.line}: {worst.why}")
        read += made.table.num_rows
        yield made
        chunk = list(islice(lines, ROWS))


def _piece(
    chunk: list[tuple[int, str]], where: dict[str, int], width: int, mapping: Mapping, alone: bool
) -> Piece:
    """Return one chunk of lines as a piece. Only the first may fail as a whole."""
    raw, broken = _split(chunk, where, width, mapping.delimiter)
    texts = dict(chunk)
    rows = [texts[line] for line in raw["line"].to_list()]
    try:
        return piece(raw, mapping, broken, rows)
    except BadRequest as error:
        if alone:
            raise
        lost = [Broken(line, texts[line], str(error)) for line in raw["line"].to_list()]
        return piece(raw.clear(), mapping, [*broken, *lost], [])


def _split(
    chunk: list[tuple[int, str]], where: dict[str, int], width: int, delimiter: str
) -> tuple[pl.DataFrame, list[Broken]]:
    """Return the cells of well-formed lines as text, and the lines that are not.

    The line's number is put before its text, so that it stays with the row whatever the
    parser drops. An odd number of quotes would swallow the next lines: such a line is broken.
    """
    odd = {n for n, text in chunk if '"' in text and text.count('"') % 2}
    broken = [Broken(n, text, "a quote is not closed") for n, text in chunk if n in odd]
    texts = dict(chunk)

    def refused(row: Any) -> str:
        number = int(str(row.text).partition(delimiter)[0])
        why = f"{row.actual_columns - 1} columns instead of {row.expected_columns - 1}"
        broken.append(Broken(number, texts[number], why))
        return "skip"

    body = "\n".join(f"{n}{delimiter}{text}" for n, text in chunk if n not in odd)
    names = ["line", *(f"c{i}" for i in range(width))]
    picked = {"line": "line", **{target: f"c{i}" for target, i in where.items()}}
    if not body:
        return pl.DataFrame(schema={"line": pl.Int64, **dict.fromkeys(where, pl.String)}), broken
    data = body.encode()
    table = arrow_csv.read_csv(
        pa.BufferReader(data),
        read_options=arrow_csv.ReadOptions(column_names=names, use_threads=False, block_size=len(data) + 1),
        parse_options=arrow_csv.ParseOptions(delimiter=delimiter, invalid_row_handler=refused),
        convert_options=arrow_csv.ConvertOptions(
            column_types={"line": pa.int64(), **dict.fromkeys(names[1:], pa.string())},
            include_columns=list(dict.fromkeys(picked.values())),
        ),
    )
    frame = cast("pl.DataFrame", pl.from_arrow(table))
    return frame.select(pl.col(column).alias(target) for target, column in picked.items()), broken
