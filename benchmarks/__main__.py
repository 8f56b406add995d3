"""`python -m benchmarks`: measure, print a table, write `benchmarks/results.json`."""

import json
import platform
import sys
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from .measures import MEASURES

OUT = Path(__file__).with_name("results.json")


def main() -> int:
    """Run every measure; return 0 (a missed figure is a row, not a failure)."""
    rows = []
    for measure in MEASURES:
        for row in measure():
            rows.append(row)
            mark = "reached" if row.reached else "MISSED"
            print(f"{row.measure:42} {row.ours:10.3g} {row.unit:3} against {row.theirs:10.3g} ({row.bound}): "
                  f"{row.ratio:.2f}, aim {row.reach:g}: {mark}", flush=True)  # fmt: skip
    engines = {name: version(name) for name in ("duckdb", "polars", "pyarrow", "deltalake")}
    about = {"python": sys.version.split()[0], "machine": platform.machine(), **engines}
    OUT.write_text(
        json.dumps({"about": about, "rows": [asdict(r) | {"ratio": r.ratio} for r in rows]}, indent=1) + "\n"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
