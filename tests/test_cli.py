"""Every verb, as a person types it: data on stdout, talk on stderr, one JSON document with --json."""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from stand import Stand
from verbs import Klake

from klake.cli.app import run

JOB = """
[universe.few]
symbols = ["600519.SH", "00700.HK", "AAPL.US"]
[jobs.daily]
vendor = "qos"
universe = "few"
freq = ["1d"]
start = "2026-10-01"
"""
AD_HOC = ("--vendor", "qos", "--symbols", "CON.US", "--freq", "1d", "--start", "2026-11-02")
COMMAND = [sys.executable, "-m", "klake"]
ROOT = Path(__file__).parents[1]


def test_plan_says_what_sync_then_sends(klake: Klake, stand: Stand) -> None:
    planned = klake("plan", "--json")

    synced = klake("sync", "--json")

    assert planned.code == synced.code == 0
    assert planned.json["requests"] == planned.json["fewest"] == synced.json["requests_sent"] == 1
    assert len(stand.requests("/history", "/kline")) == 1
    assert planned.json["sandbox"] is synced.json["sandbox"] is True


def test_a_second_sync_sends_nothing_and_says_so(klake: Klake, stand: Stand) -> None:
    first = klake("sync")

    second = klake("sync")

    assert first.code == second.code == 0
    assert "new bars, 1 request" in first.err and "holes left: 0" in first.err
    assert "nothing new, 0 requests" in second.err
    assert first.out == second.out == ""


def test_work_is_named_by_a_job_or_ad_hoc(klake: Klake) -> None:
    by_name, ad_hoc = klake("plan", "--job", "daily", "--json"), klake("plan", *AD_HOC, "--json")
    by_universe = klake("plan", "--vendor", "qos", "--universe", "few", "--freq", "1w", "--json")

    assert {w["symbol"] for w in by_name.json["wants"]} == {"600519.SH", "00700.HK", "AAPL.US"}
    assert [w["symbol"] for w in ad_hoc.json["wants"]] == ["CON.US"]
    assert {w["freq"] for w in by_universe.json["wants"]} == {"1w"}


def test_every_verb_says_sandbox_and_quiet_silences_it(klake: Klake) -> None:
    klake("sync", *AD_HOC)
    lines = [
        ("plan",), ("sync",), ("status",), ("sql", "SELECT 1"), ("bars", "CON.US"), ("views",), ("vendors",),
        ("symbols", "find", "CON.US"), ("doctor",),
    ]  # fmt: skip

    for line in lines:
        said, quiet = klake(*line), klake("--quiet", *line)

        assert "SANDBOX" in said.err, line
        assert quiet.err == "", line


def test_status_balances_and_names_what_is_unverified(klake: Klake) -> None:
    klake("sync")

    said, plain = klake("status", "--json"), klake("status")

    shelf = said.json["shelves"][0]
    assert shelf["expected"] == shelf["stored"] + sum(shelf["empty"].values()) + shelf["missing"]
    assert shelf["missing"] == said.json["missing"] == 0
    assert shelf["freshness"] == {"current": 3, "behind": 0, "worst_sessions": 0}
    assert shelf["newest"] == "2026-11-20" and said.json["size_bytes"] > 10_000
    assert "end_inclusive" in said.json["unverified"][0]["fields"]
    assert said.json["runs"][0]["job"] == "daily" and said.json["runs"][0]["exit_code"] == 0
    assert "up to date" in plain.out and "unverified" in plain.out


def test_status_tells_how_far_behind_a_lake_is(klake: Klake, stand: Stand) -> None:
    klake("sync")
    stand.advance(5 * 86_400)  # Wednesday 08:30 UTC: Friday in New York, then Monday and Tuesday

    said = klake("status", "--json").json["shelves"][0]

    assert said["freshness"]["behind"] == 3 and said["freshness"]["worst_sessions"] == 3
    assert said["missing"] > 0


def test_status_works_after_its_sandbox_has_gone(klake: Klake, stand: Stand) -> None:
    klake("sync")
    stand.sandbox.close()

    said = klake("status", "--json")

    assert said.code == 0
    assert "does not answer" in said.json["clock"] and said.json["shelves"][0]["bars"] > 0


def test_parked_symbols_are_told_with_their_reason(klake: Klake) -> None:
    synced = klake(
        "sync", "--vendor", "qos", "--symbols", "CON.US,ZZZZ.US", "--freq", "1d", "--start", "2026-11-02"
    )

    said = klake("status", "--json")

    assert synced.code == 1 and "parked: ZZZZ.US 1d" in synced.err
    assert [s["symbol"] for s in said.json["stuck"]] == ["ZZZZ.US"]
    assert "ZZZZ.US 1d" in klake("status").out


def test_bars_come_as_table_csv_json_and_parquet(klake: Klake, tmp_path: Path) -> None:
    klake("sync", *AD_HOC)
    target = tmp_path / "bars.parquet"

    table, csv = klake("bars", "con.us", "1d"), klake("bars", "CON.US", "1d", "--format", "csv")
    rows = klake("bars", "CON.US", "1d", "--json").json
    klake("bars", "CON.US", "1d", "-o", str(target))

    assert len(rows) == len(csv.out.splitlines()) - 1 == pq.read_table(target).num_rows == 14
    assert rows[0]["session"] == "2026-11-02" and rows[0]["ts"] == "2026-11-02T14:30:00Z"
    assert "CON.US" in table.out and "close" in table.out.splitlines()[0]


def test_bars_take_bounds_and_the_last_few(klake: Klake) -> None:
    klake("sync", *AD_HOC)

    some = klake("bars", "CON.US", "1d", "--start", "2026-11-05", "--end", "2026-11-09", "--json").json
    last = klake("bars", "CON.US", "1d", "--last", "2", "--json").json

    assert [row["session"] for row in some] == ["2026-11-05", "2026-11-06", "2026-11-09"]
    assert [row["session"] for row in last] == ["2026-11-18", "2026-11-19"]


def test_sql_reads_its_query_from_stdin_when_asked(klake: Klake, monkeypatch: pytest.MonkeyPatch) -> None:
    klake("sync", *AD_HOC)
    monkeypatch.setattr(sys, "stdin", _stream("SELECT count(*) AS n FROM bars_1d"))

    said = klake("sql", "-", "--format", "json")

    assert said.json == [{"n": 14}]


def test_sql_keeps_what_json_and_csv_cannot_spell(klake: Klake) -> None:
    klake("sync", *AD_HOC)
    query = "SELECT DATE '2026-01-02' AS d, 'nan'::DOUBLE AS x, NULL AS n, 'a,\"b\"' AS t, 1.50::DECIMAL(9,2) AS m"

    rows, csv = klake("sql", query, "--json").json, klake("sql", query, "--format", "csv").out

    assert rows == [{"d": "2026-01-02", "x": None, "n": None, "t": 'a,"b"', "m": "1.50"}]
    assert csv.splitlines()[1] == '2026-01-02,,,"a,""b""",1.50'


def test_the_shell_answers_piped_statements_and_goes_on_after_a_mistake(
    klake: Klake, monkeypatch: pytest.MonkeyPatch
) -> None:
    klake("sync", *AD_HOC)
    monkeypatch.setattr(
        sys, "stdin", _stream("SELECT 41 +\n 1 AS answer;\nnonsense;\n.tables\nSELECT 'last' AS x")
    )

    said = klake("shell")

    assert said.code == 1
    assert "42" in said.out and "bars_1d" in said.out and "last" in said.out
    assert "syntax error" in said.err


def test_views_are_listed_and_written_for_another_mount(klake: Klake, stand: Stand, tmp_path: Path) -> None:
    klake("sync", *AD_HOC)
    target = tmp_path / "there.duckdb"

    listed = klake("views", "--json")
    written = klake("views", "--at", str(stand.folder / "lake"), "-o", str(target))

    assert "bars_1d" in listed.json["views"] and listed.json["catalog"].endswith("lake.duckdb")
    assert written.code == 0
    import duckdb

    with duckdb.connect(str(target), read_only=True) as con:
        assert con.execute("SELECT count(*) FROM bars_1d").fetchall() == [(14,)]


def test_vendors_say_what_is_verified_and_a_probe_adds_to_it(klake: Klake, stand: Stand) -> None:
    before = klake("vendors")

    probed = klake("vendors", "probe", "qos", "--json")
    after = klake("vendors", "--json")

    assert "*unverified*" in before.out and "documented" in before.out and "10 per 60 s" in before.out
    assert probed.json["requests"] <= 5 and {"U1", "U2"} <= {a["question"] for a in probed.json["answers"]}
    facts = {f["field"]: f for f in after.json["vendors"][0]["facts"]}
    assert facts["probe U1"]["verified"] and not facts["label"]["verified"]
    recording = Path(probed.json["recording"]).read_text(encoding="utf-8")
    assert len(recording.splitlines()) == probed.json["requests"]
    assert stand.sandbox.secrets["qos"]["default"] not in recording


def test_symbols_are_found_by_code_name_and_ambiguous_spelling(klake: Klake) -> None:
    by_name, both = klake("symbols", "find", "茅台", "--json"), klake("symbols", "find", "000001", "--json")
    unlisted, nothing = klake("symbols", "find", "BRK.B.US", "--json"), klake("symbols", "find", "qqqqq")

    assert [f["symbol"] for f in by_name.json["found"]] == ["600519.SH"]
    assert {f["symbol"] for f in both.json["found"]} == {"000001.SH", "000001.SZ"}
    assert unlisted.json["found"][0]["spelling"] == "US:BRK.B"
    assert nothing.code == 1 and nothing.out == ""


def test_init_writes_a_file_that_works_and_keeps_one_that_is_there(
    klake: Klake, stand: Stand, tmp_path: Path
) -> None:
    folder = tmp_path / "new" / "lake"

    made = klake("init", str(folder), "--sandbox", stand.sandbox.control_url, "--json")
    (folder / "klake.toml").write_text("# mine\n", encoding="utf-8")
    refused = klake("init", str(folder))
    forced = klake("init", str(folder), "--sandbox", stand.sandbox.control_url, "--force")
    synced = klake("sync", *AD_HOC, config=folder / "klake.toml")

    assert made.json["sandbox"] is True
    assert refused.code == 2 and "--force" in refused.err
    assert (forced.code, synced.code) == (0, 0)


def test_init_without_a_sandbox_waits_for_a_key(klake: Klake, tmp_path: Path) -> None:
    made = klake("init", str(tmp_path / "real"))

    planned = klake("plan", config=tmp_path / "real" / "klake.toml")

    assert made.code == 0 and "QOS_KEY" in made.err
    assert planned.code == 2 and "QOS_KEY is not set" in planned.err


def test_import_brings_a_csv_and_the_same_again_changes_nothing(klake: Klake, tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    file.write_text(
        "date,open,high,low,close,vol\n2024-01-02,1,2,1,2,5\n2024-01-03,2,3,2,3,6\n", encoding="utf-8"
    )
    line = ("import", str(file), "--freq", "1d", "--symbol", "600519", "--volume-factor", "100", "--json")

    first, second = klake(*line), klake(*line)

    assert (first.code, second.code) == (0, 0)
    assert first.json["written"]["new"] == second.json["written"]["same"] == 2
    rows = klake("bars", "600519.SH", "1d", "--vendor", "mine", "--json").json
    assert [row["volume"] for row in rows] == [500.0, 600.0]


def test_doctor_finds_all_well_in_a_fresh_lake(klake: Klake) -> None:
    klake("sync", *AD_HOC)

    said = klake("doctor", "--json")

    assert said.code == 0 and said.json["bad"] == 0
    assert {"engines", "quotas", "config", "clock", "vendor qos", "disk", "lake", "views"} <= {
        c["name"] for c in said.json["checks"]
    }


def test_no_key_is_ever_printed(klake: Klake, stand: Stand) -> None:
    key = stand.sandbox.secrets["qos"]["default"]
    klake("sync", *AD_HOC)
    lines = [("vendors",), ("vendors", "--json"), ("doctor",), ("doctor", "--json"), ("status", "--json"),
             ("plan", "--json"), ("sync", "--json"), ("sql", "SELECT * FROM requests", "--json")]  # fmt: skip

    for line in lines:
        said = klake(*line)

        assert key not in said.out + said.err, line


@pytest.mark.parametrize("encoding", ["gbk", "ascii"])
def test_verbs_work_on_consoles_that_cannot_spell_everything(
    klake: Klake, stand: Stand, encoding: str
) -> None:
    klake("sync")
    lines = (
        ["status"],
        ["symbols", "find", "茅台"],
        ["plan", "--job", "无"],
        ["sql", "SELECT '贵州' AS n"],
        ["vendors"],
    )

    done = _each(stand, lines, PYTHONIOENCODING=encoding, TERM="dumb", KLAKE_LANG="zh")

    assert done.stderr.splitlines()[-1] == b"[0, 0, 2, 0, 0]"
    assert "贵州".encode(encoding, "replace") in done.stdout
    assert b"Traceback" not in done.stderr and b"bug" not in done.stderr


def test_verbs_work_without_a_home(klake: Klake, stand: Stand) -> None:
    klake("sync")

    done = _each(stand, (["status"], ["sync"], ["sql", "SELECT 1"], ["doctor"]), HOME=None, USERPROFILE=None)

    assert done.stderr.splitlines()[-1] == b"[0, 0, 0, 0]", done.stderr


def _each(
    stand: Stand, lines: Sequence[list[str]], **environment: str | None
) -> subprocess.CompletedProcess[bytes]:
    """Run lines one after the other in one process of their own; its last line on stderr has their exit codes."""
    code = """
import json, sys
from klake.cli.app import main
config, codes = sys.argv[1], []
for line in json.loads(sys.argv[2]):
    sys.argv = ["klake", "--config", config, *line]
    try:
        main()
    except SystemExit as left:
        codes.append(left.code)
print(codes, file=sys.stderr)
"""
    env = {k: v for k, v in {**os.environ, **environment}.items() if v is not None}
    command = [sys.executable, "-c", code, str(stand.config), json.dumps(lines)]
    return subprocess.run(command, env=env, capture_output=True, check=False)


def test_a_reader_that_goes_away_is_no_error(klake: Klake, stand: Stand) -> None:
    klake("sync", *AD_HOC)
    command = [*COMMAND, "-q", "--config", str(stand.config), "sql", "SELECT * FROM range(50000)", "--format"]

    for form in ("csv", "table"):
        with subprocess.Popen([*command, form], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None and process.stderr is not None
            process.stdout.read(10)
            process.stdout.close()

            assert (process.wait(60), process.stderr.read()) == (0, b"")


def test_help_is_quick_and_loads_no_engine() -> None:
    code = (
        "import sys; from klake.cli.app import run; run(['--help']); "
        "print([m for m in ('duckdb', 'polars', 'pyarrow', 'httpx', 'pydantic', 'deltalake', 'sqlalchemy', 'rich')"
        " if m in sys.modules])"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.stdout.splitlines()[-1] == "[]"
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime <= 0.25


def test_the_version_is_printed_before_any_verb(capsys: pytest.CaptureFixture[str]) -> None:
    code = run(["--version"])

    assert code == 0 and capsys.readouterr().out.startswith("klake 0.")


def _stream(text: str) -> Any:
    from io import TextIOWrapper

    return TextIOWrapper(BytesIO(text.encode()), encoding="utf-8")
