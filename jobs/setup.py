"""Setting up: a klake.toml that works, and the empty lake beside it."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec

from ..errors import BadRequest, LakeUnwritable, VendorDown
from .config import FILE
from .desk import open_desk

__all__ = ["SandboxFacts", "Setup", "Wish", "sandbox_facts", "set_up"]

_HEAD: Final = "# klake: what to fetch, from whom, and where to keep it. Paths are relative to this file.\n"
_REAL: Final = """
[vendors.qos]
kind = "qos"
key = "env:QOS_KEY"            # export QOS_KEY=...; or "file:secrets/qos.key", a file that only you may read
# quota = [[10, "60s"]]        # what your plan allows, where it differs from the vendor's usual
# products = 10
# depth = 1000
"""
_SYMBOLS: Final = ("600519.SH", "000300.SH", "000001.SZ", "00700.HK", "AAPL.US", "BTCUSDT.P.QOS")


@dataclass(frozen=True, slots=True)
class SandboxFacts:
    """What a running sandbox says of itself: URL and a key of its QOS stand-in, its symbols, requests a minute."""

    control: str
    qos: str
    key: str
    symbols: tuple[str, ...]
    a_minute: int = 10


@dataclass(frozen=True, slots=True)
class Setup:
    """What was set up: the file, the lake it names, and whether that is a sandbox's."""

    config: Path
    lake: str
    sandbox: bool


@dataclass(frozen=True, slots=True)
class Wish:
    """What the file shall hold besides the vendor: symbols, and (name, freqs, first date) of each job."""

    symbols: Sequence[str] = _SYMBOLS
    jobs: Sequence[tuple[str, Sequence[str], date]] = field(
        default=(("daily", ("1d",), date(2020, 1, 1)),),
    )
    lake: str = "data/lake"


def sandbox_facts(control: str, plan: str = "default", a_minute: int = 10) -> SandboxFacts:
    """Return what the sandbox at `control` offers under the key called `plan`.

    `a_minute`: how many requests a minute that key is to be good for; the usual is 10.

    Raises
    ------
    BadRequest
        This is no URL, or what answers there is no sandbox with a QOS stand-in.
    VendorDown
        Nobody answers there.
    """
    url = control.rstrip("/")
    try:
        with httpx.Client(timeout=10.0, trust_env=False) as client:
            about: dict[str, Any] = msgspec.json.decode(client.get(f"{url}/").raise_for_status().content)
            if a_minute != 10:
                dials = {"keys": {plan: {"quotas": [[a_minute, 60.0]]}}}
                client.post(f"{url}/faults", json=dials).raise_for_status()
            listed = msgspec.json.decode(client.get(f"{url}/instruments").raise_for_status().content)
        symbols = tuple(str(row["symbol"]) for row in listed)
        return SandboxFacts(url, str(about["qos"]), str(about["secrets"]["qos"][plan]), symbols, a_minute)
    except httpx.TransportError as error:
        raise VendorDown(
            "sandbox", f"nobody answers at {url} ({error}): start one with `klake sandbox run`",
            f"{url} 无应答（{error}）：请先运行 `klake sandbox run`",
        ) from error  # fmt: skip
    except (httpx.HTTPError, httpx.InvalidURL, msgspec.MsgspecError, KeyError, TypeError) as error:
        raise BadRequest(
            "sandbox", control, hint="this is not the control URL that `klake sandbox run` prints",
            hint_zh="这不是 `klake sandbox run` 打印的控制地址",
        ) from error  # fmt: skip


def set_up(
    folder: Path, sandbox: SandboxFacts | None = None, wish: Wish | None = None, *, replace: bool = False
) -> Setup:
    """Write `folder`/klake.toml, make the empty lake it names, and return both.

    A file that says something else stays as it is unless `replace` is given.

    Raises
    ------
    BadRequest
        There is another klake.toml already.
    LakeUnwritable
        The folder cannot be written.
    LakeOrigin
        The lake that is there holds bars of the other kind.
    """
    file = folder / FILE
    text = _written(sandbox, wish or Wish(symbols=_spread(sandbox.symbols) if sandbox else _SYMBOLS))
    try:
        if file.exists() and not replace and file.read_text(encoding="utf-8") != text:
            raise BadRequest(
                "dir", str(folder), hint=f"{file} is there already: edit it, or say --force to replace it",
                hint_zh=f"{file} 已存在：请直接编辑，或用 --force 替换",
            )  # fmt: skip
        folder.mkdir(parents=True, exist_ok=True)
        beside = file.with_name(f".{FILE}.{os.getpid()}")
        beside.write_text(text, encoding="utf-8", newline="\n")
        beside.replace(file)
    except OSError as error:
        why = error.strerror or str(error)
        raise LakeUnwritable(f"{folder}: cannot be written: {why}", f"{folder}：无法写入：{why}") from error
    desk = open_desk(file)
    store = desk.store(create=True)
    return Setup(file, store.path, desk.sandbox)


def _written(sandbox: SandboxFacts | None, wish: Wish) -> str:
    parts = [_HEAD, f"\n[lake]\npath = {_text(wish.lake)}\n"]
    if sandbox is None:
        parts.append(_REAL)
    else:
        parts.append(
            f"\n[sandbox]                      # its clock rules, and its bars never meet real ones\n"
            f"control = {_text(sandbox.control)}\n\n[vendors.qos]\nkind = \"qos\"\n"
            f"url = {_text(sandbox.qos)}\nkey = {_text(sandbox.key)}   # a sandbox key, no secret\n"
            f'quota = [[{sandbox.a_minute}, "60s"]]            # what this plan allows\n'
        )  # fmt: skip
    parts.append(f"\n[universe.mine]\nsymbols = [\n{_lines(wish.symbols)}]\n")
    for name, freqs, first in wish.jobs:
        parts.append(
            f'\n[jobs.{name}]{" " * (23 - len(name))} # klake sync --job {name}\nvendor = "qos"\nuniverse = "mine"\n'
            f'freq = [{", ".join(map(_text, freqs))}]\nstart = "{first}"\n'
        )
    return "".join(parts)


def _lines(symbols: Sequence[str]) -> str:
    rows = [symbols[i : i + 6] for i in range(0, len(symbols), 6)]
    return "".join(f"  {', '.join(map(_text, row))},\n" for row in rows)


def _spread(symbols: Sequence[str], count: int = 20) -> tuple[str, ...]:
    """Return the first `count` symbols; a sandbox lists one of each venue in turn."""
    return tuple(symbols[:count])


def _text(value: str) -> str:
    """Return a TOML string: JSON's escapes are TOML's too."""
    return json.dumps(value, ensure_ascii=False)
