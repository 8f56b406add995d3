"""Logging in to Longbridge by OAuth, once, in a browser; and when what is held ends."""

import asyncio
import base64
import binascii
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from ...errors import BadCredentials

__all__ = ["authorised", "expiry_of_file", "expiry_of_token", "log_in", "token_file"]

_TOKENS: Final = (".longbridge", "openapi", "tokens")  # where the SDK keeps them, under the home folder


class _Token(msgspec.Struct):
    expires_at: float


class _Claims(msgspec.Struct):
    exp: float


def token_file(client_id: str) -> Path:
    """Return the file in which the SDK keeps the tokens of a client."""
    return Path.home().joinpath(*_TOKENS, client_id)


def expiry_of_file(client_id: str) -> datetime | None:
    """Return when the login ends unless it is renewed (the SDK does that by itself); None: nobody has logged in."""
    try:
        told = msgspec.json.decode(token_file(client_id).read_bytes(), type=_Token)
    except (OSError, msgspec.MsgspecError):
        return None
    return datetime.fromtimestamp(told.expires_at, UTC)


def expiry_of_token(token: str) -> datetime | None:
    """Return when an access token ends, which is a JWT, perhaps behind a prefix; None where it does not say."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))
        return datetime.fromtimestamp(msgspec.json.decode(claims, type=_Claims).exp, UTC)
    except (binascii.Error, msgspec.MsgspecError, OverflowError, ValueError, OSError):
        return None


async def authorised(api: Any, client_id: str, vendor: str) -> Any:
    """Return the SDK's login from its token file.

    Raises
    ------
    BadCredentials
        There is none, or it can be renewed in a browser only: nobody sits before a sync.
    """
    again = BadCredentials(
        vendor, f"nobody is logged in: run `klake vendors login {vendor}`",
        f"尚未登录：请运行 `klake vendors login {vendor}`",
    )  # fmt: skip
    if not token_file(client_id).is_file():
        raise again
    loop, asked = asyncio.get_running_loop(), asyncio.Event()

    def opened(url: str) -> None:
        loop.call_soon_threadsafe(asked.set)

    built = asyncio.ensure_future(api.OAuthBuilder(client_id).build_async(opened))
    wanted = asyncio.ensure_future(asked.wait())
    await asyncio.wait({built, wanted}, return_when=asyncio.FIRST_COMPLETED)
    wanted.cancel()
    if built.done():
        return built.result()
    built.cancel()
    raise again


def log_in(api: Any, client_id: str, opened: Callable[[str], None], timeout_s: float) -> datetime | None:
    """Wait until somebody has logged in at the URL that `opened` is told, and return when that ends.

    The token file can be read by its owner only, whatever the SDK makes it. TimeoutError after
    `timeout_s`; errors of the SDK pass through.
    """

    async def go() -> None:
        builder = api.OAuthBuilder(client_id)
        await asyncio.wait_for(asyncio.ensure_future(builder.build_async(opened)), timeout_s)

    asyncio.run(go())
    file = token_file(client_id)
    file.chmod(0o600)
    return expiry_of_file(client_id)
