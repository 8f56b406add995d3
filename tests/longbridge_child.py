"""A sync of the sandbox's Longbridge in a process of its own, whose zone is the caller's affair.

Prints one JSON line: {"exit_code", "wrong": the series that are not the sandbox's truth, "series": how many}.
"""

import json
import os
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).parents[1]
START = datetime(2026, 11, 20, 8, 30, tzinfo=UTC)


def main(instruments: str, freqs: str, start: str, transport: str = "http") -> None:
    from longbridge_stand import LongbridgeStand

    from klake.sandbox.server import Sandbox

    with (
        tempfile.TemporaryDirectory() as folder,
        Sandbox(instruments=int(instruments), clock_start=START) as box,
    ):
        os.environ["KLAKE_STATE"] = f"{folder}/state"
        lb = LongbridgeStand(box, Path(folder), transport=transport)
        symbols = [s for s, inst in box.market.instruments.items() if inst.venue != "QOS"]
        report = lb.sync(symbols, freqs.split(","), start)
        wrong = lb.wrong(symbols, freqs.split(","), start)
        series = len(symbols) * len(freqs.split(","))
        print(json.dumps({"exit_code": report.exit_code, "wrong": wrong, "series": series}))


if __name__ == "__main__":
    main(*sys.argv[1:])
