"""Frames of MultiMarkets: what they are packed in, what they are, and the envelope of a reply.

A frame is known by its bytes, never by its command: zlib, gzip, bare deflate, per cent or
plain text; a push, a reply, an error that names no request, or noise.
"""

import zlib
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from ...errors import BadPage
from ..websocket import Frame, Heard

__all__ = ["LARGEST", "OK", "UNREADABLE", "Head", "head_of", "heard", "text_of"]

OK: Final = 200
LARGEST: Final = 4 * 1024 * 1024  # bytes of one message, and of what it inflates to; a full page has 0.2 MB
UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What a decoder raises on hostile text."""

_PUSHES: Final = (b"p(", b"pr(", b"pt(", b"pd(")
_AS_IT_IS: Final = (b"{", b"%7B", b"%7b", *_PUSHES)
_INFLATE: Final = (47, -15)  # zlib or gzip, whichever it is; then without any header
_WIDEST: Final = 1 << 63
_PIECE: Final = 1 << 18
_HEX: Final = np.full(256, 16, np.uint8)  # the value of a hexadecimal digit; 16: it is none
for _digit in range(16):
    _HEX[[ord(f"{_digit:x}"), ord(f"{_digit:X}")]] = _digit


class Head(msgspec.Struct):
    """The envelope of a reply; `seq_id` 0: nobody knows to which request."""

    ret: int = 0
    msg: str = ""
    cmd_id: int = 0
    seq_id: int = 0
    data: msgspec.Raw = msgspec.Raw(b"null")


_head: Final = msgspec.json.Decoder(Head, strict=False)


def text_of(frame: Frame, vendor: str, largest: int = LARGEST) -> bytes:
    """Return the text of a frame, whatever it was packed in: zlib, gzip, bare deflate, per cent, nothing.

    Raises
    ------
    BadPage
        A torn stream, or one that holds more than `largest` bytes.
    """
    body = frame.encode() if isinstance(frame, str) else frame
    # No stream begins so; one may begin with a bare "%", which is why a whole escape is asked for.
    if not body.lstrip().startswith(_AS_IT_IS):
        body = _inflated(body, vendor, largest)
    body = body.lstrip()
    if body.startswith(b"%"):
        body = _unescaped(body).lstrip()
    return body


def _unescaped(body: bytes) -> bytes:
    """Return a text with its `%41` undone, piece by piece: one by one they would cost an object each."""
    out, at = bytearray(), 0
    while at < len(body):
        end = at + _PIECE
        cut = body.rfind(b"%", end - 2, end)  # an escape that the end would cut
        end = cut if cut > at else end
        out += _piece(np.frombuffer(body[at:end] + b"  ", np.uint8))
        at = end
    return bytes(out)


def _piece(text: npt.NDArray[np.uint8]) -> bytes:
    """Return a piece, which ends in two more bytes, with its escapes undone; a lone per cent sign stays."""
    at = np.flatnonzero(text[:-2] == ord("%"))
    high, low = _HEX[text[at + 1]], _HEX[text[at + 2]]
    good = (high < 16) & (low < 16)
    at, out, keep = at[good], text[:-2].copy(), np.ones(text.size - 2, np.bool_)
    out[at] = high[good] * 16 + low[good]
    keep[at + 1] = keep[at + 2] = False
    return out[keep].tobytes()


def _inflated(body: bytes, vendor: str, largest: int) -> bytes:
    for window in _INFLATE:
        stream = zlib.decompressobj(window)
        try:
            plain = stream.decompress(body, largest + 1)
        except zlib.error:
            continue
        if len(plain) > largest:
            raise BadPage(vendor, f"the reply inflates to more than {largest} bytes")
        if window > 0 and not stream.eof:
            raise BadPage(vendor, "the compressed reply is torn")
        if stream.eof and plain.lstrip().startswith(_AS_IT_IS):
            return plain
    raise BadPage(vendor, "the reply is neither text nor any known compression")


def heard(frame: Frame) -> Heard:
    """Return what a frame is; one that cannot be read counts as an answer to nobody knows what."""
    body = frame.encode(errors="replace") if isinstance(frame, str) else frame
    try:
        text = text_of(body, "")
    except BadPage:
        return Heard("noise" if isinstance(frame, str) else "reply", body)
    if text.startswith(_PUSHES):
        return Heard("push", text)
    head = _head_or_none(text)
    if head is None:
        return Heard("reply" if text.startswith(b"{") else "noise", body)
    if not head.seq_id and head.ret == OK:
        return Heard("noise", body)  # it answers somebody, but not by name: the deadline decides
    return Heard("reply", body, head.seq_id)


def _head_or_none(text: bytes) -> Head | None:
    try:
        head = _head.decode(text)
    except UNREADABLE:
        return None
    return head if 0 <= head.seq_id < _WIDEST else None


def head_of(body: bytes, vendor: str) -> Head:
    """Return the envelope of a reply as it was kept; BadPage where there is none."""
    head = _head_or_none(text_of(body, vendor))
    if head is None:
        raise BadPage(vendor, "the reply is not the JSON that MultiMarkets sends")
    return head
