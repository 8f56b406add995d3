"""Memory of one bulk write: what a process holds of its own beside the table that it was given."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from .data import Scale, parts, sessions
from .timing import Row

__all__ = ["bulk_memory"]

_ROOT = Path(__file__).parents[1]
_CHILD = """
import sys, threading
from pathlib import Path
import pyarrow as pa
from benchmarks.data import NOW
from klake.schemas.clock import ManualClock
from klake.storage.store import Store

def held():  # not what is mapped from files: the table lies in one
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon"))

store = Store.open(sys.argv[1], ManualClock(NOW), create=True)
table = pa.ipc.open_file(pa.memory_map(sys.argv[2])).read_all()
peak, done = [held()], threading.Event()
before = peak[0]

def watch():
    while not done.wait(0.01):
        peak[0] = max(peak[0], held())

thread = threading.Thread(target=watch)
thread.start()
store.upsert(table)
done.set()
thread.join()
print(before, peak[0])
"""


def bulk_memory(scale: Scale) -> Iterator[Row]:
    """Peak of one upsert of all daily bars and of a quarter of them; nothing where the system does not tell."""
    if not Path("/proc/self/status").exists():
        return
    whole, quarter = _peak(scale.symbols, scale), _peak(scale.symbols // 4, scale)
    million = scale.symbols * scale.days / 1e6
    yield Row(f"memory of one upsert of {million:.1f} M daily bars", "limit of a sync", whole, 600, "MB", 1.0)
    yield Row("the same, beside a quarter of it", "a quarter", whole, quarter, "MB", None)


def _peak(symbols: int, scale: Scale) -> float:
    with tempfile.TemporaryDirectory() as folder:
        given = f"{folder}/given.arrow"
        with pa.OSFile(given, "wb") as sink:
            writer = None
            for table in parts(symbols, sessions(scale.days)):
                writer = writer or pa.ipc.new_file(sink, table.schema)
                writer.write_table(table)
            assert writer is not None
            writer.close()
        argv = [sys.executable, "-c", _CHILD, f"{folder}/lake", given]
        done = subprocess.run(argv, capture_output=True, text=True, check=True, cwd=_ROOT)
    return float(done.stdout.split()[-1])
