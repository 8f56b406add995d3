"""The raw zone: durable pages, torn tails, dead processes, repeated bodies."""

import multiprocessing
import os
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from klake.errors import BadRequest, LakeUnwritable
from klake.schemas.clock import ManualClock
from klake.schemas.freq import Freq
from klake.schemas.page import Entry, Page, PageRequest
from klake.storage.raw import SEAL_BYTES, RawZone
from klake.storage.segment import frame, frames

NOW = datetime(2026, 11, 20, 8, tzinfo=UTC)


def page(
    number: int, body: bytes | None = None, *, vendor: str = "qos", at: datetime = NOW, count: int = 10
) -> Page:
    entry = Entry("600519.SH", Freq.D1, datetime(2026, 11, 1, tzinfo=UTC), count)
    request = PageRequest(vendor, "/kline", (entry,))
    given = f"body {number}".encode() if body is None else body
    return Page(f"p{number}", "run-1", "qos", "a1b2", request, at, 200, "klake/0.1", given)


@pytest.fixture
def root(tmp_path: Path) -> str:
    return str(tmp_path / "lake")


@pytest.fixture
def zone(root: str) -> RawZone:
    return RawZone(root, ManualClock(NOW))


def again(root: str) -> RawZone:
    return RawZone(root, ManualClock(NOW))


def bodies(zone: RawZone) -> dict[str, bytes]:
    return {p.id: p.body for p in zone.pages()}


def sealed(root: str) -> list[Path]:
    return sorted(Path(root).glob("raw/*/*/*.kraw"))


def spooled(root: str) -> list[Path]:
    return sorted(Path(root).glob("_spool/*.spool"))


def test_a_page_reads_back_whole(zone: RawZone, root: str) -> None:
    given = page(1, bytes(range(256)))

    zone.append([given])

    assert list(again(root).pages()) == [given]


def test_pages_are_read_from_spool_and_sealed_segments_alike(zone: RawZone, root: str) -> None:
    zone.append([page(1), page(2, vendor="longbridge")])
    zone.seal()
    zone.append([page(3)])

    assert bodies(zone).keys() == {"p1", "p2", "p3"}
    assert [path.parts[-3:-1] for path in sealed(root)] == [
        ("longbridge", "2026-11-20"),
        ("qos", "2026-11-20"),
    ]
    assert len(spooled(root)) == 1


def test_a_segment_of_eight_megabytes_is_sealed(zone: RawZone, root: str) -> None:
    zone.append([page(1, os.urandom(SEAL_BYTES))])

    assert len(sealed(root)) == 1 and not spooled(root)


def test_sealing_nothing_leaves_nothing(zone: RawZone, root: str) -> None:
    zone.seal()
    zone.append([])
    zone.seal()

    assert not sealed(root) and not spooled(root)


def test_a_repeated_body_is_kept_once(zone: RawZone, root: str) -> None:
    body = os.urandom(50_000)
    zone.append([page(1, body)])
    zone.append([page(2, body), page(3, body)])

    assert bodies(again(root)) == {"p1": body, "p2": body, "p3": body}
    assert spooled(root)[0].stat().st_size < 60_000


def test_a_body_repeated_by_the_next_run_is_kept_once(zone: RawZone, root: str) -> None:
    body = os.urandom(50_000)
    zone.append([page(1, body)])
    zone.seal()

    following = again(root)
    following.append([page(2, body), page(3, body, count=11)])
    following.seal()

    assert bodies(again(root)) == {"p1": body, "p2": body, "p3": body}
    assert sum(path.stat().st_size for path in sealed(root)) < 110_000  # another request keeps its own


def test_a_body_that_changed_and_changed_back_is_right(zone: RawZone, root: str) -> None:
    zone.append([page(1, b"A"), page(2, b"B"), page(3, b"A"), page(4, b"A"), page(5, b"")])

    assert bodies(again(root)) == {"p1": b"A", "p2": b"B", "p3": b"A", "p4": b"A", "p5": b""}


def test_since_leaves_out_earlier_pages(zone: RawZone) -> None:
    days = [NOW - timedelta(days=n) for n in (9, 5, 0)]
    for number, at in enumerate(days):
        zone.append([page(number, b"same", at=at)])
        zone.seal()

    found = list(zone.pages(since=days[1]))

    assert [(p.id, p.body) for p in found] == [("p1", b"same"), ("p2", b"same")]


def test_unsettled_are_the_pages_that_nobody_stored(zone: RawZone) -> None:
    zone.append([page(1), page(2), page(3)])

    assert [p.id for p in zone.unsettled({"p2"})] == ["p1", "p3"]


def test_pages_of_a_process_that_lives_are_not_unsettled_for_others(zone: RawZone, root: str) -> None:
    zone.append([page(1), page(2, os.urandom(SEAL_BYTES))])  # sealed by its size, its run goes on
    zone.append([page(3)])
    other = again(root)

    assert [path.suffix for path in (*sealed(root), *spooled(root))] == [".kraw", ".spool"]
    assert len(other.living()) == 2
    assert list(other.unsettled(set())) == []
    assert {p.id for p in zone.unsettled(set())} == {"p1", "p2", "p3"}

    zone.seal()

    assert other.living() == frozenset()
    assert {p.id for p in other.unsettled(set())} == {"p1", "p2", "p3"}
    assert list(Path(root).glob("_spool/*")) == []


def _die_after_sealing(root: str) -> None:
    zone = RawZone(root, ManualClock(NOW))
    zone.append([page(1, os.urandom(SEAL_BYTES))])
    os._exit(9)


def test_the_lock_that_a_dead_process_left_of_a_sealed_segment_is_removed(root: str) -> None:
    dead = multiprocessing.get_context("spawn").Process(target=_die_after_sealing, args=(root,))
    dead.start()
    dead.join(60)

    heir = again(root)
    found = [p.id for p in heir.unsettled(set())]
    heir.seal()

    assert found == ["p1"]
    assert list(Path(root).glob("_spool/*")) == []


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_a_segment_cut_at_any_byte_keeps_every_whole_record(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    root = str(tmp_path_factory.mktemp("lake"))
    zone = again(root)
    ends = []
    for number in range(4):
        zone.append([page(number)])
        ends.append(spooled(root)[0].stat().st_size)

    cut = data.draw(st.integers(0, ends[-1]))
    os.truncate(spooled(root)[0], cut)
    reader = again(root)

    assert len(bodies(reader)) == sum(end <= cut for end in ends)
    assert not reader.problems()


def test_a_corrupt_record_is_skipped_and_told(zone: RawZone, root: str) -> None:
    zone.append([page(n) for n in range(3)])
    zone.seal()
    (path,) = sealed(root)
    whole = bytearray(path.read_bytes())
    second = list(frames(bytes(whole)))[1]
    whole[second.at + 40] ^= 0xFF

    path.write_bytes(whole)
    reader = again(root)

    assert bodies(reader).keys() == {"p0", "p2"}
    (problem,) = reader.problems()
    assert str(second.at) in str(problem) and path.name in str(problem)


@given(st.lists(st.binary(max_size=60), max_size=6), st.binary(max_size=40))
def test_frames_survive_any_rubbish_between_them(payloads: list[bytes], rubbish: bytes) -> None:
    data = b"".join(frame(payload) + rubbish for payload in payloads)

    found = [one.payload for one in frames(data) if one.payload is not None]

    assert found == payloads


def _die(root: str, number: int) -> None:
    zone = RawZone(root, ManualClock(NOW))
    zone.append([page(number), page(number + 1)])
    with spooled(root)[0].open("ab") as file:
        file.write(frame(b"x" * 100)[:50])  # killed while appending
    os._exit(9)


def test_the_spool_of_a_dead_process_is_adopted_by_the_next_run(root: str) -> None:
    dead = multiprocessing.get_context("spawn").Process(target=_die, args=(root, 1))
    dead.start()
    dead.join(60)
    before = bodies(again(root)).keys()

    heir = again(root)
    heir.append([page(7)])

    assert dead.exitcode == 9
    assert before == {"p1", "p2"}
    assert bodies(heir).keys() == {"p1", "p2", "p7"}
    assert len(sealed(root)) == 1 and not heir.problems()


def test_the_spool_of_a_living_process_is_left_alone(zone: RawZone, root: str) -> None:
    zone.append([page(1)])

    other = again(root)
    other.append([page(2)])
    other.seal()
    zone.append([page(3)])

    assert bodies(zone).keys() == {"p1", "p2", "p3"}
    assert len(spooled(root)) == 1 and len(sealed(root)) == 1


def test_a_segment_that_moves_while_it_is_read_is_not_missed(zone: RawZone, root: str) -> None:
    zone.append([page(1, vendor="a")])
    zone.append([page(2, vendor="b")])

    reading = again(root).pages()
    first = next(reading)
    zone.seal()

    assert {first.id, *(p.id for p in reading)} == {"p1", "p2"}


@pytest.mark.parametrize("vendor", ["../x", "", "A", "a/b", "a.b"])
def test_a_vendor_that_cannot_be_a_folder_is_refused(zone: RawZone, vendor: str) -> None:
    with pytest.raises(BadRequest):
        zone.append([page(1, vendor=vendor)])


def test_a_full_or_forbidden_disk_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "lake").write_text("a file")

    with pytest.raises(LakeUnwritable, match="lake"):
        again(str(tmp_path / "lake")).append([page(1)])


def test_the_day_of_a_segment_is_that_of_its_last_page(zone: RawZone, root: str) -> None:
    zone.append([page(1, at=NOW), page(2, at=NOW + timedelta(days=1))])

    zone.seal()

    assert sealed(root)[0].parent.name == date(2026, 11, 21).isoformat()


def on_days(root: str, bodies: list[bytes]) -> ManualClock:
    """One page a day, each day a run of its own; the clock then stands a day after the last."""
    clock = ManualClock(NOW)
    for number, body in enumerate(bodies):
        zone = RawZone(root, clock)
        zone.append([page(number, body, at=clock.now())])
        zone.seal()
        clock.wait(86400)
    return clock


def numbers(paths: tuple[str, ...]) -> list[int]:
    return [(date.fromisoformat(path.split("/")[2]) - NOW.date()).days for path in paths]


def test_old_segments_go_and_the_newest_four_stay(root: str) -> None:
    zone = RawZone(root, on_days(root, [b"%d" % n for n in range(10)]))
    sizes = sum(path.stat().st_size for path in sealed(root)[:6])

    lately = zone.expire(10, lambda: {f"p{n}" for n in range(10)})
    would = zone.expire(2, lambda: {f"p{n}" for n in range(10)}, dry_run=True)
    went = zone.expire(2, lambda: {f"p{n}" for n in range(10)})

    assert lately.paths == ()
    assert would == went
    assert (numbers(went.paths), went.size_bytes) == ([0, 1, 2, 3, 4, 5], sizes)
    assert bodies(zone).keys() == {"p6", "p7", "p8", "p9"}
    assert len(list(Path(root).glob("raw/qos/*"))) == 4  # no empty folder of a day


def test_a_page_that_is_not_stored_keeps_its_segment(root: str) -> None:
    zone = RawZone(root, on_days(root, [b"%d" % n for n in range(8)]))

    zone.expire(2, lambda: {f"p{n}" for n in range(8) if n != 1})

    assert bodies(zone).keys() == {"p1", "p4", "p5", "p6", "p7"}


def test_a_body_that_a_kept_page_repeats_stays(root: str) -> None:
    body = os.urandom(5_000)
    zone = RawZone(root, on_days(root, [body] * 8))

    went = zone.expire(2, lambda: {f"p{n}" for n in range(8)})

    assert numbers(went.paths) == [1, 2, 3]  # the fifth page repeats the first one's body
    assert set(bodies(zone).values()) == {body} and not zone.problems()
    assert bodies(zone).keys() == {"p0", "p4", "p5", "p6", "p7"}


def test_what_cannot_be_read_is_not_thrown_away(root: str) -> None:
    zone = RawZone(root, on_days(root, [b"%d" % n for n in range(8)]))
    spoilt = bytearray(sealed(root)[0].read_bytes())
    spoilt[20] ^= 0xFF
    sealed(root)[0].write_bytes(spoilt)

    went = zone.expire(2, lambda: {f"p{n}" for n in range(8)})

    assert numbers(went.paths) == [1, 2, 3]


def test_while_another_run_receives_pages_nothing_goes(root: str) -> None:
    clock = on_days(root, [b"%d" % n for n in range(8)])
    living = RawZone(root, clock)
    living.append([page(8, b"8", at=clock.now())])
    zone = RawZone(root, clock)

    during = zone.expire(2, lambda: {f"p{n}" for n in range(9)}, due_only=True)
    living.seal()
    after = zone.expire(2, lambda: {f"p{n}" for n in range(9)}, due_only=True)
    again = zone.expire(1, lambda: {f"p{n}" for n in range(9)}, due_only=True)

    assert (during.paths, numbers(after.paths), again.paths) == ((), [0, 1, 2, 3, 4], ())


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    kinds=st.lists(st.integers(0, 2), min_size=1, max_size=12),
    unstored=st.sets(st.integers(0, 11), max_size=2),
    days=st.integers(1, 8),
)
def test_whatever_goes_every_page_that_stays_is_whole(
    tmp_path_factory: pytest.TempPathFactory, kinds: list[int], unstored: set[int], days: int
) -> None:
    root = str(tmp_path_factory.mktemp("lake"))
    given = {f"p{n}": b"body %d" % kind for n, kind in enumerate(kinds)}
    zone = RawZone(root, on_days(root, list(given.values())))
    stored = {name for n, name in enumerate(given) if n not in unstored}

    went = zone.expire(days, lambda: stored)

    left = bodies(again(root))
    assert left == {name: given[name] for name in left}
    assert given.keys() - left.keys() <= stored
    assert len(left) == len(kinds) - len(went.paths)
    assert all(age <= len(kinds) - 1 - days for age in numbers(went.paths))


def test_pages_taken_from_elsewhere_lie_under_the_day_they_were_taken(root: str) -> None:
    zone, old = RawZone(root, ManualClock(NOW)), NOW - timedelta(days=40)

    zone.append([page(1, at=old)], taken_at=NOW)
    zone.seal()

    assert sealed(root)[0].parent.name == NOW.date().isoformat()
    assert [ref.received_at for ref in zone.refs()] == [old]
    assert [ref.id for ref in zone.unsettled(set(), since=NOW)] == ["p1"]
    assert list(zone.pages()) == [page(1, at=old)]


def test_a_segment_that_the_system_cannot_read_is_told_and_the_others_are_read(
    zone: RawZone, root: str
) -> None:
    zone.append([page(1)])
    zone.seal()
    zone.append([page(2)])
    zone.seal()
    first = min(sealed(root), key=lambda path: path.stat().st_mtime_ns)
    first.unlink()
    first.mkdir()  # reading a folder fails for everybody, even for root

    reader = again(root)

    assert bodies(reader).keys() == {"p2"}
    (problem,) = reader.problems()
    assert first.name in str(problem) and "directory" in str(problem).lower()
