"""Setting up on a fresh machine: `etc/environment.py` says what it does, and what is missing."""

import importlib.util
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def environment(tmp_path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("environment", ROOT / "etc" / "environment.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.VENV, module.BIN = tmp_path / ".venv", tmp_path / ".venv" / "bin"
    module.PYTHON = module.BIN / "python"
    return module


def test_a_python_without_ensurepip_gets_the_line_that_installs_it(
    environment: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "ensurepip" else found(name)
    )

    code = environment.main("demo")

    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert code == 2
    assert f"sudo apt install python{version}-venv" in capsys.readouterr().out
    assert not environment.VENV.exists()


def test_the_download_size_is_told_before_anything_is_downloaded(
    environment: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told: list[str] = []

    def stopped(command: list[str]) -> None:
        told.append(capsys.readouterr().out)
        raise SystemExit(1)

    monkeypatch.setattr(environment, "run", stopped)
    with pytest.raises(SystemExit):
        environment.main("demo")

    assert "MB to download" in told[0]


def test_what_is_there_already_is_not_installed_again(
    environment: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[list[str]] = []
    monkeypatch.setattr(environment, "run", ran.append)
    monkeypatch.setattr(environment.venv, "create", lambda folder, with_pip: made(environment))

    first, second = environment.main("demo"), environment.main("demo")

    assert (first, second, len(ran)) == (0, 0, 1)
    assert not any("--index-url" in part or "://" in part for part in ran[0])


def made(environment: ModuleType) -> None:
    environment.BIN.mkdir(parents=True)
    environment.PYTHON.touch()


def test_an_old_python_is_told_so_before_anything_else() -> None:
    code = (
        "import sys\nsys.version_info = (3, 10, 0)\n"
        f"exec(compile(open({str(ROOT / 'etc' / 'environment.py')!r}, encoding='utf-8').read(), 'environment.py', 'exec'))"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert "Python 3.11 or later" in done.stderr


def test_every_requirement_is_pinned_by_a_name_and_not_by_an_address() -> None:
    pins = {
        line.split("==")[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]

    names = {item.split(">")[0].split("<")[0].split("=")[0].lower().replace("_", "-") for item in wanted}

    assert names <= pins
    assert "://" not in (ROOT / "constraints.txt").read_text()
