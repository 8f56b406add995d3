"""The product API of a MultiMarkets operator over HTTP: which ids it has for what."""

from typing import Any, Final

from ..schemas.symbol import Class
from .http import Asked, Reply, in_json
from .journal import account_of
from .multimarkets import MultiMarkets

__all__ = ["ProductApi"]

_SPOT: Final = 5


class ProductApi:
    """The HTTP face of the operator's product list: `{code, message, data}`."""

    def __init__(self, face: MultiMarkets) -> None:
        self._face = face

    def answer(self, asked: Asked) -> Reply:
        """Return the list; a request must name a company, and a token or a signature (which nobody checks)."""
        face, headers = self._face, asked.headers
        token = headers.get("token", "")
        place = face.journal.add(
            "multimarkets", account_of("multimarkets", token), asked.path, face.clock.now()
        )
        signed = bool(headers.get("apikey") and headers.get("signature"))
        if asked.method != "POST" or not asked.path.startswith("/openapi-c/global/"):
            reply: dict[str, Any] = {"code": "404", "message": "not found", "data": None}
        elif not headers.get("companyid") or not (signed or token == face.tokens["default"]):
            reply = {"code": "00012003", "message": "unknown key", "data": None}
        else:
            reply = {"code": "0", "message": "ok", "data": _listed(face)}
        face.journal.answer(place, 0, 200, str(reply["message"]))
        return in_json(reply)


def _listed(face: MultiMarkets) -> list[dict[str, Any]]:
    """Return the product list: perpetuals as cross and isolated contracts, and as spot without a dealMode."""
    rows: list[dict[str, Any]] = []
    for inst in face.market.instruments.values():
        crypto = inst.klass is Class.CRYPTO
        name = inst.symbol.code.removesuffix(".P") if crypto else str(inst.symbol)
        ids = face.ids_of(inst)
        rows += [
            {"symbolId": i, "tradeType": kind, "dealMode": mode, "name": name, "digits": inst.decimals}
            for i, kind, mode in ids
        ]
        if crypto:  # listed, never quoted
            rows.append({"symbolId": ids[0][0], "tradeType": _SPOT, "name": name, "digits": inst.decimals})
    return rows
