"""Start-up, and a page's bytes to a checked table."""

import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import pyarrow as pa

from klake.ingest.registry import open_vendor
from klake.ingest.vendor import Vendor
from klake.ingest.vendors import multimarkets_frames, multimarkets_wire, qos_wire
from klake.sandbox.server import Sandbox
from klake.schemas.clock import ManualClock
from klake.schemas.freq import Freq
from klake.schemas.page import Entry, Page
from klake.schemas.quality import check

from .data import NOW, Scale
from .timing import Row, in_turn

__all__ = ["decoding", "help_cpu"]

_NAMES = ("600519.SH", "000001.SZ", "00700.HK", "AAPL.US", "MSFT.US", "BTCUSDT.P.QOS")


def help_cpu(scale: Scale) -> Iterator[Row]:
    """CPU seconds of `klake --help`, as the median of nine."""
    took: list[float] = []
    for _ in range(9):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "klake", "--help"], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        took.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    yield Row("klake --help", "0.25 s of CPU", sorted(took)[4], 0.25, "s", 1.0)


def decoding(scale: Scale) -> Iterator[Row]:
    """Six thousand bars of a vendor, bytes to a normalised, checked table, against their typed decode."""
    with Sandbox(clock_start=NOW, rate=0) as sandbox:
        yield _against("qos", *_qos(sandbox))
        yield _against("multimarkets", *_multimarkets(sandbox))


def _against(kind: str, vendor: Vendor, pages: list[Page], typed: Callable[[bytes], object]) -> Row:
    def whole() -> None:
        bars = pa.concat_tables([part.bars for page in pages for part in vendor.parse(page)])
        check(bars, page_id=pages[0].id, run="", now=NOW)

    def bound() -> None:
        for page in pages:
            typed(page.body)

    ours, theirs = in_turn(whole, bound, runs=15)
    return Row(f"page bytes to checked table, {kind}", "typed msgspec decode", ours, theirs, "ms", 2.5)


def _qos(sandbox: Sandbox) -> tuple[Vendor, list[Page], Callable[[bytes], object]]:
    table = {"kind": "qos", "key": sandbox.secrets["qos"]["default"], "url": sandbox.qos_url}
    vendor = open_vendor("qos", table, ManualClock(NOW))
    page = vendor.send(vendor.request(tuple(Entry(name, Freq.D1, None, 1000) for name in _NAMES)))
    vendor.close()
    return vendor, [page], msgspec.json.Decoder(qos_wire._Reply, strict=False).decode


def _multimarkets(sandbox: Sandbox) -> tuple[Vendor, list[Page], Callable[[bytes], object]]:
    """Return twelve pages of 500 bars, as they come: one series each, compressed."""
    ids = [",".join(map(str, (name, *sandbox.multimarkets.ids(name)))) for name in _NAMES]
    with TemporaryDirectory() as folder:
        file = Path(folder, "ids.csv")
        file.write_text("\n".join(["symbol,symbol_id,trade_type,trade_mode", *ids]), encoding="utf-8")
        table = {
            "kind": "multimarkets", "url": sandbox.urls["multimarkets"], "token": sandbox.secrets["multimarkets"]["default"],
            "products_file": str(file), "capability": {"adjusts": ["none"]},
        }  # fmt: skip
        vendor = open_vendor("mm", table, ManualClock(NOW))
    entries = [Entry(name, freq, None, 500) for name in _NAMES for freq in (Freq.D1, Freq.M5)]
    pages = [vendor.send(vendor.request((entry,))) for entry in entries]
    vendor.close()

    def typed(body: bytes) -> object:
        return multimarkets_wire._klines.decode(multimarkets_frames.head_of(body, "mm").data)

    return vendor, pages, typed
