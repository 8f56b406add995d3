"""`python -m benchmarks [--full] [NAME …]`: measure, print a table, write results.json and RESULTS.md.

KLAKE_REAL_DATA names a folder of real K-lines, which adds bytes per row of them. ArcticDB joins
the peers where KLAKE_BENCH_ARCTICDB names a folder made by `pip install --target DIR arcticdb`
(it needs a pandas older than ours, so never install it beside klake).
`python -m benchmarks.encodings` prints bytes and time per value of each column by encoding.
"""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from .asking import requests_and_time
from .data import DEFAULT, FULL, Scale
from .memory import bulk_memory
from .reading import reading
from .size import sizes
from .starting import decoding, help_cpu
from .timing import Row
from .writing import bulk, growing, upserts

HERE = Path(__file__).parent
MEASURES: dict[str, Callable[[Scale], Iterator[Row]]] = {
    "help": help_cpu, "decode": decoding, "requests": requests_and_time, "read": reading,
    "bulk": bulk, "upsert": upserts, "growth": growing, "size": sizes, "memory": bulk_memory,
}  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Run the measures and return 0: a missed figure is a row, not a failure."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"some of {', '.join(MEASURES)}; default all"
    )
    parser.add_argument("--full", action="store_true", help="12.5 M daily and 7.2 M minute bars (10 minutes)")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of results.json and RESULTS.md")
    given = parser.parse_args(argv)
    if unknown := set(given.names) - MEASURES.keys():
        parser.error(f"no such measure: {', '.join(sorted(unknown))}")
    scale = FULL if given.full else DEFAULT
    rows: list[Row] = []
    began, before = time.perf_counter(), machine()
    for name in given.names or MEASURES:
        for row in MEASURES[name](scale):
            rows.append(row)
            print(line(row), flush=True)
        about = {**before, "scale": scale.name, "daily bars": scale.symbols * scale.days,
                 "minute bars": scale.minute_symbols * scale.minute_days * 240,
                 "seconds": round(time.perf_counter() - began)}  # fmt: skip
        keep(given.out, about, rows)  # a run that is stopped keeps what it has
    return 0


def keep(out: Path, about: dict[str, object], rows: Sequence[Row]) -> None:
    """Write results.json and RESULTS.md."""
    told = [asdict(row) | {"ratio": row.ratio, "verdict": row.verdict} for row in rows]
    out.mkdir(parents=True, exist_ok=True)
    (out / "results.json").write_text(json.dumps({"about": about, "rows": told}, indent=1) + "\n")
    (out / "RESULTS.md").write_text(page(about, rows), encoding="utf-8")


def machine() -> dict[str, object]:
    """Return what the figures were taken on."""
    libraries = {name: version(name) for name in ("duckdb", "polars", "pyarrow", "deltalake", "numpy")}
    cores = os.cpu_count() or 1
    system = f"{platform.system()} {platform.machine()}, {cores} cores"
    return {
        "machine": system,
        "load before": round(_load(), 1),
        "python": sys.version.split()[0],
        **libraries,
    }


def line(row: Row) -> str:
    """Return a row as a line of text."""
    aim = "" if row.reach is None else f", aim {row.reach:.3g}: {row.verdict}"
    peers = "".join(f"; {name} {value:.3g}" for name, value in row.peers.items())
    return (
        f"{row.measure:52} {row.ours:10.3g} {row.unit:3} against {row.theirs:10.3g} ({row.bound}): "
        f"{row.ratio:.2f}{aim}{peers}"
    )


def page(about: dict[str, object], rows: Sequence[Row]) -> str:
    """Return RESULTS.md."""
    facts = "; ".join(f"{name} {value}" for name, value in about.items())
    head = [
        "# Measured", "",
        "Written by `python -m benchmarks`. Medians, ours and the bound taken in turn in one run, page cache warm.",
        "Ratios hold better than milliseconds: other work may share the cores.", "", facts, "",
        "| measure | ours | bound | ratio | aim | | peers |", "|---|---:|---|---:|---:|---|---|",
    ]  # fmt: skip
    return "\n".join([*head, *map(_cells, rows)]) + "\n"


def _cells(row: Row) -> str:
    peers = ", ".join(f"{name} {value:.3g} {row.unit}" for name, value in row.peers.items())
    aim = "" if row.reach is None else f"{row.reach:.3g}"
    bound = f"{row.theirs:.3g} {row.unit} ({row.bound})"
    return f"| {row.measure} | {row.ours:.3g} {row.unit} | {bound} | {row.ratio:.2f} | {aim} | {row.verdict} | {peers} |"


def _load() -> float:
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


if __name__ == "__main__":
    raise SystemExit(main())
