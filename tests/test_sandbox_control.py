"""The sandbox's control face and its own process: clock, log, truth, dials, one JSON line."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from klake.errors import BadRequest
from klake.sandbox.clock import SandboxClock
from klake.sandbox.server import Sandbox
from klake.schemas.freq import Freq

NOW = datetime(2026, 11, 20, 8, tzinfo=UTC)


@pytest.fixture
def box() -> Iterator[Sandbox]:
    with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture
def control(box: Sandbox) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=box.control_url, trust_env=False) as client:
        yield client


def test_time_stands_still_until_it_is_put_moved_or_reached(control: httpx.Client) -> None:
    start = control.get("/clock").json()

    moved = control.post("/clock", json={"advance_s": 0.25}).json()["now"]
    reached = control.post("/clock", json={"reach": "2026-11-20T09:00:00+00:00"}).json()["now"]
    past = control.post("/clock", json={"reach": "2026-11-20T08:30:00Z"}).json()["now"]
    put = control.post("/clock", json={"now": "2026-11-19T09:00:00+08:00"}).json()["now"]

    assert start == {"now": "2026-11-20T08:00:00.000000Z", "rate": 0.0}
    assert moved == "2026-11-20T08:00:00.250000Z"
    assert reached == past == "2026-11-20T09:00:00.000000Z"
    assert put == "2026-11-19T01:00:00.000000Z"


def test_many_callers_who_wait_for_the_same_instant_reach_it_together(box: Sandbox) -> None:
    goal = datetime(2026, 11, 20, 8, 1, tzinfo=UTC)

    threads = [threading.Thread(target=box.clock.reach, args=(goal,)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert box.clock.now() == goal


def test_a_running_clock_runs_at_its_rate_and_waits_shorter(control: httpx.Client) -> None:
    fast = control.post("/clock", json={"now": "2026-11-20T08:00:00Z", "rate": 100_000}).json()

    clock = SandboxClock(NOW, rate=100_000)
    clock.wait(1_000)
    later = control.get("/clock").json()

    assert fast["rate"] == 100_000 and later["now"] > fast["now"]
    assert (clock.now() - NOW).total_seconds() >= 1_000


@pytest.mark.parametrize(
    ("path", "body", "word"),
    [
        ("/clock", {"tomorrow": 1}, "tomorrow"), ("/clock", {}, "advance_s"), ("/clock", [], "object"),
        ("/clock", {"now": "2026-11-20T08:00:00"}, "zone"), ("/faults", {"rules": [{"kind": "fire"}]}, "http_504"),
        ("/faults", {"rules": [{"kind": "slow", "often": 1}]}, "probability"), ("/faults", {"dials": {"x": 1}}, "latency_s"),
        ("/faults", {"rule": []}, "rules"), ("/faults", {"keys": {"deep": {"end_mode": "odd"}}}, "exclusive"),
        ("/faults", {"closing_delay_s": 5, "rules": [{"kind": "fire"}]}, "http_504"), ("/faults", {"keys": {"nobody": {}}}, "nobody"),
        ("/faults", {"restate": [{"symbol": "NOPE.US", "start": "2026-01-01", "end": "2026-01-01"}]}, "NOPE.US"),
    ],
)  # fmt: skip
def test_a_dial_that_does_not_exist_is_refused_with_those_that_do(
    control: httpx.Client, path: str, body: Any, word: str
) -> None:
    before = control.get("/faults").json()

    reply = control.post(path, json=body)

    assert reply.status_code == 400 and word in reply.json()["error"]
    assert control.get("/faults").json() == before


def test_an_unknown_path_names_the_known_ones(control: httpx.Client) -> None:
    reply = control.get("/time")

    assert reply.status_code == 404 and "GET /clock" in reply.json()["error"]


def test_truth_answers_with_bounds_as_the_lake_does(control: httpx.Client) -> None:
    daily = control.get(
        "/truth", params={"symbol": "AAPL.US", "freq": "1d", "start": "2026-11-17", "end": "2026-11-19"}
    ).json()
    ask = {"symbol": "AAPL.US", "freq": "1m", "start": "2026-11-19T14:30:00Z", "end": "2026-11-19T14:33:00Z"}
    minutes = control.get("/truth", params=ask).json()
    earlier = control.get("/truth", params=ask | {"now": "2026-11-19T14:31:30Z"}).json()

    assert [row["session"] for row in daily] == ["2026-11-17", "2026-11-18", "2026-11-19"]
    assert daily[0]["ts"] == "2026-11-17T14:30:00.000000Z"
    assert [row["ts"][14:16] for row in minutes] == ["30", "31", "32"]
    assert earlier[0] == minutes[0] and [row["state"] for row in earlier] == ["final", "open"]
    assert list(minutes[0]) == [
        "freq", "symbol", "ts", "session", "open", "high", "low", "close", "volume", "amount", "state",
    ]  # fmt: skip


def test_truth_of_an_unknown_symbol_is_an_error_and_not_an_empty_list(control: httpx.Client) -> None:
    reply = control.get(
        "/truth", params={"symbol": "NOPE.US", "freq": "1d", "start": "2026-01-01", "end": "2026-01-02"}
    )

    assert reply.status_code == 400 and "NOPE.US" in reply.json()["error"]


def test_truth_moves_with_the_clock(box: Sandbox, control: httpx.Client) -> None:
    box.clock.put(datetime(2026, 11, 20, 3, tzinfo=UTC))
    ask = {"symbol": "600519.SH", "freq": "1d", "start": "2026-11-20", "end": "2026-11-20"}
    before = control.get("/truth", params=ask).json()[0]

    control.post("/clock", json={"advance_s": 60})

    after = control.get("/truth", params=ask).json()[0]
    assert before["state"] == after["state"] == "open" and before["volume"] < after["volume"]


def test_instruments_tell_their_life(control: httpx.Client) -> None:
    rows = {row["symbol"]: row for row in control.get("/instruments").json()}

    assert len(rows) == 40
    assert rows["600087.SH"]["delisted"] == "2014-06-05" and rows["688999.SH"]["listed"] == "2026-09-15"
    assert rows["000333.SZ"]["halts"] == [["2026-11-12", "2026-11-27"]]
    assert {"ex": "2020-08-31", "kind": "split", "ratio": 4.0} == {
        k: v for a in rows["AAPL.US"]["actions"] if a["kind"] == "split" for k, v in list(a.items())[:3]
    }
    assert rows["000300.SH"]["class"] == "index" and rows["510300.SH"]["tick"] == 0.001


def test_reset_forgets_log_faults_plans_and_restatements_but_not_the_time(
    box: Sandbox, control: httpx.Client
) -> None:
    fresh = control.get("/faults").json()
    truth = box.market.truth("600519.SH", Freq.D1, NOW.date(), NOW.date(), NOW)
    body = {
        "rules": [{"kind": "slow", "probability": 0.5}], "dials": {"gzip": True}, "closing_delay_s": 5,
        "keys": {"deep": {"depth": 3}},
        "restate": [{"symbol": "600519.SH", "start": "2026-11-20", "end": "2026-11-20", "at": "2026-11-20T08:00:00Z"}],
    }  # fmt: skip
    control.post("/faults", json=body).raise_for_status()
    httpx.post(f"{box.qos_url}/kline", json={}, trust_env=False)
    box.clock.advance(7)

    changed = box.market.truth("600519.SH", Freq.D1, NOW.date(), NOW.date(), NOW)
    control.post("/reset").raise_for_status()

    assert changed != truth and box.market.truth("600519.SH", Freq.D1, NOW.date(), NOW.date(), NOW) == truth
    assert control.get("/requests").json() == [] and control.get("/faults").json() == fresh
    assert control.get("/clock").json()["now"] == "2026-11-20T08:00:07.000000Z"


def test_the_front_page_tells_urls_and_secrets_that_depend_on_the_seed_alone(
    box: Sandbox, control: httpx.Client
) -> None:
    about = control.get("/").json()
    with Sandbox(seed=1) as same, Sandbox(seed=2) as other:
        assert same.secrets == box.secrets and other.secrets != box.secrets

    assert (
        about["control"] == box.control_url
        and about["qos"] == box.qos_url
        and about["secrets"] == box.secrets
    )
    assert set(about["secrets"]["qos"]) == {"default", "deep", "recent", "expired"}
    assert all(key.startswith("sandbox-") for key in about["secrets"]["qos"].values())
    assert box.qos_url.startswith("http://127.0.0.1:")


def test_a_vendor_without_a_stand_in_is_refused() -> None:
    with pytest.raises(BadRequest, match="qos"):
        Sandbox(vendors=("bloomberg",))


def _second_of_two_free(taken: socket.socket) -> int:
    """Take a port below which another one is free."""
    taken.bind(("127.0.0.1", 0))
    taken.listen()
    port = int(taken.getsockname()[1])
    with socket.socket() as below:
        if below.connect_ex(("127.0.0.1", port - 1)) == 0:
            pytest.skip("the port below is in use")
    return port


def test_a_port_that_is_taken_is_an_error_and_leaves_no_door_open() -> None:
    with socket.socket() as taken:
        port = _second_of_two_free(taken)

        with pytest.raises(OSError):
            Sandbox(port=port - 1)

        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port - 1)) != 0


def test_a_closed_sandbox_answers_nobody_not_even_over_an_old_connection() -> None:
    with Sandbox() as sandbox, httpx.Client(base_url=sandbox.control_url, trust_env=False) as client:
        client.get("/clock")
        sandbox.close()

        with pytest.raises(httpx.TransportError):
            client.get("/clock")


@pytest.mark.skipif(os.name == "nt", reason="needs SIGINT to a child")
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_served_in_its_own_process_it_prints_one_line_and_ends_quietly(ending: signal.Signals) -> None:
    script = "from klake.sandbox.server import serve; serve(seed=3, instruments=5)"
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout and child.stderr
        about = json.loads(child.stdout.readline())

        listed = httpx.get(f"{about['control']}/instruments", trust_env=False).json()
        key = about["secrets"]["qos"]["default"]
        body = {"kline_reqs": [{"c": "SH:600519", "kt": 1001, "co": 2}]}
        reply = httpx.post(f"{about['qos']}/kline", params={"key": key}, json=body, trust_env=False).json()
        child.send_signal(ending)
        rest, talk = child.stdout.read(), child.stderr.read()

    assert len(listed) == 5 and len(reply["data"][0]["k"]) == 2
    assert (rest, talk, child.returncode) == ("", "", 0)
