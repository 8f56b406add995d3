"""Checkpoints of a Delta log: one file that says what a hundred entries said, so that opening stays quick.

delta-rs would write one inside the commit, without fsync, and name it at once: after a power
cut a torn one makes the whole table unreadable. Here it is made aside, from links to the log,
and takes its place when it is durable; only then is it named, and old entries are let go.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Final

from deltalake import DeltaTable
from filelock import FileLock, Timeout

from .layout import SPOOL
from .objects import sync_directory

__all__ = ["ASIDE", "EVERY", "checkpoint", "checkpointed"]

EVERY: Final = 100
"""Commits between two checkpoints."""

ASIDE: Final = f"{SPOOL}/checkpoint"
"""Where one is made, relative to the lake; what a crash leaves there is in nobody's way."""

_LOG: Final = "_delta_log"
_NAME: Final = "_last_checkpoint"


def checkpointed(table: Path) -> int:
    """Return the version of the newest checkpoint; -1 where there is none."""
    try:
        return int(json.loads((table / _LOG / _NAME).read_bytes())["version"])
    except (OSError, ValueError, KeyError, TypeError):
        found = (table / _LOG).glob("*.checkpoint.parquet")
        return max((int(path.name[:20]) for path in found), default=-1)


def checkpoint(lake: Path, table: Path, version: int) -> None:
    """Write the checkpoint of `version`, whose log entry is there, and let go of entries older than 30 days.

    Does nothing while another process is at it.
    """
    aside = lake / ASIDE
    aside.parent.mkdir(exist_ok=True)
    lock = FileLock(str(aside.with_suffix(".lock")))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return
    try:
        shutil.rmtree(aside, ignore_errors=True)
        _make(aside, table, version)
        for name in (f"{version:020d}.checkpoint.parquet", _NAME):
            _place(aside / _LOG / name, table / _LOG / name)
        shutil.rmtree(aside)
        DeltaTable(str(table)).cleanup_metadata()
    finally:
        lock.release()


def _make(aside: Path, table: Path, version: int) -> None:
    """Make the checkpoint in a table of its own that has the same log up to `version`."""
    before = checkpointed(table)
    names = [f"{number:020d}.json" for number in range(before + 1, version + 1)]
    if before >= 0:
        names.append(f"{before:020d}.checkpoint.parquet")
    (aside / _LOG).mkdir(parents=True)
    for name in names:
        try:
            os.link(table / _LOG / name, aside / _LOG / name)
        except OSError:  # a disk without links
            shutil.copyfile(table / _LOG / name, aside / _LOG / name)
    DeltaTable(str(aside)).create_checkpoint()


def _place(made: Path, target: Path) -> None:
    with made.open("rb+") as file:
        os.fsync(file.fileno())
    made.replace(target)
    sync_directory(target.parent)
