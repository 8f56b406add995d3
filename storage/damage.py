"""Damage: live files that are gone, torn, or do not hold what was written."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import LakeDamaged
from ..schemas.freq import Freq
from ..schemas.span import Span
from .layout import EXTRAS, PAST, Partition
from .manifest import LiveFile, Manifest

__all__ = ["Damage", "Held", "damaged", "refuse"]

_EPOCH: Final = date(1970, 1, 1)
_DAY_US: Final = 86_400_000_000


@dataclass(frozen=True, slots=True)
class Held:
    """What a file of bars held: series of one vendor and freq, between two days (half-open).

    Below one day the days are a little wider than the file, because a session may begin on the
    UTC day before its date and end on the day after.
    """

    vendor: str
    freq: Freq
    symbols: frozenset[str]
    days: Span[date]
    past: bool = False


@dataclass(frozen=True, slots=True)
class Damage:
    """One live file and what is wrong with it; `rows` are those that it held, as far as is known."""

    table: str
    path: str
    wrong: str
    wrong_zh: str
    rows: int = 0
    held: Held | None = None

    @property
    def holding(self) -> str:
        """What the file held, in words: rows, series, days."""
        if self.held is None:
            return f"{self.rows:,} rows of {self.table}" if self.rows else f"the published table {self.table}"
        what = "earlier values" if self.held.past else "bars"
        names = sorted(self.held.symbols)
        named = ", ".join(names[:3]) + (f" and {len(names) - 3:,} more" if len(names) > 3 else "")
        days = f"{self.held.days.start} to before {self.held.days.end}"
        return f"{self.rows:,} {what} of {self.held.vendor} {self.held.freq.value} ({named}; {days})"

    def error(self, more: int = 0) -> LakeDamaged:
        """Return the error that names this file, `more` others, and the way back."""
        others = f" and {more} more file{'' if more == 1 else 's'}" if more else ""
        others_zh = f"（另有 {more} 个文件）" if more else ""
        return LakeDamaged(
            f"{self.path}{others}: {self.wrong}: `klake doctor --repair` lets go of what is damaged and brings "
            "back what the raw pages hold",
            f"{self.path}{others_zh}：{self.wrong_zh}：`klake doctor --repair` 会移出损坏的文件，并用原始页面恢复数据",
        )


def damaged(root: str, manifest: Manifest, *, footers: bool = True, deep: bool = False) -> list[Damage]:
    """Return the live files of a manifest that are not as they were written, in its order.

    Parameters
    ----------
    footers : bool
        Read each footer; False: only ask the file system for the size, which takes 2 us per file.
    deep : bool
        Decode every page and check its checksum too: a bit that turned shows in no other way.
        Pages written before there were checksums are only decoded.
    """
    found = list[Damage]()
    for file in manifest.files:
        if wrong := _wrong(Path(root) / file.path, file, footers=footers, deep=deep):
            found.append(Damage(file.table, file.path, *wrong, file.rows, _held(manifest, file)))
    for name in EXTRAS:
        path = manifest.extras.get(name)
        if path and (wrong := _wrong(Path(root) / path, None, footers=footers, deep=deep)):
            found.append(Damage(name, path, *wrong))
    return found


def refuse(found: list[Damage]) -> None:
    """Raise LakeDamaged, which names the first of the files that are damaged; nothing where there is none."""
    if found:
        raise found[0].error(len(found) - 1)


def _wrong(path: Path, file: LiveFile | None, *, footers: bool, deep: bool) -> tuple[str, str] | None:
    """Return what is wrong with a file, in both languages; None: nothing that was looked for."""
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return "the file is gone", "文件不存在"
    except OSError as error:
        return _unreadable(error)
    if file is not None and size != file.size_bytes:
        return f"the file has {size:,} bytes instead of {file.size_bytes:,}", (
            f"文件大小为 {size:,} 字节，应为 {file.size_bytes:,}"
        )
    if not footers and (file is not None or size):
        return None
    try:
        with pq.ParquetFile(path, page_checksum_verification=deep) as opened:
            rows = sum(_decoded(opened)) if deep else opened.metadata.num_rows
    except (OSError, pa.ArrowException) as error:
        return _unreadable(error)
    if file is not None and rows != file.rows:
        return (
            f"the file holds {rows:,} rows instead of {file.rows:,}",
            f"文件有 {rows:,} 行，应为 {file.rows:,}",
        )
    return None


def _unreadable(error: Exception) -> tuple[str, str]:
    why = str(error).splitlines()[0] if str(error) else type(error).__name__
    return f"the file cannot be read ({why})", f"文件无法读取（{why}）"


def _decoded(opened: pq.ParquetFile) -> Iterator[int]:
    for group in range(opened.num_row_groups):
        yield opened.read_row_group(group).num_rows


def _held(manifest: Manifest, file: LiveFile) -> Held | None:
    if file.table != "bars":
        return None
    where, symbols = Partition.parse(file.path), manifest.symbols_of(file)
    low, high = int(file.low or 0), int(file.high or 0)
    if where.freq.intraday:
        days = Span(_day(low // _DAY_US - 1), _day(high // _DAY_US + 3))
    else:
        days = Span(_day(low), max(_day(high + 1), where.freq.following(_day(high))))
    return Held(where.vendor, where.freq, symbols, days, where.era == PAST)


def _day(number: int) -> date:
    return _EPOCH + timedelta(days=number)
