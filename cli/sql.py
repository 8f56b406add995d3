"""`klake sql`: one query over the views."""

from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import BadRequest
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
    form = form_of("json" if as_json else form, out)
    if query == "-":
        query = typer.get_text_stream("stdin").read()
    with session_of(ctx).lake() as lake:
        put(answer(lake, query), form, out)


def answer(lake: "Lake", query: str) -> "pa.Table":
    """Return what `query` answers, n rows; a mistake in it is one sentence of DuckDB's."""
    try:
        return lake.sql(query).arrow()
    except BadRequest as error:
        if error.name != "sql":
            raise
        told = " ".join(error.hint.partition("\n\nLINE ")[0].split())
        raise BadRequest("sql", " ".join(query.split())[:80], hint=told) from None
