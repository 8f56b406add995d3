"""The product API of a MultiMarkets operator over HTTP: which ids it has for what."""

from typing import Any

from .http import Asked, Reply, in_json
from .journal import account_of
from .multimarkets import MultiMarkets

__all__ = ["ProductApi"]


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
            reply = {"code": "0", "message": "ok", "data": face.listed()}
        face.journal.answer(place, 0, 200, str(reply["message"]))
        return in_json(reply)
