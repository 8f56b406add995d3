"""The rules: what is refused, what is doubted, what is only noted."""

from datetime import UTC, date, datetime, timedelta

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from klake.schemas.bar import INCOMING, Flag
from klake.schemas.freq import Freq
from klake.schemas.page import Reject
from klake.schemas.quality import FINDINGS, QUARANTINE, check, quarantined
from klake.schemas.rules import RULES
from klake.schemas.session import calendar, nominal_ts
from klake.storage.tables import TABLES

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
DAYS = calendar("XSHG").sessions(date(2026, 10, 9), date(2026, 11, 21))


def bar(day: int = 0, symbol: str = "600519.SH", freq: Freq = Freq.D1, **more: object) -> dict[str, object]:
    session = DAYS[day]
    row = {
        "vendor": "qos", "freq": freq.value, "symbol": symbol, "ts": nominal_ts(symbol.rpartition(".")[2], session),
        "session": session, "open": 10.0, "high": 11.0, "low": 9.0, "close": 10.5, "volume": 100.0, "amount": None,
        "state": "final", "flags": 0, "fetched_at": NOW,
    }  # fmt: skip
    return {**row, **more}


def table(*rows: dict[str, object]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=INCOMING)


def judged(*rows: dict[str, object], **more: object):
    return check(table(*rows), page_id="p1", run="r1", now=NOW, **more)


@pytest.mark.parametrize(
    ("values", "rule"),
    [
        ({"low": 11.5}, "low above high"),
        ({"high": float("nan")}, "not finite"),
        ({"volume": float("inf")}, "not finite"),
        ({"amount": float("inf")}, "not finite"),
        ({"low": 0.0}, "price not positive"),
        ({"open": -1.0, "low": -1.0}, "price not positive"),
        ({"volume": -1.0}, "negative volume"),
        ({"amount": -1.0}, "negative volume"),
    ],
)
def test_a_row_that_cannot_be_a_bar_goes_to_quarantine_and_its_neighbours_stay(values, rule):
    got = judged(bar(0), bar(1, **values), bar(2))

    assert got.kept["session"].to_pylist() == [DAYS[0], DAYS[2]]
    assert got.rejected.schema.equals(QUARANTINE)
    row = got.rejected.to_pylist()[0]
    assert (row["rule"], row["page_id"], row["run"], row["ts"]) == (rule, "p1", "r1", bar(1)["ts"])
    assert '"close":' in row["values"]


@pytest.mark.parametrize("values", [{"open": 11.5}, {"close": 8.9}, {"high": 10.2}, {"low": 10.2}])
def test_an_open_or_close_outside_low_and_high_is_doubted_and_stays(values):
    got = judged(bar(0), bar(1, **values))

    assert got.kept["flags"].to_pylist() == [0, int(Flag.SUSPECT)]
    assert got.findings["rule"].to_pylist() == ["outside low and high"]


@pytest.mark.parametrize(
    ("freq", "ts", "fits"),
    [
        (Freq.M1, datetime(2026, 11, 20, 1, 30, tzinfo=UTC), True),
        (Freq.M1, datetime(2026, 11, 20, 3, 30, tzinfo=UTC), False),
        (Freq.M1, datetime(2026, 11, 20, 7, 0, tzinfo=UTC), False),
        (Freq.M5, datetime(2026, 11, 20, 1, 31, tzinfo=UTC), False),
        (Freq.M1, datetime(2026, 11, 21, 2, 0, tzinfo=UTC), False),
        (Freq.H2, datetime(2026, 11, 20, 2, 0, tzinfo=UTC), True),
    ],
)
def test_intraday_bars_start_on_the_grid(freq, ts, fits):
    got = judged(bar(0, freq=freq, ts=ts, session=ts.date()))

    assert got.kept.num_rows == fits
    assert got.rejected["rule"].to_pylist() == [] if fits else ["off the grid"]


@pytest.mark.parametrize(("second", "fits"), [(0, True), (30, False)])
def test_minutes_flagged_as_outside_hours_need_only_be_whole(second, fits):
    early = datetime(2026, 11, 20, 9, 0, second, tzinfo=UTC)  # 04:00 in New York

    got = judged(bar(0, "AAPL.US", Freq.M1, ts=early, session=date(2026, 11, 20), flags=int(Flag.PRE_MARKET)))

    assert got.kept.num_rows == fits


def test_a_week_that_is_not_anchored_on_its_monday_is_off_the_grid():
    got = judged(
        bar(0, freq=Freq.W1, session=date(2026, 11, 16)), bar(1, freq=Freq.W1, session=date(2026, 11, 17))
    )

    assert got.kept["session"].to_pylist() == [date(2026, 11, 16)]
    assert got.rejected["rule"].to_pylist() == ["off the grid"]


def test_one_key_with_two_values_is_refused_whole_and_a_repetition_kept_once():
    got = judged(bar(1), bar(0), bar(2), bar(1, close=10.6), bar(0), bar(0))

    assert got.kept["session"].to_pylist() == [DAYS[0], DAYS[2]]
    assert got.rejected["rule"].to_pylist() == ["key twice", "key twice"]


def test_the_same_day_of_another_symbol_vendor_or_freq_is_another_key():
    others = [
        bar(0),
        bar(0, "000001.SZ"),
        bar(0, vendor="mm"),
        bar(0, freq=Freq.MO1, session=date(2026, 10, 1)),
    ]

    got = judged(*others)

    assert got.kept.num_rows == 4


def test_amount_outside_low_and_high_is_doubted_and_stays():
    got = judged(
        bar(0, amount=1_000.0),
        bar(1, amount=1_250.0),
        bar(2, amount=100.0),
        bar(3, amount=float("nan"), volume=0.0),
    )

    assert got.kept["flags"].to_pylist() == [0, int(Flag.SUSPECT), int(Flag.SUSPECT), 0]
    assert got.findings.schema.equals(FINDINGS)
    assert got.findings.select(["rule", "severity", "session"]).to_pylist() == [
        {"rule": "amount band", "severity": "suspect", "session": DAYS[n]} for n in (1, 2)
    ]


def test_a_jump_is_a_note_while_no_actions_are_known_and_doubted_once_they_are():
    rows = [
        bar(0),
        bar(1, open=5.0, high=5.5, low=4.5, close=5.0),
        bar(2, open=5.0, high=5.5, low=4.5, close=5.0),
    ]

    unknown = judged(*rows)
    known = judged(*rows, actions=[])
    split = judged(*rows, actions=[("600519.SH", DAYS[1])])

    assert unknown.findings["severity"].to_pylist() == ["note"]
    assert unknown.kept["flags"].to_pylist() == [0, 0, 0]
    assert known.kept["flags"].to_pylist() == [0, int(Flag.SUSPECT), 0]
    assert split.findings.num_rows == 0


def test_a_jump_is_measured_in_time_and_inside_one_series():
    rows = [
        bar(1, open=5.0, high=5.5, low=4.5, close=5.0),
        bar(0),
        bar(0, "000001.SZ", open=90.0, high=99.0, low=80.0, close=90.0),
    ]

    got = judged(*rows)

    assert got.findings.select(["symbol", "session"]).to_pylist() == [
        {"symbol": "600519.SH", "session": DAYS[1]}
    ]


def test_a_block_that_equals_another_symbol_is_doubted_on_both_sides():
    mine = [bar(n, close=10.0 + n / 10) for n in range(4)]
    theirs = [bar(n, "000001.SZ", close=10.0 + n / 10) for n in range(4)]

    got = judged(*mine, *theirs)
    rightful = judged(*mine, *theirs, twins=[frozenset(("600519.SH", "000001.SZ"))])

    assert got.findings["rule"].to_pylist() == ["neighbour twin"] * 8
    assert set(got.kept["flags"].to_pylist()) == {int(Flag.SUSPECT)}
    assert rightful.findings.num_rows == 0


def test_two_equal_bars_or_bars_without_volume_are_chance():
    few = judged(*[bar(n, s) for n in range(2) for s in ("600519.SH", "000001.SZ")])
    still = judged(*[bar(n, s, volume=0.0) for n in range(5) for s in ("600519.SH", "000001.SZ")])

    assert few.findings.num_rows == still.findings.num_rows == 0


def test_write_and_import_ask_the_refusing_rules_only():
    got = judged(bar(0, amount=9.0), bar(1, low=99.0), severities=("reject",))

    assert (got.kept.num_rows, got.rejected.num_rows, got.findings.num_rows) == (1, 1, 0)
    assert got.kept["flags"].to_pylist() == [0]


def test_no_bars_are_no_trouble():
    got = check(INCOMING.empty_table(), page_id="", run="", now=NOW)

    assert (got.kept.num_rows, got.rejected.num_rows, got.findings.num_rows) == (0, 0, 0)


def test_judging_again_gives_the_same_rows():
    rows = [bar(0, low=99.0), bar(1, amount=9.0), bar(2)]

    assert judged(*rows).rejected.equals(judged(*rows).rejected)
    assert judged(*rows).findings.equals(judged(*rows).findings)


def test_rejects_become_rows_of_quarantine_each_once():
    one = Reject("AAPL.US", Freq.M1, "unreadable", '{"ts":1}', None)
    other = Reject("AAPL.US", Freq.M1, "off the grid", "{}", NOW)

    got = quarantined([one, other, one], vendor="qos", page_id="p", run="r", now=NOW)

    assert got.schema.equals(QUARANTINE)
    assert got["rule"].to_pylist() == ["unreadable", "off the grid"]
    assert got["ts"].to_pylist() == [None, NOW]


@pytest.mark.parametrize(("name", "schema"), [("quarantine", QUARANTINE), ("findings", FINDINGS)])
def test_the_lake_keeps_every_column_that_the_rules_write(name, schema):
    kept = TABLES[name].schema

    assert set(schema.names) <= set(kept.names)
    assert all(kept.field(n).type == schema.field(n).type for n in schema.names)


def test_every_rule_has_a_name_of_its_own():
    assert len({rule.name for rule in RULES}) == len(RULES)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 25), st.sampled_from(["600519.SH", "000001.SZ", "600000.SH"]), st.integers(0, 2)
        ),
        max_size=60,
    )
)
@settings(max_examples=60, deadline=None)
def test_every_row_is_kept_refused_or_repeats_another(drawn):
    rows = [bar(day, symbol, close=10.0 + kind / 10) for day, symbol, kind in drawn]

    got = judged(*rows)

    values = {
        (r["symbol"], r["session"]): {
            x["close"] for x in rows if (x["symbol"], x["session"]) == (r["symbol"], r["session"])
        }
        for r in rows
    }
    assert sorted((r["symbol"], r["session"]) for r in got.kept.to_pylist()) == sorted(
        k for k, v in values.items() if len(v) == 1
    )
    assert got.rejected.num_rows == sum(1 for r in rows if len(values[r["symbol"], r["session"]]) > 1)


def test_a_table_in_many_chunks_is_judged_as_one():
    chunks = [table(bar(n)) for n in range(5)] + [table(bar(2, close=10.9))]

    got = check(pa.concat_tables(chunks), page_id="", run="", now=NOW + timedelta(seconds=1))

    assert got.rejected.num_rows == 2
    assert got.kept.num_rows == 4
