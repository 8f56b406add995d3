"""Start-up, and a page's bytes to a checked table."""

import resource
import subprocess
import sys
from collections.abc import Iterator

import msgspec
import pyarrow as pa

from klake.ingest.vendors import qos_wire
from klake.ingest.vendors.qos import Qos, QosOptions
from klake.sandbox.server import Sandbox
from klake.schemas.clock import ManualClock
from klake.schemas.freq import Freq
from klake.schemas.page import Entry
from klake.schemas.quality import check

from .data import NOW, Scale
from .timing import Row, in_turn

__all__ = ["decoding", "help_cpu"]


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
    """A page's bytes to a normalised, checked table, against the typed decode of the same bytes."""
    with Sandbox(clock_start=NOW, rate=0) as sandbox:
        options = QosOptions.model_validate(
            {"kind": "qos", "key": sandbox.secrets["qos"]["default"], "url": sandbox.qos_url}
        )
        vendor = Qos("qos", options, ManualClock(NOW))
        names = ["600519.SH", "000001.SZ", "00700.HK", "AAPL.US", "MSFT.US", "BTCUSDT.P.QOS"]
        page = vendor.send(vendor.request(tuple(Entry(n, Freq.D1, None, 1000) for n in names)))
        vendor.close()
    typed = msgspec.json.Decoder(qos_wire._Reply, strict=False)

    def whole() -> None:
        bars = pa.concat_tables([part.bars for part in vendor.parse(page)])
        check(bars, page_id=page.id, run="", now=NOW)

    ours, theirs = in_turn(whole, lambda: typed.decode(page.body), runs=15)
    yield Row("page bytes to checked table", "typed msgspec decode", ours, theirs, "ms", 2.5)
