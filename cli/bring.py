"""`klake import`: bars of files into the lake, with what the files do not say declared."""

import json
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from ..errors import BadRequest
from .progress import Drawn
from .render import count, plural, size
from .session import Session, session_of
from .work import JsonOption, listed

if TYPE_CHECKING:
    from ..ingest.files.mapping import Mapping
    from ..jobs.bring import BringReport

__all__ = ["bring"]

_KINDS: Final = "csv|parquet|feather|tdx|lean"


def bring(
    ctx: typer.Context,
    files: Annotated[list[str], typer.Argument(metavar="FILES...", help="Files; of a folder every file in it.")],
    kind: Annotated[str, typer.Option("--as", metavar=_KINDS, help="What they are. Default: by suffix.")] = "",
    vendor: Annotated[str, typer.Option("--vendor", metavar="NAME", help="The name under which the lake keeps them.")] = "mine",
    freq: Annotated[str, typer.Option("--freq", metavar="FREQ", help="Of every row.")] = "",
    symbol: Annotated[str, typer.Option("--symbol", metavar="SYMBOL", help="Whose bars, where no column says so.")] = "",
    columns: Annotated[
        str, typer.Option("--columns", metavar="FIELD=COLUMN,...", help="Columns that have other names: ts=dt,volume=vol; numbers count from 0.")
    ] = "",
    label: Annotated[str, typer.Option("--label", metavar="start|end|date", help="What a row's time is.")] = "",
    zone: Annotated[str, typer.Option("--zone", metavar="ZONE", help="Where naive times were written: Asia/Shanghai.")] = "",
    time_format: Annotated[
        str, typer.Option("--time-format", metavar="FORM", help="A strptime form, or s, ms, us, ns for epochs.")
    ] = "",
    price_factor: Annotated[float, typer.Option("--price-factor", metavar="X", help="Price times X is quote currency.")] = 1.0,
    volume_factor: Annotated[float, typer.Option("--volume-factor", metavar="X", help="Volume times X is shares (lots: 100).")] = 1.0,
    amount_factor: Annotated[float, typer.Option("--amount-factor", metavar="X", help="Amount times X is quote currency.")] = 1.0,
    no_header: Annotated[bool, typer.Option("--no-header", help="The first line is a row already.")] = False,
    delimiter: Annotated[str, typer.Option("--delimiter", metavar="C", help="Of text files.")] = ",",
    encoding: Annotated[str, typer.Option("--encoding", metavar="NAME", help="Default: UTF-8, else GB18030.")] = "",
    hours: Annotated[str, typer.Option("--hours", metavar="regular|all", help="Rows outside regular hours: leave out, or keep.")] = "regular",
    to: Annotated[str, typer.Option("--to", metavar="FREQ", help="Store bars of this freq made from the rows.")] = "",
    as_json: JsonOption = False,
) -> int:  # fmt: skip
    """Import bars from CSV, Parquet, feather, TDX .day and QuantConnect Lean files."""
    from pathlib import Path

    session = session_of(ctx)
    given = {
        "freq": freq, "symbol": symbol, "columns": columns, "label": label, "zone": zone, "time_format": time_format,
        "price_factor": price_factor, "volume_factor": volume_factor, "amount_factor": amount_factor,
        "header": not no_header, "delimiter": "\t" if delimiter in {"\\t", "tab"} else delimiter,
        "encoding": encoding, "hours": hours,
    }  # fmt: skip
    with Drawn(session) as drawn:
        desk = session.desk(drawn)
        drawn.clock = desk.clock
        if vendor in desk.settings.vendors:
            raise BadRequest(
                "vendor", vendor, hint=f"[vendors.{vendor}] fills it from its API: keep files under another name, --vendor mine",
                hint_zh=f"该名称由 [vendors.{vendor}] 的接口写入：文件请用另一名称，例如 --vendor mine",
            )  # fmt: skip
        mapping = _mapping(given)
        from ..ingest.files.reading import KINDS
        from ..jobs.bring import bring as brought
        from ..schemas.freq import Freq

        if kind and kind not in KINDS:
            raise BadRequest("as", kind, KINDS)
        report = brought(
            desk.store(create=True), [Path(file) for file in files], vendor=vendor, clock=desk.clock, mapping=mapping,
            kind=kind or None, to=Freq.parse(to) if to else None, events=drawn,
        )  # fmt: skip
    if as_json:
        print(json.dumps({"sandbox": desk.sandbox, **report.as_json()}, ensure_ascii=False, default=str))
    _tell(session, report)
    return report.exit_code


def _mapping(given: dict[str, Any]) -> "Mapping | None":
    """Return what the options declare; None when they declare nothing, so that the files speak for themselves."""
    from ..ingest.files.mapping import FIELDS, Mapping
    from ..schemas.freq import Freq

    if given["hours"] not in {"regular", "all"}:
        raise BadRequest("hours", given["hours"], ("regular", "all"))
    if not given["freq"]:
        said = [name for name in ("symbol", "columns", "label", "zone", "time_format") if given[name]]
        if said:
            raise BadRequest("freq", "", hint=f"--{said[0].replace('_', '-')} needs --freq beside it",
                             hint_zh=f"--{said[0].replace('_', '-')} 需要同时给出 --freq")  # fmt: skip
        return None
    columns: dict[str, str | int] = {}
    for part in listed(given.pop("columns")):
        name, sign, column = part.partition("=")
        if not sign or not column.strip():
            raise BadRequest("columns", part, FIELDS, hint="write FIELD=COLUMN, such as volume=vol")
        columns[name.strip()] = int(column) if column.strip().isdigit() else column.strip()
    wanted = Freq.parse(given.pop("freq"))
    if not wanted.intraday and not given["label"]:
        given["label"] = "date"
    return Mapping(freq=wanted, columns=columns, **given)


def _tell(session: Session, report: "BringReport") -> None:
    from ..jobs.bring import SPELLED

    for file in report.files:
        told = [f"{plural(file.read, 'row')} read", plural(file.bars, "bar")]
        told += [
            f"{count(n)} {word}"
            for n, word in (
                (file.broken, "unreadable"),
                (file.rejected, "rejected"),
                (file.left_out, "left out"),
            )
            if n
        ]
        session.say(f"{file.path}: {file.error or ', '.join(told)}")
        for problem in file.problems:
            session.say(f"  {problem}")
        for reason, rows in file.reasons.items():
            if rows > SPELLED:
                session.say(f"  and {plural(rows - SPELLED, 'more row')} like this: {reason}")
    session.say(_last_line(report))


def _last_line(report: "BringReport") -> str:
    """Return what was written, and before it what was not."""
    files, done = report.files, report.written
    lost = [
        (sum(bool(f.error) for f in files), f"of {plural(len(files), 'file')} could not be imported"),
        *((n, f"row{'' if n == 1 else 's'} {word}") for n, word in (
            (sum(f.broken for f in files), "unreadable"), (sum(f.rejected for f in files), "rejected"))),
    ]  # fmt: skip
    written = (
        f"{count(done.new)} new, {count(done.same)} same, {count(done.revised)} revised, "
        f"{count(done.quarantined)} quarantined, {size(done.bytes_written)} written, lake version {done.version}"
    )
    if report.exit_code == 0:
        return f"done: {written}"
    stored = done.new + done.same + done.updated + done.settled + done.revised
    how = "done in part" if stored else "failed"
    return f"{how}: {', '.join(f'{count(n)} {what}' for n, what in lost if n)}; {written}"
