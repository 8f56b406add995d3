"""Longbridge over a WebSocket: binary packets, Protocol Buffers inside, one packet in each message."""

import contextlib
import gzip
import socket
import struct
import threading
from dataclasses import dataclass, field
from typing import Any, Final

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import Server, ServerConnection, serve

from ..schemas.clock import SystemClock
from .faults import Rule
from .longbridge import HISTORY, NEWEST, Account, Longbridge, Trouble
from .longbridge_line import Sessions
from .longbridge_push import ENDPOINT, Subscription, pushes, subscription
from .longbridge_wire import Query
from .protobuf import field as part
from .protobuf import number, packed, parsed, text

__all__ = ["Socket"]

_REQUEST, _RESPONSE, _PUSH = 1, 2, 3
_VERIFY, _GZIP = 0x10, 0x20
_CLOSE, _HEARTBEAT, _AUTH, _RECONNECT, _PROFILE = 0, 1, 2, 3, 4
_SUBSCRIBE, _UNSUBSCRIBE = 6, 7
_DAYS, _STATIC, _NEWEST, _HISTORY = 9, 10, 19, 27
_PUSH_S: Final = 0.1  # between two looks at the clock, in wall time
_PATHS: Final = {
    _NEWEST: NEWEST, _HISTORY: HISTORY, _STATIC: "/quote/static-info", _DAYS: "/quote/markets/trading-days",
}  # fmt: skip
_EXPIRES_MS: Final = 86_400_000
_PING_S: Final = 30.0  # the SDK drops a link that is silent for 120 s


@dataclass(frozen=True, slots=True)
class _Packet:
    """One request as it came."""

    command: int
    id: int
    body: bytes


@dataclass(slots=True, eq=False)
class _Client:
    """One connection: whose it is, and what it subscribed to, by the vendor's spelling."""

    connection: ServerConnection
    account: Account | None = None
    wanted: dict[str, Subscription] = field(default_factory=dict[str, Subscription])


class Socket:
    """A WebSocket server on 127.0.0.1 before the service; `port=0` takes a free port."""

    def __init__(self, service: Longbridge, sessions: Sessions, port: int = 0) -> None:
        self._service, self._sessions = service, sessions
        self._server: Server = serve(
            self._talk, "127.0.0.1", port, ping_interval=_PING_S, compression=None, max_size=16 * 1024 * 1024,
        )  # fmt: skip
        self.url = f"ws://127.0.0.1:{self._server.socket.getsockname()[1]}"
        self._clients: set[_Client] = set()
        self._ended = threading.Event()
        self._threads = [
            threading.Thread(target=target, daemon=True)
            for target in (self._server.serve_forever, self._push)
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Stop answering, and close every connection."""
        self._ended.set()
        self._server.shutdown()
        for thread in self._threads:
            thread.join()

    def _talk(self, connection: ServerConnection) -> None:
        """Answer one client until it goes."""
        client = _Client(connection)
        self._clients.add(client)
        try:
            for message in connection:
                packet = _read(message) if isinstance(message, bytes) else None
                if packet is None or packet.command == _CLOSE:
                    return
                if packet.command in (_AUTH, _RECONNECT):
                    client.account = self._greeted(connection, packet)
                elif not self._answered(client, packet):
                    return
        except ConnectionClosed:
            return
        finally:
            self._clients.discard(client)
            if client.account is not None:
                self._sessions.closed(client.account.name)

    def _push(self) -> None:
        """Tell every client what has been traded since the last look, until the server closes."""
        while not self._ended.wait(_PUSH_S):
            now_s = self._service.clock.now().timestamp()
            for client in list(self._clients):
                with contextlib.suppress(ConnectionClosed, OSError):
                    self._push_to(client, now_s)

    def _push_to(self, client: _Client, now_s: float) -> None:
        for code, wanted in list(client.wanted.items()):
            struck: list[Rule] = []

            def draw(code: str = code, struck: list[Rule] = struck) -> tuple[Rule, ...]:
                struck += self._service.faults.draw(ENDPOINT, frozenset({code}))
                return tuple(struck)

            for command, body in pushes(self._service.market, wanted, now_s, draw):
                client.connection.send(
                    struct.pack(">BB", _PUSH, command) + len(body).to_bytes(3, "big") + body
                )
            if any(rule.kind == "close" for rule in struck):
                client.connection.socket.shutdown(socket.SHUT_RDWR)

    def _greeted(self, connection: ServerConnection, packet: _Packet) -> Account | None:
        """Open or resume a session with a one-time password or a session's name."""
        given = text(parsed(packet.body), 1)
        found = self._sessions.opened(given) if packet.command == _AUTH else self._sessions.resumed(given)
        if found is None:
            connection.send(_response(packet, _refusal(Trouble(5, 401004, "token invalid")), 5))
            return None
        account = self._service.accounts[found[0]]
        now_ms = int(self._service.clock.now().timestamp() * 1000)
        # A reconnected client reads `expires` as a duration.
        expires = now_ms + _EXPIRES_MS if packet.command == _AUTH else _EXPIRES_MS
        body = part(1, found[1]) + part(2, expires) + part(3, account.connections)
        connection.send(_response(packet, body + part(4, self._sessions.online(account.name))))
        return account

    def _answered(self, client: _Client, packet: _Packet) -> bool:
        """Answer one request; return whether the connection still stands."""
        service, account = self._service, client.account
        path = _PATHS.get(packet.command, f"command {packet.command}")
        place = service.arrived(account, path)
        symbol = frozenset({text(parsed(packet.body), 1)})
        struck = service.faults.draw(path, symbol) if packet.command in _PATHS else ()
        status, code, said = 0, 200, "OK"
        try:
            if account is None:
                raise Trouble(5, 401004, "token invalid")
            body = (
                self._subscribed(client, account, packet)
                if packet.command in (_SUBSCRIBE, _UNSUBSCRIBE)
                else self._body(packet, account, struck)
            )
        except Trouble as refused:
            status, code, said, body = refused.status, refused.code, refused.message, _refusal(refused)
        except ValueError:
            status, code, said, body = 3, 301600, "bad request", _refusal(Trouble(3, 301600, "bad request"))
        service.journal.answer(place, 1, code, said)
        service.clock.wait(service.faults.dials.latency_s)
        return self._sent(client.connection, packet, body, status, struck)

    def _sent(
        self,
        connection: ServerConnection,
        packet: _Packet,
        body: bytes,
        status: int,
        struck: tuple[Rule, ...],
    ) -> bool:
        """Send an answer with the faults of its way; return whether the connection still stands."""
        for rule in struck:
            if rule.kind == "slow":
                SystemClock().wait(self._service.faults.dials.slow_s)
            elif rule.kind == "drop":
                return True
            elif rule.kind in {"close", "reset", "cut"}:
                with contextlib.suppress(OSError):
                    connection.socket.shutdown(socket.SHUT_RDWR)
                return False
            elif rule.kind == "bad_error":
                status, body = 7, b"\xff\xff\xff\xff"
            elif rule.kind == "corrupt":
                body = b"\xff" * max(len(body), 4)
        connection.send(_response(packet, body, status, packed=self._service.faults.dials.gzip))
        return True

    def _subscribed(self, client: _Client, account: Account, packet: _Packet) -> bytes:
        """Add or take away subscriptions; the answer is empty."""
        asked = parsed(packet.body)
        codes = [one.decode() for one in asked.get(1, []) if isinstance(one, bytes)]
        for code in codes:
            before = client.wanted.get(code)
            kinds = before.sub_types if before else frozenset[int]()
            if packet.command == _UNSUBSCRIBE:
                left = kinds - _sub_types(asked)
                client.wanted.pop(code, None)
                if before is not None and left:
                    before.sub_types = left
                    client.wanted[code] = before
                continue
            inst = self._service.subscribed(account, code, len(client.wanted.keys() - {code}))
            now_s = self._service.clock.now().timestamp()
            fresh = before or subscription(self._service.market, inst, now_s, first=bool(number(asked, 3)))
            fresh.sub_types = kinds | _sub_types(asked)
            client.wanted[code] = fresh
        return b""

    def _body(self, packet: _Packet, account: Account, struck: tuple[Rule, ...]) -> bytes:
        service, command = self._service, packet.command
        if command == _HEARTBEAT:
            return packet.body
        if command == _PROFILE:
            return _profile(account)
        if command not in _PATHS:
            raise Trouble(3, 301600, f"command {command} is not played here")
        service.admit(account, history=command == _HISTORY)
        failed = next((r for r in struck if r.kind == "error"), None)
        if failed is not None:
            raise Trouble(7, failed.code or 301602, failed.text)
        if command in (_NEWEST, _HISTORY):
            query = _query(command, packet.body)
            rows = service.candles(account, query, struck)
            return part(1, query.symbol) + packed(2, (_candle(row) for row in rows))
        if command == _STATIC:
            codes = [one.decode() for one in parsed(packet.body).get(1, []) if isinstance(one, bytes)]
            return packed(1, (_static(info) for info in service.static_info(codes)))
        asked = parsed(packet.body)
        days = service.trading_days(text(asked, 1), text(asked, 2), text(asked, 3))
        return b"".join(part(place, day) for place, some in zip((1, 2), days, strict=True) for day in some)


def _sub_types(asked: dict[int, list[int | bytes]]) -> frozenset[int]:
    """Return the wanted types; a repeated number may stand packed or one by one."""
    return frozenset(kind for one in asked.get(2, []) for kind in (one if isinstance(one, bytes) else [one]))


def _read(message: bytes) -> _Packet | None:
    """Return the packet of a message; None where it is no request. A signature behind the body is not read."""
    if len(message) < 11 or message[0] & 0x0F != _REQUEST:
        return None
    command, request, _, high, low = struct.unpack_from(">BIHBH", message, 1)
    body = message[11 : 11 + (high << 16 | low)]
    return _Packet(command, request, gzip.decompress(body) if message[0] & _GZIP else body)


def _response(packet: _Packet, body: bytes, status: int = 0, *, packed: bool = False) -> bytes:
    body = gzip.compress(body, 1) if packed else body
    head = struct.pack(">BBIB", _RESPONSE | (_GZIP if packed else 0), packet.command, packet.id, status)
    return head + len(body).to_bytes(3, "big") + body


def _refusal(trouble: Trouble) -> bytes:
    return part(1, trouble.code) + part(2, trouble.message)


def _profile(account: Account) -> bytes:
    rates = packed(5, (part(1, c) + part(2, limit) + part(3, burst) for c, limit, burst in account.rates))
    return part(1, 1) + part(2, "Lv1") + part(3, 500) + part(4, account.symbols) + rates


def _query(command: int, body: bytes) -> Query:
    asked = parsed(body)
    symbol, period = text(asked, 1), number(asked, 2)
    if command == _NEWEST:
        return Query(symbol, period, "latest", number(asked, 3), number(asked, 4), number(asked, 5))
    adjust, session = number(asked, 3), number(asked, 7)
    if number(asked, 4) == 2:
        dates = _inner(asked, 6)
        return Query(
            symbol, period, "date", adjust=adjust, session=session, start=text(dates, 1), end=text(dates, 2)
        )
    at = _inner(asked, 5)
    return Query(
        symbol, period, "offset", number(at, 4), adjust, session, number(at, 1) == 1, text(at, 2), text(at, 3)
    )


def _inner(asked: dict[int, list[int | bytes]], place: int) -> dict[int, list[int | bytes]]:
    found = asked.get(place, [b""])[-1]
    return parsed(found) if isinstance(found, bytes) else {}


def _candle(row: dict[str, Any]) -> bytes:
    return b"".join((
        part(1, row["close"]), part(2, row["open"]), part(3, row["low"]), part(4, row["high"]),
        part(5, row["volume"]), part(6, row["turnover"]), part(7, row["timestamp"]), part(8, row["trade_session"]),
    ))  # fmt: skip


def _static(info: dict[str, Any]) -> bytes:
    places = ("symbol", "name_cn", "name_en", "name_hk", "", "exchange", "currency", "lot_size", "total_shares",
              "circulating_shares", "hk_shares", "eps", "eps_ttm", "bps", "dividend_yield")  # fmt: skip
    known = b"".join(part(place, info[name]) for place, name in enumerate(places, 1) if name)
    return known + part(17, info["board"])
