"""A sandbox with a configuration for its Longbridge beside it, as tests need it."""

from collections import defaultdict
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

import klake
from klake.ingest.registry import open_vendor
from klake.jobs.desk import Desk, open_desk
from klake.jobs.sync import sync
from klake.sandbox.server import Sandbox
from klake.schemas.freq import Freq
from klake.schemas.report import RunReport

COLUMNS = ("ts", "session", "open", "high", "low", "close", "volume", "amount")


@dataclass
class LongbridgeStand:
    """A sandbox, a folder, and how the configuration in it speaks to Longbridge."""

    sandbox: Sandbox
    folder: Path
    account: str = "default"
    transport: str = "http"
    symbols_a_month: int = 1000

    @property
    def table(self) -> dict[str, Any]:
        """Return the vendor's table of the configuration."""
        secrets, urls = self.sandbox.secrets["longbridge"], self.sandbox.urls
        names = ("app_key", "app_secret", "access_token")
        return {
            "kind": "longbridge", **{name: secrets[f"{self.account}.{name}"] for name in names},
            "url": urls["longbridge"], "quote_url": urls["longbridge_quote"], "transport": self.transport,
            "symbols_a_month": self.symbols_a_month,
        }  # fmt: skip

    def vendor(self, **more: Any) -> Any:
        """Open the vendor, on the sandbox's clock."""
        return open_vendor("lb", self.table | more, self.sandbox.clock)

    def desk(self, symbols: list[str], freqs: list[str], start: str, capability: str = "") -> Desk:
        """Open a desk on a configuration with one job."""
        config = self.folder / "klake.toml"
        vendor = "\n".join(f"{name} = {value!r}" for name, value in self.table.items())
        config.write_text(
            f'[lake]\npath = "lake"\n[sandbox]\ncontrol = "{self.sandbox.control_url}"\n[vendors.lb]\n{vendor}\n'
            f"[vendors.lb.capability]\n{capability}\n"
            f'[jobs.daily]\nvendor = "lb"\nsymbols = {symbols}\nfreq = {freqs}\nstart = "{start}"\n',
            encoding="utf-8",
        )
        return open_desk(config)

    def sync(self, symbols: list[str], freqs: list[str], start: str, capability: str = "") -> RunReport:
        """Run a job once."""
        with self.desk(symbols, freqs, start, capability) as desk:
            return sync(desk, "daily", desk.job("daily"))

    def lake(self) -> dict[tuple[str, str], list[tuple[Any, ...]]]:
        """Return what the lake holds, by symbol and freq, without judging it."""
        query = f"SELECT symbol, freq, {', '.join(COLUMNS)} FROM bars ORDER BY symbol, freq, ts"
        out: dict[tuple[str, str], list[tuple[Any, ...]]] = defaultdict(list)
        for row in klake.open(str(self.folder / "lake")).sql(query).arrow().to_pylist():
            out[row["symbol"], row["freq"]].append(tuple(row[name] for name in COLUMNS))
        return out

    def held(self, symbol: str, freq: str) -> list[tuple[Any, ...]]:
        """Return what the lake holds of one series."""
        return self.lake()[symbol, freq]

    def truth(self, symbol: str, freq: str, start: str) -> list[tuple[Any, ...]]:
        """Return what the sandbox says of a series, in the columns that Longbridge carries."""
        kind, now = Freq.parse(freq), self.sandbox.clock.now()
        first = kind.anchor(date.fromisoformat(start))
        end: date | datetime = now if kind.intraday else now.date()
        rows = self.sandbox.market.truth(symbol, kind, first, end, now).to_pylist()
        return [tuple(r[name] for name in COLUMNS) for r in rows]

    def wrong(self, symbols: list[str], freqs: list[str], start: str) -> list[tuple[str, str]]:
        """Return the series of which the lake does not hold the sandbox's truth."""
        lake = self.lake()
        series = [(symbol, freq) for symbol in symbols for freq in freqs]
        return [one for one in series if lake[one] != self.truth(*one, start)]
