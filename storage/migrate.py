"""Migration: a lake of an older format is built anew beside the old one, compared with it, and takes its place.

`<lake>.migrating` is built from hard links to files that never change and from copies of the
rest; its marker comes last, so one that bears it is whole. Then the old lake becomes
`<lake>.format1` and the new one takes its name. Whatever kills a migration, the old lake or
the whole new one is there: the next run starts again, or does the rename that is left.
"""

import errno
import os
import shutil
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
from filelock import FileLock, Timeout

from ..errors import KlakeError, LakeDamaged, LakeError, LakeTooNew
from . import claims
from .layout import CLAIMS, FORMAT, LOCK, MARKER, SPOOL, STATE
from .manifest import Manifests
from .objects import LocalObjects, sync_directory, writing
from .rebuild import NOTE, Marker, Said, build, trace
from .tables import TABLES
from .vacuum import KEEPING

__all__ = ["Migrated", "finish", "migrate", "unfinished"]

_DRAFT: Final = ".migrating"


@dataclass(frozen=True, slots=True)
class Migrated:
    """What a migration did: from which format to which, where the old lake is kept, rows by table.

    `kept` is empty where the lake was of this format already.
    """

    path: str
    found: int
    format: int
    kept: str
    rows: Mapping[str, int]


class _Note(msgspec.Struct):
    """What a later run has to know: the old lake's format, the name it gets, and the trace of what was built from."""

    found: int
    kept: str
    trace: dict[str, int]


def migrate(path: str, said: Said = lambda _: None) -> Migrated:
    """Return what was done to bring the lake at `path` to this format; nothing where it is of it.

    Raises
    ------
    LakeError
        There is no lake, or another process is at work in it: nothing was changed.
    LakeTooNew
        A later klake made it.
    LakeDamaged
        A file of it cannot be read, or what was built differs: nothing was changed.
    LakeUnwritable
        No permission or no space beside the lake: nothing was changed.
    """
    root = Path(path).resolve()
    with writing(str(root)):
        note = finish(str(root), said)
        found = _format(root)
        if found > FORMAT:
            raise LakeTooNew(str(root), found, FORMAT)
        if found == FORMAT:
            return _migrated(root, note or _Note(FORMAT, "", {}))
        if os.path.ismount(root):
            raise LakeError(
                f"{root}: a whole disk is mounted here, which cannot be renamed: move the lake into a folder of it",
                f"{root}：这里是挂载点，无法改名：请把数据湖移到其中的一个目录",
            )
        with _alone(root) as locks:
            _sweep(root, said)
            made = _Note(found, _free_name(root, found).name, trace(root))
            try:
                build(root, _beside(root, _DRAFT), found, msgspec.json.encode(made), said)
            except (KlakeError, OSError):
                _sweep(root, said)
                raise
            if os.name == "nt":
                locks.close()  # a folder with open files cannot be renamed there
            _swap(root, made, said)
        return _migrated(root, made)


def finish(path: str, said: Said = lambda _: None) -> "_Note | None":
    """Do what is left of a migration that was cut off between its two renames; None where there is none such.

    LakeError where something else took the lake's place meanwhile.
    """
    if not unfinished(path):
        return None
    root = Path(path)
    try:
        note = msgspec.json.decode((_beside(root, _DRAFT) / NOTE).read_bytes(), type=_Note)
    except FileNotFoundError:
        return None  # another process did it just now
    return note if _take_place(root, note, said) else None


def unfinished(path: str) -> bool:
    """Say whether a migration was cut off between its two renames: the new lake is whole, but not in its place."""
    root = Path(path)
    return not (root / MARKER).exists() and (_beside(root, _DRAFT) / MARKER).exists()


def _migrated(root: Path, note: _Note) -> Migrated:
    newest, rows = Manifests(LocalObjects(str(root))).newest(), dict.fromkeys(TABLES, 0)
    for file in newest.files if newest else ():
        rows[file.table] += file.rows
    kept = str(root.with_name(note.kept)) if note.kept else ""
    return Migrated(str(root), note.found, FORMAT, kept, rows)


def _format(root: Path) -> int:
    try:
        return msgspec.json.decode((root / MARKER).read_bytes(), type=Marker).format
    except FileNotFoundError:
        raise LakeError(
            f"{root}: there is no lake here: correct [lake] path",
            f"{root}：这里没有数据湖：请修改 [lake] path",
        ) from None
    except msgspec.DecodeError as error:
        raise LakeDamaged(
            f"{root}/{MARKER}: cannot be read ({error})", f"{root}/{MARKER}：无法读取（{error}）"
        ) from error


def _beside(root: Path, ending: str) -> Path:
    return root.with_name(root.name + ending)


def _free_name(root: Path, found: int) -> Path:
    name, n = _beside(root, f".format{found}"), 1
    while name.exists():
        n += 1
        name = _beside(root, f".format{found}-{n}")
    return name


def _sweep(root: Path, said: Said) -> None:
    """Remove what an earlier run built and did not come to using; only ever a folder that a migration made."""
    draft = _beside(root, _DRAFT)
    if not draft.exists():
        return
    if any(draft.iterdir()) and not (draft / SPOOL).is_dir():
        raise LakeError(
            f"{draft}: this folder is in the way of a migration: move it away",
            f"{draft}：该目录妨碍迁移：请移走它",
        )
    said(f"remove {draft.name}")
    # Its marker first and its spool last: what a crash in here leaves must not pass for a whole
    # lake, and must be known as ours.
    (draft / MARKER).unlink(missing_ok=True)
    for path in draft.iterdir():
        if path.is_dir() and path.name != SPOOL:
            shutil.rmtree(path)
    shutil.rmtree(draft)


@contextmanager
def _alone(root: Path) -> Generator[ExitStack]:
    """Hold the locks by which klakes take turns; LakeError where anybody is at work."""
    (root / SPOOL).mkdir(exist_ok=True)
    with ExitStack() as held:
        for name in (LOCK, KEEPING):
            try:
                held.enter_context(FileLock(str(root / name)).acquire(timeout=0))
            except Timeout as error:
                raise _busy(root, name) from error
        _refuse_company(root)
        yield held


def _refuse_company(root: Path) -> None:
    """Raise LakeError where another process holds a claim, a segment of the spool, or a run's lock."""
    if claims.held(str(root)):
        raise _busy(root, CLAIMS)
    for folder in (SPOOL, Path(STATE).parent):
        for lock in sorted((root / folder).glob("*.lock")):
            name = lock.relative_to(root).as_posix()
            if name not in (LOCK, KEEPING) and not claims.is_free(lock):
                raise _busy(root, name)


def _busy(root: Path, name: str) -> LakeError:
    return LakeError(
        f"{root}: another process is at work in this lake (it holds {name}): stop it, then run "
        "`klake doctor --migrate` again",
        f"{root}：另一个进程正在使用该数据湖（占用 {name}）：请先停止它，再运行 `klake doctor --migrate`",
    )


def _swap(root: Path, note: _Note, said: Said) -> None:
    """Let the new lake take the old one's name; LakeError where the old one was written to until then."""
    kept = root.with_name(note.kept)
    said(f"rename {root.name}")
    root.rename(kept)
    sync_directory(root.parent)
    if not _take_place(root, note, said):
        _sweep(root, said)
        raise LakeError(
            f"{root}: another process wrote to this lake during the migration, which was undone: stop it, then run "
            "`klake doctor --migrate` again",
            f"{root}：迁移期间另一个进程写入了该数据湖，迁移已撤销：请先停止它，再运行 `klake doctor --migrate`",
        )


def _take_place(root: Path, note: _Note, said: Said) -> bool:
    """Do the second rename, or undo the first where the old lake was written to after it was copied."""
    draft, kept = _beside(root, _DRAFT), root.with_name(note.kept)
    # A klake of the old format that is about to commit holds a claim; nobody finds the old lake any more.
    if kept.exists() and (trace(kept) != note.trace or claims.held(str(kept))):
        said(f"rename {kept.name} back")
        kept.rename(root)
        sync_directory(root.parent)
        return False
    said(f"rename {draft.name}")
    try:
        draft.rename(root)
    except FileNotFoundError:
        if not (root / MARKER).exists():
            raise
        return True  # another process did it just now
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        raise _in_the_way(root, draft, error) from error
    sync_directory(root.parent)
    said(f"forget {NOTE}")
    (root / NOTE).unlink(missing_ok=True)
    return True


def _in_the_way(root: Path, draft: Path, error: OSError) -> LakeError:
    return LakeError(
        f"{root}: this folder is in the way of the migrated lake {draft} ({error}): move it away and try again",
        f"{root}：该目录挡住了迁移后的数据湖 {draft}（{error}）：请移走它后重试",
    )
