"""One face per vendor kind: how the contract suite opens it, breaks it, and turns its stand-in.

A new kind adds a class here and a line in `FACES`.
"""

from pathlib import Path
from typing import Any, Protocol

import httpx

from klake.errors import (
    BadCredentials,
    BadPage,
    MonthQuota,
    RateLimited,
    SymbolRefused,
    VendorDown,
    VendorError,
)
from klake.ingest.registry import open_vendor
from klake.ingest.vendor import Vendor
from klake.sandbox.server import Sandbox
from klake.schemas.clock import Clock

__all__ = ["FACES", "SYMBOLS", "Face", "Longbridge", "MultiMarkets", "Nothing", "dial", "opened"]

SYMBOLS = (
    "600519.SH",
    "000001.SZ",
    "000333.SZ",
    "00700.HK",
    "08609.HK",
    "AAPL.US",
    "CON.US",
    "BTCUSDT.P.QOS",
)
Trouble = tuple[dict[str, Any], type[VendorError]]


class Face(Protocol):
    """What the suite asks of a vendor kind."""

    kind: str
    endpoint: str  # of K-lines, in the stand-in's log

    def table(self, box: Sandbox, folder: Path) -> dict[str, Any]:
        """Return `[vendors.NAME]` for an account that gives everything it can."""
        ...

    def secret(self, box: Sandbox) -> str:
        """Return what nobody may ever see of that account."""
        ...

    def false(self, box: Sandbox) -> dict[str, Any]:
        """Return what makes the account one that is not accepted."""
        ...

    def troubles(self) -> dict[str, Trouble]:
        """Return faults of a K-line request (rules of the sandbox), each with the error it must become."""
        ...

    def prints(self, box: Sandbox) -> None:
        """Make closing auctions stand apart from the last minute, where the vendor can."""
        ...

    def lots(self, box: Sandbox) -> dict[str, Any]:
        """Make a false unit of volume: turn the stand-in, or return what the table declares falsely."""
        ...


class Qos:
    kind = "qos"
    endpoint = "/history"

    def table(self, box: Sandbox, folder: Path) -> dict[str, Any]:
        return {"kind": "qos", "key": self.secret(box), "url": box.qos_url, "depth": 0, "timeout_s": 3}

    def secret(self, box: Sandbox) -> str:
        return box.secrets["qos"]["deep"]

    def false(self, box: Sandbox) -> dict[str, Any]:
        return {"key": box.secrets["qos"]["expired"]}

    def troubles(self) -> dict[str, Trouble]:
        return {
            "too fast": ({"kind": "error", "text": "Request frequency exceeded."}, RateLimited),
            "key": ({"kind": "error", "text": "Key expired."}, BadCredentials),
            "symbol": ({"kind": "error", "text": "Invalid code US:AAPL."}, SymbolRefused),
            "unknown word": ({"kind": "error", "text": "Something else."}, BadPage),
            "gateway": ({"kind": "http_504"}, VendorDown),
            "torn connection": ({"kind": "reset"}, VendorDown),
            "half a reply": ({"kind": "cut"}, VendorDown),
            "garbage": ({"kind": "corrupt"}, BadPage),
            "no data": ({"kind": "no_data"}, BadPage),
            "null data": ({"kind": "null_data"}, BadPage),
        }

    def prints(self, box: Sandbox) -> None:
        """Nothing to turn: in New York they do."""

    def lots(self, box: Sandbox) -> dict[str, Any]:
        return {"capability": {"volume_factor": {"SH.stock": 1}}}


class MultiMarkets:
    kind = "multimarkets"
    endpoint = "14012"

    def table(self, box: Sandbox, folder: Path) -> dict[str, Any]:
        lines = [",".join(map(str, (symbol, *box.multimarkets.ids(symbol)))) for symbol in SYMBOLS]
        text = "\n".join(["symbol,symbol_id,trade_type,trade_mode", *lines])
        (folder / "products.csv").write_text(text, encoding="utf-8")
        return {
            "kind": "multimarkets", "url": box.urls["multimarkets"], "token": self.secret(box), "timeout_s": 3,
            "products_file": str(folder / "products.csv"), "capability": {"adjusts": ["none"]}, "connections": 1,
        }  # fmt: skip

    def secret(self, box: Sandbox) -> str:
        return box.secrets["multimarkets"]["default"]

    def false(self, box: Sandbox) -> dict[str, Any]:
        return {"token": box.secrets["multimarkets"]["expired"]}

    def troubles(self) -> dict[str, Trouble]:
        return {
            "too fast": ({"kind": "error", "text": "605 too many requests"}, RateLimited),
            "too fast, closing": ({"kind": "error", "text": "606 too many requests"}, RateLimited),
            "key": ({"kind": "error", "text": "401 token invalid"}, BadCredentials),
            "not allowed": ({"kind": "error", "text": "604 code unauthorised"}, BadCredentials),
            "symbol": ({"kind": "error", "text": "600 code invalid"}, SymbolRefused),
            "unknown word": ({"kind": "error", "text": "777 something else"}, BadPage),
            "error without a name": ({"kind": "unnamed", "text": "402 query invalid"}, SymbolRefused),
            "torn connection": ({"kind": "reset"}, VendorDown),
            "half a reply": ({"kind": "cut"}, VendorDown),
            "no reply": ({"kind": "drop"}, VendorDown),
            "garbage": ({"kind": "corrupt"}, BadPage),
            "torn stream": ({"kind": "torn"}, BadPage),
            "bomb": ({"kind": "bomb"}, BadPage),
            "no data": ({"kind": "no_data"}, BadPage),
            "null data": ({"kind": "null_data"}, BadPage),
        }

    def prints(self, box: Sandbox) -> None:
        box.multimarkets.turn({"closing": "apart"})

    def lots(self, box: Sandbox) -> dict[str, Any]:
        box.multimarkets.turn({"volume": "lots"})
        return {}


class Longbridge:
    """Over HTTP."""

    kind = "longbridge"
    endpoint = "/quote/history-candlesticks"
    transport = "http"

    def table(self, box: Sandbox, folder: Path) -> dict[str, Any]:
        return {
            "kind": "longbridge", **self._secrets(box, "default"), "url": box.urls["longbridge"],
            "quote_url": box.urls["longbridge_quote"], "transport": self.transport, "symbols_a_month": 1000,
        }  # fmt: skip

    def secret(self, box: Sandbox) -> str:
        return box.secrets["longbridge"]["default.access_token"]

    def false(self, box: Sandbox) -> dict[str, Any]:
        return self._secrets(box, "expired")

    def _secrets(self, box: Sandbox, account: str) -> dict[str, Any]:
        names = ("app_key", "app_secret", "access_token")
        return {name: box.secrets["longbridge"][f"{account}.{name}"] for name in names}

    def troubles(self) -> dict[str, Trouble]:
        said: dict[str, Trouble] = {
            "too fast": ({"kind": "error", "code": 301606, "text": "rate limit"}, RateLimited),
            "month spent": ({"kind": "error", "code": 301607, "text": "out of limit"}, MonthQuota),
            "symbol": ({"kind": "error", "code": 301603, "text": "no quotes"}, SymbolRefused),
            "not allowed": ({"kind": "error", "code": 301604, "text": "no access"}, SymbolRefused),
            "server": ({"kind": "error", "code": 301602, "text": "server error"}, VendorDown),
            "key": ({"kind": "error", "code": 401003, "text": "token expired"}, BadCredentials),
            "no reply": ({"kind": "drop"}, VendorDown),
            "garbage": ({"kind": "corrupt"}, BadPage),
        }
        return said | self._of_the_way()

    def _of_the_way(self) -> dict[str, Trouble]:
        return {
            "gateway": ({"kind": "http_504"}, VendorDown),
            "too fast, gateway": ({"kind": "http_429_json"}, RateLimited),
            "torn connection": ({"kind": "reset"}, VendorDown),
            "half a reply": ({"kind": "cut"}, VendorDown),
            "web page": ({"kind": "not_json"}, BadPage),
            "no data": ({"kind": "no_data"}, BadPage),
        }

    def prints(self, box: Sandbox) -> None:
        """Nothing to turn: in China and Hong Kong they do."""

    def lots(self, box: Sandbox) -> dict[str, Any]:
        return {"capability": {"volume_factor": {"SH.stock": 1}}}


class LongbridgeLine(Longbridge):
    """Over the WebSocket."""

    transport = "ws"

    def _of_the_way(self) -> dict[str, Trouble]:
        return {"error without a body": ({"kind": "bad_error"}, VendorDown)}


class Nothing:
    """Facts of which none is known yet."""

    def fact(self, vendor: str, name: str) -> None:
        return None


FACES: tuple[Face, ...] = (Qos(), MultiMarkets(), Longbridge(), LongbridgeLine())


def opened(face: Face, box: Sandbox, folder: Path, clock: Clock | None = None, **more: Any) -> Vendor:
    """Open a vendor of that kind on the sandbox; `more` goes over its table, `capability` is merged."""
    table = face.table(box, folder)
    capability = {**table.get("capability", {}), **more.pop("capability", {})}
    return open_vendor(face.kind, {**table, **more, "capability": capability}, clock or box.clock, run="r1")


def dial(box: Sandbox, **body: Any) -> None:
    """Turn the sandbox's faults."""
    with httpx.Client(trust_env=False) as client:
        client.post(f"{box.control_url}/faults", json=body).raise_for_status()
