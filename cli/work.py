"""How work is named: `--job NAME`, or ad hoc by vendor, symbols or universe, freqs and dates."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Annotated, Final

import typer

from ..errors import BadRequest

if TYPE_CHECKING:
    from ..jobs.desk import Desk
    from ..schemas.settings import Job

__all__ = [
    "EndOption", "FreqOption", "JobOption", "JsonOption", "StartOption", "SymbolsOption", "UniverseOption",
    "VendorOption", "Work", "day", "listed",
]  # fmt: skip

JobOption = Annotated[
    str, typer.Option("--job", metavar="NAME", help="A [jobs.NAME]; not needed where there is one.")
]
VendorOption = Annotated[str, typer.Option("--vendor", metavar="NAME", help="A [vendors.NAME].")]
SymbolsOption = Annotated[
    str, typer.Option("--symbols", metavar="A,B", help="Symbols, any usual spelling, separated by commas.")
]
UniverseOption = Annotated[str, typer.Option("--universe", metavar="NAME", help="A [universe.NAME].")]
FreqOption = Annotated[str, typer.Option("--freq", metavar="1d,1m", help="Freqs, separated by commas.")]
StartOption = Annotated[str, typer.Option("--start", metavar="DATE", help="First date, inclusive.")]
EndOption = Annotated[str, typer.Option("--end", metavar="DATE", help="Last date, inclusive.")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]

_ALL: Final = date(1990, 1, 1)


@dataclass(frozen=True, slots=True)
class Work:
    """What the options of `plan` and `sync` say."""

    job: str
    vendor: str
    symbols: str
    universe: str
    freq: str
    start: str
    end: str

    def of(self, desk: "Desk") -> tuple[str, "Job"]:
        """Return the name and the job that are meant.

        Raises
        ------
        BadRequest
            The job is unknown, or options are missing or cannot be combined.
        """
        ad_hoc = {
            "symbols": self.symbols, "universe": self.universe, "freq": self.freq, "start": self.start, "end": self.end,
        }  # fmt: skip
        given = [name for name, value in ad_hoc.items() if value]
        if self.job and (self.vendor or given):
            raise BadRequest(
                "job", self.job, hint=f"give either --job or --{given[0] if given else 'vendor'}"
            )
        if self.vendor:
            return "ad hoc", self._ad_hoc(desk, self.vendor)
        if given:
            return "ad hoc", self._ad_hoc(desk, _only(list(desk.settings.vendors), "vendor", desk))
        name = self.job or _only(list(desk.settings.jobs), "job", desk)
        return name, desk.job(name)

    def _ad_hoc(self, desk: "Desk", vendor: str) -> "Job":
        from ..jobs.desk import ad_hoc

        return ad_hoc(
            desk, vendor=vendor, symbols=listed(self.symbols), universe=self.universe,
            freq=listed(self.freq) or ["1d"], start=day("start", self.start) or _ALL, end=day("end", self.end),
        )  # fmt: skip


def _only(names: Sequence[str], what: str, desk: "Desk") -> str:
    """Return the one name there is, so that it need not be typed."""
    if len(names) == 1:
        return names[0]
    hint = (
        f"say which with --{what}"
        if names
        else f"{desk.settings.where} has no [{what}s.NAME]: `klake init` writes one"
    )
    zh = (
        f"请用 --{what} 指定"
        if names
        else f"{desk.settings.where} 中没有 [{what}s.NAME]：可用 `klake init` 生成"
    )
    raise BadRequest(what, "", tuple(names), hint=hint, hint_zh=zh)


def listed(text: str) -> list[str]:
    """Return the parts of a comma list, without blanks and empty ones."""
    return [part.strip() for part in text.replace("，", ",").split(",") if part.strip()]


def day(name: str, text: str) -> date | None:
    """Return the date that `text` spells, None for nothing; BadRequest when it is none."""
    if not text:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise BadRequest(
            name,
            text,
            hint="write a date such as 2024-01-02 or 20240102",
            hint_zh="请写成 2024-01-02 或 20240102",
        ) from None
