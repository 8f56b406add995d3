"""Longbridge's SDK, and all that is odd about it: a thread and loop of its own, naive local times, its errors.

Blocking calls of the SDK hold the interpreter for as long as they take (seen 2026-11 with
5.3.0), so the asynchronous context is used, from one thread that does nothing else. All of
a process share one context per account, because the vendor allows few connections.
"""

import asyncio
import importlib
import re
import sys
import threading
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from datetime import datetime
from time import monotonic
from typing import Any, Final, Literal, TypeVar

from ...errors import (
    BadCredentials,
    BadPage,
    MissingExtra,
    MonthQuota,
    RateLimited,
    SymbolRefused,
    VendorDown,
    VendorError,
)
from ..http import masked
from .longbridge_login import authorised

__all__ = ["Line", "Login", "Share", "columns_of", "errors", "failure", "sdk", "version"]

_LOOK_S: Final = 0.25  # so that Ctrl-C is heard while a reply is awaited
_WINDOW_S: Final = 30.0  # the window that 301606 speaks of
_CREDENTIALS: Final = {401, 403}
_HTTP_BUSY: Final = 429
_STATUS: Final = re.compile(r"\bstatus=(\d{3})\b")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Login:
    """What a connection is made with; compared, so that one account shares one connection.

    `client_id`: log in by OAuth; the three secrets are then not used.
    """

    app_key: str
    app_secret: str
    access_token: str
    url: str
    quote_url: str
    transport: Literal["ws", "http"]
    client_id: str = ""
    vendor: str = field(default="", compare=False)  # for messages

    @property
    def secrets(self) -> tuple[str, ...]:
        """Return what no message may hold."""
        return (self.app_key, self.app_secret, self.access_token)


def sdk() -> Any:
    """Return the module `longbridge.openapi`; MissingExtra says what to install."""
    try:
        importlib.import_module("longbridge")
        return importlib.import_module("longbridge.openapi")
    except ModuleNotFoundError as error:
        raise MissingExtra("longbridge", "longbridge") from error


def errors() -> tuple[type[Exception], ...]:
    """Return what may be raised while a reply is awaited; the SDK's own class only once it is loaded."""
    loaded = sys.modules.get("longbridge")
    return (TimeoutError, CancelledError, *((loaded.OpenApiException,) if loaded is not None else ()))


def version() -> str:
    """Return name and version of the SDK, as raw pages note it."""
    from importlib.metadata import version as of

    return f"longbridge {of('longbridge')}"


class Line:
    """One quote context of one account, in a thread with an event loop of its own."""

    def __init__(self, login: Login) -> None:
        self._login, self._api, self._context = login, sdk(), None
        self._loop, self._opening = asyncio.new_event_loop(), asyncio.Lock()
        self._thread = threading.Thread(target=self._loop.run_forever, name="klake-longbridge", daemon=True)
        self._thread.start()

    def ask(self, call: Callable[[Any, Any], Awaitable[T]], timeout_s: float) -> T:
        """Return what `call` (given the context and the SDK) awaits; TimeoutError after `timeout_s`.

        Errors of the SDK pass through; called from any thread but the line's own.
        """
        future: Future[T] = asyncio.run_coroutine_threadsafe(self._asked(call), self._loop)
        end = monotonic() + timeout_s
        while not future.done():
            try:
                return future.result(_LOOK_S)
            except TimeoutError:
                if not future.done() and monotonic() > end:
                    future.cancel()
                    # One that waits lets no other request through.
                    self._loop.call_soon_threadsafe(self._drop)
                    raise
        return future.result()

    def close(self) -> None:
        """Drop the context, and with it the connection; end the thread."""
        asyncio.run_coroutine_threadsafe(self._ended(), self._loop)
        self._thread.join(5.0)
        if not self._thread.is_alive():
            self._loop.close()

    def _drop(self) -> None:
        self._context = None

    async def _ended(self) -> None:
        """End what waits, then the loop."""
        self._drop()
        waiting = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        self._loop.stop()

    async def _asked(self, call: Callable[[Any, Any], Awaitable[T]]) -> T:
        async with self._opening:
            if self._context is None:
                self._context = self._api.AsyncQuoteContext.create(await self._config())
            context = self._context
        return await call(context, self._api)

    async def _config(self) -> Any:
        """Return the configuration, everything said: what is left out comes from variables and `.env` files."""
        api, login = self._api, self._login
        transport = api.QuoteTransport.Http if login.transport == "http" else api.QuoteTransport.WebSocket
        held: tuple[Any, ...] = (login.app_key, login.app_secret, login.access_token)
        if login.client_id:
            held = (await authorised(api, login.client_id, login.vendor),)
        made = api.Config.from_oauth if login.client_id else api.Config.from_apikey
        return made(
            *held, http_url=login.url, quote_ws_url=login.quote_url,
            trade_ws_url=login.quote_url, language=api.Language.EN, enable_overnight=False,
            push_candlestick_mode=api.PushCandlestickMode.Realtime, enable_print_quote_packages=False,
            quote_transport=transport,
        )  # fmt: skip


class _Shared:
    """The lines of this process, one per login, each with the number of those who use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lines: dict[Login, tuple[Line, int]] = {}

    def taken(self, login: Login) -> Line:
        with self._lock:
            found, users = self._lines.get(login, (None, 0))
            made = found or Line(login)
            self._lines[login] = (made, users + 1)
            return made

    def given_back(self, login: Login) -> None:
        with self._lock:
            found, users = self._lines[login]
            if users > 1:
                self._lines[login] = (found, users - 1)
                return
            del self._lines[login]
        found.close()


_SHARED: Final = _Shared()


class Share:
    """A share of the account's one line: made at the first question, given back at `close`."""

    def __init__(self, login: Login) -> None:
        self._login, self._lock = login, threading.Lock()
        self._line: Line | None = None

    def ask(self, call: Callable[[Any, Any], Awaitable[T]], timeout_s: float) -> T:
        """Return what `call` awaits, as `Line.ask` does."""
        with self._lock:
            if self._line is None:
                self._line = _SHARED.taken(self._login)
            line = self._line
        return line.ask(call, timeout_s)

    def close(self) -> None:
        """Give the share back; the last one ends the connection."""
        with self._lock:
            if self._line is not None:
                _SHARED.given_back(self._login)
                self._line = None


def columns_of(candles: Iterable[Any]) -> dict[str, list[Any]]:
    """Return candles as columns, in the SDK's order; times as seconds since 1970 UTC.

    The SDK's times are naive, in the zone of the running process; only `timestamp()` undoes
    that, on every host and in the hour that a clock is set back.
    """
    rows = list(candles)
    out: dict[str, list[Any]] = {"timestamp": [_seconds(row.timestamp) for row in rows]}
    for name in ("open", "high", "low", "close", "turnover"):
        out[name] = [str(getattr(row, name)) for row in rows]
    out["volume"] = [int(row.volume) for row in rows]
    out["trade_session"] = [str(row.trade_session).rpartition(".")[2] for row in rows]
    return out


def _seconds(naive: datetime) -> int:
    return int(naive.timestamp())


def failure(error: Exception, vendor: str, symbol: str, secrets: tuple[str, ...]) -> VendorError:
    """Return what an error of the SDK means; its texts are known for the kind Other only (1.6)."""
    kind = str(getattr(error, "kind", "")).rpartition(".")[2]
    code = getattr(error, "code", None)
    said = masked(str(getattr(error, "message", "") or error), secrets)
    if isinstance(error, TimeoutError):
        return VendorDown(vendor, "no reply in time", "超时未应答")
    if isinstance(error, CancelledError):
        return VendorDown(vendor, "closed while it waited", "等待中连接被关闭")
    if kind == "OAuth":
        return BadCredentials(vendor, f"{said}: log in again with `klake vendors login {vendor}`")
    if code is not None:
        return _coded(int(code), said, vendor, symbol)
    return _worded(said, vendor)


def _coded(code: int, said: str, vendor: str, symbol: str) -> VendorError:
    text = f"{code}: {said}"
    if code in (301600, 301603, 301604):
        return SymbolRefused(vendor, symbol, text)
    if code == 301606 or code // 1000 == _HTTP_BUSY:
        return RateLimited(vendor, text, _WINDOW_S)
    if code == 301607:
        return MonthQuota(
            vendor, f"{symbol}: {text}: the account's symbols of this month are spent; those asked before go on",
            f"{symbol}：{text}：本月可查询历史行情的标的数已用完；已查询过的不受影响",
        )  # fmt: skip
    if code // 1000 in _CREDENTIALS:
        return BadCredentials(vendor, f"{text}: check the three secrets of [vendors.{vendor}]",
                              f"{text}：请检查 [vendors.{vendor}] 下的三个密钥")  # fmt: skip
    return VendorDown(vendor, text, replied=True)


def _worded(said: str, vendor: str) -> VendorError:
    low = said.lower()
    if "connections limitation" in low:
        return VendorDown(
            vendor, f"{said}: another program holds the account's connection; end it, or set transport = \"http\"",
            f"{said}：该账户的长连接已被其他程序占用；请关闭它，或设置 transport = \"http\"",
        )  # fmt: skip
    status = _STATUS.search(low)
    if "response error: 5" in low or (status and int(status[1]) in _CREDENTIALS):
        return BadCredentials(vendor, said)
    if status and int(status[1]) == _HTTP_BUSY:
        return RateLimited(vendor, said, _WINDOW_S)
    if "unexpected response" in low or "decode" in low or "deserialize" in low:
        return BadPage(vendor, f"the reply cannot be read: {said}")
    return VendorDown(vendor, said, replied=bool(status) or "response error" in low or "response body" in low)
