"""An in-memory DuckDB whose views follow the newest manifest."""

from typing import Final

import duckdb

from . import views
from .manifest import Manifest
from .read import connection

__all__ = ["Follower"]


class Follower:
    """One connection for all queries of a lake, brought up to date only where files changed.

    The views name a macro for each set of files, so a commit replaces the macro of the table it
    touched (1 ms each) instead of some thirty views, and what users made on the connection
    stays: temporary tables, settings, prepared statements.
    """

    def __init__(self, root: str) -> None:
        self._root: Final = root
        self._con: duckdb.DuckDBPyConnection | None = None
        self._names: dict[str, tuple[str, ...]] = {}
        self._version = -1

    def connection(self, manifest: Manifest) -> duckdb.DuckDBPyConnection:
        """Return the connection, its views over the files of `manifest`; the caller does not close it."""
        if self._con is None:
            con = connection()
            for statement in (*self._macros(manifest), *views.statements(views.Named())):
                con.execute(statement)
            self._con = con
        elif manifest.version != self._version:
            self._refresh(self._con, manifest)
        self._names, self._version = dict(manifest.names), manifest.version
        return self._con

    def close(self) -> None:
        """Let go of the connection."""
        if self._con is not None:
            self._con.close()
        self._con, self._names, self._version = None, {}, -1

    def _refresh(self, con: duckdb.DuckDBPyConnection, manifest: Manifest) -> None:
        # A cursor, because a user may hold an unfinished result on the connection itself; one
        # transaction, because cursors in other threads must not see half of a commit.
        with con.cursor() as cursor:
            cursor.execute("BEGIN")
            for statement in self._macros(manifest):
                cursor.execute(statement)
            cursor.execute("COMMIT")

    def _macros(self, manifest: Manifest) -> list[str]:
        source = views.Snapshot(self._root, manifest.names)
        before = self._names
        return [
            views.macro(source, name) for name in views.RELATIONS
            if self._con is None or manifest.names.get(name, ()) != before.get(name, ())
        ]  # fmt: skip
