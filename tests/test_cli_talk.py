"""What a person sees: whole numbers on narrow terminals, one tongue, sentences that say what is true."""

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from stand import Stand
from verbs import Klake

from klake.cli.render import table_to
from klake.jobs.desk import Desk

JOB = (
    '[jobs.daily]\nvendor = "qos"\nsymbols = ["600519.SH", "AAPL.US"]\nfreq = ["1d"]\nstart = "2026-11-02"\n'
)
CSV = "date,open,high,low,close,volume\n"


def _on_a_terminal(config: Path, columns: int, *line: str) -> str:
    """Return what a verb shows on a terminal of so many columns."""
    import pty

    ours, theirs = pty.openpty()
    env = {**os.environ, "COLUMNS": str(columns), "TERM": "xterm", "NO_COLOR": "1"}
    command = [sys.executable, "-m", "klake", "--quiet", "--config", str(config), *line]
    with subprocess.Popen(command, stdout=theirs, stderr=subprocess.DEVNULL, env=env) as process:
        os.close(theirs)
        seen = b""
        try:
            while part := os.read(ours, 65_536):
                seen += part
        except OSError:  # Linux says so when the other end is closed
            pass
        finally:
            os.close(ours)
        assert process.wait(60) == 0
    return re.sub(r"\x1b\[\d+m", "", seen.decode())  # bold


# Tables


@pytest.mark.skipif(os.name == "nt", reason="needs a pty")
@pytest.mark.parametrize("columns", [40, 80, 100, 200])
def test_a_narrow_terminal_shows_every_cell_that_a_pipe_gets(
    klake: Klake, stand: Stand, columns: int
) -> None:
    klake("sync")
    for line in (["bars", "AAPL.US", "--last", "2"], ["status"]):
        piped = [word for word in klake(*line).out.split() if "\u2500" not in word]

        seen = _on_a_terminal(stand.config, columns, *line)

        words = [word for word in seen.split() if "\u2500" not in word]
        assert words == piped
        if line[0] == "bars":
            assert max(map(len, seen.splitlines())) <= columns


def test_no_cell_is_cut_where_a_column_alone_is_wider_than_the_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class _Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setenv("NO_COLOR", "1")
    stream = _Terminal()

    table_to(stream, ("a", "long"), [("1", "x" * 30), ("2", "y")], right=("a",))

    assert "x" * 30 in stream.getvalue() and "\u2026" not in stream.getvalue()


# Output


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["sql", "SELECT 1", "-o", "q.xlsx"], ["q.xlsx", "csv, json, parquet"]),
        (["bars", "AAPL.US", "-o", "q.pq"], ["q.pq", "csv, json, parquet"]),
        (["sql", "SELECT 1", "-o", "q.csv", "--format", "parquet"], ["q.csv", "parquet"]),
        (["sql", "SELECT 1", "--json", "--format", "csv"], ["--json", "--format"]),
        (["bars", "AAPL.US", "--json", "--format", "table"], ["--json", "--format"]),
        (["views", "-o", "x.duckdb"], ["x.duckdb", "--at"]),
        (["sql", ""], ["an empty query"]),
        (["sql", " ;\n"], ["an empty query"]),
    ],
    ids=lambda value: " ".join(value)[-40:] if isinstance(value, list) else "",
)
def test_output_that_cannot_be_meant_is_refused(
    klake: Klake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: list[str], words: list[str]
) -> None:
    klake("sync")
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.iterdir())

    said = klake(*line)

    assert said.code == 2
    assert all(word in said.err for word in words), said.err
    assert set(tmp_path.iterdir()) == before


def test_a_statement_that_answers_nothing_is_no_bug(klake: Klake, monkeypatch: pytest.MonkeyPatch) -> None:
    klake("sync")
    monkeypatch.setattr(sys, "stdin", io.StringIO("CREATE TEMP TABLE t AS SELECT 42 AS n;\nSELECT n FROM t;"))

    none, piped = klake("sql", "/* a remark */"), klake("shell")
    late = klake("sql", "SELECT s::INT FROM (SELECT symbol AS s FROM bars_1d)")

    assert (none.code, none.out) == (0, "") and "no answer" in none.err
    assert piped.code == 0 and "42" in piped.out
    assert late.code == 2 and "bug" not in late.err


def test_a_file_without_an_ending_is_csv(klake: Klake, tmp_path: Path) -> None:
    klake("sync")

    klake("sql", "SELECT 41 + 1 AS n", "-o", str(tmp_path / "answer"))

    assert (tmp_path / "answer").read_text(encoding="utf-8") == "n\n42\n"


def test_sync_may_be_silenced_after_the_verb(klake: Klake) -> None:
    said = klake("sync", "-q")

    assert (said.code, said.out, said.err) == (0, "", "")


def test_a_verb_gives_its_desk_back_when_it_ends(klake: Klake, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[str] = []
    close = Desk.close

    def told(desk: Desk) -> None:
        closed.append(desk.settings.where)
        close(desk)

    monkeypatch.setattr(Desk, "close", told)

    for line in (["sync"], ["status"], ["plan"], ["vendors"], ["doctor"], ["sync", "--job", "nobody"]):
        closed.clear()
        klake(*line)

        assert closed, line


# Import


def _file(folder: Path, text: str, name: str = "a.csv") -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


def test_a_failed_import_says_so_and_the_true_version(klake: Klake, tmp_path: Path) -> None:
    good = _file(tmp_path / "in", CSV + "2024-01-02,1,2,1,2,5\n")
    klake("import", good, "--freq", "1d", "--symbol", "600519.SH")

    said = klake("import", str(tmp_path / "nofile.csv"), "--freq", "1d", "--symbol", "600519.SH")

    last = said.err.splitlines()[-1]
    assert said.code == 1
    assert "done" not in last and "1 of 1 file could not" in last and last.endswith("lake version 1")
    assert "nofile.csv: there is no such file" in said.err and "Errno" not in said.err


def test_a_half_done_import_says_what_is_not_in_the_lake(klake: Klake, tmp_path: Path) -> None:
    _file(tmp_path / "in", CSV + "2024-01-02,1,2,1,2,5\n2024-01-03,x,2,1,2,5\n2024-01-06,1,2,1,2,5\n")
    _file(tmp_path / "in", "nonsense\n", "b.csv")

    said = klake("import", str(tmp_path / "in"), "--freq", "1d", "--symbol", "600519.SH")

    last = said.err.splitlines()[-1]
    assert said.code == 1
    assert (
        "1 of 2 files could not" in last
        and "1 row unreadable" in last
        and "1 row rejected" in last
        and "1 new" in last
    )


def test_a_vendor_that_klake_asks_itself_takes_no_files(klake: Klake, tmp_path: Path) -> None:
    file = _file(tmp_path / "in", CSV + "2024-01-02,1,2,1,2,5\n")

    said = klake("import", file, "--vendor", "qos", "--freq", "1d", "--symbol", "600519.SH")

    assert said.code == 2
    assert "[vendors.qos]" in said.err and "--vendor mine" in said.err


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["--freq", "1d", "--symbol", "600519.SH", "--zone", "Mars/X"], ["Mars/X", "Asia/Shanghai"]),
        (["--freq", "1d", "--symbol", "600519.SH", "--delimiter", ";;"], [";;", "one character"]),
        (["--freq", "1d", "--symbol", "600519.SH", "--delimiter", ""], ["one character"]),
    ],
    ids=lambda value: " ".join(value)[-40:] if isinstance(value, list) else "",
)
def test_a_declaration_that_means_nothing_is_refused_before_any_file(
    klake: Klake, tmp_path: Path, line: list[str], words: list[str]
) -> None:
    file = _file(tmp_path / "in", CSV + "2024-01-02,1,2,1,2,5\n")

    said = klake("import", file, *line)

    assert said.code == 2
    assert all(word in said.err for word in words), said.err


def test_a_file_that_declares_nothing_is_told_in_words(klake: Klake, tmp_path: Path) -> None:
    said = klake("import", _file(tmp_path / "in", CSV + "2024-01-02,1,2,1,2,5\n"))

    assert said.code == 1 and "None" not in said.err
    assert "does not tell its freq" in said.err and "--freq" in said.err


# What is said of the lake


def test_a_plan_without_requests_never_claims_that_all_is_there_while_series_are_set_aside(
    klake: Klake,
) -> None:
    line = ("sync", "--vendor", "qos", "--symbols", "ZZZZ.US", "--freq", "1d", "--start", "2026-11-02")
    klake(*line)

    again = klake(*line)

    assert "everything wanted is accounted for" not in again.err
    assert "nothing to ask for now" in again.err and "parked: ZZZZ.US 1d" in again.err


# One tongue


def test_plan_sync_and_status_speak_chinese_where_wanted(
    klake: Klake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KLAKE_LANG", "zh")
    english = (
        "requests", "quota", "finish", "usable", "chains", "sessions", "symbols", "expected", "stored", "missing",
        "up to date", "version", "as of", "clock", "empty", "run ", "unverified", "series", "about", "nothing",
        "accounted", "beyond", "lake",
    )  # fmt: skip

    planned, synced, status, again = klake("plan"), klake("sync"), klake("status"), klake("sync")

    told = planned.out + planned.err + synced.err + status.out + again.err
    told = told.replace(str(Path.cwd()), "")
    for name in ("klake status", "klake vendors", "klake-lake"):
        told = told.replace(name, "")
    lines = [line for line in told.splitlines() if "SANDBOX" not in line and "/" not in line]
    assert [(word, line) for line in lines for word in english if word in line and not _named(line)] == []
    assert "请求" in planned.out and "应有" in status.out and "交易日" in synced.err


def _named(line: str) -> bool:
    """Tell lines that list names of fields, which stay as they are."""
    return line.startswith("未核实")


def test_english_stays_english(klake: Klake) -> None:
    told = klake("plan").out + klake("sync").err + klake("status").out

    assert not any("\u4e00" <= letter <= "\u9fff" for letter in told)
