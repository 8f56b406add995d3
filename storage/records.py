"""Records: a page as the raw zone keeps it, and what can be told of it without its body."""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import cast

import msgspec
import pyarrow as pa

from ..schemas.page import Page, PageRequest

__all__ = ["Body", "Head", "Record", "Ref", "key_of", "page_of", "plain", "record_of"]


class Record(msgspec.Struct):
    """One page as stored. `body` is zstd; None: it is the body of the record at `place` of segment `segment`.

    `taken_at` is when this lake took the page from a folder of collected ones; None: it was
    received here.
    """

    id: str
    run: str
    kind: str
    account: str
    request: PageRequest
    received_at: datetime
    status: int
    client: str
    size: int
    sha256: bytes
    body: bytes | None
    segment: str = ""
    place: int = 0
    taken_at: datetime | None = None


class Head(msgspec.Struct):
    """A record without its body: decoding it skips what it does not name."""

    id: str
    run: str
    request: PageRequest
    received_at: datetime
    sha256: bytes
    segment: str = ""
    place: int = 0
    taken_at: datetime | None = None

    @property
    def arrived_at(self) -> datetime:
        """When the page came into this lake."""
        return self.taken_at or self.received_at


@dataclass(frozen=True, slots=True, order=True)
class Ref:
    """Where a page lies in a raw zone; sorts by receipt."""

    received_at: datetime
    id: str
    run: str
    vendor: str
    segment: str
    place: int


@dataclass(frozen=True, slots=True)
class Body:
    """Where the last body of a request lies."""

    sha256: bytes
    segment: str
    place: int


def record_of(page: Page, digest: bytes, known: Body | None, taken_at: datetime | None) -> Record:
    """Return the record of a page whose body has the SHA-256 `digest`; `known`: it lies there already."""
    body = None if known else cast(bytes, pa.compress(page.body, codec="zstd", asbytes=True))
    return Record(
        page.id, page.run, page.kind, page.account, page.request, page.received_at, page.status, page.client,
        len(page.body), digest, body, known.segment if known else "", known.place if known else 0, taken_at,
    )  # fmt: skip


def page_of(record: Record, body: bytes) -> Page:
    """Return the page of a record and its plain body."""
    return Page(
        record.id, record.run, record.kind, record.account, record.request, record.received_at, record.status,
        record.client, body,
    )  # fmt: skip


def plain(record: Record) -> bytes:
    """Return the body that a record itself holds."""
    if not record.size:
        return b""
    return cast(bytes, pa.decompress(record.body, decompressed_size=record.size, codec="zstd", asbytes=True))


def key_of(request: PageRequest) -> bytes:
    """Return what is the same for equal requests only."""
    return hashlib.sha256(msgspec.msgpack.encode(request)).digest()
