"""Collect and take: pages from the machine that has the vendor into the lake of another one.

`collect` is a sync into a folder that keeps pages and what they prove, and no bars. `take`
brings the pages of such a folder into the lake: each is durable in the lake's own raw zone
before it is used, and is stored as the start of a sync stores what a killed run received.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from ..errors import ConfigError, LakeError
from ..schemas.clock import Clock
from ..schemas.report import ReplayReport, RunReport
from ..schemas.settings import Job
from ..storage.raw import RawZone
from ..storage.records import Ref
from ..storage.store import Store
from .desk import Desk
from .harvest import Harvest
from .maintain import end_run
from .pages import starts_of, starts_of_jobs
from .replay import JOB, Work, stored, work_on
from .sync import sync
from .turn import turn

__all__ = ["collect", "take"]

_GROUP: Final = 64  # pages that are made durable together
_TABLES: Final = ("actions", "instruments")


def collect(desk: Desk, out: str, name: str, job: Job) -> RunReport:
    """Fetch what a job lacks in the folder `out`, keep it there as pages, and return the report.

    The folder is made when it is not there. It has books of its own, so that the next run
    fetches only what is new; no lake is needed on this machine. Raises as `sync`, and LakeHolds
    where `out` is a lake.
    """
    return sync(replace(desk, out=out), name, job)


def take(desk: Desk, source: str) -> ReplayReport:
    """Bring the pages of a folder that `collect` filled into the lake, and return what came of them.

    Pages that the lake has are passed by, so that it may be done again at any time, also while a
    collect still fills the folder. Nothing is written there, no request is sent and no key needed.

    Raises
    ------
    LakeError, LakeHolds, LakeOrigin
        There is no such folder, it is a lake, or its pages are of the other kind than this lake's.
    CommitConflict
        Another process is taking pages into this lake.
    """
    began = desk.clock.now()
    folder = Store.open(source, desk.clock, origin=desk.origin, holds="pages", read_only=True)
    if not folder.raw.vendors():
        raise LakeError(
            f"{source}: no page was collected here yet: `klake collect --out {source}` fetches some",
            f"{source}：这里还没有收集到数据页：请先运行 `klake collect --out {source}`",
        )
    books, report = desk.books(create=True), ReplayReport(source=folder.path, sandbox=desk.sandbox)
    try:
        for vendor in folder.raw.vendors():
            try:
                with turn(books, vendor, JOB), work_on(desk, books, vendor, report) as work:
                    _take(work, folder)
            except ConfigError as error:
                report.problems.append(str(error))
    finally:
        end_run(books, desk.settings.lake.raw_days)
    for table in _TABLES:
        report.rows += _brought(folder, books.store, table)
    report.problems += [str(problem) for problem in (*folder.raw.problems(), *books.store.raw.problems())]
    report.seconds = (desk.clock.now() - began).total_seconds()
    return report


def _take(work: Work, folder: Store) -> None:
    raw, vendor = work.books.store.raw, work.vendor.name
    living, done = raw.living(), stored(work.books)
    lacking = folder.raw.refs(vendor=vendor, wanted=lambda head: head.id not in done)
    if not lacking:
        return
    own = {ref.id for ref in raw.refs(vendor=vendor)}  # a run that was killed had come so far
    _keep(folder.raw, raw, [ref for ref in lacking if ref.id not in own], work.desk.clock)
    pages = raw.unsettled(done, living=living, vendor=vendor)
    harvest = Harvest(work.books, work.desk.clock, work.desk.events)
    starts = {**starts_of_jobs(work.desk, vendor), **starts_of(folder)}
    work.read(raw, pages, harvest, starts)


def _keep(source: RawZone, own: RawZone, refs: Sequence[Ref], clock: Clock) -> None:
    """Make pages of another raw zone durable in ours."""
    for first in range(0, len(refs), _GROUP):
        group = (source.page(ref) for ref in refs[first : first + _GROUP])
        own.append([page for page in group if page is not None], clock.now())


def _brought(folder: Store, store: Store, table: str) -> int:
    """Return how many rows of a table of the folder said something new; they are in the lake now."""
    rows = folder.table(table).sort_by("known_at").drop_columns(["known_at"])
    return store.append(table, rows) if rows.num_rows else 0
