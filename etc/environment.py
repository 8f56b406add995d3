"""Make `.venv` and install klake into it: `python3 etc/environment.py demo|test|types|dev`.

Needs Python 3.11 or later and a package index, nothing else: the user's own pip settings
(index, proxy, certificates) are used as they are. Does nothing when nothing changed.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036  # before anything is imported that an older Python does not have
    raise SystemExit("klake needs Python 3.11 or later: make PYTHON=python3.12 … picks another one")

import hashlib
import importlib.util
import os
import subprocess
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
PYTHON = BIN / ("python.exe" if os.name == "nt" else "python")
CONSTRAINTS = ROOT / "constraints.txt"
# Groups of pyproject.toml per target, and what pip downloads for them into an empty cache, in MB.
TARGETS = {"demo": ((), 210), "test": (("test",), 265), "types": (("types",), 300), "dev": (("dev",), 370)}
OLD_DUCKDB = "duckdb==1.5.3"  # the lowest one that klake supports: the views must work there too


def main(target: str) -> int:
    """Bring `.venv` up to what `target` needs; return an exit code."""
    if not importlib.util.find_spec("ensurepip"):
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        print(
            f"This Python has no ensurepip, which makes virtual environments: sudo apt install python{version}-venv"
        )
        return 2
    groups, megabytes = TARGETS[target]
    wanted = requirements(groups)
    stamp = VENV / f".klake-{target}"
    mark = hashlib.sha256("\n".join([*wanted, CONSTRAINTS.read_text(), str(ROOT)]).encode()).hexdigest()
    if stamp.is_file() and stamp.read_text() == mark and PYTHON.exists():
        return 0
    if not PYTHON.exists():
        print("making .venv", flush=True)
        venv.create(VENV, with_pip=True)
    print(f"installing klake and what `make {target}` needs: up to {megabytes} MB to download "
          "(less where pip has a cache)", flush=True)  # fmt: skip
    pip = [
        str(PYTHON),
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "-c",
        str(CONSTRAINTS),
    ]
    run([*pip, *wanted, "-e", str(ROOT)])
    if target in {"test", "dev"}:
        run([*pip[:-2], "--no-deps", "--upgrade", "--target", str(VENV / "duckdb15"), OLD_DUCKDB])
    stamp.write_text(mark)
    return 0


def requirements(groups: tuple[str, ...]) -> list[str]:
    """Return the requirements of dependency groups, those they include as well."""
    table = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    found: list[str] = []
    for group in groups:
        for item in table["dependency-groups"][group]:
            found += requirements((item["include-group"],)) if isinstance(item, dict) else [item]
    # klake's own dependencies stand here too, so that a changed bound is a reason to install again.
    return [*found, *table["project"]["dependencies"]]


def run(command: list[str]) -> None:
    """Run a command; end with its exit code when it fails."""
    done = subprocess.run(command, check=False)
    if done.returncode:
        print(
            f"\nThis did not work: {' '.join(command[1:6])} … (exit {done.returncode}); pip's own words are above."
        )
        raise SystemExit(1)


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in TARGETS:
        raise SystemExit(f"usage: environment.py {'|'.join(TARGETS)}")
    raise SystemExit(main(sys.argv[1]))
