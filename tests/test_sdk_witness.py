"""The vendor's own SDK as a witness: klake's client stored what `qos-api` 0.2.1 returned."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from qos_api import QOSClient
from stand import Stand

import klake
from klake.jobs.sync import sync
from klake.schemas.freq import Freq
from klake.schemas.symbol import Symbol

CODES = {
    "600519.SH": "SH:600519",
    "000001.SZ": "SZ:000001",
    "00700.HK": "HK:700",
    "AAPL.US": "US:AAPL",
    "BTCUSDT.P.QOS": "CF:BTCUSDT",
}
KT = {Freq.M1: 1, Freq.M5: 5, Freq.H1: 60, Freq.D1: 1001, Freq.W1: 1007, Freq.MO1: 1030}
LOT = {"SH": 100, "SZ": 100}


def sdk(stand: Stand) -> Any:
    client = QOSClient(stand.sandbox.secrets["qos"][stand.key])
    client.http.base_url = stand.sandbox.qos_url
    client.http.session.trust_env = False
    return client


@pytest.mark.parametrize("freq", list(KT), ids=str)
@pytest.mark.parametrize("name", list(CODES))
def test_what_the_sdk_returns_is_what_the_lake_holds(stand: Stand, name: str, freq: Freq) -> None:
    start = "2026-11-16" if freq.intraday else "2025-12-01"
    stand.jobs = f'[jobs.daily]\nvendor = "qos"\nsymbols = ["{name}"]\nfreq = ["{freq}"]\nstart = "{start}"\n'
    stand.write()
    desk = stand.desk()
    report = sync(desk, "daily", desk.job("daily"))

    witness = sdk(stand).get_history_kline(
        [CODES[name]], KT[freq], int(desk.clock.now().timestamp()), 1000, 0
    )

    assert report.exit_code == 0, report
    ours = klake.open(str(stand.folder / "lake")).bars(name, freq).arrow().to_pylist()
    assert ours
    by_key = keyed(witness, name, freq)
    for bar in ours:
        key = bar["ts"] if freq.intraday else bar["session"]
        o, h, low, c, v = by_key[key]
        assert (bar["open"], bar["high"], bar["low"], bar["close"]) == (
            float(o),
            float(h),
            float(low),
            float(c),
        ), key
        assert bar["volume"] == pytest.approx(float(v), rel=1e-12), key


def keyed(bars: list[Any], name: str, freq: Freq) -> dict[Any, tuple[Decimal, ...]]:
    """The SDK's bars by klake's key, lots made shares, a closing-auction print folded by hand."""
    place, lot = Symbol.parse(name).place, LOT.get(Symbol.parse(name).venue, 1)
    out: dict[Any, tuple[Decimal, ...]] = {}
    for bar in sorted(bars, key=lambda b: int(b.ts)):
        at = datetime.fromtimestamp(int(bar.ts), UTC)
        values = (*tuple(Decimal(str(x)) for x in (bar.o, bar.h, bar.l, bar.cl)), Decimal(str(bar.v)) * lot)
        local = at.astimezone(ZoneInfo(place.zone))
        if freq.intraday and name.endswith(".US") and (local.hour, local.minute) == (16, 0):
            last = max(out)
            o, h, low, _, v = out[last]
            out[last] = (o, max(h, values[1]), min(low, values[2]), values[3], v + values[4])
        else:
            out[at if freq.intraday else freq.anchor(local.date())] = values
    return out
