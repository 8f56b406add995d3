"""Coverage: what is known of each session, by the newest proof, however the proofs come in."""

import itertools
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from klake.schemas import requests
from klake.schemas.coverage import Covered, Reason, Series, Standing
from klake.schemas.freq import Freq
from klake.schemas.requests import Asked
from klake.schemas.span import Span
from klake.storage.coverage import SCHEMA, Fact, Ledger, Parking
from klake.storage.state import State

DAY = date(2026, 11, 2)
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
MOUTAI = Series("qos", "600519.SH", Freq.D1)
TENCENT = Series("qos", "00700.HK", Freq.M1)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    state = State.open(tmp_path / "state.sqlite", "lake")
    yield Ledger(state)
    state.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Ledger, Ledger]]:
    """Give two ledgers that the examples of a property clear and use again."""
    states = [State.open(tmp_path_factory.mktemp("state") / "state.sqlite", "lake") for _ in range(2)]
    yield Ledger(states[0]), Ledger(states[1])
    for state in states:
        state.close()


def proof(
    start: int, end: int, standing: str = "final", *, at: int = 0, page: str = "p", reason: str = "",
    series: Series = MOUTAI,
) -> Covered:  # fmt: skip
    days = Span(DAY + timedelta(days=start), DAY + timedelta(days=end))
    fetched = NOON + timedelta(minutes=at)
    return Covered(series, days, Standing(standing), Reason(reason), page, page, fetched)


def told(ledger: Ledger, series: Series = MOUTAI) -> list[tuple[int, int, str, str, int]]:
    """Give each stretch as (first day, day after, standing, pages, minute of its oldest proof)."""
    return [
        (
            (c.sessions.start - DAY).days, (c.sessions.end - DAY).days, c.standing.value,
            f"{c.first_request}..{c.last_request}", (c.fetched_at - NOON) // timedelta(minutes=1),
        )
        for c in ledger.covered([series])[series]
    ]  # fmt: skip


def test_a_series_that_nobody_asked_for_has_no_stretch(ledger: Ledger) -> None:
    ledger.record([proof(0, 5)])

    known = ledger.covered([TENCENT, MOUTAI, TENCENT])

    assert known == {TENCENT: [], MOUTAI: [proof(0, 5)]}


def test_neighbours_that_stand_alike_become_one_with_the_outermost_pages_and_the_oldest_proof(
    ledger: Ledger,
) -> None:
    ledger.record([proof(5, 9, at=2, page="b"), proof(0, 5, at=7, page="a"), proof(9, 10, at=3, page="c")])

    assert told(ledger) == [(0, 10, "final", "a..c", 2)]


def test_stretches_that_do_not_touch_or_have_another_reason_stay_apart(ledger: Ledger) -> None:
    ledger.record(
        [
            proof(0, 2), proof(3, 4), proof(4, 5, "empty", reason="halt"),
            proof(5, 6, "empty", reason="vendor says none"),
        ]
    )  # fmt: skip

    assert [(s, e) for s, e, *_ in told(ledger)] == [(0, 2), (3, 4), (4, 5), (5, 6)]


@pytest.mark.parametrize("standing", ["open", "closed"])
def test_what_falls_due_by_its_proof_merges_only_with_what_was_fetched_together(
    ledger: Ledger, standing: str
) -> None:
    ledger.record([proof(0, 1, standing, at=1), proof(1, 2, standing, at=1), proof(2, 3, standing, at=2)])

    assert told(ledger) == [(0, 2, standing, "p..p", 1), (2, 3, standing, "p..p", 2)]


def test_a_newer_proof_splits_what_it_overlaps(ledger: Ledger) -> None:
    ledger.record([proof(0, 10, page="old")])

    ledger.record([proof(4, 6, "open", at=1, page="new")])

    assert told(ledger) == [
        (0, 4, "final", "old..old", 0), (4, 6, "open", "new..new", 1), (6, 10, "final", "old..old", 0),
    ]  # fmt: skip


def test_an_open_session_becomes_final_and_joins_the_ones_before_it(ledger: Ledger) -> None:
    ledger.record([proof(0, 9, page="a"), proof(9, 10, "open", page="a")])

    ledger.record([proof(9, 10, at=60, page="b"), proof(10, 11, "open", at=60, page="b")])

    assert told(ledger) == [(0, 10, "final", "a..b", 0), (10, 11, "open", "b..b", 60)]


def test_an_older_proof_fills_gaps_only(ledger: Ledger) -> None:
    ledger.record([proof(2, 4, at=5, page="new"), proof(6, 8, at=5, page="new")])

    ledger.record([proof(0, 10, "open", at=1, page="old")])

    assert told(ledger) == [
        (0, 2, "open", "old..old", 1), (2, 4, "final", "new..new", 5), (4, 6, "open", "old..old", 1),
        (6, 8, "final", "new..new", 5), (8, 10, "open", "old..old", 1),
    ]  # fmt: skip


def test_a_merged_stretch_remembers_its_newest_proof_so_that_no_part_of_it_is_downgraded(
    ledger: Ledger,
) -> None:
    ledger.record([proof(0, 5, at=1), proof(5, 6, at=9)])

    ledger.record([proof(5, 6, "open", at=4)])

    assert told(ledger) == [(0, 6, "final", "p..p", 1)]


def test_the_proofs_of_one_batch_count_in_the_order_of_receipt(ledger: Ledger) -> None:
    ledger.record([proof(5, 6, at=9), proof(0, 5, at=1), proof(0, 1, "open", at=4)])

    assert told(ledger) == [(0, 1, "open", "p..p", 4), (1, 6, "final", "p..p", 1)]


def test_a_proof_of_no_day_changes_nothing(ledger: Ledger) -> None:
    ledger.record([proof(3, 3), proof(5, 4)])
    ledger.record([])

    assert told(ledger) == []
    assert ledger.table().num_rows == 0


KINDS = [
    ("final", ""), ("closed", ""), ("open", ""), ("empty", "halt"), ("empty", "vendor says none"),
    ("open", "vendor says none"), ("empty", "beyond the vendor's horizon"),
]  # fmt: skip
PROOFS = st.lists(
    st.builds(
        lambda start, length, kind, at, page, series: proof(
            start, start + length, kind[0], reason=kind[1], at=at, page=f"p{page}", series=series
        ),
        st.integers(0, 20), st.integers(0, 8), st.sampled_from(KINDS), st.integers(0, 9), st.integers(0, 99),
        st.sampled_from([MOUTAI, TENCENT]),
    ),
    max_size=14,
)  # fmt: skip


def days_of(one: Covered) -> list[date]:
    return [
        one.sessions.start + timedelta(days=n) for n in range((one.sessions.end - one.sessions.start).days)
    ]


def by_day(ledger: Ledger, series: Series) -> dict[date, tuple[Standing, Reason]]:
    return {day: (c.standing, c.reason) for c in ledger.covered([series])[series] for day in days_of(c)}


def wins(new: Covered, old: Covered | None) -> bool:
    """Tell whether `new` is what counts: bars before the word that there are none, then the newer proof."""
    return old is None or (has_bars(new), new.fetched_at) >= (has_bars(old), old.fetched_at)


def has_bars(one: Covered) -> bool:
    return one.standing is not Standing.EMPTY and one.reason is Reason.NONE


@settings(max_examples=60, deadline=None)
@given(PROOFS, st.booleans())
def test_every_day_stands_as_its_best_proof_says_in_whatever_order_the_proofs_come(
    shared: tuple[Ledger, Ledger], proofs: list[Covered], together: bool
) -> None:
    best: dict[date, Covered] = {}
    for one in sorted(proofs, key=lambda p: p.fetched_at) if together else proofs:
        best |= {day: one for day in days_of(one) if one.series == MOUTAI and wins(one, best.get(day))}

    ledger, _ = shared
    ledger.clear()
    for batch in [proofs] if together else [[one] for one in proofs]:
        ledger.record(batch)

    assert by_day(ledger, MOUTAI) == {day: (one.standing, one.reason) for day, one in best.items()}


@pytest.mark.parametrize("held", ["final", "closed", "open"])
@pytest.mark.parametrize("reason", ["vendor says none", "beyond the vendor's horizon", "not yet listed"])
def test_bars_that_are_held_are_never_replaced_by_the_word_that_there_are_none(
    ledger: Ledger, held: str, reason: str
) -> None:
    ledger.record([proof(2, 4, held, at=1)])

    ledger.record([proof(0, 6, "empty", reason=reason, at=9)])

    assert [(s, e, standing) for s, e, standing, *_ in told(ledger)] == [
        (0, 2, "empty"), (2, 4, held), (4, 6, "empty"),
    ]  # fmt: skip


def test_a_running_session_that_had_not_traded_may_turn_out_to_be_empty(ledger: Ledger) -> None:
    ledger.record([proof(2, 3, "open", reason="vendor says none", at=1)])

    ledger.record([proof(2, 3, "empty", reason="vendor says none", at=9)])

    assert told(ledger) == [(2, 3, "empty", "p..p", 9)]


@pytest.mark.parametrize(("standing", "asked"), [("open", 9), ("closed", 9), ("final", 1)])
def test_what_lies_beyond_the_horizon_unfinished_is_not_asked_for_again(
    ledger: Ledger, standing: str, asked: int
) -> None:
    ledger.record([proof(2, 3, standing, at=1, page="a")])

    ledger.record([proof(0, 6, "empty", reason="beyond the vendor's horizon", at=9, page="b")])

    assert next(row for row in told(ledger) if row[2] == standing)[-1] == asked


def test_two_silences_of_the_vendor_join_only_when_both_are_long_past(ledger: Ledger) -> None:
    none = "vendor says none"
    long_past = [proof(-40, -30, "empty", reason=none), proof(-30, -20, "empty", reason=none, at=9)]
    fresh = [proof(10, 14, "empty", reason=none), proof(14, 16, "empty", reason=none, at=9)]

    ledger.record(long_past + fresh)

    assert [(s, e, at) for s, e, _, _, at in told(ledger)] == [(-40, -20, 0), (10, 14, 0), (14, 16, 9)]


@settings(max_examples=60, deadline=None)
@given(PROOFS)
def test_stretches_are_ascending_disjoint_and_merged_in_whatever_order_the_proofs_come(
    shared: tuple[Ledger, Ledger], proofs: list[Covered]
) -> None:
    ledger, _ = shared
    ledger.clear()

    for one in proofs:
        ledger.record([one])

    known = ledger.covered([MOUTAI])[MOUTAI]

    for left, right in itertools.pairwise(known):
        assert left.sessions.end <= right.sessions.start
        if left.sessions.end == right.sessions.start and (
            left.standing == "final" or left.reason is Reason.HALT or left.fetched_at == right.fetched_at
        ):
            assert (left.standing, left.reason) != (right.standing, right.reason)


@settings(max_examples=60, deadline=None)
@given(PROOFS)
def test_a_final_day_is_never_downgraded_by_an_older_proof(
    shared: tuple[Ledger, Ledger], proofs: list[Covered]
) -> None:
    ledger, _ = shared
    ledger.clear()

    proved: dict[date, datetime] = {}
    for one in proofs:
        before = by_day(ledger, MOUTAI)
        ledger.record([one])
        after = by_day(ledger, MOUTAI)
        lost = [day for day, known in before.items() if known[0] == "final" != after[day][0]]

        assert one.standing != "empty" or not lost
        assert all(one.fetched_at >= proved[day] for day in lost)
        if one.series == MOUTAI and one.standing == "final":
            proved |= {d: max(proved.get(d, one.fetched_at), one.fetched_at) for d in days_of(one)}


def asked(one: Covered, page: str, stretch: int) -> Asked:
    return Asked(
        vendor=one.series.vendor, symbol=one.series.symbol, freq=one.series.freq, endpoint="/history",
        asked_end=None, asked_count=1000, adjust="none", proved=one.sessions, standing=one.standing, rows=3,
        outcome="bars", reason=one.reason.value, account="a1", page_id=page, stretch=stretch, run="r1",
        fetched_at=one.fetched_at, received_bytes=100,
    )  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(PROOFS, st.randoms(use_true_random=False))
def test_rebuilding_from_the_requests_equals_having_recorded_each_proof_when_it_came(
    shared: tuple[Ledger, Ledger], proofs: list[Covered], dice: Random
) -> None:
    named = [replace(one, first_request=f"{n:03d}", last_request=f"{n:03d}") for n, one in enumerate(proofs)]
    rows = [asked(one, one.first_request, 0) for one in named]
    table = requests.rows(dice.sample(rows, len(rows)))

    live, rebuilt = shared
    live.clear()

    for one in sorted(named, key=lambda p: (p.fetched_at, p.first_request)):
        live.record([one])
    rebuilt.record([proof(0, 99, "empty", reason="halt", at=99)])
    rebuilt.rebuild(table)

    assert rebuilt.table().equals(live.table())


def test_rebuilding_tags_the_state_with_what_it_was_rebuilt_from(tmp_path: Path) -> None:
    state = State.open(tmp_path / "state.sqlite", "old")

    Ledger(state).rebuild(requests.rows([asked(proof(0, 3), "page", 0)]), ("new", 8))

    assert state.tag() == ("new", 8)
    assert told(Ledger(state)) == [(0, 3, "final", "page..page", 0)]


def test_requests_that_prove_nothing_or_are_adjusted_cover_nothing(ledger: Ledger) -> None:
    plain = asked(proof(0, 3), "page", 0)
    nothing = replace(plain, proved=None, standing=None, outcome="refused", reason="no right", stretch=1)
    adjusted = replace(plain, adjust="qfq", stretch=2)

    table = requests.rows([nothing, adjusted, plain])

    assert table.schema.equals(requests.SCHEMA)
    assert table["proved_start"].to_pylist() == [None, DAY, DAY]
    ledger.rebuild(table)
    assert told(ledger) == [(0, 3, "final", "page..page", 0)]
    ledger.rebuild(requests.rows([]))
    assert told(ledger) == []


def test_the_published_table_has_one_row_per_stretch(ledger: Ledger) -> None:
    ledger.record([proof(0, 2, page="a"), proof(2, 3, "open", page="b"), proof(1, 2, series=TENCENT)])

    table = ledger.table()

    assert table.schema.equals(SCHEMA)
    assert table.select(["symbol", "start", "end", "standing", "fetched_at"]).to_pylist()[1:] == [
        {"symbol": "600519.SH", "start": DAY, "end": DAY + timedelta(2), "standing": "final", "fetched_at": NOON},
        {"symbol": "600519.SH", "start": DAY + timedelta(2), "end": DAY + timedelta(3), "standing": "open",
         "fetched_at": NOON},
    ]  # fmt: skip


def test_clearing_forgets_coverage_and_keeps_what_is_known_of_the_vendor(ledger: Ledger) -> None:
    ledger.record([proof(0, 2)])
    ledger.park(MOUTAI, "no right", None)
    ledger.set_fact("qos", "end_honoured", "yes", NOON)

    ledger.clear()

    assert ledger.table().num_rows == 0
    assert (len(ledger.parked()), ledger.fact("qos", "end_honoured")) == (1, Fact("yes", NOON))


def test_five_thousand_series_take_seconds(ledger: Ledger) -> None:
    many = [Series("qos", f"{n:06d}.SZ", Freq.D1) for n in range(5000)]
    first = [
        p
        for one in many
        for p in (
            proof(0, 90, series=one), proof(90, 95, "empty", reason="halt", series=one),
            proof(95, 300, series=one), proof(300, 301, "open", series=one),
        )
    ]  # fmt: skip
    next_day = [
        p
        for one in many
        for p in (proof(300, 301, at=9, series=one), proof(301, 302, "open", at=9, series=one))
    ]

    began = time.perf_counter()
    ledger.record(first)
    ledger.record(next_day)
    known = ledger.covered(many)
    spent = time.perf_counter() - began

    assert {len(stretches) for stretches in known.values()} == {4}
    assert spent < 10


def test_a_parked_series_counts_its_tries_until_it_is_taken_back(ledger: Ledger) -> None:
    ledger.park(MOUTAI, "timeout", NOON)
    ledger.park(MOUTAI, "no right", None)
    ledger.park(TENCENT, "timeout", NOON)

    parked = ledger.parked()
    ledger.unpark(MOUTAI)
    ledger.unpark(MOUTAI)

    assert parked == {MOUTAI: Parking("no right", None, 2), TENCENT: Parking("timeout", NOON, 1)}
    assert list(ledger.parked()) == [TENCENT]


def test_a_fact_is_replaced_by_a_newer_answer_and_not_by_an_older_one(ledger: Ledger) -> None:
    ledger.set_fact("qos", "end_honoured", "yes", NOON)
    ledger.set_fact("qos", "end_honoured", "no", NOON + timedelta(days=1))
    ledger.set_fact("qos", "end_honoured", "yes", NOON)

    assert ledger.fact("qos", "end_honoured") == Fact("no", NOON + timedelta(days=1))
    assert ledger.fact("mm", "end_honoured") is None


def test_the_requests_survive_a_way_through_parquet(tmp_path: Path, ledger: Ledger) -> None:
    table = requests.rows([asked(proof(0, 3, at=4), "page", 0)])
    pq.write_table(table, tmp_path / "requests.parquet")

    back = pq.read_table(tmp_path / "requests.parquet")

    ledger.rebuild(back)
    assert told(ledger) == [(0, 3, "final", "page..page", 4)]


def test_what_was_lost_is_missing_until_it_is_proved_again_though_by_an_older_page(ledger: Ledger) -> None:
    ledger.record([proof(0, 9, at=1)])

    ledger.record([proof(3, 5, "missing", at=7)])
    assert told(ledger) == [(0, 3, "final", "p..p", 1), (5, 9, "final", "p..p", 1)]

    ledger.record([proof(4, 5, page="replayed", at=1)])
    assert told(ledger) == [(0, 3, "final", "p..p", 1), (4, 9, "final", "replayed..p", 1)]


def test_rebuilding_takes_losses_in_the_order_in_which_they_were_written_down(ledger: Ledger) -> None:
    told_of = [asked(proof(0, 9, at=1), "first", 0), asked(proof(3, 5, "missing", at=7), "loss", 0)]
    again = replace(asked(proof(4, 5, at=1), "first", 0), run="replay")
    table = requests.rows([again, *told_of])

    ledger.rebuild(table.append_column("known_at", pa.array([NOON + timedelta(days=n) for n in (3, 1, 2)])))

    assert told(ledger) == [(0, 3, "final", "first..first", 1), (4, 9, "final", "first..first", 1)]
