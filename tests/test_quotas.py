"""Quotas: never one request too many on a server that counts arrivals, and hardly one too few."""

import json
import os
import random
import socketserver
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from klake.errors import BadRequest, LakeUnwritable
from klake.schemas.clock import ManualClock, SystemClock
from klake.schemas.quota import Quota
from klake.storage.quotas import SharedQuotas, quotas_path

START = datetime(2026, 11, 20, 8, tzinfo=UTC)
TEN_A_MINUTE = (Quota(10, 60.0),)
TWO_WINDOWS = (Quota(60, 30.0), Quota(10, 1.0))


class Crowd:
    """A clock shared by threads: when all of them wait, it jumps to the first who is to wake."""

    def __init__(self, threads: int) -> None:
        self._now, self._running = 0.0, threads
        self._sleepers: list[float] = []
        self._changed = threading.Condition()

    def now(self) -> datetime:
        return START + timedelta(seconds=self._now)

    def wait(self, seconds: float) -> None:
        with self._changed:
            wake = self._now + max(seconds, 0.0)
            self._sleepers.append(wake)
            self._running -= 1
            self._jump()
            self._changed.wait_for(lambda: self._now >= wake and wake not in self._sleepers)

    def leave(self) -> None:
        with self._changed:
            self._running -= 1
            self._jump()

    def _jump(self) -> None:
        if self._running or not self._sleepers:
            return
        self._now = max(self._now, min(self._sleepers))
        woken = [wake for wake in self._sleepers if wake <= self._now]
        self._sleepers = [wake for wake in self._sleepers if wake > self._now]
        self._running += len(woken)
        self._changed.notify_all()


def crowded(
    path: Path, quotas: tuple[Quota, ...], each: list[int], latency: Callable[[], tuple[float, float]]
) -> list[float]:
    """Let len(each) clients, each with its own handle, send so many requests; give the arrivals."""
    crowd, arrivals = Crowd(len(each)), list[float]()

    def client(requests: int) -> None:
        count = SharedQuotas(path, crowd)
        try:
            for _ in range(requests):
                slot = count.reserve("a", quotas)
                there, back = latency()
                crowd.wait(there)
                arrivals.append((crowd.now() - START).total_seconds())
                crowd.wait(back)
                count.settle(slot)
        finally:
            crowd.leave()
            count.close()

    threads = [threading.Thread(target=client, args=(n,)) for n in each]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(arrivals)


def violations(arrivals: list[float], quota: Quota) -> int:
    """Count the requests a strict server would refuse: its window holds both its ends."""
    pairs = zip(arrivals, arrivals[quota.n :], strict=False)
    return sum(later - earlier <= quota.window_s for earlier, later in pairs)


@settings(max_examples=25, deadline=None)
@given(
    quotas=st.lists(
        st.builds(Quota, st.integers(1, 12), st.sampled_from([0.5, 1.0, 5.0, 30.0, 60.0])),
        min_size=1,
        max_size=2,
    ),
    each=st.lists(st.integers(1, 15), min_size=1, max_size=4),
    seed=st.integers(0, 2**32),
)
def test_a_strict_server_never_refuses_whatever_the_windows_and_the_jitter(
    quotas: list[Quota], each: list[int], seed: int
) -> None:
    dice = random.Random(seed)

    with tempfile.TemporaryDirectory() as folder:
        arrivals = crowded(
            Path(folder) / "quotas.sqlite", tuple(quotas), each,
            lambda: (dice.uniform(0.0, 0.08), dice.uniform(0.0, 0.6)),
        )  # fmt: skip

    assert len(arrivals) == sum(each)
    assert [violations(arrivals, quota) for quota in quotas] == [0] * len(quotas)


@pytest.mark.parametrize("clients", [1, 3])
def test_hardly_any_of_the_allowance_is_left_unused(tmp_path: Path, clients: int) -> None:
    dice, requests = random.Random(7), 120

    arrivals = crowded(
        tmp_path / "quotas.sqlite", TEN_A_MINUTE, [requests // clients] * clients,
        lambda: (dice.uniform(0.02, 0.08), dice.uniform(0.02, 0.08)),
    )  # fmt: skip

    ideal = (requests / 10 - 1) * 60.0
    assert violations(arrivals, TEN_A_MINUTE[0]) == 0
    assert ideal / arrivals[-1] >= 0.99


def test_with_two_windows_both_hold_and_the_longer_one_sets_the_pace(tmp_path: Path) -> None:
    dice = random.Random(3)

    arrivals = crowded(
        tmp_path / "quotas.sqlite", TWO_WINDOWS, [100, 100],
        lambda: (dice.uniform(0.02, 0.08), dice.uniform(0.02, 0.08)),
    )  # fmt: skip

    assert [violations(arrivals, quota) for quota in TWO_WINDOWS] == [0, 0]
    assert arrivals[-1] <= 90 + 2.5 + 0.7


def test_more_waiters_than_slots_all_come_through(tmp_path: Path) -> None:
    quotas = (Quota(2, 10.0),)

    arrivals = crowded(tmp_path / "quotas.sqlite", quotas, [3] * 6, lambda: (0.03, 0.4))

    assert len(arrivals) == 18
    assert violations(arrivals, quotas[0]) == 0
    assert 80.0 / arrivals[-1] >= 0.95


def counted(
    tmp_path: Path, at: datetime = START
) -> tuple[SharedQuotas, ManualClock, list[tuple[float, str]]]:
    clock, waits = ManualClock(at), list[tuple[float, str]]()
    return (
        SharedQuotas(tmp_path / "quotas.sqlite", clock, lambda s, why: waits.append((s, why))),
        clock,
        waits,
    )


def test_the_eleventh_request_waits_one_window_after_the_first_reply_and_says_why(tmp_path: Path) -> None:
    count, clock, waits = counted(tmp_path)

    for _ in range(10):
        slot = count.reserve("a", TEN_A_MINUTE)
        clock.wait(0.5)
        count.settle(slot)
    assert waits == []
    count.reserve("a", TEN_A_MINUTE)

    assert clock.now() == START + timedelta(seconds=60.501)
    assert waits == [(55.501, "10 in 60 s")]


def test_accounts_do_not_share_their_windows_and_handles_do(tmp_path: Path) -> None:
    count, clock, _ = counted(tmp_path)
    other = SharedQuotas(tmp_path / "quotas.sqlite", clock)

    for _ in range(10):
        count.settle(count.reserve("a", TEN_A_MINUTE))
    other.reserve("b", TEN_A_MINUTE)
    unshared = clock.now()
    other.reserve("a", TEN_A_MINUTE)

    assert unshared == START
    assert clock.now() >= START + timedelta(seconds=60)


def test_a_slot_that_a_crashed_process_never_settled_is_free_after_its_timeout_and_one_window(
    tmp_path: Path,
) -> None:
    count, clock, waits = counted(tmp_path)
    one = (Quota(1, 10.0),)
    count.reserve("a", one)

    count.reserve("a", one)

    assert clock.now() == START + timedelta(seconds=70.001)
    assert len(waits) < 80  # it looks some times a window, not all the time


def test_when_the_vendor_asks_for_a_pause_nobody_sends_before_it_is_over(tmp_path: Path) -> None:
    count, clock, waits = counted(tmp_path)

    count.push_back("a", 90.0)
    count.push_back("a", 30.0)
    slot = count.reserve("a", TEN_A_MINUTE)

    assert slot.at == clock.now() == START + timedelta(seconds=90)
    assert waits == [(90.0, "the vendor asked for a pause")]


def test_a_pause_also_holds_those_who_already_wait(tmp_path: Path) -> None:
    clock, pushed = ManualClock(START), list[float]()

    def vendor_complains(seconds: float, _why: str) -> None:
        if not pushed:
            pushed.append(seconds)
            count.push_back("a", 300.0)

    count = SharedQuotas(tmp_path / "quotas.sqlite", clock, vendor_complains)
    count.settle(count.reserve("a", (Quota(1, 60.0),)))

    count.reserve("a", (Quota(1, 60.0),))

    assert clock.now() == START + timedelta(seconds=300)


def test_a_waiter_that_is_interrupted_gives_its_place_back(tmp_path: Path) -> None:
    class Stopped(ManualClock):
        told = False

        def now(self) -> datetime:
            if self.told:
                raise KeyboardInterrupt
            return super().now()

        def wait(self, seconds: float) -> None:
            self.told = True

    clock, one = Stopped(START), (Quota(1, 60.0),)
    count = SharedQuotas(tmp_path / "quotas.sqlite", clock)
    count.settle(count.reserve("a", one))
    with pytest.raises(KeyboardInterrupt):
        count.reserve("a", one)

    later = ManualClock(START)
    SharedQuotas(tmp_path / "quotas.sqlite", later).reserve("a", one)
    assert later.now() == START + timedelta(seconds=60.001)


def test_a_larger_plan_takes_effect_at_once(tmp_path: Path) -> None:
    count, clock, _ = counted(tmp_path)
    for _ in range(10):
        count.settle(count.reserve("a", TEN_A_MINUTE))

    for _ in range(5):
        count.settle(count.reserve("a", (Quota(15, 60.0),)))
    in_time = clock.now()
    count.reserve("a", (Quota(15, 60.0),))

    assert in_time == START
    assert clock.now() > START


def test_a_clock_that_was_set_back_hours_blocks_nobody(tmp_path: Path) -> None:
    ahead, _, _ = counted(tmp_path, START + timedelta(hours=5))
    for _ in range(10):
        ahead.settle(ahead.reserve("a", TEN_A_MINUTE))
    ahead.push_back("a", 30.0)

    count, clock, waits = counted(tmp_path)
    count.reserve("a", TEN_A_MINUTE)

    assert clock.now() == START
    assert waits == [(0.0, "the clock was set back: 10 slots of its future are dropped")]


@settings(max_examples=25, deadline=None)
@given(
    quotas=st.lists(
        st.builds(Quota, st.integers(1, 9), st.sampled_from([1.0, 7.0, 60.0])), min_size=1, max_size=2
    ),
    before=st.integers(0, 12),
    requests=st.integers(1, 40),
)
def test_the_forecast_is_what_happens_when_replies_come_at_once(
    quotas: list[Quota], before: int, requests: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        count, clock, _ = counted(Path(folder))
        for _ in range(before):
            count.settle(count.reserve("a", tuple(quotas)))

        foreseen = count.free_at("a", tuple(quotas), requests)
        for _ in range(requests):
            count.settle(count.reserve("a", tuple(quotas)))

    assert clock.now() == foreseen


def test_a_forecast_of_a_million_requests_is_quick_and_right(tmp_path: Path) -> None:
    count, _, _ = counted(tmp_path)

    began = time.process_time()
    foreseen = count.free_at("a", TEN_A_MINUTE, 1_000_000)

    assert time.process_time() - began < 0.5
    assert (foreseen - START).total_seconds() == pytest.approx(6_000_000, rel=1e-3)


def test_no_quota_means_no_wait(tmp_path: Path) -> None:
    count, clock, waits = counted(tmp_path)

    for _ in range(100):
        count.reserve("a", ())

    assert (clock.now(), waits, count.free_at("a", (), 5)) == (START, [], START)


def test_a_quota_that_lets_nothing_through_is_refused(tmp_path: Path) -> None:
    count, _, _ = counted(tmp_path)

    with pytest.raises(BadRequest, match="at least one request"):
        count.reserve("a", (Quota(0, 60.0),))


def test_the_symbols_of_a_month_are_counted_once_each_and_anew_in_the_next(tmp_path: Path) -> None:
    count, clock, _ = counted(tmp_path)
    month = Quota(3, 0.0, "month-symbols")

    first = count.take_symbols("a", month, ["AAPL.US", "BRK.B.US", "AAPL.US"])
    second = count.take_symbols("a", month, ["00700.HK", "AAPL.US", "600519.SH"])
    left = count.symbols_left("a", month), count.symbols_left("b", month)
    clock.wait(11 * 86400)

    assert first == ("AAPL.US", "BRK.B.US")
    assert second == ("00700.HK", "AAPL.US")
    assert left == (0, 3)
    assert count.symbols_left("a", month) == 3
    count.reserve("a", (month,))


def test_a_damaged_file_is_set_aside_and_counting_begins_anew(tmp_path: Path) -> None:
    (tmp_path / "quotas.sqlite").write_bytes(b"not a database at all, but long enough" * 100)

    count, _, _ = counted(tmp_path)
    count.settle(count.reserve("a", TEN_A_MINUTE))

    assert count.broken == tmp_path / "quotas.sqlite.broken-1"
    assert count.broken.read_bytes().startswith(b"not a database")


def test_a_place_that_cannot_be_written_is_named_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(LakeUnwritable, match="KLAKE_STATE"):
        SharedQuotas(tmp_path / "file" / "quotas.sqlite", ManualClock(START))


def test_the_count_lies_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KLAKE_STATE", str(tmp_path / "state"))

    path = quotas_path()

    assert path == tmp_path / "state" / "quotas.sqlite"
    SharedQuotas(path, ManualClock(START)).close()


def test_where_no_state_folder_can_be_made_a_private_temporary_one_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("KLAKE_STATE", str(tmp_path / "file" / "below"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file" / "below"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    first, second = quotas_path(), quotas_path()

    assert first == second
    assert first.parent.parent == tmp_path
    if os.name == "posix":
        assert first.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.name != "posix", reason="shared temporary folders are a POSIX trap")
@pytest.mark.parametrize("planted", ["a link", "another's folder"])
def test_a_temporary_folder_that_somebody_planted_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, planted: str
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "elsewhere").mkdir()
    if planted == "a link":
        (tmp_path / f"klake-{os.getuid()}").symlink_to(tmp_path / "elsewhere")
    elif os.getuid() == 0:
        (tmp_path / f"klake-{os.getuid()}").mkdir()
        os.chown(tmp_path / f"klake-{os.getuid()}", 12345, -1)
    else:
        pytest.skip("only root can give a folder away")
    monkeypatch.setenv("KLAKE_STATE", str(tmp_path / "file" / "below"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file" / "below"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    path = quotas_path()

    assert path.parent.parent == tmp_path
    assert path.parent.name.startswith(f"klake-{os.getuid()}-")


@pytest.mark.skipif(os.name != "posix", reason="uses an empty environment")
def test_an_empty_environment_is_enough(tmp_path: Path) -> None:
    code = "from klake.storage.quotas import quotas_path; print(quotas_path().is_absolute())"

    done = subprocess.run(
        [sys.executable, "-c", code], env={}, cwd=tmp_path, capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "True"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="Windows asks the system, not the environment")
def test_a_home_that_is_no_absolute_path_makes_no_folder_where_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "nowhere")
    for name in ("KLAKE_STATE", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)

    path = quotas_path()

    assert path.is_absolute()
    assert not (tmp_path / "nowhere").exists()


def test_processes_that_take_symbols_at_once_never_take_more_than_the_allowance(tmp_path: Path) -> None:
    clock, month = ManualClock(START), Quota(25, 0.0, "month-symbols")

    def take(client: int) -> int:
        count = SharedQuotas(tmp_path / "quotas.sqlite", clock)
        return sum(len(count.take_symbols("a", month, [f"{client}{n:04d}.SH"])) for n in range(10))

    with ThreadPoolExecutor(6) as pool:
        taken = sum(pool.map(take, range(6)))

    assert taken == 25


CLIENT = """
import json, socket, sys
from pathlib import Path
from klake.schemas.clock import SystemClock
from klake.schemas.quota import Quota
from klake.storage.quotas import SharedQuotas

path, port, until, seed = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
clock, sent = SystemClock(), 0
count = SharedQuotas(path, clock)
quotas = (Quota(10, 1.0),)
while clock.now().timestamp() < until:
    slot = count.reserve("a", quotas)
    with socket.create_connection(("127.0.0.1", port)) as line:
        clock.wait((seed * 7919 + sent * 104729) % 20 / 1000)
        line.sendall(b"x")
        line.recv(1)
    count.settle(slot)
    sent += 1
print(json.dumps(sent))
"""


def test_three_processes_together_never_send_one_request_too_many(tmp_path: Path) -> None:
    arrivals: list[float] = []

    class Vendor(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(1)
            arrivals.append(time.monotonic())
            self.request.sendall(b"y")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Vendor) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        until = SystemClock().now().timestamp() + 3.5
        args = [str(tmp_path / "quotas.sqlite"), str(server.server_address[1]), str(until)]
        clients = [
            subprocess.Popen([sys.executable, "-c", CLIENT, *args, str(seed)], stdout=subprocess.PIPE)
            for seed in range(3)
        ]
        sent = sum(json.loads(client.communicate()[0]) for client in clients)
        server.shutdown()

    assert sent == len(arrivals) >= 20
    assert violations(sorted(arrivals), Quota(10, 1.0)) == 0


def test_a_power_cut_in_a_write_leaves_the_count_as_it_was(tmp_path: Path) -> None:
    count, clock, _ = counted(tmp_path)
    count.settle(count.reserve("a", (Quota(1, 60.0),)))
    half = sqlite3.connect(tmp_path / "quotas.sqlite", isolation_level=None)
    half.execute("BEGIN IMMEDIATE")
    half.execute("DELETE FROM slots")

    half.close()
    count.reserve("a", (Quota(1, 60.0),))

    assert clock.now() > START + timedelta(seconds=60)
