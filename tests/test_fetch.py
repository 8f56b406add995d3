"""Chains of pages: complete or honest about it, whatever the vendor does with `end`."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from klake.ingest.fetch import Chain, Taken, entries_needed
from klake.ingest.normalise import Rows, fold, series_page
from klake.ingest.vendors.qos import CAPABILITY
from klake.sandbox.server import Sandbox
from klake.schemas.bar import INCOMING, empty
from klake.schemas.capability import Capability
from klake.schemas.clock import ManualClock
from klake.schemas.coverage import Covered, Reason, Series, Standing
from klake.schemas.freq import Freq
from klake.schemas.grid import micros
from klake.schemas.page import Entry, Outcome, Page, PageRequest, Reject, SeriesPage
from klake.schemas.session import calendar
from klake.schemas.span import Span, merged
from klake.schemas.symbol import Symbol

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)  # Friday evening in Shanghai, morning in New York
DEEP = replace(CAPABILITY, depth=0, page_limit=10)
HALT = (date(2026, 11, 4), date(2026, 11, 6))
Trick = Callable[[Entry, list[int], int], list[int] | Outcome | None]


@dataclass
class Wire:
    """A vendor of one series: bars at `times` (labels), each with a price of its own."""

    times: list[int]
    capability: Capability = DEEP
    mode: str = "inclusive"
    trick: Trick | None = None
    now: datetime = NOW
    asked: list[Entry] = field(default_factory=list)

    def page(self, entry: Entry) -> SeriesPage:
        self.asked.append(entry)
        end = micros(entry.end or self.now)
        if self.mode == "ignored":
            end = micros(self.now)
        known = self.times[-self.capability.depth :] if self.capability.depth else self.times
        known = [t for t in known if (t < end if self.mode == "exclusive" and entry.end else t <= end)]
        shown: list[int] | Outcome = known[-entry.count :]
        if self.trick is not None:
            shown = self.trick(entry, shown, len(self.asked)) or shown
        if isinstance(shown, str):
            return SeriesPage(entry, shown, empty(INCOMING), (), "told so")
        return series_page(entry, self.rows(shown), "v", self.capability, self.now)

    def rows(self, times: list[int]) -> Rows:
        at = np.array(times, np.int64)
        price = 10.0 + (at // 60_000_000 % 997) / 100
        return Rows(at, price, price + 1, price - 1, price, np.full(at.size, 5.0))

    def truth(self, symbol: str, freq: Freq, wanted: Span[date]) -> pa.Table:
        asked = Entry(symbol, freq, None, 1)
        whole = series_page(
            asked, self.rows(self.times), "v", replace(self.capability, depth=0), self.now
        ).bars
        keep = [wanted.start <= s < wanted.end for s in whole["session"].to_pylist()]
        return fold(whole.filter(pa.array(keep, pa.bool_())))


def daily(sessions: list[date]) -> list[int]:
    return [micros(datetime(s.year, s.month, s.day, tzinfo=UTC)) - 8 * 3_600_000_000 for s in sessions]


def minutes(name: str, sessions: list[date], freq: Freq) -> list[int]:
    return [micros(t) for s in sessions for t in calendar(name).starts(s, freq)]


def run(wire: Wire, symbol: str, freq: Freq, wanted: Span[date], **more: object) -> tuple[Chain, list[Taken]]:
    place = Symbol.parse(symbol).place
    chain = Chain(
        Series("v", symbol, freq), wanted, wire.capability, calendar(place.calendar), wire.now, **more
    )
    taken: list[Taken] = []
    while (entry := chain.next()) is not None:
        assert entry == chain.asked
        assert chain.entries_left > 0
        assert len(wire.asked) < 500
        taken.append(chain.take(wire.page(entry), reply(entry, len(wire.asked), wire.now)))
    assert chain.entries_left == 0
    return chain, taken


def reply(entry: Entry, number: int, now: datetime = NOW) -> Page:
    return Page(f"p{number}", "r", "qos", "acc", PageRequest("v", "/history", (entry,)), now, 200, "c/1", b"")


def bars(taken: list[Taken]) -> pa.Table:
    return pa.concat_tables([empty(INCOMING), *(t.bars for t in taken)]).sort_by("ts")


def told(taken: list[Taken]) -> list[tuple[str, str, Standing, Reason]]:
    stretches = sorted((s for t in taken for s in t.stretches), key=lambda s: s.sessions)
    return [(f"{s.sessions.start:%m-%d}", f"{s.sessions.end:%m-%d}", s.standing, s.reason) for s in stretches]


def spans(taken: list[Taken]) -> list[Span[date]]:
    found: list[Covered] = [s for t in taken for s in t.stretches]
    assert sum((s.sessions.end - s.sessions.start).days for s in found) == sum(
        (s.end - s.start).days for s in merged(s.sessions for s in found)
    ), "two stretches of one chain overlap"
    return merged(s.sessions for s in found)


XSHG = calendar("XSHG")
OCTOBER = Span(date(2026, 10, 1), date(2026, 11, 21))
TRADED = [s for s in XSHG.sessions(date(2026, 8, 3), date(2026, 11, 21)) if not HALT[0] <= s < HALT[1]]


def test_entries_follow_the_formula_of_the_plan():
    assert [entries_needed(n, 1000) for n in (0, 1, 2, 1000, 1001, 1999, 2000)] == [1, 1, 1, 1, 2, 2, 3]
    assert entries_needed(5, 1) == 4


@pytest.mark.parametrize("mode", ["inclusive", "exclusive"])
@pytest.mark.parametrize("freq", [Freq.D1, Freq.H1, Freq.M30])
def test_a_chain_brings_every_bar_once_and_accounts_for_every_day(freq, mode):
    times = daily(TRADED) if freq is Freq.D1 else minutes("XSHG", TRADED, freq)
    wire = Wire(times, mode=mode)

    chain, taken = run(wire, "600519.SH", freq, OCTOBER)

    assert chain.done
    assert chain.stopped == ""
    assert bars(taken).equals(wire.truth("600519.SH", freq, OCTOBER))
    assert spans(taken) == [OCTOBER]
    assert ("11-04", "11-06", Standing.EMPTY, Reason.VENDOR_NONE) in told(taken)


@given(
    listed=st.integers(0, 40), limit=st.integers(3, 40), seed=st.integers(0, 9),
    freq=st.sampled_from([Freq.D1, Freq.H2, Freq.M30]), mode=st.sampled_from(["inclusive", "exclusive"]),
    back=st.integers(0, 12),
)  # fmt: skip
@settings(max_examples=80, deadline=None)
def test_whatever_the_page_size_nothing_is_lost_and_nothing_claimed_twice(
    listed, limit, seed, freq, mode, back
):
    sessions = XSHG.sessions(date(2026, 9, 1), date(2026, 11, 21))[listed:]
    times = daily(sessions) if freq is Freq.D1 else minutes("XSHG", sessions, freq)
    opened = {micros(XSHG.hours(s).open) for s in sessions}  # or the oldest session would be a cut one
    thin = [t for t in times if t in opened or (t // 1_800_000_000 + seed) % 7]
    wire = Wire(thin, replace(DEEP, page_limit=limit), mode)
    wanted = Span(date(2026, 9, 1), date(2026, 11, 21) - timedelta(days=back))

    chain, taken = run(wire, "600519.SH", freq, wanted)

    assert chain.done, chain.stopped
    assert bars(taken).equals(wire.truth("600519.SH", freq, wanted))
    assert spans(taken) == [wanted]


def test_a_chain_needs_no_more_pages_than_the_formula_and_two_at_an_unknown_beginning():
    wire = Wire(daily(TRADED))

    chain, _ = run(wire, "600519.SH", Freq.D1, OCTOBER)
    known = len(wire.asked)
    wire.asked.clear()
    run(wire, "600519.SH", Freq.D1, Span(date(2026, 6, 1), date(2026, 11, 21)))

    assert chain.done
    assert known == entries_needed(XSHG.bars(OCTOBER.start, OCTOBER.end, Freq.D1), 10)
    assert len(wire.asked) == entries_needed(len(TRADED), 10) + 2


def test_where_the_bars_begin_is_believed_when_it_is_told_twice_and_called_no_listing():
    first = TRADED[0]
    wire = Wire(daily(TRADED))

    chain, taken = run(wire, "600519.SH", Freq.D1, Span(date(2026, 6, 1), date(2026, 11, 21)))

    assert chain.done
    assert wire.asked[-1] == wire.asked[-2]
    assert told(taken)[0] == ("06-01", f"{first:%m-%d}", Standing.EMPTY, Reason.VENDOR_NONE)


def test_a_page_that_is_empty_only_once_is_no_beginning():
    wire = Wire(daily(TRADED), trick=lambda entry, shown, number: "empty" if number == 2 else None)

    chain, taken = run(wire, "600519.SH", Freq.D1, OCTOBER)

    assert chain.done
    assert bars(taken).num_rows == wire.truth("600519.SH", Freq.D1, OCTOBER).num_rows
    assert Reason.NOT_LISTED not in {t[3] for t in told(taken)}


def test_a_known_beginning_saves_the_questions():
    wire = Wire(daily(TRADED))

    chain, taken = run(
        wire, "600519.SH", Freq.D1, Span(date(2026, 6, 1), date(2026, 11, 21)), known_begin=TRADED[0]
    )

    assert chain.done
    assert len(wire.asked) == entries_needed(len(TRADED), 10)
    assert told(taken)[-1][2] is Standing.FINAL or told(taken)[-1][2] is Standing.CLOSED
    assert told(taken)[0][:2] == ("06-01", f"{TRADED[0]:%m-%d}")


def test_a_series_without_any_bar_is_given_up_and_nothing_is_said_of_its_past():
    wire = Wire([])

    chain, taken = run(wire, "600519.SH", Freq.D1, OCTOBER)

    assert (chain.done, chain.stopped) == (False, "the vendor gives no bars at all")
    assert len(wire.asked) == 2
    assert told(taken) == []


def test_an_old_hole_that_is_empty_twice_is_what_the_vendor_says():
    wire = Wire([])

    chain, taken = run(wire, "600519.SH", Freq.D1, Span(date(2026, 10, 1), date(2026, 10, 17)))

    assert (chain.done, len(wire.asked)) == (True, 2)
    assert told(taken) == [("10-01", "10-17", Standing.EMPTY, Reason.VENDOR_NONE)]


@pytest.mark.parametrize("freq", [Freq.D1, Freq.M30])
def test_beyond_the_horizon_nothing_is_asked_and_no_cut_session_is_kept(freq):
    times = daily(TRADED) if freq is Freq.D1 else minutes("XSHG", TRADED, freq)
    wire = Wire(times, replace(DEEP, depth=20, page_limit=20))

    chain, taken = run(wire, "600519.SH", freq, OCTOBER)

    whole = bars(taken)
    assert chain.done
    assert len(wire.asked) == 1
    assert told(taken)[0][2:] == (Standing.EMPTY, Reason.HORIZON)
    assert whole.num_rows == (20 if freq is Freq.D1 else 16)  # 20 half hours: 2 sessions of 8, and a piece
    assert spans(taken) == [OCTOBER]


def test_a_past_beyond_the_horizon_is_no_proof_that_nothing_was_listed():
    wire = Wire(daily(TRADED), replace(DEEP, depth=20, page_limit=20))

    chain, taken = run(wire, "600519.SH", Freq.D1, Span(date(2026, 8, 3), date(2026, 9, 1)))

    assert chain.done
    assert told(taken) == [("08-03", "09-01", Standing.EMPTY, Reason.HORIZON)]


@pytest.mark.parametrize("freq", [Freq.D1, Freq.M30])
@pytest.mark.parametrize("wanted", [OCTOBER, Span(date(2026, 8, 10), date(2026, 9, 10))])
def test_a_vendor_that_ignores_the_end_stops_the_chain_and_proves_nothing_more(freq, wanted):
    times = daily(TRADED) if freq is Freq.D1 else minutes("XSHG", TRADED, freq)
    wire = Wire(times, mode="ignored")

    chain, taken = run(wire, "600519.SH", freq, wanted)

    assert not chain.done
    assert chain.stopped.startswith("no progress")
    assert chain.end_ignored
    assert len(wire.asked) <= 3
    assert len({entry.end for entry in wire.asked}) == len(wire.asked)
    assert Reason.NOT_LISTED not in {t[3] for t in told(taken)}
    assert spans(taken) != [wanted]


@pytest.mark.parametrize("wanted", [OCTOBER, Span(date(2026, 11, 10), date(2026, 11, 14))])
def test_a_key_known_to_ignore_ends_is_asked_for_its_newest_page_only(wanted):
    wire = Wire(daily(TRADED), replace(DEEP, end_honoured=False), mode="ignored")

    chain, taken = run(wire, "600519.SH", Freq.D1, wanted)

    newest = TRADED[-10:]
    assert chain.done
    assert [entry.end for entry in wire.asked] == [None]
    assert bars(taken)["session"].to_pylist() == [s for s in newest if wanted.start <= s < wanted.end]
    assert spans(taken) == [wanted]


@pytest.mark.parametrize("outcome", ["absent", "failed"])
def test_a_series_left_out_or_spoiled_is_asked_twice_more_and_then_given_up(outcome):
    once = Wire(daily(TRADED), trick=lambda entry, shown, number: outcome if number == 1 else None)
    ever = Wire(daily(TRADED), trick=lambda entry, shown, number: outcome)

    healed, _ = run(once, "600519.SH", Freq.D1, OCTOBER)
    parked, taken = run(ever, "600519.SH", Freq.D1, OCTOBER)

    assert healed.done
    assert (parked.done, parked.stopped, len(ever.asked)) == (False, "told so", 3)
    assert told(taken) == []


def test_a_refused_series_is_given_up_at_once():
    wire = Wire([], trick=lambda entry, shown, number: "refused")

    chain, _ = run(wire, "600519.SH", Freq.D1, OCTOBER)

    assert (chain.stopped, len(wire.asked)) == ("told so", 1)


def test_a_page_that_does_not_join_on_is_asked_again():
    times = daily(TRADED)
    wire = Wire(
        times, mode="exclusive", trick=lambda entry, shown, number: times[:9] if number == 2 else None
    )

    chain, taken = run(wire, "600519.SH", Freq.D1, OCTOBER)

    assert chain.done
    assert bars(taken).equals(wire.truth("600519.SH", Freq.D1, OCTOBER))


def test_pages_are_capped():
    def crawl(entry: Entry, shown: list[int], number: int) -> list[int]:
        return shown[-2:]

    wire = Wire(minutes("XSHG", TRADED, Freq.M30), replace(DEEP, page_limit=50), trick=crawl)

    chain, _ = run(wire, "600519.SH", Freq.M30, OCTOBER)

    assert chain.stopped.startswith("page cap")
    assert not chain.done


def test_only_sessions_that_have_begun_are_spoken_of():
    early = datetime(2026, 11, 20, 1, tzinfo=UTC)  # 09:00 in Shanghai, before the open
    wire = Wire(daily(TRADED[:-1]), now=early)

    chain, taken = run(wire, "600519.SH", Freq.D1, OCTOBER)

    assert chain.done
    assert spans(taken) == [Span(date(2026, 10, 1), date(2026, 11, 20))]


@pytest.mark.parametrize(
    ("now", "standing"),
    [
        (datetime(2026, 11, 20, 6, tzinfo=UTC), Standing.OPEN),
        (datetime(2026, 11, 20, 7, 5, tzinfo=UTC), Standing.CLOSED),
        (datetime(2026, 11, 20, 12, tzinfo=UTC), Standing.FINAL),
    ],
)
@pytest.mark.parametrize("freq", [Freq.D1, Freq.M30])
def test_the_newest_session_stands_as_far_as_it_has_come(freq, now, standing):
    times = (
        daily(TRADED) if freq is Freq.D1 else [t for t in minutes("XSHG", TRADED, freq) if t <= micros(now)]
    )
    wire = Wire(times, now=now)

    _, taken = run(wire, "600519.SH", freq, Span(date(2026, 11, 16), date(2026, 11, 21)))

    assert told(taken)[-1][1:] == ("11-21", standing, Reason.NONE)


def test_a_running_session_without_a_trade_yet_is_open_and_an_ended_one_is_empty():
    running = Wire(daily(TRADED[:-1]), now=datetime(2026, 11, 20, 2, tzinfo=UTC))
    ended = Wire(daily(TRADED[:-1]), now=datetime(2026, 11, 20, 7, 5, tzinfo=UTC))
    week = Span(date(2026, 11, 16), date(2026, 11, 21))

    _, early = run(running, "600519.SH", Freq.D1, week)
    _, late = run(ended, "600519.SH", Freq.D1, week)

    assert told(early)[-1] == ("11-20", "11-21", Standing.OPEN, Reason.VENDOR_NONE)
    assert told(late)[-1] == ("11-20", "11-21", Standing.EMPTY, Reason.VENDOR_NONE)


def test_a_running_week_is_open_and_the_weeks_before_are_final():
    weeks = sorted({Freq.W1.anchor(s) for s in TRADED})
    wire = Wire(daily(weeks), now=datetime(2026, 11, 19, 3, tzinfo=UTC))

    chain, taken = run(wire, "600519.SH", Freq.W1, Span(date(2026, 9, 7), date(2026, 11, 21)))

    assert chain.done
    assert told(taken)[-1] == ("11-16", "11-21", Standing.OPEN, Reason.NONE)
    assert bars(taken)["session"].to_pylist()[-1] == date(2026, 11, 16)


def test_the_closing_print_of_new_york_is_folded_and_never_alone():
    days = calendar("XNYS").sessions(date(2026, 11, 2), date(2026, 11, 20))
    times = sorted(minutes("XNYS", days, Freq.M30) + [micros(calendar("XNYS").hours(d).close) for d in days])
    wire = Wire(times)

    chain, taken = run(wire, "AAPL.US", Freq.M30, Span(date(2026, 11, 9), date(2026, 11, 20)))

    whole = bars(taken)
    assert chain.done
    assert whole.num_rows == 13 * 9
    assert whole["flags"].to_pylist() == ([0] * 12 + [1]) * 9
    assert set(whole["volume"].to_pylist()[12::13]) == {10.0}


def test_a_replayed_page_proves_nothing_younger_than_it_asked():
    wire = Wire(daily(TRADED))
    chain = Chain(
        Series("v", "600519.SH", Freq.D1), Span(date(1990, 12, 19), date(2026, 11, 22)), DEEP, XSHG, NOW
    )
    old = Entry("600519.SH", Freq.D1, datetime(2026, 10, 20, 8, tzinfo=UTC), 10)

    taken = chain.take(wire.page(old), reply(old, 1))

    assert spans([taken]) == [Span(taken.bars["session"][0].as_py(), date(2026, 10, 21))]
    assert taken.bars.num_rows == 10


class Contradicting(Wire):
    def rows(self, times: list[int]) -> Rows:
        made = super().rows(times)
        made.close[np.flatnonzero(np.diff(made.time) == 0)] += 0.5
        return made


@pytest.mark.parametrize("freq", [Freq.D1, Freq.M30])
def test_a_refused_row_leaves_its_session_untold(freq):
    times = daily(TRADED) if freq is Freq.D1 else minutes("XSHG", TRADED, freq)
    spoiled = times[-3] if freq is Freq.D1 else micros(XSHG.hours(TRADED[-3]).open)
    wire = Contradicting(
        times, trick=lambda entry, shown, number: sorted([*shown, *([spoiled] if spoiled in shown else [])])
    )

    chain, taken = run(wire, "600519.SH", freq, Span(date(2026, 11, 9), date(2026, 11, 21)))

    untold = {s: [r.rule for r in rows] for t in taken for s, rows in t.untold.items()}
    assert chain.done
    assert untold == {TRADED[-3]: ["key twice", "key twice"]}
    assert bars(taken)["session"].to_pylist().count(TRADED[-3]) == (0 if freq is Freq.D1 else 7)


def test_a_refused_row_is_remembered_until_its_session_is_proven():
    times = minutes("XSHG", TRADED, Freq.M30)
    spoiled = micros(XSHG.hours(TRADED[-2]).close) - 1_800_000_000  # its session is cut by the page
    wire = Contradicting(
        times, trick=lambda entry, shown, number: sorted([*shown, spoiled]) if number == 1 else None
    )

    _, taken = run(wire, "600519.SH", Freq.M30, Span(date(2026, 11, 18), date(2026, 11, 21)))

    assert [set(t.untold) for t in taken if t.stretches] == [set(), {TRADED[-2]}, set()]


@pytest.mark.parametrize(("freq", "doubtful"), [(Freq.D1, [HALT[0], date(2026, 11, 5)]), (Freq.H1, None)])
def test_a_row_without_a_time_may_be_any_that_is_not_there(freq, doubtful):
    times = daily(TRADED) if freq is Freq.D1 else minutes("XSHG", TRADED, freq)
    wanted = Span(date(2026, 11, 3), date(2026, 11, 10))
    wire = Wire(times, replace(DEEP, page_limit=50))
    chain = Chain(Series("v", "600519.SH", freq), wanted, wire.capability, XSHG, NOW)
    entry = chain.next()

    got = wire.page(entry)
    taken = chain.take(
        replace(got, rejects=(Reject("600519.SH", freq, "impossible time", "{}"),)), reply(entry, 1)
    )

    assert chain.done
    assert sorted(taken.untold) == (doubtful or XSHG.sessions(wanted.start, wanted.end))


def test_one_page_that_is_newer_than_its_end_is_asked_again_with_another_end():
    times = daily(TRADED)
    wire = Wire(times, trick=lambda entry, shown, number: times[-10:] if number == 2 else None)

    chain, taken = run(wire, "600519.SH", Freq.D1, OCTOBER)

    assert (chain.done, chain.end_ignored) == (True, False)
    assert wire.asked[1].end != wire.asked[2].end
    assert bars(taken).equals(wire.truth("600519.SH", Freq.D1, OCTOBER))


def test_a_session_that_the_vendor_begins_with_is_not_kept_when_it_is_cut():
    times = minutes("XSHG", TRADED[-5:], Freq.M30)[3:]
    wire = Wire(times)

    chain, taken = run(wire, "600519.SH", Freq.M30, OCTOBER)

    assert chain.done
    assert set(bars(taken)["session"].to_pylist()) == set(TRADED[-4:])
    assert told(taken)[0] == ("10-01", f"{TRADED[-4]:%m-%d}", Standing.EMPTY, Reason.VENDOR_NONE)
    assert spans(taken) == [OCTOBER]


def test_a_session_that_runs_and_is_cut_by_the_beginning_stays_open():
    now = datetime(2026, 11, 20, 6, tzinfo=UTC)
    times = [t for t in minutes("XSHG", TRADED[-1:], Freq.M30)[2:] if t < micros(now)]
    wire = Wire(times, now=now)

    _, taken = run(wire, "600519.SH", Freq.M30, OCTOBER)

    assert bars(taken).num_rows == 0
    assert told(taken)[-1] == ("11-20", "11-21", Standing.OPEN, Reason.VENDOR_NONE)


def test_the_opening_print_on_the_page_before_belongs_to_its_session():
    step = timedelta(minutes=30)
    days = TRADED[-3:]
    times = sorted(minutes("XSHG", days, Freq.M30) + [micros(XSHG.hours(d).open - step) for d in days])
    wire = Wire(times, replace(DEEP, page_limit=17))  # two sessions of 9, but for the print of the older one

    chain, taken = run(wire, "600519.SH", Freq.M30, Span(days[1], date(2026, 11, 21)))

    whole = bars(taken)
    assert chain.done
    assert whole.num_rows == 16
    assert whole["volume"].to_pylist()[::8] == [1000.0, 1000.0]


def test_a_short_page_of_a_vendor_that_gives_only_one_says_that_there_is_no_more():
    wire = Wire(daily(TRADED[-4:]), replace(DEEP, end_honoured=False), mode="ignored")

    chain, taken = run(wire, "600519.SH", Freq.D1, OCTOBER)

    assert (chain.done, chain.stopped, len(wire.asked)) == (True, "", 1)
    assert told(taken)[0] == ("10-01", f"{TRADED[-4]:%m-%d}", Standing.EMPTY, Reason.VENDOR_NONE)
    assert spans(taken) == [OCTOBER]


def test_a_short_question_to_a_vendor_that_gives_only_one_page_is_asked_again_in_full():
    hours = [XSHG.hours(day) for day in TRADED]
    prints = [micros(at) for h in hours for at in (h.open - timedelta(minutes=30), h.close)]
    wire = Wire(
        sorted(minutes("XSHG", TRADED, Freq.M30) + prints),  # 10 a session, where 8 are expected
        replace(DEEP, end_honoured=False, page_limit=40), mode="ignored",
    )  # fmt: skip

    chain, taken = run(wire, "600519.SH", Freq.M30, Span(TRADED[-2], date(2026, 11, 21)))

    assert (chain.done, chain.stopped) == (True, "")
    assert [(entry.end, entry.count) for entry in wire.asked] == [(None, 18), (None, 40)]
    assert bars(taken).num_rows == 16
    assert Reason.HORIZON not in {t[3] for t in told(taken)}


def test_what_is_held_of_a_page_does_not_keep_the_page_in_memory():
    wire = Wire(minutes("XSHG", TRADED, Freq.M1), replace(DEEP, page_limit=1000))
    chain = Chain(Series("v", "600519.SH", Freq.M1), OCTOBER, wire.capability, XSHG, NOW)
    entry = chain.next()

    chain.take(wire.page(entry), reply(entry, 1))

    held = chain._held
    assert 0 < held.num_rows < 240
    assert held.get_total_buffer_size() < 3 * held.nbytes


def test_days_without_a_session_need_no_request():
    weekend = Span(date(2026, 11, 14), date(2026, 11, 16))

    chain, taken = run(Wire([]), "600519.SH", Freq.D1, weekend)

    assert chain.done
    assert taken == []


@pytest.mark.parametrize("symbol", ["600519.SH", "00700.HK", "AAPL.US", "BTCUSDT.P.QOS", "000300.SH"])
@pytest.mark.parametrize("freq", [Freq.M1, Freq.M15, Freq.D1, Freq.W1, Freq.MO1])
def test_what_a_chain_brings_is_the_truth_of_the_market(symbol, freq):
    from klake.ingest.registry import open_vendor

    with Sandbox(clock_start=datetime(2026, 11, 20, 15, 30, tzinfo=UTC)) as sandbox:
        table = {"kind": "qos", "key": sandbox.secrets["qos"]["deep"], "url": sandbox.qos_url, "depth": 0}
        vendor = open_vendor("qos", table, ManualClock(sandbox.clock.now()))
        sandbox.faults.put(None, {"limits": False})
        wanted = Span(date(2026, 11, 9) if freq.intraday else date(2024, 1, 1), date(2026, 11, 21))
        place = Symbol.parse(symbol).place
        chain = Chain(
            Series("qos", symbol, freq),
            wanted,
            vendor.capability,
            calendar(place.calendar),
            sandbox.clock.now(),
        )
        taken: list[Taken] = []
        while (entry := chain.next()) is not None:
            page = vendor.send(vendor.request((entry,)))
            taken.append(chain.take(vendor.parse(page)[0], page))
        start, end = freq.anchor(wanted.start), wanted.end - timedelta(days=1)
        truth = sandbox.market.truth(
            symbol, freq, start, wanted.end if freq.intraday else end, sandbox.clock.now()
        )

    columns = ["ts", "session", "open", "high", "low", "close", "volume"]
    assert chain.done
    assert bars(taken).select(columns).to_pylist() == truth.select(columns).to_pylist()
    assert spans(taken) == [Span(start, wanted.end)]
