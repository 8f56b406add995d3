"""What a client may put into a QOS request body; fields that nobody knows are ignored."""

from typing import Final

import msgspec

from .qos_wire import split_codes

__all__ = ["Body", "Entry", "read_body"]


class Entry(msgspec.Struct, frozen=True):
    """One K-line request: codes, type, count, adjusted or not, end in UTC seconds."""

    c: str
    kt: int
    co: int = 1
    a: int = 0
    e: int | None = None


class Body(msgspec.Struct, frozen=True):
    """Every field of every endpoint; None: not sent."""

    kline_reqs: tuple[Entry, ...] | None = None
    codes: tuple[str, ...] | None = None
    count: int = 1
    market: tuple[str, ...] = ()

    @property
    def every_code(self) -> list[str]:
        """Return the codes of all entries, comma-joined ones apart."""
        texts = self.codes or () if self.kline_reqs is None else [entry.c for entry in self.kline_reqs]
        return [code for text in texts for code in split_codes(text)]


_DECODER: Final = msgspec.json.Decoder(Body)


def read_body(text: bytes) -> Body | None:
    """Return the body; None when it is no JSON or has a field of the wrong type."""
    try:
        return _DECODER.decode(text)
    except msgspec.MsgspecError:
        return None
