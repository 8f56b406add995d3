"""Writing by hand: your own bars and actions, checked by the *reject* rules, into the lake."""

from datetime import date

import pyarrow as pa

from ..errors import BadRequest
from ..schemas.action import NEEDS, Kind, action_id
from ..schemas.action import SCHEMA as ACTIONS
from ..schemas.derive import Declared, derived
from ..schemas.frame import as_arrow
from ..schemas.freq import Freq
from ..schemas.quality import check, quarantined
from ..schemas.report import WriteReport
from ..schemas.symbol import Symbol
from ..schemas.vendor import vendor_name
from ..storage.store import Store

__all__ = ["write_actions", "write_bars"]


def write_bars(
    store: Store, table: object, *, vendor: str, freq: Freq, zone: str | None = None
) -> WriteReport:
    """Put bars into the lake; rows that cannot be bars go to `quarantine`, the others go on.

    See `Lake.write` for the columns of `table`.
    """
    vendor_name(vendor)
    now = store.clock.now()
    made = derived(as_arrow(table), vendor=vendor, freq=freq, now=now, declared=Declared(zone=zone or ""))
    checked = check(made.bars, page_id="", run="", now=now, severities=("reject",))
    refused = quarantined(made.rejected, vendor=vendor, page_id="", run="", now=now)
    bad = pa.concat_tables([checked.rejected, refused])
    quarantine = store.append("quarantine", bad) if bad.num_rows else 0
    done = store.upsert(checked.kept)
    return done + WriteReport(quarantined=quarantine, version=store.version)


def write_actions(store: Store, table: object, *, vendor: str) -> WriteReport:
    """Put corporate actions into the table `actions`; those already there are the same.

    `table` has the columns symbol, ex_date, kind and what that kind needs of shares, cash,
    price, ratio, error (`schemas.action`), all per old share and in quote currency.
    """
    vendor_name(vendor)
    given = as_arrow(table)
    for name in ("symbol", "ex_date", "kind"):
        if name not in given.column_names:
            raise BadRequest("table", name, hint=f"the column {name} is missing", hint_zh=f"缺少列 {name}")
    now = store.clock.now()
    rows: list[dict[str, object]] = []
    for row in given.to_pylist():
        kind, symbol, ex_date = str(row["kind"]), str(Symbol.parse(str(row["symbol"]))), _date(row["ex_date"])
        if kind not in set(Kind):
            raise BadRequest("kind", kind, tuple(k.value for k in Kind))
        numbers = {name: row.get(name) for name in ("shares", "cash", "price", "ratio", "error")}
        lacking = [name for name in NEEDS[Kind(kind)] if numbers[name] is None]
        if lacking:
            raise BadRequest(
                "table", f"{symbol} {ex_date} {kind}", hint=f"a {kind} needs {', '.join(lacking)}",
                hint_zh=f"{kind} 缺少 {', '.join(lacking)}",
            )  # fmt: skip
        rows.append({
            "id": action_id(vendor, symbol, ex_date.isoformat(), kind), "vendor": vendor, "symbol": symbol,
            "ex_date": ex_date, "kind": kind, "known_at": now,
            **{k: None if v is None else float(str(v)) for k, v in numbers.items()},
        })  # fmt: skip
    new = store.append("actions", pa.Table.from_pylist(rows, schema=ACTIONS))
    return WriteReport(new=new, same=len(rows) - new, version=store.version)


def _date(given: object) -> date:
    if isinstance(given, date):
        return date(given.year, given.month, given.day)
    text = str(given)
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise BadRequest("ex_date", text, hint="write 2024-01-02 or 20240102") from None
