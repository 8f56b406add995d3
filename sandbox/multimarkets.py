"""The MultiMarkets quote service over WebSocket, switches and faults included."""

import contextlib
import threading
import time
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection

from ..schemas.clock import SystemClock
from ..schemas.symbol import Class
from .clock import SandboxClock
from .faults import Faults, Rule
from .http import parsed
from .instruments import Instrument
from .journal import Journal, account_of
from .limits import secret
from .market import Market
from .multimarkets_faults import NOISE, an_object, as_bytes, broken, named_in, spoiled
from .multimarkets_wire import (
    STOCK,
    TYPES,
    Switches,
    kline,
    packed,
    product_id,
    realtime,
    rolling,
    tick,
    written,
)
from .websocket import abort, half

__all__ = ["PATH", "MultiMarkets"]

PATH: Final = "/apiQuote"
_QUOTE, _GUEST, _STOCKS = f"{PATH}/quote", f"{PATH}/quote_guest", f"{PATH}/quote_stock"
_OK, _BAD, _TOKEN, _CODE, _LEVEL, _FAST, _CLOSING = 200, 400, 401, 600, 603, 429, 606
_LONGEST_EXT: Final = 64
_LOOK_S: Final = 0.05
_MODE: Final = 3
_CROSS, _ISOLATED = 1, 2
_BEAT: Final = 14008
_ROUTES: Final = {14000, 14006, _BEAT, 14012, 14014, 14016, 14022}


@dataclass(slots=True, eq=False)
class _Session:
    """One connection: who it is, what it may see, what it subscribed to."""

    connection: ServerConnection
    token: str
    path: str
    beat_at: float
    realtime: list["_Product"] = field(default_factory=list["_Product"])
    rolled: list["_Product"] = field(default_factory=list["_Product"])
    every_s: float = 1.0
    rolled_at: float = 0.0
    prices: dict[str, str] = field(default_factory=dict[str, str])
    asked_at: float = float("-inf")
    hurried: int = 0
    held: list[str | bytes] = field(default_factory=list[str | bytes])


@dataclass(frozen=True, slots=True)
class _Product:
    inst: Instrument
    ids: tuple[int, int, int]

    @property
    def text(self) -> str:
        return ":".join(map(str, self.ids))


class MultiMarkets:
    """The face of one operator; its tokens are `tokens`, by name: default, expired."""

    def __init__(self, market: Market, clock: SandboxClock, journal: Journal, faults: Faults) -> None:
        self.market, self.clock, self.journal, self.faults = market, clock, journal, faults
        self.tokens = {name: secret(market.seed, "multimarkets", name) for name in ("default", "expired")}
        self._sessions: list[_Session] = []
        self._lock = threading.Lock()
        self._products = {
            (ids[0], ids[1]): _Product(inst, ids)
            for inst in market.instruments.values() for ids in self.ids_of(inst)
        }  # fmt: skip
        self.reset()

    def reset(self) -> None:
        """Return to the usual switches."""
        self.switches = Switches()

    def turn(self, changes: dict[str, Any]) -> None:
        """Turn some switches; BadRequest names what is unknown."""
        self.switches = self.switches.turned(changes)

    def shown(self) -> dict[str, Any]:
        """Return the switches as JSON values."""
        return asdict(self.switches)

    def ids(self, symbol: str) -> tuple[int, int, int]:
        """Return (symbol_id, trade_type, trade_mode) of an instrument's first product."""
        return self.ids_of(self.market.instrument(symbol))[0]

    def admit(self, connection: ServerConnection, request: Request) -> Response | None:
        """Return why a handshake is refused; None: it is not, or only after it."""
        url = urlsplit(request.path)
        struck = {rule.kind for rule in self.faults.draw("connect", frozenset())}
        if "http_504" in struck:
            return connection.respond(504, "Gateway Time-out")
        if "http_429" in struck:
            return connection.respond(429, "Too many connections")
        if url.path not in (_QUOTE, _GUEST, _STOCKS):
            return connection.respond(404, "Not found")
        token = _token(request)
        if url.path != _GUEST and not self._knows(token) and self.switches.bad_token == "http_401":
            self._note(token, "connect", 401, "refused")
            return connection.respond(401, "Unauthorized")
        return None

    def talk(self, connection: ServerConnection) -> None:
        """Serve one connection until it ends."""
        assert connection.request is not None
        token, path = _token(connection.request), urlsplit(connection.request.path).path
        if path != _GUEST and not self._knows(token):
            self._turn_away(connection, token)
            return
        session = _Session(connection, token, path, time.monotonic())
        self._enter(session)
        try:
            while time.monotonic() - session.beat_at < self.switches.silence_s:
                with contextlib.suppress(TimeoutError):
                    self._hear(session, connection.recv(_LOOK_S))
                self._push(session)
            connection.close(1000, "no heartbeat")
        finally:
            with self._lock:
                self._sessions.remove(session)

    def _turn_away(self, connection: ServerConnection, token: str) -> None:
        self._note(token, "connect", 401, "refused")
        if self.switches.bad_token == "ret_401":
            asked = an_object(parsed(as_bytes(connection.recv(10))))
            connection.send(self._frame(self._envelope(asked, _TOKEN, "token invalid", {}), error=True))
        connection.close(1000)

    def _enter(self, session: _Session) -> None:
        """Count a connection in; of those of one token that are too many, the oldest are cut."""
        with self._lock:
            self._sessions.append(session)
            mine = [s for s in self._sessions if session.token and s.token == session.token]
            surplus = mine[: -self.switches.connections]
        for one in surplus:
            abort(one.connection)

    def _hear(self, session: _Session, message: str | bytes) -> None:
        arrived = self.clock.now()
        asked = an_object(parsed(as_bytes(message)))
        cmd = asked.get("cmd_id") if asked else None
        place = self.journal.add("multimarkets", account_of("multimarkets", session.token), str(cmd), arrived)
        entries, ret, said = self._answered(session, asked, cmd, arrived.timestamp())
        self.journal.answer(place, entries, ret, said)
        self.clock.wait(self.faults.dials.latency_s)

    def _answered(
        self, session: _Session, asked: dict[str, Any] | None, cmd: Any, now_s: float
    ) -> tuple[int, int, str]:
        """Answer one message; return (series in it, ret, the vendor's word)."""
        wanted = named_in(asked)
        struck = self.faults.draw(str(cmd), frozenset(wanted)) if cmd != _BEAT else ()
        ret, said, data = self._judged(session, asked, cmd, now_s)
        if asked and ret == _OK and cmd != _BEAT:
            ret, said, data = self._done(session, cmd, asked["data"], struck, now_s)
        for rule in struck:
            ret, said, data = spoiled(rule, ret, said, data)
        named = ret == _OK or (self.switches.errors_named and not any(r.kind == "unnamed" for r in struck))
        value = self._envelope(asked, ret, said, data, named=named)
        self._send(session, cmd, self._frame(value, error=ret != _OK), struck)
        if ret == _CLOSING:
            session.connection.close(1000, "too many requests")
        return len(wanted), ret, said

    def _judged(
        self, session: _Session, asked: dict[str, Any] | None, cmd: Any, now_s: float
    ) -> tuple[int, str, Any]:
        """Return what is wrong with a message itself."""
        if asked is None or not isinstance(asked.get("data"), dict):
            return _BAD, "data param invalid", {}
        if not isinstance(asked.get("seq_id"), int) or len(str(asked.get("ext", ""))) > _LONGEST_EXT:
            return _BAD, "header param invalid", {}
        if cmd not in _ROUTES or (cmd == 14014 and self.switches.batch == "off"):
            return _BAD, "unknown cmd", {}
        if cmd == _BEAT:
            session.beat_at = time.monotonic()
            return _OK, "ok", {}
        early = 0 <= now_s - session.asked_at < self.switches.rate_s  # the clock may be put back
        session.asked_at = now_s
        session.hurried = session.hurried + 1 if early else 0
        if early:
            return (_FAST if session.hurried < 3 else _CLOSING), "too many requests", {}
        return _OK, "ok", {}

    def _done(
        self, session: _Session, cmd: int, data: dict[str, Any], struck: tuple[Rule, ...], now_s: float
    ) -> tuple[int, str, Any]:
        match cmd:
            case 14012:
                return self._kline(session, data, struck, now_s)
            case 14014:
                return self._batch(session, data, struck, now_s)
            case 14006:
                return self._cancel(session, data)
            case _:
                return self._subscribe(session, cmd, data, now_s)

    def _find(self, session: _Session, data: Any) -> "_Product | tuple[int, str, Any]":
        """Return the product that a message names, or what is wrong with it."""
        try:
            i, kind, mode = (int(data[n]) for n in ("symbol_id", "trade_type", "trade_mode"))
        except (KeyError, TypeError, ValueError):
            return _BAD, "data param invalid", {}
        product = self._products.get((i, kind))
        if product is None or mode not in (0, product.ids[2]):
            return _CODE, "code invalid", {}
        if (kind == STOCK) != (session.path == _STOCKS):
            return _LEVEL, "level not enough", {}
        return product

    def _kline(
        self, session: _Session, data: dict[str, Any], struck: tuple[Rule, ...], now_s: float
    ) -> tuple[int, str, Any]:
        product = self._find(session, data)
        if isinstance(product, tuple):
            return product
        try:
            kind, count = int(data["kline_type"]), int(data["query_kline_num"])
            end_s = int(data.get("kline_timestamp_end") or 0)
        except (KeyError, TypeError, ValueError):
            return _BAD, "data param invalid", {}
        if kind not in TYPES or count < 1 or end_s < 0:
            return _BAD, "query invalid", {}
        if any(r.kind == "wrong_page" for r in struck):
            others = list(self._products.values())
            product = others[(others.index(product) + 1) % len(others)]
        shift = 1 if product.ids[1] == _ISOLATED else 0  # its prices are a tick above the others
        rows = kline(self.market, product.inst, TYPES[kind], count, end_s, shift, self.switches, now_s)
        i, trade_type, mode = product.ids
        return _OK, "ok", {
            "symbol_id": i, "trade_type": trade_type, "trade_mode": mode, "kline_type": kind,
            "price_digits": product.inst.decimals, "kline_list": rows,
        }  # fmt: skip

    def _batch(
        self, session: _Session, data: dict[str, Any], struck: tuple[Rule, ...], now_s: float
    ) -> tuple[int, str, Any]:
        out: list[Any] = []
        rows: list[dict[str, Any]] = data.get("data_list") or []
        for one in rows:
            few: dict[str, Any] = (
                {"query_kline_num": min(2, int(one["query_kline_num"]))}
                if self.switches.batch == "newest"
                else {}
            )
            ret, said, found = self._kline(session, one | few, struck, now_s)
            if ret != _OK:
                return ret, said, {}
            out.append({name: found[name] for name in ("symbol_id", "trade_type", "kline_list")})
        return (_OK, "ok", {"data_list": out}) if out else (_BAD, "data param invalid", {})

    def _subscribe(
        self, session: _Session, cmd: int, data: dict[str, Any], now_s: float
    ) -> tuple[int, str, Any]:
        """Replace a subscription; 14022 only tells the newest quotes."""
        rows: list[Any] = data.get("symbol_list") or []
        found = [self._find(session, one) for one in rows]
        wrong = next((one for one in found if isinstance(one, tuple)), None)
        if wrong is not None or not found:
            return wrong or (_BAD, "data param invalid", {})
        products = [one for one in found if isinstance(one, _Product)]
        if cmd == 14016:
            session.rolled, session.rolled_at = products, 0.0
            session.every_s = max(0.2, float(data.get("update_speed", 1000)) / 1000)
            return _OK, "ok", {"tick_list": []}
        if cmd == 14000:
            session.realtime, session.prices = products, {}
        quotes = [tick(self.market, p.inst, p.ids, self.switches, now_s) for p in products]
        return _OK, "ok", {"tick_list": [one for one in quotes if one]}

    def _cancel(self, session: _Session, data: dict[str, Any]) -> tuple[int, str, Any]:
        kind = data.get("cancel_type")
        if kind not in (0, 1, 2, 3):
            return _BAD, "data param invalid", {}
        session.realtime = [] if kind in (0, 1) else session.realtime
        session.rolled = [] if kind in (0, 3) else session.rolled
        return _OK, "ok", {}

    def _push(self, session: _Session) -> None:
        """Send what subscriptions have to tell: a price that moved, the rolling 24 hours in their time."""
        now_s, spent = self.clock.now().timestamp(), time.monotonic()
        texts = [text for p in session.realtime if (text := self._moved(session, p, now_s))]
        if session.rolled and self.switches.rolling and spent - session.rolled_at >= session.every_s:
            session.rolled_at = spent
            rolls = [rolling(self.market, p.inst, p.ids, self.switches, now_s) for p in session.rolled]
            texts.append(";".join(text for text in rolls if text))
        if self.switches.glued and len(texts) > 1:
            texts = ["".join(texts)]
        for text in filter(None, texts):
            session.connection.send(text)

    def _moved(self, session: _Session, product: _Product, now_s: float) -> str:
        one = tick(self.market, product.inst, product.ids, self.switches, now_s)
        if one is None or session.prices.get(product.text) == f"{one['price']} {one['seq']}":
            return ""
        session.prices[product.text] = f"{one['price']} {one['seq']}"
        return realtime(one)

    def _send(self, session: _Session, cmd: Any, frame: str | bytes, struck: tuple[Rule, ...]) -> None:
        """Send a reply, with the faults of its way."""
        kinds = {rule.kind for rule in struck}
        connection = session.connection
        if self.switches.pushes:
            connection.send(NOISE * 2 if self.switches.glued else NOISE)
        if "slow" in kinds:
            SystemClock().wait(self.faults.dials.slow_s)
        if kinds & {"reset", "cut"}:
            half(connection, as_bytes(frame)) if "cut" in kinds else abort(connection)
            return
        if kinds & {"torn", "corrupt", "bomb"}:
            frame = broken(as_bytes(frame), kinds)
        if "late" in kinds:
            session.held.append(frame)
            threading.Timer(self.switches.late_s, self._release, (session,)).start()
            return
        if "drop" not in kinds:
            connection.send(frame)
        if "twice" in kinds:
            connection.send(frame)
        if cmd != _BEAT:
            self._release(session)

    def _release(self, session: _Session) -> None:
        """Send the replies that were held back: after a younger one, or when their time is over."""
        while session.held:
            with contextlib.suppress(IndexError, ConnectionClosed):
                session.connection.send(session.held.pop(0))

    def _frame(self, value: dict[str, Any], *, error: bool) -> str | bytes:
        text = written(value, self.switches)
        if value["cmd_id"] != 14013 and not error:
            return text.decode()
        return packed(
            text,
            self.switches
            if not error or self.switches.errors_packed
            else replace(self.switches, packing="text"),
        )

    def _envelope(
        self, asked: dict[str, Any] | None, ret: int, said: str, data: Any, *, named: bool = True
    ) -> dict[str, Any]:
        given = asked if asked and named else {}
        number, cmd = given.get("seq_id", 0), given.get("cmd_id", -1)
        return {
            "ret": ret, "msg": said, "cmd_id": cmd + 1 if isinstance(cmd, int) else 0,
            "seq_id": number if isinstance(number, int) else 0, "ext": given.get("ext", ""), "data": data,
        }  # fmt: skip

    def ids_of(self, inst: Instrument) -> list[tuple[int, int, int]]:
        """Return the (symbol_id, trade_type, trade_mode) of an instrument's products, its first one first."""
        number = product_id(self.market.seed, str(inst.symbol))
        if inst.klass is Class.CRYPTO:
            return [(number, _CROSS, _MODE), (number, _ISOLATED, _MODE)]
        return [(number, STOCK, 1)]

    def _knows(self, token: str) -> bool:
        return bool(token) and token == self.tokens["default"]

    def _note(self, token: str, endpoint: str, status: int, said: str) -> None:
        place = self.journal.add(
            "multimarkets", account_of("multimarkets", token), endpoint, self.clock.now()
        )
        self.journal.answer(place, 0, status, said)


def _token(request: Request) -> str:
    return parse_qs(urlsplit(request.path).query).get("token", [""])[0]
