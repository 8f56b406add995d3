"""The SQL views of a lake: self-resolving for `lake.duckdb`, over one snapshot, or over macros that follow.

A self-resolving view finds the newest manifest by itself, through its listing: listings are
named so that the newest comes first, and no other needs to be opened, because an old one may
be deleted at any moment. The listing comes first in FROM and the data files are joined to it by name: DuckDB lists files while it binds, in that
order, so the data listing is always younger than the manifest. Other orders silently lose
rows when a commit falls in between. A view that needs two relations takes both from one
reading of the manifest, or a revised bar could be seen twice or not at all.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol
from uuid import uuid4

import duckdb
import pyarrow as pa

from ..schemas.bar import COLUMNS, PARTITION, VALUES, Flag
from ..schemas.freq import Freq
from .layout import CATALOG, MANIFESTS, PAST, glob, seed
from .tables import PUBLISHED, TABLES

__all__ = [
    "RELATIONS", "Named", "SelfResolving", "Snapshot", "best", "fingerprint", "macro", "statements", "write_catalog",
]  # fmt: skip

RELATIONS: Final[dict[str, pa.Schema]] = {
    "bars": TABLES["bars"].schema,
    PAST: TABLES["bars"].schema,
    **{name: table.schema for name, table in TABLES.items() if name != "bars"},
    **PUBLISHED,
}
"""Every set of files that views read: its name in the manifest, and its columns."""

_HIVE: Final = "{" + ", ".join(f"'{name}': VARCHAR" for name in PARTITION) + "}"
_INTRADAY: Final = ", ".join(f"'{freq.value}'" for freq in Freq if freq.intraday)


class Source(Protocol):
    """Where views find the files of a relation."""

    def alone(self, relation: str) -> str:
        """Return a query for all rows of one relation."""
        ...

    def of_freq(self, freq: Freq) -> str:
        """Return a query for the current bars of one freq."""
        ...

    def shared(self, *relations: str) -> str:
        """Return the beginning of a query, `WITH …`, that names relations of one lake version."""
        ...


class SelfResolving:
    """Views that look up the newest manifest in the lake at `root` whenever they are bound."""

    def __init__(self, root: str) -> None:
        self._root = root.replace("\\", "/").rstrip("/")

    def alone(self, relation: str) -> str:
        """Return a query for all rows of one relation."""
        return self._rows(relation, f"(SELECT unnest({relation}) AS f FROM ({self._newest(relation)}))")

    def of_freq(self, freq: Freq) -> str:
        """Return a query for the current bars of one freq, which lists no folder of another.

        Listing is what dead files cost, and they are nearly all in the hot minutes. The live
        files are picked by name: a condition on `r.freq` takes the seed out of the listing, and
        DuckDB 2.0 then reads every dead file.
        """
        every = f"(SELECT unnest(bars) AS f FROM ({self._newest('bars')}))"
        live = f"(SELECT f FROM {every} WHERE contains(f, '/freq={freq.value}/'))"
        return self._rows("bars", live, freq)

    def shared(self, *relations: str) -> str:
        """Return the beginning of a query, `WITH …`, that names relations of one lake version."""
        parts = [f"m AS MATERIALIZED ({self._newest(*relations)})"]
        for name in relations:
            live = f"(SELECT unnest({name}) AS f FROM m)"
            parts.append(f"{name}_ AS NOT MATERIALIZED ({self._rows(name, live)})")
        return "WITH " + ", ".join(parts)

    def _newest(self, *relations: str) -> str:
        """Return a query for the file lists of the newest manifest, which opens its listing and no other.

        The join by name is the one form that holds this on DuckDB 1.5 and 2.0: with LIMIT 1 the
        latter opens every listing, with file_index = 0 the former does. random() keeps 2.0 from
        merging the subplans of two views in one query: it took the later view's name for both,
        and the earlier view's listings did not hold it yet. LIMIT outside the join tells the
        planner that this is one row: where it takes it for more than the data, it reads every
        file, dead ones too, to look which of them are named.
        """
        pattern = _text(f"{_literal(self._root)}/{MANIFESTS}/*.parquet")
        lists = ", ".join(f"l.{name}" for name in relations)
        return (
            f"SELECT {lists} FROM (SELECT min(file) AS f FROM glob({pattern}) WHERE random() >= 0) g, "
            f"read_parquet({pattern}, filename=true) l WHERE l.filename = g.f LIMIT 1"
        )

    def _rows(self, relation: str, live: str, freq: Freq | None = None) -> str:
        pattern = _text(f"{_literal(self._root)}/{glob(relation)}")
        if freq is not None:
            # By the last letter, so that the seed in freq=~ matches, too: it must be the first of every listing.
            pattern = pattern.replace("/freq=*/", f"/freq=*[{freq.value[-1]}~]/")
        columns = ", ".join(f"r.{_name(name)}" for name in RELATIONS[relation].names)
        hive = f", hive_partitioning=true, hive_types={_HIVE}" if relation in {"bars", PAST} else ""
        return (
            f"SELECT {columns} FROM {live} m, read_parquet({pattern}, filename=true{hive}) r "
            f"WHERE r.filename = {_text(self._root + '/')} || m.f"
        )


class Snapshot:
    """Views over the files that one manifest names; `names` as in `Manifest.names`."""

    def __init__(self, root: str, names: Mapping[str, Sequence[str]]) -> None:
        self._root, self._names = root, names

    def alone(self, relation: str) -> str:
        """Return a query for all rows of one relation."""
        paths = self._names.get(relation) or [seed(relation)]
        return select(self._root, paths, relation, RELATIONS[relation].names)

    def of_freq(self, freq: Freq) -> str:
        """Return a query for the current bars of one freq."""
        return f"{self.alone('bars')} WHERE freq = '{freq.value}'"

    def shared(self, *relations: str) -> str:
        """Return the beginning of a query, `WITH …`, that names relations of one lake version."""
        return "WITH " + ", ".join(f"{name}_ AS NOT MATERIALIZED ({self.alone(name)})" for name in relations)


class Named:
    """Views over the macros that `macro` makes; they see whatever files those name when they are asked."""

    def alone(self, relation: str) -> str:
        """Return a query for all rows of one relation."""
        return f"SELECT {', '.join(map(_name, RELATIONS[relation].names))} FROM files_{relation}()"

    def of_freq(self, freq: Freq) -> str:
        """Return a query for the current bars of one freq."""
        return f"{self.alone('bars')} WHERE freq = '{freq.value}'"

    def shared(self, *relations: str) -> str:
        """Return the beginning of a query, `WITH …`, that names relations of one lake version."""
        return "WITH " + ", ".join(f"{name}_ AS NOT MATERIALIZED ({self.alone(name)})" for name in relations)


def macro(source: Snapshot, relation: str) -> str:
    """Return the statement that makes or replaces the macro `files_<relation>()` for `Named` views."""
    return f"CREATE OR REPLACE MACRO files_{relation}() AS TABLE {source.alone(relation)}"


def select(root: str, paths: Sequence[str], relation: str, columns: Sequence[str]) -> str:
    """Return a query for `columns` of the files `paths` (relative to `root`, at least one)."""
    files = ", ".join(_text(f"{_literal(root)}/{path}") for path in paths)
    hive = f", hive_partitioning=true, hive_types={_HIVE}" if relation in {"bars", PAST} else ""
    chosen = ", ".join(_name(name) for name in columns)
    return f"SELECT {chosen} FROM read_parquet([{files}]{hive})"


def statements(source: Source) -> list[str]:
    """Return the statements that make every view and macro, in order; none refers to another.

    They stand alone because a view that names its neighbour stores the database's name too,
    and breaks when the file is attached under another one.
    """
    views = {"bars": source.alone("bars"), "bars_best": best(source)}
    for freq in Freq:
        views[f"bars_{freq.value}"] = source.of_freq(freq)
    views["bars_final"] = f"{source.alone('bars')}{_where(source)} state = 'final'"
    views["revisions"] = _revisions(source)
    for name in ("quarantine", "findings", "requests", "coverage", "sessions"):
        views[name] = source.alone(name)
    for name in ("actions", "instruments", "members", "choice"):
        views[name] = _newest(source, name)
    made = [f"CREATE OR REPLACE VIEW {name} AS {query}" for name, query in views.items()]
    return [*made, f"CREATE OR REPLACE MACRO bars_as_of(t) AS TABLE {_as_of(source)}"]


def fingerprint(made: Sequence[str]) -> str:
    """Return a short text that differs when the statements differ."""
    return hashlib.sha256("\n".join(made).encode()).hexdigest()


def write_catalog(path: str, made: Sequence[str]) -> None:
    """Write the DuckDB file `path` that holds the views of `made`, and replace the one that is there.

    Nobody opens the published file for writing: whoever reads it keeps the old one. A storage
    version of 1.0 lets any DuckDB from 1.0 on open it.

    Raises
    ------
    PermissionError
        On Windows, while a reader holds the file open.
    """
    draft = Path(path).with_name(f".{CATALOG}-{uuid4().hex}")
    con = duckdb.connect(":memory:", config={"autoinstall_known_extensions": "false"})
    try:
        con.execute(f"ATTACH {_text(str(draft))} AS lake (STORAGE_VERSION 'v1.0.0')")
        con.execute("USE lake")
        for statement in made:
            con.execute(statement)
        con.execute("USE memory")
        con.execute("DETACH lake")
        os.replace(draft, path)
    finally:
        con.close()
        draft.unlink(missing_ok=True)


def _where(source: Source) -> str:
    return " AND" if isinstance(source, SelfResolving) else " WHERE"


def _key(alias: str) -> str:
    """Return the time of a bar's key as one number: us of `ts` below one day, else seconds of `session`."""
    return (
        f"CASE WHEN {alias}.freq IN ({_INTRADAY}) THEN epoch_us({alias}.ts) ELSE epoch({alias}.session) END"
    )


def best(source: Source) -> str:
    """Return a query for all current bars of one vendor per symbol and freq.

    The vendor that `choice` names for the session; without a choice, the alphabetically
    first one that holds the series (`yields` lists the others).
    """
    columns = ", ".join(f"b.{_name(name)}" for name in COLUMNS)
    return f"""{source.shared("bars", "choice", "yields")},
    chosen AS (
      SELECT symbol, freq, vendor, since,
        coalesce(lead(since) OVER (PARTITION BY symbol, freq ORDER BY since), DATE 'infinity') AS until
      FROM (SELECT *, row_number() OVER (PARTITION BY id ORDER BY known_at DESC) AS age FROM choice_)
      WHERE age = 1)
    SELECT {columns} FROM bars_ b
    LEFT JOIN chosen c ON b.symbol = c.symbol AND b.freq = c.freq AND b.session >= c.since AND b.session < c.until
    LEFT JOIN yields_ y ON b.symbol = y.symbol AND b.freq = y.freq AND b.vendor = y.vendor
    WHERE CASE WHEN c.vendor IS NULL THEN y.vendor IS NULL ELSE c.vendor = b.vendor END"""


def _withdrawn(alias: str) -> str:
    """Return the condition that a row of the past says that there is no such bar any more."""
    return f"({alias}.flags & {int(Flag.WITHDRAWN)}) <> 0"


def _revisions(source: Source) -> str:
    old = ", ".join(f"o.{_name(name)}" for name in COLUMNS if name != "era")
    shown = (*VALUES, "state", "fetched_at")
    values = ", ".join(f"CASE WHEN NOT n.tomb THEN n.{_name(name)} END AS new_{name}" for name in shown)
    return f"""{source.shared(PAST, "bars")},
    wanted AS (SELECT DISTINCT vendor, symbol, freq, session FROM past_),
    every AS (
      SELECT * FROM past_ UNION ALL
      SELECT b.* FROM bars_ b SEMI JOIN wanted w USING (vendor, symbol, freq, session) WHERE state <> 'open'),
    ordered AS (
      SELECT *, row_number() OVER (PARTITION BY vendor, symbol, freq, k ORDER BY known_at) AS place
      FROM (SELECT e.*, {_key("e")} AS k, {_withdrawn("e")} AS tomb FROM every e))
    SELECT {old}, n.known_at AS replaced_at, {values}
    FROM ordered o JOIN ordered n USING (vendor, symbol, freq, k) WHERE n.place = o.place + 1 AND NOT o.tomb"""


def _as_of(source: Source) -> str:
    columns = ", ".join(_name(name) for name in COLUMNS)
    then = ", ".join("'current' AS era" if name == "era" else _name(name) for name in COLUMNS)  # which it was
    known = "state <> 'open' AND known_at <= CAST(t AS TIMESTAMPTZ)"
    # `after` is made small before it is compared: a plain anti join hashes every current bar.
    return f"""{source.shared(PAST, "bars")},
    before AS MATERIALIZED (
      SELECT * FROM (
        SELECT *, row_number() OVER (PARTITION BY vendor, symbol, freq, k ORDER BY known_at DESC) AS age
        FROM (SELECT p.*, {_key("p")} AS k FROM past_ p WHERE {known})) WHERE age = 1),
    after AS MATERIALIZED (
      SELECT b.vendor, b.symbol, b.freq, {_key("b")} AS k FROM bars_ b
      SEMI JOIN (SELECT DISTINCT vendor, symbol, freq, session FROM before) w USING (vendor, symbol, freq, session)
      WHERE {known})
    SELECT {columns} FROM bars_ WHERE {known}
    UNION ALL
    SELECT {then} FROM before b ANTI JOIN after USING (vendor, symbol, freq, k) WHERE NOT {_withdrawn("b")}"""


def _newest(source: Source, name: str) -> str:
    columns = ", ".join(_name(column) for column in RELATIONS[name].names)
    return f"""{source.shared(name)}
    SELECT {columns} FROM (SELECT *, row_number() OVER (PARTITION BY id ORDER BY known_at DESC) AS age FROM {name}_)
    WHERE age = 1"""


def _name(column: str) -> str:
    return f'"{column}"'


def _text(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _literal(path: str) -> str:
    """Return `path` as a glob that matches only itself."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in path.replace("\\", "/"))
