"""The MultiMarkets stand-in, driven by a bare WebSocket client that knows nothing of klake's."""

import json
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, date, datetime
from typing import Any

import httpx
import pytest
from stand import signals_as_usual
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from klake.sandbox.server import Sandbox
from klake.schemas.freq import Freq

NOW = datetime(2026, 11, 20, 7, 30, tzinfo=UTC)


@pytest.fixture(scope="module")
def running() -> Iterator[Sandbox]:
    with Sandbox(clock_start=NOW, rate=0, vendors=("multimarkets",)) as sandbox:
        yield sandbox


@pytest.fixture
def box(running: Sandbox) -> Sandbox:
    httpx.post(f"{running.control_url}/reset", trust_env=False)
    running.clock.put(NOW)
    return running


Ask = Callable[..., Any]


@pytest.fixture
def stock(box: Sandbox) -> Iterator[ClientConnection]:
    with line(box, "quote_stock") as connection:
        yield connection


def line(box: Sandbox, path: str, token: str | None = None) -> ClientConnection:
    token = box.secrets["multimarkets"]["default"] if token is None else token
    query = f"?token={token}" if token else ""
    return connect(f"{box.urls['multimarkets']}/{path}{query}", proxy=None)


def turn(box: Sandbox, **switches: Any) -> None:
    with httpx.Client(trust_env=False) as client:
        client.post(f"{box.control_url}/faults", json={"multimarkets": switches}).raise_for_status()


def say(connection: ClientConnection, cmd: int, data: Any = None, number: int = 1, **more: Any) -> None:
    connection.send(
        json.dumps({"cmd_id": cmd, "seq_id": number, "ext": "trace-1", "data": data or {}, **more})
    )


def hear(connection: ClientConnection, timeout: float = 5) -> Any:
    """Return the next reply; pushes are texts."""
    frame = connection.recv(timeout)
    text = zlib.decompress(frame).decode() if isinstance(frame, bytes) else frame
    return json.loads(text) if text.startswith("{") else text


def ids(box: Sandbox, symbol: str) -> dict[str, int]:
    return dict(zip(("symbol_id", "trade_type", "trade_mode"), box.multimarkets.ids(symbol), strict=True))


def kline(
    box: Sandbox,
    connection: ClientConnection,
    symbol: str = "600519.SH",
    kind: int = 8,
    end: int = 0,
    n: int = 3,
) -> Any:
    say(
        connection,
        14012,
        {**ids(box, symbol), "kline_type": kind, "kline_timestamp_end": end, "query_kline_num": n},
    )
    return hear(connection)


def test_a_reply_has_the_fields_and_types_of_the_page(box: Sandbox, stock: ClientConnection) -> None:
    say(stock, 14012, {**ids(box, "600519.SH"), "kline_type": 8, "query_kline_num": 2}, number=77)
    frame = stock.recv(5)

    assert isinstance(frame, bytes) and frame[0] == 0x78
    told = json.loads(zlib.decompress(frame))
    assert {k: told[k] for k in ("ret", "msg", "cmd_id", "seq_id", "ext")} == {
        "ret": 200, "msg": "ok", "cmd_id": 14013, "seq_id": 77, "ext": "trace-1",
    }  # fmt: skip
    bar = told["data"]["kline_list"][-1]
    assert {name: type(value) for name, value in bar.items()} == {
        "timestamp": int, "last_tick_time": int, "last_tick_seq": int,
        **dict.fromkeys(("open_price", "close_price", "high_price", "low_price", "transactions_number"), str),
    }  # fmt: skip
    assert len(str(bar["last_tick_time"])) == 16  # as the printed sample has it
    truth = box.market.truth("600519.SH", Freq.D1, date(2026, 11, 20), date(2026, 11, 20), NOW).to_pylist()[0]
    assert (float(bar["close_price"]), float(bar["transactions_number"])) == (truth["close"], truth["volume"])


@pytest.mark.parametrize(
    ("message", "ret"),
    [
        ({"cmd_id": 14012, "seq_id": 1, "ext": ""}, 400), ({"cmd_id": 14012, "seq_id": 1, "ext": "x" * 65, "data": {}}, 400),
        ({"cmd_id": 99, "seq_id": 1, "data": {}}, 400), ({"cmd_id": 14014, "seq_id": 1, "data": {"data_list": []}}, 400),
        ([1], 400), ("no json at all", 400), ({"cmd_id": 14012, "seq_id": 1, "data": {"symbol_id": "x"}}, 400),
    ],
)  # fmt: skip
@pytest.mark.parametrize("named", [True, False])
def test_a_message_that_makes_no_sense_gets_a_400_named_or_not(
    box: Sandbox, stock: ClientConnection, message: Any, ret: int, named: bool
) -> None:
    turn(box, errors_named=named, errors_packed=False)

    stock.send(message if isinstance(message, str) else json.dumps(message))

    told = hear(stock)
    assert told["ret"] == ret
    assert named or (told["cmd_id"], told["seq_id"], told["ext"]) == (0, 0, "")


@pytest.mark.parametrize(
    ("changes", "ret"),
    [
        ({"query_kline_num": 0}, 400),
        ({"kline_type": 11}, 400),
        ({"symbol_id": 1}, 600),
        ({"trade_type": 5}, 600),
        ({"trade_mode": 9}, 600),
    ],
)
def test_a_question_without_an_answer_gets_an_error(
    box: Sandbox, stock: ClientConnection, changes: Any, ret: int
) -> None:
    say(stock, 14012, {**ids(box, "600519.SH"), "kline_type": 8, "query_kline_num": 2, **changes})

    assert hear(stock)["ret"] == ret


def test_each_address_knows_its_own_products(box: Sandbox, stock: ClientConnection) -> None:
    assert kline(box, stock, "BTCUSDT.P.QOS")["ret"] == 603
    with line(box, "quote_guest", "") as guest:
        assert kline(box, guest, "BTCUSDT.P.QOS")["ret"] == 200
        assert kline(box, guest, "600519.SH")["ret"] == 603


def test_the_end_is_inclusive_exclusive_or_ignored(box: Sandbox, stock: ClientConnection) -> None:
    def stamps(**ask: Any) -> list[int]:
        return [bar["timestamp"] for bar in kline(box, stock, **ask)["data"]["kline_list"]]

    newest = stamps(n=5)
    got: dict[str, Any] = {}
    for way in ("inclusive", "exclusive", "ignored", "ignored_for_stocks"):
        turn(box, end=way)
        got[way] = stamps(end=newest[2], n=2)

    assert got == {
        "inclusive": newest[1:3],
        "exclusive": newest[0:2],
        "ignored": newest[3:],
        "ignored_for_stocks": newest[3:],
    }
    assert stamps(end=newest[2] * 1000, n=2) == newest[3:]  # milliseconds lie in the far future


def test_a_page_is_cut_in_silence_and_may_come_in_any_order(box: Sandbox, stock: ClientConnection) -> None:
    def stamps() -> list[int]:
        return [bar["timestamp"] for bar in kline(box, stock, n=1000)["data"]["kline_list"]]

    plain = stamps()
    turn(box, order="rotated")
    rotated = stamps()

    assert len(plain) == 500 and plain == sorted(plain)
    assert rotated == [*plain[-2:], *plain]


def test_a_subscription_is_replaced_and_tells_what_moves(box: Sandbox, stock: ClientConnection) -> None:
    box.clock.put(datetime(2026, 11, 20, 3, 0, tzinfo=UTC))
    first, second = ids(box, "600519.SH"), ids(box, "000001.SZ")
    say(stock, 14000, {"symbol_list": [first]})
    told = hear(stock)
    assert told["cmd_id"] == 14001 and told["data"]["tick_list"][0]["symbol_id"] == first["symbol_id"]
    assert hear(stock).startswith(f"p({first['symbol_id']},6,1,")

    say(stock, 14000, {"symbol_list": [second]})
    answered(stock)
    assert hear(stock).startswith(f"p({second['symbol_id']},")
    box.clock.advance(60)
    moved = hear(stock)

    assert moved.startswith(f"p({second['symbol_id']},") and moved.endswith(");")
    say(stock, 14006, {"cancel_type": 1})
    answered(stock)
    box.clock.advance(60)
    with pytest.raises(TimeoutError):
        stock.recv(0.3)


def answered(connection: ClientConnection) -> Any:
    """Return the next reply, pushes before it passed over."""
    while not isinstance(told := hear(connection), dict):
        pass
    return told


def test_two_pushes_may_be_glued_into_one_frame(box: Sandbox, stock: ClientConnection) -> None:
    turn(box, glued=True)
    say(stock, 14000, {"symbol_list": [ids(box, "600519.SH"), ids(box, "000001.SZ")]})
    hear(stock)

    assert hear(stock).count("p(") == 2


def test_a_batch_is_off_unless_the_operator_has_it(box: Sandbox, stock: ClientConnection) -> None:
    rows = [
        {**ids(box, s), "kline_type": 8, "kline_timestamp_end": 0, "query_kline_num": 5}
        for s in ("600519.SH", "00700.HK")
    ]
    say(stock, 14014, {"data_list": rows})
    assert hear(stock)["ret"] == 400

    for way, count in (("on", 5), ("newest", 2)):
        turn(box, batch=way)
        say(stock, 14014, {"data_list": rows})
        told = hear(stock)
        assert told["cmd_id"] == 14015
        assert [len(one["kline_list"]) for one in told["data"]["data_list"]] == [count, count]


def test_silence_ends_a_connection_and_a_heartbeat_does_not(box: Sandbox, stock: ClientConnection) -> None:
    turn(box, silence_s=0.4)
    say(stock, 14008, number=5)
    assert hear(stock)["cmd_id"] == 14009

    with pytest.raises(ConnectionClosed, match="no heartbeat"):
        hear(stock)


def test_of_too_many_connections_the_oldest_is_cut(box: Sandbox, stock: ClientConnection) -> None:
    with line(box, "quote") as second:
        with pytest.raises(ConnectionClosed):
            hear(stock)
        assert kline(box, second, "BTCUSDT.P.QOS")["ret"] == 200


@pytest.mark.parametrize("way", ["http_401", "ret_401", "close"])
def test_a_false_token_is_turned_away(box: Sandbox, way: str) -> None:
    turn(box, bad_token=way)

    with suppress(ConnectionClosed):
        try:
            with line(box, "quote", "sandbox-wrong") as connection:
                say(connection, 14008)
                assert hear(connection)["ret"] == 401 and way == "ret_401"
        except InvalidStatus as error:
            assert error.response.status_code == 401 and way == "http_401"


def test_a_switch_that_does_not_exist_is_refused(box: Sandbox) -> None:
    with httpx.Client(trust_env=False) as client:
        for wrong in ({"odder": 1}, {"order": "sideways"}):
            reply = client.post(f"{box.control_url}/faults", json={"multimarkets": wrong})
            assert reply.status_code == 400 and "one of" in reply.json()["error"]
        assert client.get(f"{box.control_url}/faults").json()["multimarkets"]["order"] == "ascending"


def test_ids_are_the_operator_s_own_and_wider_than_a_float(box: Sandbox) -> None:
    with Sandbox(seed=2, instruments=5, vendors=("multimarkets",)) as other:
        assert other.multimarkets.ids("600519.SH") != box.multimarkets.ids("600519.SH")
    assert max(i for i, _, _ in (box.multimarkets.ids(s) for s in box.market.instruments)) > 2**53


def test_it_runs_in_a_process_of_its_own() -> None:
    run = [sys.executable, "-m", "klake", "sandbox", "run", "--vendors", "multimarkets", "--instruments", "5"]
    with subprocess.Popen(
        run,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=signals_as_usual,  # noqa: PLW1509  # only resets signals
    ) as process:
        assert process.stdout is not None
        about = json.loads(process.stdout.readline())
        url, token = about["multimarkets"], about["secrets"]["multimarkets"]["default"]

        with connect(f"{url}/quote_stock?token={token}", proxy=None) as connection:
            say(connection, 14008)
            told = hear(connection)
        process.terminate()
        _, said = process.communicate(timeout=20)

    assert told["cmd_id"] == 14009 and "Traceback" not in said
    assert set(about) >= {"multimarkets", "multimarkets_products", "control"} and "qos" not in about
