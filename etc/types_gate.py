"""Both strict type checkers, on a regular install of klake: what users get, not the checkout."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent


def main() -> int:
    """Install into a temporary folder, check it with mypy and pyright; return the worse exit code."""
    shutil.rmtree(ROOT / "build", ignore_errors=True)  # a stale one would be installed, too
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*pip, "--target", folder, str(ROOT)], check=True)
        settings = Path(folder) / "pyrightconfig.json"
        strict = {
            "typeCheckingMode": "strict",
            "include": ["klake"],
            "venvPath": str(BIN.parents[1]),
            "venv": BIN.parent.name,
        }
        settings.write_text(json.dumps(strict | quiet()), encoding="utf-8")
        mypy = subprocess.run(
            [str(BIN / "mypy"), "--config-file", str(ROOT / "pyproject.toml"), "-p", "klake"],
            cwd=folder, env={**os.environ, "MYPYPATH": folder}, check=False,
        )  # fmt: skip
        pyright = subprocess.run([str(BIN / "pyright"), "-p", str(settings)], cwd=folder, check=False)
    return max(mypy.returncode, pyright.returncode)


def quiet() -> dict[str, str]:
    """Return what pyright's strict mode says about libraries without types, turned off: it is not about klake."""
    rules = (
        "UnknownMemberType",
        "UnknownVariableType",
        "UnknownArgumentType",
        "UnknownParameterType",
        "UnknownLambdaType",
    )
    return {**{f"report{rule}": "none" for rule in rules}, "reportMissingTypeStubs": "none"}


if __name__ == "__main__":
    raise SystemExit(main())
