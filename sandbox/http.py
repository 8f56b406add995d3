"""A small threaded HTTP/1.1 server on loopback: a face answers, faults happen on the wire."""

import contextlib
import json
import socket
import struct
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Literal, Protocol
from urllib.parse import parse_qsl, urlsplit

import msgspec

__all__ = ["Asked", "Door", "Face", "Reply", "in_json", "parsed"]

_JSON: Final = "application/json; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as it arrived; header names in lower case."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """What goes back. `broken`: `reset` tears the connection down, `cut` sends half of the body."""

    body: bytes
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=lambda: {"Content-Type": _JSON})
    broken: Literal["", "reset", "cut"] = ""


class Face(Protocol):
    """What a stand-in answers."""

    def answer(self, asked: Asked) -> Reply:
        """Return the reply to one request; called from many threads."""
        ...


def in_json(value: Any, status: int = 200) -> Reply:
    """Return `value` as a JSON reply."""
    return Reply(msgspec.json.encode(value), status)


class Door:
    """A server thread on 127.0.0.1 before one face; `port=0` takes a free port."""

    def __init__(self, face: Face, port: int = 0) -> None:
        self._server = _Server(("127.0.0.1", port), type("Handler", (_Handler,), {"face": face}))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop answering, and close every connection that a client keeps alive."""
        self._server.shutdown()
        self._server.server_close()
        self._server.hang_up()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], handler: type["_Handler"]) -> None:
        self._open: set[Any] = set()
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a client that went away is its own affair."""

    def hang_up(self) -> None:
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    face: Face
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body leave in one packet

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body, url = self.rfile.read(length), urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        asked = Asked(self.command, url.path, dict(parse_qsl(url.query)), headers, body)
        self._send(self.face.answer(asked))

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_PATCH = _serve

    def _send(self, reply: Reply) -> None:
        if reply.broken == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            # Detached first, or the files over the socket would keep it open.
            socket.socket(fileno=self.connection.detach()).close()
            self.close_connection = True
            return
        # Without Date: it would tell the wall's time, not the sandbox's.
        self.send_response_only(reply.status, _phrase(reply.status))
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        self.wfile.write(reply.body[: len(reply.body) // 2] if reply.broken else reply.body)
        self.wfile.flush()
        self.close_connection |= reply.broken == "cut"

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the journal of requests is the log."""


def _phrase(status: int) -> str:
    return HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else ""


def parsed(body: bytes) -> Any:
    """Return the JSON value of `body`; None when it is not JSON."""
    try:
        return json.loads(body)
    except ValueError:
        return None
