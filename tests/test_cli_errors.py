"""Whatever goes wrong is one sentence and an exit code, and nothing is lost by it."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from stand import Stand, signals_as_usual
from verbs import Klake

from klake.cli import app
from klake.cli.app import run

JOB = '[jobs.daily]\nvendor = "qos"\nsymbols = ["600519.SH"]\nfreq = ["1d"]\nstart = "2026-11-02"\n'


def _ad_hoc(symbols: str = "600519.SH", freq: str = "1d", *more: str) -> list[str]:
    return ["sync", "--vendor", "qos", "--symbols", symbols, "--freq", freq, "--start", "2026-11-02", *more]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (_ad_hoc("XYZ"), ["XYZ", "CODE.VENUE"]),
        (_ad_hoc("CON"), ["CON", "CODE.VENUE"]),
        (_ad_hoc("../../x"), ["../../x", "CODE.VENUE"]),
        (_ad_hoc("../../x.SH"), ["../../x.SH", "six digits"]),
        (_ad_hoc("600519.XX"), ["600519.XX"]),
        (_ad_hoc("000001"), ["000001.SH, 000001.SZ"]),
        (_ad_hoc("600519.SH", "1M"), ["1M", "1mo for a month"]),
        (_ad_hoc("600519.SH", "7m"), ["7m", "1m, 3m"]),
        (_ad_hoc("600519.SH", "1d", "--end", "2026-10-01"), ["2026-10-01", "before start"]),
        (_ad_hoc("600519.SH", "1d", "--end", "yesterday"), ["yesterday", "2024-01-02"]),
        (["sync", "--vendor", "nobody", "--symbols", "AAPL.US"], ["nobody", "qos"]),
        (["sync", "--vendor", "qos", "--universe", "all"], ["all"]),
        (["sync", "--vendor", "qos"], ["symbols"]),
        (["plan", "--job", "nightly"], ["nightly", "daily"]),
        (["plan", "--job", "daily", "--freq", "1m"], ["--job", "--freq"]),
        (["sync", "--frequency", "1d"], ["--frequency", "klake sync --help"]),
        (["synch"], ["synch", "sync"]),
        (["sandbox"], []),
        (["sandbox", "run", "--clock", "noon"], ["noon", "2026-11-20T08:00:00Z"]),
        (["sandbox", "run", "--vendors", "reuters"], ["reuters", "qos"]),
        (["init", "--sandbox", "http://127.0.0.1:9"], ["127.0.0.1:9"]),
        (["vendors", "probe", "nobody"], ["nobody", "qos"]),
    ],
    ids=lambda value: " ".join(value)[-40:] if isinstance(value, list) else "",
)
def test_wrong_use_is_one_sentence_and_exit_2(
    klake: Klake, stand: Stand, line: list[str], words: list[str]
) -> None:
    said = klake(*line)

    assert said.code == (1 if "http" in line[-1] else 2)
    assert all(word in said.sentence for word in words) if words else "Usage" in said.err
    assert said.out == "" and stand.requests() == []


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["bars", "AAPL.US", "1d"], ["AAPL.US", "holds no 1d"]),
        (["bars", "600519.SH", "1M"], ["1mo"]),
        (["bars", "600519.SH", "--start", "2026-11-09", "--end", "2026-11-02"], ["before start"]),
        (["bars", "600519.SH", "--format", "xlsx"], ["xlsx", "table, csv, json, parquet"]),
        (["bars", "600519.SH", "-o", "no/such/folder/x.csv"], ["x.csv", "cannot be written"]),
        (["bars", "600519.SH", "--state", "done"], ["done", "final"]),
        (["sql", "SELEC 1"], ["syntax error"]),
        (["sql", "SELECT * FROM nothing"], ["nothing"]),
        (["import", "no-such-file.csv", "--freq", "1M"], ["1mo"]),
        (["import", "x.csv", "--zone", "UTC"], ["--freq"]),
        (["import", "x.csv", "--freq", "1d", "--columns", "price=x"], ["price"]),
        (["import", "x.csv", "--as", "xls"], ["xls", "csv"]),
    ],
    ids=lambda value: " ".join(value)[-40:] if isinstance(value, list) else "",
)
def test_wrong_questions_are_one_sentence_and_exit_2(klake: Klake, line: list[str], words: list[str]) -> None:
    klake("sync")

    said = klake(*line)

    assert said.code == 2
    assert all(word in said.sentence for word in words)
    assert said.out == ""


def test_a_configuration_with_a_wrong_key_is_named_to_the_key(klake: Klake, stand: Stand) -> None:
    for text, words in (
        ('[lake]\npth = "x"\n', ["lake.pth", "known here: path"]),
        ("[lake\n", ["not valid TOML"]),
        (
            '[jobs.a]\nvendor = "b"\nsymbols = ["AAPL.US"]\nfreq = ["1d"]\nstart = "2026-01-01"\n',
            ["jobs.a.vendor"],
        ),
        ('[vendors.qos]\nkind = "qos"\nkey = "k"\nspeed = 9\n', ["vendors.qos.speed"]),
        ('[vendors.qos]\nkind = "reuters"\n', ["reuters", "qos"]),
    ):
        stand.config.write_text(text, encoding="utf-8")

        said = klake("vendors", "probe", "qos")

        assert said.code == 2, text
        assert str(stand.config) in said.sentence
        assert all(word in said.sentence for word in words), said.sentence


def test_a_configuration_that_is_not_there_is_exit_2(klake: Klake, tmp_path: Path) -> None:
    said = klake("plan", config=tmp_path / "none.toml")

    assert said.code == 2 and "there is no such file" in said.sentence


def test_no_key_and_an_expired_key_are_exit_2(klake: Klake, stand: Stand) -> None:
    text = stand.config.read_text(encoding="utf-8")
    stand.config.write_text(text.replace('key = "', 'key = "env:NOT_SET_KEY" # "'), encoding="utf-8")
    none = klake("sync")
    stand.key = "expired"
    stand.write()
    expired = klake("sync")

    assert none.code == 2 and "NOT_SET_KEY is not set" in none.sentence
    assert expired.code == 2 and "Key expired." in expired.sentence
    assert stand.sandbox.secrets["qos"]["expired"] not in expired.err + expired.out


def test_a_vendor_that_is_down_is_exit_1_and_the_next_run_goes_on(klake: Klake, stand: Stand) -> None:
    good = stand.config.read_text(encoding="utf-8")
    stand.config.write_text(good.replace(stand.sandbox.qos_url, "http://127.0.0.1:9"), encoding="utf-8")

    down = klake("sync", "--json")
    stand.config.write_text(good, encoding="utf-8")
    up = klake("sync")

    assert down.code == 1 and json.loads(down.out)["error"] and "stopped early" in down.err
    assert up.code == 0 and "holes left: 0" in up.err


def test_a_sandbox_that_has_gone_is_exit_1(klake: Klake, stand: Stand) -> None:
    stand.sandbox.close()

    said = klake("sync")

    assert said.code == 1 and "klake sandbox run" in said.sentence


def test_a_lake_of_a_newer_format_is_left_alone(klake: Klake, stand: Stand) -> None:
    klake("sync")
    marker = stand.folder / "lake" / "klake-lake.json"
    marker.write_text(json.dumps({**json.loads(marker.read_text()), "format": 99}))
    before = _files(stand)

    for line in (["sync"], ["sql", "SELECT 1"], ["bars", "600519.SH"], ["status"]):
        said = klake(*line)

        assert said.code == 2 and "upgrade klake" in said.sentence
    assert klake("doctor").code == 1
    assert _files(stand) == before


def _files(stand: Stand) -> dict[Path, int]:
    """Every file of the lake with its time; SQLite's own side files come and go with connections."""
    every = (stand.folder / "lake").rglob("*")
    return {p: p.stat().st_mtime_ns for p in every if p.is_file() and "_state" not in p.parts}


def test_a_place_that_cannot_be_written_is_exit_1(
    klake: Klake, stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    (stand.folder / "file").write_text("")
    monkeypatch.setenv("KLAKE_LAKE__PATH", str(stand.folder / "file" / "lake"))

    synced, made = klake("sync"), klake("init", str(stand.folder / "file" / "x"))

    assert synced.code == made.code == 1
    assert "cannot be written" in synced.sentence and "cannot be written" in made.sentence
    assert stand.requests() == []


@pytest.mark.skipif(
    os.name != "posix" or not shutil.which("setpriv"), reason="needs setpriv to be somebody else"
)
def test_a_folder_without_permission_is_exit_1(stand: Stand) -> None:
    stand.jobs = JOB
    stand.write()
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to others
        place = Path(folder)
        place.chmod(0o755)
        (place / "locked").mkdir(mode=0o555)
        (place / "state").mkdir()
        (place / "state").chmod(0o777)
        shutil.copy(stand.config, place / "klake.toml")
        other = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] if os.geteuid() == 0 else []
        environment = {
            **os.environ,
            "KLAKE_LAKE__PATH": str(place / "locked" / "lake"),
            "KLAKE_STATE": str(place / "state"),
        }

        said = subprocess.run(
            [*other, sys.executable, "-m", "klake", "sync"],
            check=False,
            cwd=place,
            env=environment,
            capture_output=True,
            text=True,
        )

    assert said.returncode == 1
    assert "cannot be written" in said.stderr and "Traceback" not in said.stderr


def test_no_lake_yet_says_how_to_make_one(klake: Klake) -> None:
    for line in (["sql", "SELECT 1"], ["bars", "AAPL.US"], ["status"], ["views"], ["shell"]):
        said = klake(*line)

        assert said.code == 1 and "no lake here" in said.sentence


def test_a_sandbox_key_never_meets_a_real_lake(klake: Klake, stand: Stand, tmp_path: Path) -> None:
    text = stand.config.read_text(encoding="utf-8")
    real = tmp_path / "real.toml"
    real.write_text(
        text.replace(f'[sandbox]\ncontrol = "{stand.sandbox.control_url}"\n', ""), encoding="utf-8"
    )

    sandbox_key = klake("sync", config=real)
    run(["init", str(tmp_path / "mine")])
    stand.extra = ""
    stand.config.write_text(text.replace('path = "lake"', 'path = "mine/data/lake"'), encoding="utf-8")
    real_lake = klake("sync")

    assert sandbox_key.code == real_lake.code == 2
    assert "sandbox" in sandbox_key.sentence and "holds real bars" in real_lake.sentence
    assert stand.requests() == []


def test_a_csv_with_a_broken_row_loses_that_row_only(klake: Klake, tmp_path: Path) -> None:
    file = tmp_path / "some.csv"
    file.write_text(
        "date,open,high,low,close,volume\n2024-01-02,1,2,1,2,5\n2024-01-03,x,y\n2024-01-04,5,4,6,5,5\n2024-01-05,2,3,2,3,6\n",
        encoding="utf-8",
    )

    said = klake("import", str(file), "--freq", "1d", "--symbol", "600519.SH", "--json")

    report = json.loads(said.out)
    assert said.code == 1
    assert report["written"]["new"] == 2
    assert (report["files"][0]["broken"], report["files"][0]["rejected"]) == (1, 1)
    assert "line 3" in said.err


def test_errors_come_in_chinese_where_wanted(klake: Klake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KLAKE_LANG", "zh_CN")

    said = klake(*_ad_hoc("600519.SH", "1M"))

    assert "月线请写 1mo" in said.sentence


def test_a_bug_is_one_sentence_and_a_traceback_only_on_request(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_argv: list[str]) -> int:
        raise ZeroDivisionError("by\nzero")

    monkeypatch.setattr("klake.cli.tree.invoke", broken)
    code = app.run(["status"])
    quiet = capsys.readouterr().err
    monkeypatch.setenv("KLAKE_DEBUG", "1")
    app.run(["status"])
    loud = capsys.readouterr().err

    assert code == 1
    assert quiet.count("\n") == 1 and "ZeroDivisionError: by (this is a bug in klake" in quiet
    assert "Traceback" in loud


@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX's")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_is_exit_3_and_the_next_one_goes_on(
    klake: Klake, stand: Stand, number: signal.Signals
) -> None:
    stand.control("POST", "/clock", {"rate": 1})
    stand.control("POST", "/faults", {"keys": {"default": {"quotas": [[1, 60]]}}})
    stand.vendor = 'quota = [[1, "60s"]]\nproducts = 1'
    stand.write()
    line = [
        sys.executable,
        "-m",
        "klake",
        "--config",
        str(stand.config),
        *_ad_hoc("600519.SH,00700.HK,AAPL.US"),
    ]

    with subprocess.Popen(line, stderr=subprocess.PIPE, text=True, preexec_fn=signals_as_usual) as process:  # noqa: PLW1509  # it only resets signals
        end = time.monotonic() + 60
        while not stand.requests("/kline", "/history", "/snapshot") and time.monotonic() < end:
            stand.sandbox.clock.advance(0)
        process.send_signal(number)
        told = process.communicate(timeout=30)[1]
    stand.control("POST", "/clock", {"rate": 0})
    again = klake(*_ad_hoc("600519.SH,00700.HK,AAPL.US"))

    assert process.returncode == 3
    assert "Traceback" not in told
    assert told.splitlines()[-1].startswith(
        "klake: interrupted: nothing received is lost; run `klake --config"
    )
    assert again.code == 0 and "holes left: 0" in again.err


@pytest.mark.proof
@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX's")
def test_a_run_may_be_stopped_at_any_moment(klake: Klake, stand: Stand) -> None:
    stand.control("POST", "/clock", {"rate": 1})
    line = [
        sys.executable,
        "-m",
        "klake",
        "--config",
        str(stand.config),
        *_ad_hoc("600519.SH,AAPL.US", "1d,1m"),
    ]
    codes = list[int]()

    for step in range(40):
        with subprocess.Popen(
            line,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=signals_as_usual,  # noqa: PLW1509  # only resets signals
        ) as process:
            assert process.stderr is not None
            said = process.stderr.readline()  # SANDBOX: the verb has begun
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(step * 0.05)
            process.send_signal(signal.SIGINT if step % 2 else signal.SIGTERM)
            said += process.stderr.read()
        assert process.returncode in {0, 3} and "Traceback" not in said, said
        codes.append(process.returncode)
        if step % 10 == 9:
            shutil.rmtree(stand.folder / "lake", ignore_errors=True)
    stand.control("POST", "/clock", {"rate": 0})

    assert 3 in codes
    assert klake(*_ad_hoc("600519.SH,AAPL.US", "1d,1m")).code == 0
