"""Doctor: what could keep klake from working here, and what to do about each of it."""

import shutil
import sys
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, timedelta
from email.utils import parsedate_to_datetime
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

import httpx

from ..errors import (
    CredentialsMissing,
    KlakeError,
    MissingExtra,
)
from ..schemas.clock import SystemClock
from ..storage.quotas import SharedQuotas, quotas_path
from .checks import Check
from .config import load
from .desk import Desk, open_desk
from .lake_checks import lake_checks

__all__ = ["Check", "examine"]

_ENGINES: Final = (
    ("duckdb", "duckdb"), ("polars", "polars"), ("pyarrow", "pyarrow"), ("deltalake", "deltalake"),
    ("SQLAlchemy", "sqlalchemy"), ("httpx", "httpx"), ("pydantic-settings", "pydantic_settings"), ("msgspec", "msgspec"),
)  # fmt: skip
_TIGHT, _LOW = 200_000_000, 2_000_000_000  # bytes free
_SKEW: Final = timedelta(seconds=10)


def examine(config: str | None = None, *, deep: bool = False) -> Iterator[Check]:
    """Yield one check after the other; a "bad" one keeps klake from working.

    Never shows a secret, stores nothing, and sends at most one request without a key per vendor.
    `deep`: decode every file of the lake, and every raw page.
    """
    yield from _engines()
    yield from _quotas()
    try:
        settings = load(config)
    except KlakeError as error:
        yield Check(
            "config", "bad", str(error), "correct that line; `klake init DIR` writes a file to compare with"
        )
        return
    if settings.where == "environment":
        yield Check(
            "config", "note", "no klake.toml here or above; the environment rules", "`klake init` writes one"
        )
    else:
        yield Check("config", "ok", settings.where)
    with open_desk(config) as desk:
        yield from _clock(desk)
        yield from _vendors(desk)
        yield from _jobs(desk)
        yield from _disk(desk)
        yield from lake_checks(desk, deep=deep)


def _engines() -> Iterator[Check]:
    told: list[str] = [f"Python {sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}"]
    for package, module in _ENGINES:
        try:
            import_module(module)
            told.append(f"{package} {version(package)}")
        except (ImportError, PackageNotFoundError) as error:
            yield Check("engines", "bad", f"{package} cannot be loaded: {error}", f"pip install {package}")
    yield Check("engines", "ok", ", ".join(told))


def _quotas() -> Iterator[Check]:
    try:
        path = quotas_path()
        count = SharedQuotas(path, SystemClock())
        count.close()
    except KlakeError as error:
        yield Check(
            "quotas", "bad", str(error), "make that folder writable; all processes of a user share this count"
        )
        return
    if count.broken is not None:
        yield Check(
            "quotas", "note", f"{path} was damaged; a new one was made, the old one is {count.broken}"
        )
    else:
        yield Check("quotas", "ok", str(path))


def _clock(desk: Desk) -> Iterator[Check]:
    machine = SystemClock().now()
    if desk.settings.sandbox is not None:
        try:
            now = desk.clock.now()
        except KlakeError as error:
            yield Check(
                "clock", "bad", str(error), "start it again, then `klake init DIR --sandbox URL --force`"
            )
            return
        ahead = (now - machine).total_seconds()
        yield Check(
            "clock", "ok", f"the sandbox's: {now:%Y-%m-%d %H:%M:%S}Z, {ahead:+.0f} s from this machine's"
        )
        return
    yield Check("clock", "ok", f"this machine's: {machine:%Y-%m-%d %H:%M:%S}Z")


def _vendors(desk: Desk) -> Iterator[Check]:
    if not desk.settings.vendors:
        yield Check("vendors", "note", "none is configured", "add [vendors.NAME]; `klake init DIR` shows how")
    for name in desk.settings.vendors:
        try:
            vendor = desk.vendor(name)
        except CredentialsMissing as error:
            yield Check(f"vendor {name}", "bad", str(error), "set it where klake runs (in cron, too)")
        except MissingExtra as error:
            yield Check(f"vendor {name}", "bad", str(error), "run that line")
        except KlakeError as error:
            yield Check(f"vendor {name}", "bad", str(error), "correct its table in the configuration")
        else:
            vendor.close()
            yield Check(f"vendor {name}", "ok", f"kind {vendor.kind}, credentials are there")
            if not desk.sandbox:
                yield from _skew(desk, name)


def _skew(desk: Desk, name: str) -> Iterator[Check]:
    """Compare clocks by the Date header of the vendor's server; asks without a key, so no quota is used."""
    url = str(desk.settings.vendors[name].get("url", "https://api.qos.hk"))
    try:
        reply = httpx.head(url, timeout=5.0)
    except httpx.HTTPError as error:
        yield Check(f"vendor {name}", "bad", f"{url} does not answer ({type(error).__name__})",
                    "check the network, a proxy (HTTPS_PROXY), or try again later")  # fmt: skip
        return
    with suppress(KeyError, ValueError, TypeError):
        ahead = SystemClock().now() - parsedate_to_datetime(reply.headers["date"]).astimezone(UTC)
        if abs(ahead) > _SKEW:
            yield Check("clock", "bad", f"this machine's clock is {ahead.total_seconds():+.0f} s from {name}'s",
                        "set it by NTP: bars would be called final too early or too late")  # fmt: skip


def _jobs(desk: Desk) -> Iterator[Check]:
    for name, job in desk.settings.jobs.items():
        try:
            symbols = desk.symbols(job)
        except KlakeError as error:
            yield Check(f"job {name}", "bad", str(error), "correct its symbols or its universe")
        else:
            freqs = ", ".join(f.value for f in job.freq)
            yield Check(f"job {name}", "ok", f"{len(symbols):,} symbols, {freqs}, from {job.start}")


def _disk(desk: Desk) -> Iterator[Check]:
    folder = Path(desk.settings.lake_path)
    there = next((p for p in (folder, *folder.parents) if p.is_dir()), Path("/"))
    free = shutil.disk_usage(there).free
    told = f"{free / 1e9:,.1f} GB free at {there}"
    if free < _TIGHT:
        yield Check("disk", "bad", told, "make room: a commit needs space for a copy of what it rewrites")
    else:
        yield Check("disk", "note" if free < _LOW else "ok", told, "make room soon" if free < _LOW else "")
