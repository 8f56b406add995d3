"""Quotas on disk: one count per account, shared by every process of the user and by all lakes."""

import os
import sqlite3
import stat
import tempfile
import threading
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Final, NamedTuple

import platformdirs
from filelock import FileLock

from ..errors import LakeUnwritable
from ..schemas.clock import Clock
from ..schemas.quota import Quota, Slot
from .disk import network_of, set_aside
from .state import from_us, to_us
from .windows import SECOND, TIMEOUT, Taken, Window, forecast, longest, room, windows_of

__all__ = ["SharedQuotas", "quotas_path"]

_TABLES: Final = """
CREATE TABLE IF NOT EXISTS slots (
    id INTEGER PRIMARY KEY AUTOINCREMENT, account TEXT NOT NULL,
    made INTEGER NOT NULL, at INTEGER NOT NULL, settled INTEGER);
CREATE INDEX IF NOT EXISTS slots_by_account ON slots (account, settled);
CREATE TABLE IF NOT EXISTS pauses (
    account TEXT PRIMARY KEY, made INTEGER NOT NULL, until INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS month_symbols (
    account TEXT, month TEXT, symbol TEXT, PRIMARY KEY (account, month, symbol)) WITHOUT ROWID;
"""

_FILE: Final = "quotas.sqlite"
_KEEP: Final = 3600 * SECOND  # so that a plan with a longer window finds its past
_LOOK: Final = 50_000  # the least pause between two looks at the queue


class _Place(NamedTuple):
    """A place in the queue: the slot `id` may go at `at`, in `wait` µs; id 0: none yet, ask again then."""

    id: int
    at: int
    wait: int
    why: str


class SharedQuotas:
    """The one count of requests per account, as `schemas.quota.Quotas` wants it.

    A slot counts from the instant that it was reserved for until one window after its reply;
    one that nobody settles (a crash) counts until 60 s and one window have passed. Slots that
    are reserved for the future make the queue: who asks first, sends first. The windows come
    with each call, so that a changed plan takes effect at once.

    Safe to use from several threads and processes at once; open it anew after a fork.
    """

    def __init__(self, path: Path, clock: Clock, on_wait: Callable[[float, str], None] | None = None) -> None:
        """Open the count at `path`, made where it is not there, replaced where it is damaged.

        `on_wait` hears of each wait before it begins: seconds, and why. `broken` is where a
        damaged file was moved; None: it was sound.
        """
        self._path, self._clock = path, clock
        self._tell = on_wait or _nobody
        self._lock = threading.Lock()
        self.broken: Path | None = None
        self._connection = self._opened()

    def reserve(self, account: str, quotas: tuple[Quota, ...]) -> Slot:
        """Return a slot, after waiting (by the clock) until every window has room.

        Interrupted while it waits, it gives its place in the queue back.

        Raises
        ------
        LakeUnwritable
            The file cannot be written any more.
        """
        windows = windows_of(quotas)
        while True:
            place = self._queue(account, windows)
            if place.id == 0:
                self._wait(place.wait, place.why)
            elif place.wait == 0:
                return Slot(place.id, account, from_us(place.at))
            elif (slot := self._come_due(account, windows, place)) is not None:
                return slot

    def settle(self, slot: Slot) -> None:
        """Say that the reply to `slot` came, or that it timed out: its windows start now."""
        with self._writing() as (connection, now):
            connection.execute(
                "INSERT INTO slots (id, account, made, at, settled) VALUES (?, ?, ?, ?, ?)"
                " ON CONFLICT (id) DO UPDATE SET settled = coalesce(settled, excluded.settled)",
                (slot.id, slot.account, now, to_us(slot.at), now),
            )

    def push_back(self, account: str, seconds: float) -> None:
        """Let nobody send for `account` before `seconds` have passed, those in the queue included."""
        with self._writing() as (connection, now):
            connection.execute(
                "INSERT INTO pauses VALUES (?, ?, ?) ON CONFLICT (account)"
                # A pause that a clock ahead of ours had written is not worth keeping.
                " DO UPDATE SET made = excluded.made, until ="
                " max(CASE WHEN made > excluded.made THEN 0 ELSE until END, excluded.until)",
                (account, now, now + int(seconds * SECOND)),
            )

    def free_at(self, account: str, quotas: tuple[Quota, ...], requests: int) -> datetime:
        """Return when the last of `requests` further requests could be sent; takes no slot.

        A forecast: replies come at once, and nobody else asks.
        """
        windows = windows_of(quotas)
        with self._writing() as (connection, now):
            _tidy(connection, account, windows, now)
            taken, earliest = _taken(connection, account, windows, now), _paused(connection, account, now)
        return from_us(forecast(taken, windows, earliest, now, requests))

    def symbols_left(self, account: str, quota: Quota) -> int:
        """Return how many further symbols this month's allowance holds."""
        with self._writing() as (connection, now):
            return max(quota.n - len(_month_symbols(connection, account, _month(now))), 0)

    def take_symbols(self, account: str, quota: Quota, symbols: Iterable[str]) -> tuple[str, ...]:
        """Return those of `symbols`, in their order, that may be asked for this month, and count them.

        A symbol that was asked for earlier in the month (UTC) costs nothing again; the others
        are let in until the allowance is spent.
        """
        asked = tuple(dict.fromkeys(symbols))
        with self._writing() as (connection, now):
            month = _month(now)
            known = _month_symbols(connection, account, month)
            fresh = [one for one in asked if one not in known][: max(quota.n - len(known), 0)]
            rows = [(account, month, one) for one in fresh]
            connection.executemany("INSERT INTO month_symbols VALUES (?, ?, ?)", rows)
        allowed = known.union(fresh)
        return tuple(one for one in asked if one in allowed)

    def close(self) -> None:
        """Close the file; the object is of no use afterwards."""
        with self._lock:
            self._connection.close()

    def _queue(self, account: str, windows: tuple[Window, ...]) -> _Place:
        """Return a slot for the earliest instant that is certain to have room, or when to ask again."""
        with self._writing() as (connection, now):
            dropped = _tidy(connection, account, windows, now)
            taken, start = _taken(connection, account, windows, now), _paused(connection, account, now)
            at, window = room(taken, windows, start, lambda one, w: one.latest_end(w))
            hoped, _ = room(taken, windows, start, lambda one, w: one.soonest_end(w, now))
            why = str(window) if at > start else "the vendor asked for a pause"
            if hoped < at:
                # Replies that are still out decide. No place can be sooner than `hoped`, but who
                # looks more often finds his place in the queue before later comers do.
                wait = max(min(hoped - now, longest(windows) // 8), _LOOK)
                place = _Place(0, hoped, wait, why)
            else:
                sql = "INSERT INTO slots (account, made, at) VALUES (?, ?, ?)"
                new = connection.execute(sql, (account, now, at)).lastrowid
                place = _Place(new or 0, at, at - now, why)
        if dropped:
            self._tell(0.0, f"the clock was set back: {dropped} slots of its future are dropped")
        return place

    def _come_due(self, account: str, windows: tuple[Window, ...], place: _Place) -> Slot | None:
        """Return the slot once its time has come; None: it was dropped meanwhile, ask again."""
        at, wait, why = place.at, place.wait, place.why
        try:
            while wait > 0:
                self._wait(wait, why)
                with self._writing() as (connection, now):
                    _tidy(connection, account, windows, now)
                    row = connection.execute("SELECT at FROM slots WHERE id = ?", (place.id,)).fetchone()
                    if row is None:
                        return None
                    # Going later than planned leaves every window as full as it was planned to be.
                    at = max(row[0], _paused(connection, account, now))  # never before now
                    connection.execute("UPDATE slots SET at = ? WHERE id = ?", (at, place.id))
                    wait, why = at - now, why if at == row[0] else "the vendor asked for a pause"
            return Slot(place.id, account, from_us(at))
        except BaseException:
            with self._transaction() as connection:
                connection.execute("DELETE FROM slots WHERE id = ?", (place.id,))
            raise

    def _wait(self, wait_us: int, why: str) -> None:
        self._tell(wait_us / SECOND, why)
        self._clock.wait(wait_us / SECOND)

    @contextmanager
    def _writing(self) -> Generator[tuple[sqlite3.Connection, int], None, None]:
        """Return the connection inside a write transaction, and the time as of its beginning."""
        with self._transaction() as connection:
            yield connection, to_us(self._clock.now())

    @contextmanager
    def _transaction(self) -> Generator[sqlite3.Connection, None, None]:
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                with self._connection:
                    yield self._connection
            except sqlite3.Error as error:
                raise _unwritable(self._path, error) from error

    def _opened(self) -> sqlite3.Connection:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{self._path}.lock"):
                try:
                    return _connected(self._path)
                except sqlite3.OperationalError:
                    raise
                except sqlite3.DatabaseError:
                    self.broken = set_aside(self._path)
                    return _connected(self._path)
        except (OSError, sqlite3.Error) as error:
            raise _unwritable(self._path, error) from error


def quotas_path() -> Path:
    """Return the file where this user's quotas are counted; its folder exists and can be written.

    `$KLAKE_STATE` if set, else the user's state folder; where neither can be made, a folder
    of the user's own (mode 0700) under the temporary one.
    """
    given = os.environ.get("KLAKE_STATE")
    for folder in (Path(given).absolute() if given else None, platformdirs.user_state_path("klake", False)):
        # Without HOME and passwd entry the state folder starts with a bare "~".
        if folder is not None and folder.is_absolute() and _usable(folder):
            return folder / _FILE
    return _own_temporary() / _FILE


def _usable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _own_temporary() -> Path:
    user = os.getuid() if hasattr(os, "getuid") else 0
    folder = Path(tempfile.gettempdir()) / f"klake-{user}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        # Somebody else may have made it first, to read along or to be followed through a link.
        if stat.S_ISDIR(found.st_mode) and found.st_uid == user and _usable(folder):
            folder.chmod(0o700)
            return folder
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix=f"klake-{user}-"))


def _connected(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=30.0, isolation_level=None, check_same_thread=False)
    try:
        # Homes often lie on NFS, where a write-ahead log is not safe; this file is small enough without.
        connection.execute(f"PRAGMA journal_mode = {'TRUNCATE' if network_of(path) else 'WAL'}")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.executescript(_TABLES)
        verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)
    except BaseException:
        connection.close()
        raise
    return connection


def _tidy(connection: sqlite3.Connection, account: str, windows: tuple[Window, ...], now: int) -> int:
    """Delete what counts no more, and return how many slots a clock ahead of ours had written."""
    past = now - max(longest(windows), _KEEP)
    ahead = now + longest(windows)
    connection.execute("DELETE FROM slots WHERE account = ? AND settled < ?", (account, past))
    connection.execute(
        "DELETE FROM slots WHERE account = ? AND settled IS NULL AND at < ?", (account, past - TIMEOUT)
    )
    connection.execute("DELETE FROM pauses WHERE account = ? AND made > ?", (account, ahead))
    dropped = connection.execute(
        "DELETE FROM slots WHERE account = ?1 AND (settled > ?2 OR (settled IS NULL AND made > ?2))",
        (account, ahead),
    )
    return dropped.rowcount


def _taken(
    connection: sqlite3.Connection, account: str, windows: tuple[Window, ...], now: int
) -> list[Taken]:
    sql = "SELECT at, settled FROM slots WHERE account = ? AND (settled IS NULL OR settled > ?)"
    return [Taken(*row) for row in connection.execute(sql, (account, now - longest(windows)))]


def _paused(connection: sqlite3.Connection, account: str, now: int) -> int:
    """Return the earliest instant from `now` on at which the vendor may be asked again."""
    row = connection.execute("SELECT until FROM pauses WHERE account = ?", (account,)).fetchone()
    return now if row is None else max(now, row[0])


def _month(now: int) -> str:
    return f"{from_us(now):%Y-%m}"


def _month_symbols(connection: sqlite3.Connection, account: str, month: str) -> set[str]:
    sql = "SELECT symbol FROM month_symbols WHERE account = ? AND month = ?"
    return {row[0] for row in connection.execute(sql, (account, month))}


def _unwritable(path: Path, cause: object) -> LakeUnwritable:
    return LakeUnwritable(
        f"{path}: quotas cannot be counted ({cause}): check permission and free space, or set KLAKE_STATE",
        f"{path}：无法记录配额（{cause}）：请检查权限和磁盘空间，或设置 KLAKE_STATE",
    )


def _nobody(_seconds: float, _why: str) -> None:
    """Take no notice of a wait."""
