"""Requests against the fewest possible, time against the quota, and a re-sync that brings nothing."""

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx

from klake.jobs.desk import open_desk
from klake.jobs.sync import sync
from klake.sandbox.server import Sandbox

from .data import NOW, Scale
from .timing import Row

__all__ = ["requests_and_time"]


def requests_and_time(scale: Scale) -> Iterator[Row]:
    """Requests against the fewest possible, and time against requests ÷ quota, on a standing clock."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Sandbox(clock_start=NOW, rate=0, instruments=400) as sandbox,
    ):
        os.environ["KLAKE_STATE"] = folder
        config = Path(folder) / "klake.toml"
        stocks = [str(i["symbol"]) for i in sandbox_instruments(sandbox)][:300]
        config.write_text(
            f'[lake]\npath = "lake"\n[sandbox]\ncontrol = "{sandbox.control_url}"\n[vendors.qos]\nkind = "qos"\n'
            f'key = "{sandbox.secrets["qos"]["deep"]}"\nurl = "{sandbox.qos_url}"\ndepth = 0\n'
            f'[jobs.j]\nvendor = "qos"\nsymbols = {json.dumps(stocks)}\nfreq = ["1d"]\nstart = "2020-01-01"\n'
        )
        desk = open_desk(config)
        report = sync(desk, "j", desk.job("j"))
        again = sync(desk, "j", desk.job("j"))
    yield Row("requests sent", "fewest possible", report.requests_sent, report.requests_fewest, "", 1.02)
    quota_s = (-(-(report.requests_sent + report.canaries) // 10) - 1) * 60.0
    yield Row("time to finish", "requests ÷ quota", report.seconds, quota_s, "s", 1.03)
    yield Row("re-sync that brings nothing: commits", "none", again.written.commits, 1, "", 0.0)


def sandbox_instruments(sandbox: Sandbox) -> list[dict[str, object]]:
    """Return what the sandbox trades."""
    with httpx.Client(trust_env=False) as client:
        found: list[dict[str, object]] = client.get(f"{sandbox.control_url}/instruments").json()
    return found
