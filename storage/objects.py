"""The few things that the lake asks of a place that keeps small immutable objects.

Manifests live behind this seam: a local directory now, an object store later. There is no
append and no rename, because object stores have neither.
"""

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol
from uuid import uuid4

import duckdb
from deltalake.exceptions import DeltaError, TableNotFoundError

from ..errors import LakeDamaged, LakeUnwritable

__all__ = ["LocalObjects", "ObjectStore", "sync_directory", "writing"]


class ObjectStore(Protocol):
    """Named bytes that never change once they are there."""

    def get(self, key: str) -> bytes:
        """Return the bytes of `key`; FileNotFoundError when there is no such object."""
        ...

    def keys(self, prefix: str) -> list[str]:
        """Return the keys directly under the folder `prefix`, ascending; none is no error."""
        ...

    def put_if_absent(self, key: str, body: bytes) -> bool:
        """Return True when `body` is durable under `key`, False when somebody was first."""
        ...

    def delete(self, key: str) -> None:
        """Forget `key`; no error when it is gone already."""
        ...


def sync_directory(path: str | Path) -> None:
    """Make the names in a directory durable, where the system can (Windows cannot)."""
    if os.name == "nt":
        return
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def writing(root: str) -> Generator[None]:
    """Turn what a disk, delta-rs or DuckDB says into an error of ours."""
    try:
        yield
    except TableNotFoundError as error:
        raise LakeDamaged(f"{root}: a table is gone ({error})", f"{root}：缺少数据表（{error}）") from error
    except duckdb.Error as error:  # while it writes views
        if isinstance(
            error, duckdb.IOException | duckdb.TransactionException
        ) and "No files found" not in str(error):
            raise _unwritable(root, error) from error
        raise LakeDamaged(
            f"{root}: a view cannot be made ({_first(error)}): `klake doctor --repair` mends the lake",
            f"{root}：无法生成视图（{_first(error)}）：`klake doctor --repair` 可以修复",
        ) from error
    except (OSError, DeltaError) as error:
        raise _unwritable(root, error) from error


def _unwritable(root: str, error: Exception) -> LakeUnwritable:
    return LakeUnwritable(
        f"{root}: the lake cannot be written ({_first(error)}): check permissions and free space",
        f"{root}：无法写入数据湖（{_first(error)}）：请检查权限和剩余空间",
    )


def _first(error: Exception) -> str:
    """Return the first line of an error: delta-rs adds a trace of its threads."""
    return str(error).partition("\n")[0]


class LocalObjects:
    """Objects as files below one directory; a key is a relative path with slashes."""

    def __init__(self, root: str) -> None:
        self._root = Path(root)

    def get(self, key: str) -> bytes:
        """Return the bytes of `key`; FileNotFoundError when there is no such object."""
        return (self._root / key).read_bytes()

    def keys(self, prefix: str) -> list[str]:
        """Return the keys directly under the folder `prefix`, ascending; none is no error."""
        try:
            names = os.listdir(self._root / prefix)
        except FileNotFoundError:
            return []
        return sorted(f"{prefix}/{name}" for name in names if not name.startswith("."))

    def put_if_absent(self, key: str, body: bytes) -> bool:
        """Return True when `body` is durable under `key`, False when somebody was first.

        A hard link is the one local call that creates a complete file and fails when the
        name is taken; an exclusive open would show readers a half-written one.
        """
        target = self._root / key
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.parent / f".{uuid4().hex}"
        try:
            with draft.open("wb") as file:
                file.write(body)
                file.flush()
                os.fsync(file.fileno())
            os.link(draft, target)
        except FileExistsError:
            return False
        finally:
            draft.unlink(missing_ok=True)
        sync_directory(target.parent)
        return True

    def delete(self, key: str) -> None:
        """Forget `key`; no error when it is gone already."""
        (self._root / key).unlink(missing_ok=True)
