"""What doctor says of a lake: whether it opens, its files and logs, its views, raw pages and state."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import duckdb

from ..errors import KlakeError, LakeError, LakeOrigin, LakeTooNew, LakeTooOld, LakeUnwritable
from ..schemas.clock import SystemClock
from ..storage.layout import CATALOG, DAMAGED, MARKER, RAW
from ..storage.migrate import unfinished
from ..storage.relog import log_damage
from ..storage.segment import frames
from ..storage.state import State
from ..storage.store import Store
from ..storage.tables import TABLES
from .checks import Check
from .desk import Desk

__all__ = ["lake_checks"]

_SPELLED: Final = 10
_RAW_QUICK: Final = 256_000_000  # bytes that are looked through in some tenths of a second
_REPAIR: Final = (
    "run `klake doctor --repair`: it lets go of what is damaged, and raw pages bring back what they hold"
)


def lake_checks(desk: Desk, *, deep: bool) -> Iterator[Check]:
    """Yield what is to say of the lake: its files, logs, views, raw pages, state."""
    root = Path(desk.settings.lake_path)
    if not (root / MARKER).exists() and not unfinished(str(root)):
        yield Check("lake", "note", f"{root}: none yet", "the first sync, import or init makes it")
        return
    try:
        # The marker is read with the machine's clock: a lake must open where its sandbox is gone.
        store = Desk(desk.settings, SystemClock()).store()
    except LakeTooNew as error:
        yield Check("lake", "bad", str(error), "pip install --upgrade klake")
        return
    except LakeTooOld as error:
        yield Check("lake", "bad", str(error), "klake doctor --migrate")
        return
    except LakeOrigin as error:
        yield Check("lake", "bad", str(error), "give [lake] another path: sandbox and real bars never meet")
        return
    except LakeError as error:
        yield Check("lake", "bad", str(error), _advice(error))
        return
    files = list(_files(store, deep=deep))
    yield from files
    if not any(check.level == "bad" for check in files):
        yield _views(root / CATALOG)
    yield from _raw(root, deep=deep)
    yield from _aside(root)
    yield from _state(store.state_path, store.id, store.version_of("requests"))


def _files(store: Store, *, deep: bool) -> Iterator[Check]:
    """Look at every live file, and at every log."""
    manifest = store.snapshot()
    logs = [log for table in TABLES if (log := log_damage(store.path, table, manifest)) is not None]
    for log in logs:
        yield Check("lake", "bad", log.en, _REPAIR)
    found = store.damage(deep=deep)
    for one in found[:_SPELLED]:
        yield Check("lake", "bad", f"{one.path}: {one.wrong}: {one.holding}", _REPAIR)
    if len(found) > _SPELLED:
        yield Check("lake", "bad", f"and {len(found) - _SPELLED:,} more files", _REPAIR)
    if not found and not logs:
        read = "every page decoded, " if deep else ""
        told = f"{store.path}: version {manifest.version}, {len(manifest.files):,} files, {read}manifest and logs agree"
        yield Check("lake", "ok", told)


def _raw(root: Path, *, deep: bool) -> Iterator[Check]:
    """Look for records of the raw zone that cannot be read; in all of it only where that is asked for, or quick."""
    segments = sorted((root / RAW).glob("*/*/*.kraw"))
    size = sum(_size(path) for path in segments)
    if not deep and size > _RAW_QUICK:
        told = f"{len(segments):,} segments, {size / 1e9:,.1f} GB, not looked through"
        yield Check("raw", "ok", told + ": `klake doctor --deep` does")
        return
    bad = [(path, one.at) for path in segments for one in frames(_bytes(path)) if one.payload is None]
    for path, at in bad[:_SPELLED]:
        yield Check("raw", "note", f"{path.relative_to(root)}: a record at byte {at:,} cannot be read; it is skipped",
                    "nothing: its bars are in the lake; only a later replay lacks that page")  # fmt: skip
    if len(bad) > _SPELLED:
        yield Check("raw", "note", f"and {len(bad) - _SPELLED:,} more records")
    if not bad:
        yield Check("raw", "ok", f"{len(segments):,} segments, {size / 1e6:,.1f} MB")


def _aside(root: Path) -> Iterator[Check]:
    kept = [path for path in (root / DAMAGED).rglob("*") if path.is_file()]
    if kept:
        yield Check("damaged", "note", f"{len(kept):,} file{'' if len(kept) == 1 else 's'} set aside in {root / DAMAGED}",
                    "delete that folder when nobody wants to look at them")  # fmt: skip


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _advice(error: LakeError) -> str:
    """Return what to do about a lake that does not open; nothing where the error itself says it."""
    if isinstance(error, LakeUnwritable):
        return "give the user of klake the right to write there, or make room"
    told = any(
        word in error.en
        for word in ("klake doctor --repair", "delete it", "put it back", "move the folder away")
    )
    return "" if told else "restore that folder from a backup, or give [lake] another path"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _views(catalog: Path) -> Check:
    try:
        with duckdb.connect(str(catalog), read_only=True) as con:
            con.execute("SELECT 1 FROM bars LIMIT 1").fetchall()
    except duckdb.Error as error:
        return Check(
            "views",
            "bad",
            f"{catalog}: {str(error).splitlines()[0]}",
            "run `klake doctor --repair`: it is made of other things and written anew",
        )
    return Check("views", "ok", str(catalog))


def _state(path: str | Path, lake: str, at: int) -> Iterator[Check]:
    try:
        state = State.open(path, lake)
    except KlakeError as error:
        yield Check(
            "state", "bad", str(error), "it is only an index: move it away, and the next run rebuilds it"
        )
        return
    try:
        if state.broken is not None:
            yield Check(
                "state",
                "note",
                f"{path} was damaged and set aside as {state.broken}",
                "the next run rebuilds it",
            )
        elif not state.matches(lake, at):
            yield Check("state", "note", f"{path} lags behind the lake", "the next run rebuilds it")
        else:
            yield Check("state", "ok", str(path))
    finally:
        state.close()
