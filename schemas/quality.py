"""What the quality rules make of a table of bars: what is kept, refused, doubted."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa

from .bar import TIME, VALUES, Flag
from .grid import Bools
from .page import Reject
from .rules import RULES, Bars, Rule, Severity, jump, repeated

__all__ = ["FINDINGS", "QUARANTINE", "Checked", "check", "quarantined"]

QUARANTINE: Final = pa.schema(
    [
        pa.field("page_id", pa.string(), nullable=False),  # empty: not from a page
        pa.field("vendor", pa.string(), nullable=False),
        pa.field("symbol", pa.string(), nullable=False),
        pa.field("freq", pa.string(), nullable=False),
        pa.field("ts", TIME),  # null: it could not be read
        pa.field("rule", pa.string(), nullable=False),
        pa.field("values", pa.string(), nullable=False),  # JSON, as they came
        pa.field("run", pa.string(), nullable=False),
        pa.field("fetched_at", TIME, nullable=False),
    ]
)
"""One row is one refused row; all columns but run and fetched_at together name it."""

FINDINGS: Final = pa.schema(
    [
        pa.field("vendor", pa.string(), nullable=False),
        pa.field("symbol", pa.string(), nullable=False),
        pa.field("freq", pa.string()),
        pa.field("session", pa.date32()),
        pa.field("ts", TIME),
        pa.field("rule", pa.string(), nullable=False),
        pa.field("severity", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("page_id", pa.string()),
        pa.field("run", pa.string(), nullable=False),
        pa.field("fetched_at", TIME, nullable=False),
    ]
)
"""One row is one remark on one bar; vendor to ts, rule and text together name it."""


@dataclass(frozen=True, slots=True)
class Checked:
    """What the rules made of a table of bars.

    `kept`: as it came, without the refused rows and exact repetitions, SUSPECT set where a
    rule doubts. `rejected` has the columns of QUARANTINE, `findings` those of FINDINGS.
    """

    kept: pa.Table
    rejected: pa.Table
    findings: pa.Table


def check(
    bars: pa.Table, *, page_id: str, run: str, now: datetime, twins: Collection[frozenset[str]] = (),
    severities: Sequence[Severity] = ("reject", "suspect", "note"),
    actions: Collection[tuple[str, date]] | None = None,
) -> Checked:  # fmt: skip
    """Return `bars` judged by the rules.

    Parameters
    ----------
    bars : Arrow table, n rows, any order, any number of series
        At least the columns of `schemas.bar.INCOMING` but state and fetched_at.
    now : datetime
        Stamps quarantine and findings.
    twins : collection of sets of symbols
        Symbols whose bars are equal by right (two share classes of one fund, say).
    severities : sequence
        Which rules are asked; `lake.write` and import ask `reject` only.
    actions : collection of (symbol, ex-date), optional
        Known splits and dividends; None: none are known, so that a jump is only a note.
    """
    seen = Bars(bars, actions, twins)
    bad = np.zeros(bars.num_rows, np.bool_)
    refused: list[tuple[str, Bools]] = []
    if bars.num_rows:
        for rule in RULES:
            if rule.severity == "reject" and (broken := rule.broken(seen) & ~bad).any():
                bad |= broken
                refused.append((rule.name, broken))
    drop = bad | repeated(seen) if bars.num_rows else bad
    kept = bars.filter(pa.array(~drop)) if drop.any() else bars
    rejected = [_quarantine(bars.filter(pa.array(mask)), name, page_id, run, now) for name, mask in refused]
    if "suspect" not in severities or not kept.num_rows:
        return Checked(kept, pa.concat_tables([QUARANTINE.empty_table(), *rejected]), FINDINGS.empty_table())
    seen = seen if kept is bars else Bars(kept, actions, twins)
    kept, findings = _doubted(seen, (page_id, run, now))
    return Checked(kept, pa.concat_tables([QUARANTINE.empty_table(), *rejected]), findings)


def _doubted(seen: Bars, stamp: tuple[str, str, datetime]) -> tuple[pa.Table, pa.Table]:
    """Return (bars with SUSPECT set, findings)."""
    kept = seen.table
    suspect = np.zeros(kept.num_rows, np.bool_)
    found: list[pa.Table] = []
    for rule in RULES:
        if rule.severity == "reject":
            continue
        broken = rule.broken(seen)
        if not broken.any():
            continue
        severity: Severity = "note" if rule.broken is jump and seen.actions is None else rule.severity
        if severity == "suspect":
            suspect |= broken
        found.append(_finding(kept.filter(pa.array(broken)), rule, severity, stamp))
    if suspect.any():
        flags = seen.column("flags").astype(np.int32) | np.where(suspect, np.int32(Flag.SUSPECT), np.int32(0))
        at = kept.schema.get_field_index("flags")
        kept = kept.set_column(at, kept.schema.field(at), pa.array(flags, pa.int32()))
    return kept, pa.concat_tables([FINDINGS.empty_table(), *found])


def _quarantine(rows: pa.Table, rule: str, page_id: str, run: str, now: datetime) -> pa.Table:
    values = [
        msgspec.json.encode(
            {k: repr(v) if isinstance(v, float) and v - v != 0 else v for k, v in row.items()}
        ).decode()
        for row in rows.select(VALUES).to_pylist()
    ]
    return _filled(
        QUARANTINE, rows, {"page_id": page_id, "rule": rule, "run": run, "fetched_at": now, "values": values}
    )


def _finding(rows: pa.Table, rule: Rule, severity: Severity, stamp: tuple[str, str, datetime]) -> pa.Table:
    page_id, run, now = stamp
    told = {"rule": rule.name, "severity": severity, "text": rule.text, "page_id": page_id, "run": run}
    return _filled(FINDINGS, rows, {**told, "fetched_at": now})


def _filled(schema: pa.Schema, rows: pa.Table, told: dict[str, Any]) -> pa.Table:
    """Return a table of `schema`: what is told (one value or a list), the rest from `rows`."""
    columns: list[Any] = []
    for field in schema:
        value = told.get(field.name)
        if field.name not in told:
            columns.append(rows[field.name].cast(field.type))
        elif isinstance(value, list):
            columns.append(pa.array(value, field.type))
        else:
            columns.append(pa.repeat(pa.scalar(value, field.type), rows.num_rows))
    return pa.table(columns, schema=schema)


def quarantined(rejects: Sequence[Reject], *, vendor: str, page_id: str, run: str, now: datetime) -> pa.Table:
    """Return refused rows with the columns of QUARANTINE, one per Reject, exact repetitions once."""
    rows = [
        {
            "page_id": page_id, "vendor": vendor, "symbol": r.symbol, "freq": r.freq.value, "ts": r.ts,
            "rule": r.rule, "values": r.values, "run": run, "fetched_at": now,
        }
        for r in dict.fromkeys(rejects)
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=QUARANTINE)
