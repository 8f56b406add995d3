"""`klake sql`: one query over the views."""

from typing import TYPE_CHECKING, Annotated, cast

import typer

from ..errors import BadRequest
from .render import tongue
from .rows import FormatOption, OutOption, form_of, put
from .session import session_of

if TYPE_CHECKING:
    import pyarrow as pa

    from ..research.lake import Lake

__all__ = ["answer", "sql"]


def sql(
    ctx: typer.Context,
    query: Annotated[str, typer.Argument(metavar="QUERY", help="SQL of DuckDB; `-` reads it from stdin.")],
    form: FormatOption = "",
    out: OutOption = "",
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> None:
    """Ask the lake in SQL: bars, bars_1d, revisions, coverage, ..."""
    form = form_of(form, out, as_json=as_json)
    if query == "-":
        query = typer.get_text_stream("stdin").read()
    if not query.strip().rstrip("; \n"):
        raise BadRequest("sql", query, hint="an empty query", hint_zh="查询为空")
    session = session_of(ctx)
    with session.lake() as lake:
        found = answer(lake, query)
        if found is None:
            session.say(tongue("done: this statement has no answer to show", "完成：该语句没有可显示的结果"))
        else:
            put(found, form, out)


def answer(lake: "Lake", query: str) -> "pa.Table | None":
    """Return what `query` answers, n rows; None for a statement such as CREATE TEMP TABLE, which answers nothing.

    A mistake in it, also one that only the rows show, is one sentence of DuckDB's (BadRequest).
    """
    import duckdb

    try:
        # The stubs of DuckDB do not know that some statements answer nothing.
        relation = cast("duckdb.DuckDBPyRelation | None", lake.connection().sql(query))
        return None if relation is None else relation.to_arrow_table()
    except duckdb.Error as error:
        _refuse_damage(lake, error)
        told = " ".join(str(error).partition("\n\nLINE ")[0].split())
        raise BadRequest("sql", " ".join(query.split())[:80], hint=told) from None


def _refuse_damage(lake: "Lake", error: Exception) -> None:
    """Raise LakeDamaged where a query failed because of a damaged file, and not because of what was asked."""
    import duckdb

    from ..storage.damage import refuse

    if type(error) is duckdb.Error or "Failed to read file" in str(error):
        refuse(lake.store.damage(deep=True))
    elif isinstance(error, duckdb.IOException | duckdb.InvalidInputException):
        refuse(lake.store.damage())
