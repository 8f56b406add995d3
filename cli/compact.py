"""`klake compact`: bring the lake's files into their shape."""

import json
from dataclasses import asdict
from typing import Annotated

import typer

from .render import count, plural, size
from .session import session_of
from .work import JsonOption, VendorOption

__all__ = ["compact"]


def compact(
    ctx: typer.Context,
    vendor: VendorOption = "",
    freq: Annotated[str, typer.Option("--freq", metavar="1d", help="Only this freq.")] = "",
    due: Annotated[bool, typer.Option("--due", help="Only where it pays now, as each sync does.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Fold hot and small files of bars together; no row changes, syncs and readers may go on."""
    session = session_of(ctx)
    desk = session.desk()
    from ..schemas.freq import Freq

    done = desk.store().compact(vendor or None, Freq.parse(freq) if freq else None, due)
    if as_json:
        print(json.dumps(asdict(done)))
    elif not done.partitions:
        print("nothing to fold")
    else:
        print(
            f"folded {plural(done.files_before, 'file')} into {count(done.files_after)}: "
            f"{plural(done.partitions, 'partition')}, {plural(done.rows, 'row')}, {size(done.bytes_written)}"
        )
