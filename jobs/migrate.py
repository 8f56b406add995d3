"""Migration of the configured lake to the format of this klake."""

from pathlib import Path

from ..errors import LakeError
from ..schemas.clock import SystemClock
from ..storage import migrate as storage
from ..storage.migrate import Migrated
from ..storage.store import Store
from .config import load

__all__ = ["migrate"]


def migrate(config: str | Path | None = None) -> Migrated:
    """Return what was done to bring the lake to this format, ready to be read; nothing where it is of it.

    The old lake is kept beside it, and is the user's to delete. Raises as `storage.migrate.migrate` does.
    """
    path = load(config).lake_path
    if "://" in path:
        raise LakeError(f"{path}: only local folders so far", f"{path}：目前仅支持本地目录")
    done = storage.migrate(path)
    Store.open(path, SystemClock())  # writes the views, which name the lake's place
    return done
