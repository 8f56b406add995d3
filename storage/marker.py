"""The marker: the file that says that a folder is a lake, of which format, origin and kind."""

from datetime import datetime
from pathlib import Path
from typing import Literal
from uuid import uuid4

import msgspec
from filelock import FileLock

from ..errors import LakeDamaged, LakeError, LakeTooNew, LakeTooOld, LakeUnwritable
from ..schemas.clock import Clock
from .layout import FORMAT, LOCK, MARKER, SPOOL
from .objects import LocalObjects, writing
from .publisher import Publisher

__all__ = ["Holds", "Marker", "Origin", "absent", "create_lake", "holds_bars", "marked"]

Origin = Literal["real", "sandbox"]
Holds = Literal["bars", "pages"]
"""A lake of bars, or a folder that `klake collect` fills with pages for another machine's lake."""


class Marker(msgspec.Struct):
    """What the marker of a lake of this format says."""

    id: str
    format: int
    origin: Origin
    created_at: datetime
    holds: Holds = "bars"


def absent(path: str, holds: Holds) -> LakeError:
    """Return the error that says that there is no lake at `path`, or no collected pages."""
    if holds == "pages":
        return LakeError(
            f"{path}: nothing was collected here: `klake collect --out DIR` makes such a folder",
            f"{path}：这里没有收集到的数据页：请先用 `klake collect --out DIR` 收集",
        )
    return LakeError(
        f"{path}: there is no lake here: make one with `klake init`, or correct [lake] path",
        f"{path}：这里没有数据湖：请用 `klake init` 创建，或修改 [lake] path",
    )


def marked(root: str) -> Marker | None:
    """Return the marker of the folder `root`; None where there is none.

    Raises
    ------
    LakeTooNew, LakeTooOld, LakeDamaged
        It is of another format, or cannot be read.
    """
    try:
        body = LocalObjects(root).get(MARKER)
        found = msgspec.json.decode(body, type=dict[str, object]).get("format")
        if isinstance(found, int) and found > FORMAT:
            raise LakeTooNew(root, found, FORMAT)
        if isinstance(found, int) and found < FORMAT:
            raise LakeTooOld(root, found, FORMAT)
        return msgspec.json.decode(body, type=Marker)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise LakeDamaged(
            f"{root}/{MARKER}: cannot be read ({error})", f"{root}/{MARKER}：无法读取（{error}）"
        ) from error


def holds_bars(root: str) -> bool:
    """Return whether anything was ever committed to the table `bars` below `root`."""
    log = Path(root) / "bars" / "_delta_log"
    return any(entry.suffix in {".json", ".parquet"} and entry.stem.strip("0") for entry in log.glob("*"))


def create_lake(root: str, publisher: Publisher, clock: Clock, origin: Origin, holds: Holds) -> Marker:
    """Make an empty lake; the marker comes last, so a lake that bears it is whole.

    Two at once take turns; one that was killed on the way is finished by the next.
    """
    with writing(root):
        (Path(root) / SPOOL).mkdir(parents=True, exist_ok=True)
        with FileLock(str(Path(root) / LOCK)):
            for log in publisher.logs.values():
                log.create()
            publisher.publish()
            marker = Marker(uuid4().hex, FORMAT, origin, clock.now(), holds)
            LocalObjects(root).put_if_absent(MARKER, msgspec.json.encode(marker))
    made = marked(root)
    if made is None:
        raise LakeUnwritable(f"{root}: the lake could not be made", f"{root}：无法创建数据湖")
    return made
