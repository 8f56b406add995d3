"""What the tests share: the sandbox, a desk beside it, the folder of real data."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import settings
from stand import Stand
from verbs import Klake, Said

from klake.cli.app import run
from klake.sandbox.server import Sandbox
from klake.schemas.clock import ManualClock
from klake.storage.store import Store

# The same examples on every run, however slow the machine is; `make proof` searches at random.
settings.register_profile("klake", deadline=None, derandomize=True)
settings.register_profile("proof", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "klake"))

ROOT = Path(__file__).parents[1]
NOON = "2026-11-20T08:30:00Z"  # Friday: Shanghai and Hong Kong have closed, New York has not opened


@pytest.fixture(autouse=True)
def _own_state(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test counts requests in the user's own quota file, or reads the user's configuration."""
    monkeypatch.setenv("KLAKE_STATE", str(tmp_path_factory.mktemp("state")))
    for name in [
        n for n in os.environ if n.startswith("KLAKE_") and n not in {"KLAKE_STATE", "KLAKE_REAL_DATA"}
    ]:
        monkeypatch.delenv(name)


@pytest.fixture
def real_data() -> Path:
    """The folder of real K-lines; skips, saying so, where it is absent."""
    folder = Path(os.environ.get("KLAKE_REAL_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "README.md").is_file():
        pytest.skip(f"no real K-lines in {folder}: set KLAKE_REAL_DATA")
    return folder


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Stand]:
    """A sandbox whose clock stands still at NOON until somebody waits, and a configuration for it."""
    with Sandbox(clock_start=datetime.fromisoformat(NOON), rate=0) as sandbox:
        yield Stand(sandbox, tmp_path)


@pytest.fixture
def klake(request: pytest.FixtureRequest, stand: Stand, capsys: pytest.CaptureFixture[str]) -> Klake:
    """Run a verb in this process, on the stand's configuration with the test module's JOB."""
    stand.jobs = request.module.JOB
    stand.write()

    def klake(*argv: str, config: Path | None = None) -> Said:
        capsys.readouterr()
        code = run(["--config", str(config or stand.config), *argv])
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return Said(code, out, err)

    return klake


@pytest.fixture
def clock() -> ManualClock:
    """A clock that stands at 08:00 UTC of a Friday until somebody waits."""
    return ManualClock(datetime(2026, 11, 20, 8, tzinfo=UTC))


@pytest.fixture
def store(tmp_path: Path, clock: ManualClock) -> Store:
    """An empty lake."""
    return Store.open(str(tmp_path / "lake"), clock, create=True)
