"""Longbridge over HTTP: the one-time password of the WebSocket, and the JSON transport of SDK 5.x."""

import hashlib
import hmac
from dataclasses import replace
from typing import Any, Final, cast

from ..schemas.clock import SystemClock
from .faults import Rule
from .http import Asked, Reply, in_json, parsed
from .longbridge import HISTORY, NEWEST, Account, Longbridge, Trouble
from .longbridge_line import Sessions
from .longbridge_wire import Query

__all__ = ["LongbridgeHttp"]

_TOKEN: Final = "/v1/socket/token"
_DECIMALS: Final = ("open", "high", "low", "close", "turnover")
_SIGNED: Final = ("authorization", "x-api-key", "x-timestamp")


class LongbridgeHttp:
    """The HTTP face; `sessions` are the long connections that the other face holds."""

    def __init__(self, service: Longbridge, sessions: Sessions) -> None:
        self.service, self.sessions = service, sessions

    def answer(self, asked: Asked) -> Reply:
        """Return the reply to one request, after noting it in the journal."""
        service = self.service
        account, trouble = self._account(asked)
        place = service.arrived(account, asked.path)
        given = parsed(asked.body)
        body = cast("dict[str, Any]", given) if isinstance(given, dict) else dict[str, Any]()
        codes = frozenset({str(body.get("symbol", ""))})
        struck = () if asked.path == _TOKEN else service.faults.draw(asked.path, codes)
        code, said = 200, "OK"
        try:
            if account is None or trouble is not None:
                raise trouble or Trouble(5, 401004, "token invalid")
            reply = _enveloped(self._data(asked.path, body, account, struck))
        except Trouble as refused:
            code, said = refused.code, refused.message
            status = code // 1000 if refused.status == 5 else 200
            reply = in_json({"code": code, "message": said, "data": None}, status)
        reply = _spoiled(reply, struck)
        service.journal.answer(place, 1, code if reply.status == 200 else reply.status, said)
        if any(rule.kind in {"slow", "drop"} for rule in struck):
            SystemClock().wait(service.faults.dials.slow_s)
        service.clock.wait(service.faults.dials.latency_s)
        return reply

    def _account(self, asked: Asked) -> tuple[Account | None, Trouble | None]:
        """Return whose request it is, and what is wrong with its signature."""
        given = asked.headers.get("authorization", "")
        try:
            if given.startswith("Bearer "):  # OAuth: no key, no signature
                token = given.removeprefix("Bearer ")
                key = next((a.app_key for a in self.service.accounts.values() if a.access_token == token), "")
                return self.service.account(key, token), None
            account = self.service.account(asked.headers.get("x-api-key", ""), given)
        except Trouble as refused:
            return None, refused
        fits = hmac.compare_digest(
            asked.headers.get("x-api-signature", ""), _signature(asked, account.app_secret)
        )
        return account, None if fits else Trouble(5, 403201, "signature invalid")

    def _data(self, path: str, body: dict[str, Any], account: Account, struck: tuple[Rule, ...]) -> Any:
        service = self.service
        if path == _TOKEN:
            otp, online = self.sessions.password(account.name)
            return {"otp": otp, "limit": account.connections, "online": online + service.dials.online}
        service.admit(account, history=path == HISTORY)
        failed = next((r for r in struck if r.kind == "error"), None)
        if failed is not None:
            raise Trouble(7, failed.code or 301602, failed.text)
        if path in (HISTORY, NEWEST):
            query = _query(path, body)
            plain = any(rule.kind == "numeric_price" for rule in struck)
            rows = [self._row(row, plain=plain) for row in service.candles(account, query, struck)]
            return {"symbol": query.symbol, "candlesticks": rows}
        if path == "/quote/static-info":
            return {"secu_static_info": service.static_info([str(s) for s in body.get("symbol", ())])}
        if path == "/quote/markets/trading-days":
            days = service.trading_days(
                *(str(body.get(name, "")) for name in ("market", "beg_day", "end_day"))
            )
            return {"trade_day": days[0], "half_trade_day": days[1]}
        raise Trouble(7, 301600, "not found")

    def _row(self, row: dict[str, Any], *, plain: bool) -> dict[str, Any]:
        if plain:
            row = row | {name: float(row[name]) for name in _DECIMALS if row[name]}
        if not self.service.dials.session_field:
            row = {name: value for name, value in row.items() if name != "trade_session"}
        if self.service.dials.numbers == "text":
            return {
                name: str(value) if name in {"volume", "timestamp"} else value for name, value in row.items()
            }
        return row


def _query(path: str, body: dict[str, Any]) -> Query:
    try:
        plain = Query(
            str(body["symbol"]), int(body.get("period", 0)), "latest", int(body.get("count", 0)),
            int(body.get("adjust_type", 0)), int(body.get("trade_session", 0)),
        )  # fmt: skip
        if path == NEWEST:
            return plain
        if body.get("query_type") == 2:
            dates = body["date_request"]
            return replace(
                plain, way="date", start=str(dates.get("start_date", "")), end=str(dates.get("end_date", ""))
            )
        at = body["offset_request"]
        return replace(
            plain, way="offset", count=int(at.get("count", 0)), forward=at.get("direction") == 1,
            day=str(at.get("date", "")), minute=str(at.get("minute", "")),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError):
        raise Trouble(7, 301600, "invalid request") from None


def _enveloped(data: Any) -> Reply:
    return in_json({"code": 0, "message": "", "data": data})


def _signature(asked: Asked, secret: str) -> str:
    """Return the signature that the SDK must have sent: SHA1 of what was asked, under HMAC-SHA256."""
    headers = "".join(f"{name}:{asked.headers.get(name, '')}\n" for name in _SIGNED)
    query = "&".join(f"{name}={value}" for name, value in asked.query.items())
    plain = f"{asked.method}|{asked.path}|{query}|{headers}|{';'.join(_SIGNED)}|"
    plain += hashlib.sha1(asked.body, usedforsecurity=False).hexdigest() if asked.body else ""
    digest = hashlib.sha1(plain.encode(), usedforsecurity=False).hexdigest()
    made = hmac.new(secret.encode(), f"HMAC-SHA256|{digest}".encode(), hashlib.sha256).hexdigest()
    return f"HMAC-SHA256 SignedHeaders={';'.join(_SIGNED)}, Signature={made}"


def _spoiled(reply: Reply, struck: tuple[Rule, ...]) -> Reply:
    """Return the reply with the faults of its way; one that is dropped ends with its connection."""
    for rule in struck:
        if rule.kind == "http_504":
            reply = Reply(
                b"<html><body>504 Gateway Time-out</body></html>", 504, {"Content-Type": "text/html"}
            )
        elif rule.kind == "http_429":
            reply = Reply(b"Too Many Requests", 429, {"Content-Type": "text/plain"})
        elif rule.kind == "http_429_json":
            reply = in_json({"code": 429002, "message": "api request is limited", "data": None}, 429)
        elif rule.kind == "not_json":
            reply = Reply(
                b"<html>please log in to this wireless network</html>", 200, {"Content-Type": "text/html"}
            )
        elif rule.kind == "no_data":
            reply = in_json({"code": 0, "message": ""})
        elif rule.kind in {"reset", "cut", "drop"}:
            reply = replace(reply, broken="cut" if rule.kind == "cut" else "reset")
        elif rule.kind == "corrupt":
            reply = replace(reply, body=b"{" + reply.body[: len(reply.body) // 2])
    return reply
