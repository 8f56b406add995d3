"""The state: an index over the lake in SQLite (or PostgreSQL by URL), rebuildable from it.

Days are stored as proleptic ordinals, instants as UTC epoch microseconds: the same integers
under every database, and nothing to parse on the way back.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, NoReturn

from filelock import FileLock
from sqlalchemy import (
    BigInteger,
    Column,
    Integer,
    MetaData,
    String,
    Table,
    create_engine,
    delete,
    event,
    insert,
    inspect,
    select,
    update,
)
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import DatabaseError, OperationalError

from ..errors import CommitConflict, LakeDamaged, LakeTooNew, LakeUnwritable, MissingExtra
from .disk import network_of, set_aside

__all__ = ["METADATA", "State", "from_us", "migrate", "to_us"]

METADATA: Final = MetaData()

TAG: Final = Table(
    "tag", METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("schema", Integer, nullable=False),
    Column("lake_id", String, nullable=False),
    Column("version", Integer, nullable=False),
)  # fmt: skip

COVERAGE: Final = Table(
    "coverage", METADATA,
    Column("vendor", String, primary_key=True),
    Column("symbol", String, primary_key=True),
    Column("freq", String, primary_key=True),
    Column("start_day", Integer, primary_key=True, autoincrement=False),
    Column("end_day", Integer, nullable=False),
    Column("standing", String, nullable=False),
    Column("reason", String, nullable=False),
    Column("first_request", String, nullable=False),
    Column("last_request", String, nullable=False),
    Column("fetched_us", BigInteger, nullable=False),  # the oldest of its proofs
    Column("newest_us", BigInteger, nullable=False),  # the newest of its proofs
    sqlite_with_rowid=False,
)  # fmt: skip

PARKED: Final = Table(
    "parked", METADATA,
    Column("vendor", String, primary_key=True),
    Column("symbol", String, primary_key=True),
    Column("freq", String, primary_key=True),
    Column("error", String, nullable=False),
    Column("retry_us", BigInteger),
    Column("tries", Integer, nullable=False),
)  # fmt: skip

FACTS: Final = Table(
    "facts", METADATA,
    Column("vendor", String, primary_key=True),
    Column("name", String, primary_key=True),
    Column("value", String, nullable=False),
    Column("seen_us", BigInteger, nullable=False),
)  # fmt: skip

RUNS: Final = Table(
    "runs", METADATA,
    Column("run", String, primary_key=True),
    Column("job", String, nullable=False),
    Column("vendor", String, nullable=False),
    Column("started_us", BigInteger, nullable=False),
    Column("ended_us", BigInteger),
    Column("report", String),
)  # fmt: skip

Migration = Callable[[Connection], None]
MIGRATIONS: Final[tuple[Migration, ...]] = ()
"""Step i leads from schema i + 1 to i + 2; a new file is made from METADATA and takes none of them."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_BUSY_MS: Final = 30_000


def to_us(at: datetime) -> int:
    """Return an aware instant as UTC epoch microseconds."""
    return (at - _EPOCH) // _MICROSECOND


def from_us(us: int) -> datetime:
    """Return UTC epoch microseconds as an aware instant."""
    return _EPOCH + us * _MICROSECOND


class State:
    """An open state: connections, the tag of its lake, and what was done to open it.

    `broken` is where a damaged file was moved before a new one was made; None: it was sound.
    Safe to use from several threads and several processes at once.
    """

    def __init__(self, engine: Engine, where: str, broken: Path | None = None) -> None:
        self.where, self.broken = where, broken
        self._reader = engine
        self._writer = engine.execution_options(klake_write=True)

    @classmethod
    def open(cls, url_or_path: str | Path, lake_id: str) -> "State":
        """Return the state at a path or database URL, made, migrated or replaced as needed.

        Parameters
        ----------
        url_or_path : str or Path
            A SQLite file, or a SQLAlchemy URL such as `postgresql+psycopg://host/klake`.
        lake_id : str
            What a new state is tagged with, at version 0. The tag of an existing one stays:
            ask `matches` before trusting it.

        Raises
        ------
        LakeTooNew
            A later klake made it.
        LakeUnwritable
            It cannot be created or written where it should be, or that is a network file
            system, on which the processes of several machines would tear it.
        """
        url = _url(url_or_path)
        path = _file(url)
        where = str(path) if path else url.render_as_string(hide_password=True)
        if path is None:
            return cls(_prepared(url, where, lake_id), where)
        if kind := network_of(path):
            raise LakeUnwritable(
                f"{where}: the state may not lie on a network file system ({kind}): "
                "give it a local folder or a PostgreSQL URL",
                f"{where}：状态库不能放在网络文件系统（{kind}）上：请改用本地目录或 PostgreSQL",
            )
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Two processes that switch one new file to WAL at once do not wait for each other.
            with FileLock(f"{path}.lock"):
                return cls._open_file(url, path, lake_id)
        except OSError as error:
            raise _unwritable(where, error) from error

    @classmethod
    def _open_file(cls, url: URL, path: Path, lake_id: str) -> "State":
        try:
            return cls(_prepared(url, str(path), lake_id), str(path))
        except LakeDamaged:
            broken = set_aside(path)
            return cls(_prepared(url, str(path), lake_id), str(path), broken)

    @contextmanager
    def reading(self) -> Generator[Connection, None, None]:
        """Return a connection inside one read transaction: all its answers are of one instant."""
        try:
            with self._reader.begin() as connection:
                yield connection
        except DatabaseError as error:
            _translate(self.where, error)

    @contextmanager
    def writing(self) -> Generator[Connection, None, None]:
        """Return a connection inside one write transaction; writers take turns.

        Raises
        ------
        CommitConflict
            Another process held the state for longer than 30 s.
        """
        try:
            with self._writer.begin() as connection:
                # SQLite has begun IMMEDIATE and ignores FOR UPDATE; PostgreSQL takes its turn here.
                connection.execute(select(TAG.c.id).with_for_update()).all()
                yield connection
        except DatabaseError as error:
            _translate(self.where, error)

    def tag(self) -> tuple[str, int]:
        """Return the lake id and the lake version that this state is an index of."""
        with self.reading() as connection:
            row = connection.execute(select(TAG.c.lake_id, TAG.c.version)).one()
        return row.lake_id, row.version

    def set_tag(self, lake_id: str, version: int) -> None:
        """Say that this state now is an index of that version of that lake."""
        with self.writing() as connection:
            connection.execute(update(TAG).values(lake_id=lake_id, version=version))

    def matches(self, lake_id: str, version: int | None = None) -> bool:
        """Return whether the tag names this lake, and this version of it where one is given."""
        own_id, own_version = self.tag()
        return own_id == lake_id and version in (None, own_version)

    def reset(self, lake_id: str) -> None:
        """Forget everything, and tag the empty state with `lake_id` at version 0."""
        with self.writing() as connection:
            for table in (COVERAGE, PARKED, FACTS, RUNS):
                connection.execute(delete(table))
            connection.execute(update(TAG).values(lake_id=lake_id, version=0))

    def close(self) -> None:
        """Close the connections; the state may be used again, which opens new ones."""
        self._reader.dispose()


def migrate(connection: Connection, found: int, steps: Sequence[Migration]) -> int:
    """Return the schema version after taking each step that a state of version `found` lacks."""
    for step in steps[found - 1 :]:
        step(connection)
    return max(found, len(steps) + 1)


def _url(url_or_path: str | Path) -> URL:
    text = str(url_or_path)
    return make_url(text) if "://" in text else URL.create("sqlite", database=text)


def _file(url: URL) -> Path | None:
    """Where the database file lies; None for a server and for memory."""
    if url.get_backend_name() != "sqlite" or url.database in (None, "", ":memory:"):
        return None
    return Path(str(url.database)).absolute()


def _prepared(url: URL, where: str, lake_id: str) -> Engine:
    """Return an engine whose database has every table, at today's schema version."""
    engine = _engine(url)
    try:
        with engine.execution_options(klake_write=True).begin() as connection:
            _bring_up(connection, where, lake_id)
    except DatabaseError as error:
        engine.dispose()
        _translate(where, error)
    except LakeDamaged:
        engine.dispose()
        raise
    return engine


def _bring_up(connection: Connection, where: str, lake_id: str) -> None:
    newest = len(MIGRATIONS) + 1
    if not inspect(connection).has_table(TAG.name):
        METADATA.create_all(connection)
        connection.execute(insert(TAG).values(id=1, schema=newest, lake_id=lake_id, version=0))
        return
    if connection.dialect.name == "sqlite":
        verdict = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
        if verdict != "ok":
            raise LakeDamaged(f"{where}: {verdict}")
    found = connection.execute(select(TAG.c.schema)).scalar_one()
    if found > newest:
        raise LakeTooNew(where, found, newest)
    if found < newest:
        connection.execute(update(TAG).values(schema=migrate(connection, found, MIGRATIONS)))


def _engine(url: URL) -> Engine:
    try:
        engine = create_engine(url)
    except ModuleNotFoundError as error:
        raise MissingExtra(error.name or "the database driver", "postgres") from error
    if url.get_backend_name() == "sqlite":
        event.listen(engine, "connect", _on_connect)
        event.listen(engine, "begin", _on_begin)
    return engine


def _on_connect(connection: Any, _record: object) -> None:
    # The driver's own BEGIN would come late and never be IMMEDIATE: _on_begin says it instead.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in (
        f"busy_timeout = {_BUSY_MS}", "journal_mode = WAL", "synchronous = NORMAL", "foreign_keys = ON",
    ):  # fmt: skip
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _on_begin(connection: Connection) -> None:
    write = connection.get_execution_options().get("klake_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def _unwritable(where: str, cause: object) -> LakeUnwritable:
    return LakeUnwritable(
        f"{where}: the state cannot be written ({cause}): check permission and free space",
        f"{where}：无法写入状态库（{cause}）：请检查权限和磁盘空间",
    )


def _translate(where: str, error: DatabaseError) -> NoReturn:
    """Raise what the database's complaint means to klake."""
    cause = error.orig
    if "locked" in str(cause) or "busy" in str(cause):
        raise CommitConflict(
            f"{where}: another process held the state for {_BUSY_MS // 1000} s: try again",
            f"{where}：状态库被其他进程占用超过 {_BUSY_MS // 1000} 秒：请重试",
        ) from error
    odd = "no such" in str(cause) or type(error) is DatabaseError
    if isinstance(error, OperationalError) and not odd:
        raise _unwritable(where, cause) from error
    if odd:
        raise LakeDamaged(
            f"{where}: the state is damaged ({cause}): open it again, it will be rebuilt",
            f"{where}：状态库已损坏（{cause}）：重新打开后会自动重建",
        ) from error
    raise error
