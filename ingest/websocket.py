"""One WebSocket of one vendor account, from plain threads: replies matched, heartbeat kept, reopened when lost.

The library reads in a thread of its own; here a second one hears every frame and hands
replies to whoever waits for them, and a third sends the heartbeat, whatever the others do.
"""

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotInTime
from dataclasses import dataclass
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidProxy,
    InvalidStatus,
    InvalidURI,
    WebSocketException,
)
from websockets.sync.client import ClientConnection, connect

from ..errors import BadCredentials, BadPage, RateLimited, VendorDown, VendorError, VendorRefused
from .http import hide, is_loopback, masked

__all__ = ["Frame", "Heard", "Link", "WebSocket"]

Frame = str | bytes
_OPEN_S: Final = 10.0
_CLOSE_S: Final = 1.0
_TOO_BIG: Final = 1009  # the close code of a message above the cap


@dataclass(frozen=True, slots=True)
class Heard:
    """What a frame is: a reply to request `number` (0: to nobody knows which), a push, or noise.

    `body` is the frame as it came: what is kept of a reply.
    """

    kind: Literal["reply", "push", "noise"]
    body: bytes
    number: int = 0


@dataclass(frozen=True, slots=True)
class Link:
    """How a vendor's WebSocket is spoken to.

    Attributes
    ----------
    url : str
        With whatever proves who asks; never shown.
    secrets : tuple of str
        What no message and no log line may hold.
    hear : callable
        Says what a frame is; must raise nothing, whatever comes.
    beat : callable
        Makes the next heartbeat.
    beat_s : float
        Real seconds between heartbeats.
    largest : int
        Bytes of one message; a larger one costs the connection.
    """

    vendor: str
    url: str
    secrets: tuple[str, ...]
    hear: Callable[[Frame], Heard]
    beat: Callable[[], str]
    beat_s: float
    largest: int


class WebSocket:
    """Asks over one connection, which is opened when it is needed and opened again when it was lost.

    Used by several threads at once. `ignored` counts frames that nobody waited for.
    """

    def __init__(self, link: Link, push: Callable[[bytes], None] = lambda body: None) -> None:
        self._link, self._push = link, push
        self._opening = threading.Lock()
        self._line: _Line | None = None
        self.ignored = 0
        hide(link.secrets)

    def ask(self, number: int, message: str, wait_s: float) -> bytes:
        """Return the frame that answers request `number`, as it came.

        Parameters
        ----------
        number : int
            Which `hear` finds again in the reply; above 0, unused among those under way.
        wait_s : float
            Real seconds until the reply must be there; after that the connection is given up,
            because nobody knows whether it still works.

        Raises
        ------
        VendorDown
            Nobody answers in time, or the connection breaks; the next call opens another one.
        BadPage
            The reply is larger than the cap.
        BadCredentials, RateLimited, VendorRefused
            The connection itself is refused.
        """
        line = self._opened()
        try:
            return line.ask(number, message, wait_s)
        finally:
            self.ignored = line.ignored

    def drop(self) -> None:
        """Give the connection up, and with it every subscription; the next `ask` opens another one."""
        with self._opening:
            line, self._line = self._line, None
        if line is not None:
            line.close()

    close = drop

    def _opened(self) -> "_Line":
        with self._opening:
            if self._line is None or self._line.lost:
                self._line = _Line(self._link, _connected(self._link), self._push)
            return self._line


class _Line:
    """One open connection, from the handshake to its end."""

    def __init__(self, link: Link, connection: ClientConnection, push: Callable[[bytes], None]) -> None:
        self._link, self._connection, self._push = link, connection, push
        self._lock = threading.Lock()
        self._pending: dict[int, Future[bytes]] = {}
        self._ended = threading.Event()
        self._why: VendorError = VendorDown(link.vendor, "the connection is lost", "连接已断开")
        self._answered = False
        self._frames = self.ignored = 0
        for work in (self._hear_all, self._keep_alive):
            threading.Thread(target=work, name=f"klake-{link.vendor}", daemon=True).start()

    @property
    def lost(self) -> bool:
        """Return whether nothing can be asked here any more."""
        return self._ended.is_set()

    def ask(self, number: int, message: str, wait_s: float) -> bytes:
        waiting: Future[bytes] = Future()
        with self._lock:
            self._pending[number], before = waiting, self._frames
        try:
            if self.lost:  # it ended after it was chosen, and would never tell this one
                raise self._why
            with contextlib.suppress(ConnectionClosed):  # then the hearing thread tells how it ended
                self._connection.send(message)
            return waiting.result(wait_s)
        except NotInTime:
            self.close()
            raise VendorDown(
                self._link.vendor, f"no answer within {wait_s:g} s", f"{wait_s:g} 秒内无应答",
                replied=self._frames > before,
            ) from None  # fmt: skip
        finally:
            with self._lock:
                self._pending.pop(number, None)

    def close(self) -> None:
        self._end(VendorDown(self._link.vendor, "the connection was given up", "连接已放弃"))
        with contextlib.suppress(WebSocketException, OSError):
            self._connection.close()

    def _hear_all(self) -> None:
        ended: VendorError = VendorDown(self._link.vendor, "the connection broke", "连接中断")
        try:
            while True:
                self._deliver(self._link.hear(self._connection.recv()))
        except ConnectionClosed as error:
            ended = self._ending(error)
        except WebSocketException as error:
            ended = VendorDown(self._link.vendor, f"the connection broke: {_said(self._link, error)}")
        finally:  # whatever it was: nobody hears any more, and nobody must wait
            self._end(ended)

    def _deliver(self, heard: Heard) -> None:
        self._frames += 1
        if heard.kind == "push":
            self._push(heard.body)
            return
        with self._lock:
            known = heard.number in self._pending
            named = [heard.number] if known else []
            # An error that names no request is about the only one under way, else about any of them.
            waiting = named if heard.number else list(self._pending)
            told = [] if heard.kind == "noise" else [self._pending.pop(number) for number in waiting]
        self._answered = self._answered or bool(told)
        self.ignored += not told
        for one in told:
            one.set_result(heard.body)

    def _keep_alive(self) -> None:
        while not self._ended.wait(self._link.beat_s):
            try:
                self._connection.send(self._link.beat())
            except (WebSocketException, OSError):
                return

    def _end(self, error: VendorError) -> None:
        """Tell everybody who waits, and whoever comes later, why nothing comes any more; the first reason counts."""
        with self._lock:
            self._why = self._why if self.lost else error
            self._ended.set()
            left = list(self._pending.values())
            self._pending.clear()
        for one in left:
            one.set_exception(error)

    def _ending(self, error: ConnectionClosed) -> VendorError:
        """Return what the end of the connection means for those who still wait."""
        vendor = self._link.vendor
        if error.sent is not None and error.sent.code == _TOO_BIG and not error.rcvd_then_sent:
            return BadPage(vendor, f"a message is larger than {self._link.largest} bytes")
        closed = error.rcvd or error.sent
        how = f"code {closed.code} {closed.reason}".strip() if closed else "without a word"
        said = masked(f"the connection was closed ({how})", self._link.secrets)
        if not self._answered:
            return VendorDown(
                vendor, f"{said} before anything was answered: is the token right?",
                f"{said}，此前没有任何应答：令牌（token）是否正确？",
            )  # fmt: skip
        return VendorDown(vendor, said, replied=True)


def _connected(link: Link) -> ClientConnection:
    """Return an open connection; `from None` below: the foreign errors hold the URL, and with it the token."""
    host = urlsplit(link.url).netloc
    # A proxy of the environment must not see what a stand-in on this machine is given.
    proxy: Any = None if is_loopback(link.url) else True
    try:
        return connect(
            link.url, proxy=proxy, open_timeout=_OPEN_S, close_timeout=_CLOSE_S, max_size=link.largest,
            ping_interval=None,
        ).__enter__()  # fmt: skip
    except InvalidStatus as error:
        raise _refusal(link, error.response.status_code) from None
    except (InvalidURI, InvalidProxy, ValueError) as error:
        raise VendorRefused(link.vendor, f"the url cannot be used: {_said(link, error)}") from None
    except TimeoutError:
        raise VendorDown(link.vendor, f"{host} did not answer in time", f"{host} 超时未应答") from None
    except (InvalidHandshake, OSError, EOFError) as error:
        said = _said(link, error)
        raise VendorDown(
            link.vendor, f"no connection to {host}: {said}", f"{host} 无法连接：{said}"
        ) from None


def _refusal(link: Link, status: int) -> VendorError:
    said = f"HTTP {status} at the handshake"
    if status in (401, 403):
        return BadCredentials(
            link.vendor, f"{said}: the token is refused; check [vendors.{link.vendor}]",
            f"{said}：令牌（token）被拒绝；请检查 [vendors.{link.vendor}]",
        )  # fmt: skip
    if status == 429:
        return RateLimited(link.vendor, f"{said}: too many connections")
    if status >= 500 or status in (408, 425):
        return VendorDown(link.vendor, f"{said}: the vendor's gateway fails", f"{said}：服务端网关故障")
    return VendorRefused(link.vendor, f"{said}: refused; is the url right?")


def _said(link: Link, error: BaseException) -> str:
    return masked(str(error), link.secrets) or type(error).__name__
