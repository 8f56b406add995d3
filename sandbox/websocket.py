"""A small threaded WebSocket server on loopback: one thread per connection, each before the same face."""

import contextlib
import logging
import socket
import struct
import threading
from collections.abc import Callable
from typing import Final

from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve

__all__ = ["WebSocketDoor", "abort", "half"]

_CLOSE_S: Final = 1.0
_SILENT: Final = logging.getLogger("klake.sandbox.websocket")  # the journal of requests is the log
_SILENT.disabled = True
_BINARY: Final = 0x82  # a whole message in one binary frame


class WebSocketDoor:
    """A server thread on 127.0.0.1; `port=0` takes a free port.

    `admit` may answer a handshake itself, with an error; `talk` owns a connection until it returns.
    """

    def __init__(
        self, talk: Callable[[ServerConnection], None],
        admit: Callable[[ServerConnection, Request], Response | None], path: str, port: int = 0,
    ) -> None:  # fmt: skip
        self._talk, self._open = talk, set[ServerConnection]()
        self._server = serve(
            self._one, "127.0.0.1", port, process_request=admit, compression=None, ping_interval=None,
            close_timeout=_CLOSE_S, logger=_SILENT,
        )  # fmt: skip
        self.url = f"ws://127.0.0.1:{self._server.socket.getsockname()[1]}{path}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening, and tear every connection down."""
        self._server.shutdown()
        for connection in list(self._open):
            abort(connection)
        self._thread.join()

    def _one(self, connection: ServerConnection) -> None:
        self._open.add(connection)
        try:
            with contextlib.suppress(ConnectionClosed, OSError):
                self._talk(connection)
        finally:
            self._open.discard(connection)


def abort(connection: ServerConnection) -> None:
    """Tear a connection down without a word."""
    with contextlib.suppress(OSError):
        connection.socket.shutdown(socket.SHUT_RDWR)


def half(connection: ServerConnection, body: bytes) -> None:
    """Send the head and the first half of a message, then tear the connection down."""
    with contextlib.suppress(OSError):
        connection.socket.sendall(struct.pack("!BBQ", _BINARY, 127, len(body)) + body[: len(body) // 2])
    abort(connection)
