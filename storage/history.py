"""History: the versions of the table `bars`, and the way back to one of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from ..errors import LakeError
from . import datafiles
from .publisher import Publisher
from .vacuum import KEEPING
from .writer import Writer

__all__ = ["Version", "history", "restore"]

_WAIT_S: Final = 60.0
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Version:
    """One commit to `bars`: when, what it was, by which run (empty: unknown), current rows and bytes after it.

    `rows` and `size_bytes` are 0 where another program made the commit. `restorable`: every
    file of it is still there.
    """

    version: int
    at: datetime
    operation: str
    run: str
    rows: int
    size_bytes: int
    restorable: bool


def history(root: str, publisher: Publisher, n: int) -> list[Version]:
    """Return the newest `n` versions of `bars` that the log remembers, newest first."""
    log = publisher.logs["bars"]
    log.version()
    live = set(log.paths())
    missing = {path for path in live if not (Path(root) / path).exists()}
    found = list[Version]()
    for entry in log.entries():
        if len(found) == n:
            break
        note = entry.note
        at = _EPOCH + timedelta(milliseconds=note.at_ms)
        found.append(
            Version(entry.version, at, note.operation, note.run, note.rows, note.size_bytes, not missing)
        )
        missing -= set(entry.added)
        missing |= {path for path in entry.removed if not (Path(root) / path).exists()}
    return found


def restore(root: str, publisher: Publisher, writer: Writer, version: int) -> int:
    """Return the version of `bars` after a new commit that makes it hold what it held at `version`.

    What was learned since is forgotten by both eras: as-of answers up to `version` stay, and
    later instants answer as `version` did.

    Raises
    ------
    BadRequest
        There is no such version, or the log has forgotten it.
    LakeError
        Files of it are deleted, or a vacuum does not end.
    """
    lock = FileLock(str(Path(root) / KEEPING))
    try:
        lock.acquire(timeout=_WAIT_S)
    except Timeout as error:
        raise LakeError(
            f"{root}: a vacuum is at work: try again", f"{root}：清理正在进行：请稍后再试"
        ) from error
    try:
        return writer.redone(lambda: _restore(root, publisher, writer, version))
    finally:
        lock.release()


def _restore(root: str, publisher: Publisher, writer: Writer, version: int) -> int:
    publisher.current("bars")
    log = publisher.logs["bars"]
    then, now = set(log.paths_at(version)), set(log.paths())
    back, removed = sorted(then - now), sorted(now - then)
    if not back and not removed:
        return log.version()
    _refuse_gone(root, version, back)
    added = [datafiles.examine(root, path) for path in back]
    writer.commit("bars", added, removed, writer.stamp("bars"), f"restore {version}", keep=True)
    return log.version()


def _refuse_gone(root: str, version: int, paths: Sequence[str]) -> None:
    gone = [path for path in paths if not (Path(root) / path).exists()]
    if gone:
        raise LakeError(
            f"version {version} cannot be restored: {len(gone)} of its files are deleted, such as {gone[0]}: "
            "`klake history` shows the versions that can",
            f"无法恢复到版本 {version}：其中 {len(gone)} 个文件已删除，例如 {gone[0]}："
            "`klake history` 会列出可恢复的版本",
        )
