"""The demo: from nothing to an answer in under a minute, twice, and nothing is left behind."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from stand import signals_as_usual

import klake

COMMAND = [sys.executable, "-m", "klake", "demo"]


def _demo(folder: Path, encoding: str = "utf-8") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        COMMAND, cwd=folder, env={**os.environ, "PYTHONIOENCODING": encoding, "TERM": "dumb"}, text=True, check=False,
        encoding=encoding, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120,
    )  # fmt: skip


def _control(folder: Path) -> str:
    text = (folder / "data" / "demo" / "klake.toml").read_text(encoding="utf-8")
    return re.findall(r'control = "(.*)"', text)[0]


def _pages(folder: Path) -> int:
    with klake.open(str(folder / "data" / "demo" / "lake")) as lake:
        return int(lake.sql("SELECT count(DISTINCT page_id) FROM requests").rows()[0][0])


def _nobody_answers(url: str) -> bool:
    try:
        httpx.get(url, timeout=2.0, trust_env=False)
    except httpx.TransportError:
        return True
    return False


def test_the_demo_shows_plan_sync_status_sql_and_a_frame_and_runs_again(tmp_path: Path) -> None:
    first = _demo(tmp_path)
    held = _pages(tmp_path)
    second = _demo(tmp_path)

    assert (first.returncode, second.returncode) == (0, 0), first.stdout + second.stdout
    for part in (
        "SANDBOX",
        "requests  2",
        "20,000 new bars",
        "holes left: 0",
        "change_percent",
        "shape: (6, 7)",
        "up to date",
    ):
        assert part in first.stdout, part
    assert held <= 10 and _pages(tmp_path) - held <= 2
    assert "nothing new since the last time" in second.stdout or "almost nothing to fetch" in second.stdout
    assert "Fatal" not in first.stdout + second.stdout and "Traceback" not in first.stdout + second.stdout
    assert (
        first.stdout.index("2. daily bars")
        < first.stdout.index("requests  2")
        < first.stdout.index("3. 1-minute")
    )
    assert _nobody_answers(_control(tmp_path))


def test_what_the_demo_says_to_type_next_works_without_its_sandbox(tmp_path: Path) -> None:
    done = _demo(tmp_path, "gbk")
    lines = re.findall(r"^  \S*klake\S* (--config .*)$", done.stdout, re.MULTILINE)

    assert done.returncode == 0 and len(lines) == 3
    line = lines[0].replace("--config ", "")
    config, _, query = line.partition(" sql ")
    answered = subprocess.run(
        [sys.executable, "-m", "klake", "--config", config, "sql", query.strip('"')], cwd=tmp_path, text=True,
        capture_output=True, check=True,
    )  # fmt: skip
    assert answered.stdout.count("00700.HK") == 5


@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX's")
@pytest.mark.parametrize(("name", "code"), [("SIGINT", 3), ("SIGHUP", 3), ("SIGKILL", -9)])
def test_a_demo_that_is_stopped_takes_its_sandbox_along(tmp_path: Path, name: str, code: int) -> None:
    config = tmp_path / "data" / "demo" / "klake.toml"
    with subprocess.Popen(
        COMMAND,
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=signals_as_usual,  # noqa: PLW1509  # it only resets signals
    ) as process:
        end = time.monotonic() + 60
        while not config.exists() and time.monotonic() < end:
            os.sched_yield()
        process.send_signal(getattr(signal, name))
        told = process.communicate(timeout=60)[1]

    assert process.returncode == code
    assert "Traceback" not in told and (code < 0 or "interrupted" in told.splitlines()[-1])
    end = time.monotonic() + 10
    while not _nobody_answers(_control(tmp_path)):
        assert time.monotonic() < end, "the sandbox still answers"
