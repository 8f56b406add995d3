"""HTTP for vendors: one client, every failure classed once, no secret in any message."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from typing import Final
from urllib.parse import quote, quote_plus, urlsplit

import httpx

from ..errors import BadCredentials, BadPage, RateLimited, VendorDown, VendorError, VendorRefused
from ..schemas.clock import Clock

__all__ = ["Http", "Reply", "client_for", "hide", "is_loopback", "masked"]

_LARGEST: Final = 64 * 1024 * 1024  # bytes of one body, decompressed; a page of QOS has about 1 MB
_LOGGERS: Final = (
    "httpx", "httpcore", "httpcore.connection", "httpcore.http11", "httpcore.http2", "httpcore.proxy", "httpcore.socks",
    "websockets.client",
)  # fmt: skip
_QUOTED: Final = 160  # characters of a foreign text that a message repeats


@dataclass(frozen=True, slots=True)
class Reply:
    """One HTTP reply, whole. `retry_after_s` is 0 where the vendor did not say."""

    status: int
    body: bytes
    kind: str  # media type, lower case, without parameters
    retry_after_s: float

    @property
    def html(self) -> bool:
        """Return whether a gateway's page came instead of data."""
        return self.kind == "text/html" or self.body[:64].lstrip().lower().startswith(
            (b"<!doctype", b"<html")
        )


def is_loopback(url: str) -> bool:
    """Return whether `url` points at this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def client_for(url: str, timeout_s: float, transport: httpx.BaseTransport | None = None) -> httpx.Client:
    """Return a client for one vendor: keeps connections, follows no redirect (it would carry the key).

    Proxy variables of the environment count, except on loopback: a proxy must never see the
    key that a local stand-in is given.
    """
    return httpx.Client(
        timeout=httpx.Timeout(timeout_s, connect=min(timeout_s, 10.0)),
        trust_env=not is_loopback(url),
        follow_redirects=False,
        transport=transport,
    )


def masked(text: str, secrets: tuple[str, ...]) -> str:
    """Return `text`, cut to a readable length, with every secret replaced by `***`."""
    text = _hidden(text, secrets)
    return text if len(text) <= _QUOTED else f"{text[:_QUOTED]}…"


def _hidden(text: str, secrets: Iterable[str]) -> str:
    for secret in sorted((s for s in secrets if s), key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def _forms(secrets: tuple[str, ...]) -> tuple[str, ...]:
    """Return each secret as it stands in a header, in a URL, and in a form."""
    forms = [(s, quote(s, safe=""), quote(s), quote_plus(s)) for s in secrets if s]
    return tuple(dict.fromkeys(form for some in forms for form in some))


class _Mask(logging.Filter):
    """Takes secrets out of what the network libraries log: they log whole URLs."""

    def __init__(self) -> None:
        super().__init__()
        self.secrets: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass, masked where it holds a secret."""
        said = record.getMessage()
        shown = _hidden(said, self.secrets)
        if shown != said:
            record.msg, record.args = shown, ()
        return True


_MASK: Final = _Mask()


def hide(secrets: tuple[str, ...]) -> None:
    """Keep `secrets`, as they are and as URLs hold them, out of the network libraries' logs from now on."""
    _MASK.secrets.update(_forms(secrets))
    for name in _LOGGERS:  # a filter of a parent is not asked about the records of its children
        logging.getLogger(name).addFilter(_MASK)


class Http:
    """Sends requests of one vendor account.

    Parameters
    ----------
    vendor : str
        Name for messages.
    url : str
        Base without a trailing slash; never shown with its query.
    secrets : tuple of str
        What no message may hold.
    """

    def __init__(
        self, vendor: str, url: str, clock: Clock, secrets: tuple[str, ...], client: httpx.Client,
        largest: int = _LARGEST,
    ) -> None:  # fmt: skip
        self._vendor, self._url, self._clock = vendor, url.rstrip("/"), clock
        self._secrets, self._client, self._largest = _forms(secrets), client, largest
        hide(secrets)

    def post(
        self, path: str, body: bytes, headers: Mapping[str, str], params: Mapping[str, str] | None = None
    ) -> Reply:
        """Return the reply to one POST, whatever its status.

        Raises
        ------
        VendorDown
            Nobody answers in time, or the connection breaks.
        BadPage
            The body is too large or wrongly compressed.
        VendorRefused
            The URL cannot be asked at all.
        """
        host = urlsplit(self._url).netloc
        try:
            return self._exchange(path, body, headers, params)
        # `from None`: the foreign error holds the request, and with it the key.
        except httpx.TimeoutException:
            raise VendorDown(self._vendor, f"{host} did not answer in time", f"{host} 超时未应答") from None
        except httpx.DecodingError as error:
            raise BadPage(self._vendor, f"the reply is wrongly compressed: {self.mask(str(error))}") from None
        except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
            raise VendorRefused(self._vendor, f"the url cannot be used: {self.mask(str(error))}") from None
        except httpx.ConnectError as error:
            said = self.mask(str(error))
            raise VendorDown(
                self._vendor, f"nobody answers at {host}: {said}", f"{host} 无法连接：{said}"
            ) from None
        except httpx.TransportError as error:
            said = self.mask(str(error)) or type(error).__name__
            raise VendorDown(self._vendor, f"the connection to {host} broke: {said}") from None

    def _exchange(
        self, path: str, body: bytes, headers: Mapping[str, str], params: Mapping[str, str] | None
    ) -> Reply:
        url = f"{self._url}{path}"
        with self._client.stream("POST", url, content=body, headers=headers, params=params) as response:
            parts: list[bytes] = []
            size = 0
            try:
                for part in response.iter_bytes():
                    size += len(part)
                    if size > self._largest:
                        raise BadPage(self._vendor, f"the reply is larger than {self._largest} bytes")
                    parts.append(part)
            except (httpx.RemoteProtocolError, httpx.ReadError):
                raise VendorDown(self._vendor, "the reply broke off", "应答中断", replied=True) from None
            kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
            wait_s = self._wait_s(response.headers.get("retry-after", ""))
            return Reply(response.status_code, b"".join(parts), kind, wait_s)

    def _wait_s(self, said: str) -> float:
        """Return the seconds of a Retry-After header, which holds seconds or a date."""
        try:
            return max(0.0, float(said))
        except ValueError:
            pass
        try:
            return max(0.0, (parsedate_to_datetime(said) - self._clock.now()).total_seconds())
        except (ValueError, TypeError):
            return 0.0

    def failure(self, reply: Reply) -> VendorError | None:
        """Return the error that status and media type alone tell; None: the body must say.

        A vendor that explains itself in the body reads that first.
        """
        said = f"HTTP {reply.status}"
        if reply.status == 429 or (reply.status == 503 and reply.retry_after_s):
            return RateLimited(self._vendor, f"{said}: too many requests", reply.retry_after_s)
        if reply.status >= 500:
            return VendorDown(self._vendor, f"{said}: the vendor's gateway fails", f"{said}：服务端网关故障",
                              replied=True)  # fmt: skip
        if reply.status == 401:
            return BadCredentials(self._vendor, f"{said}: the key is refused", f"{said}：密钥被拒绝")
        if reply.status in (408, 425):
            return VendorDown(self._vendor, f"{said}: the vendor asks for another try", replied=True)
        if reply.html:
            return VendorDown(
                self._vendor, f"{said}: a web page came instead of data", f"{said}：返回了网页而非数据",
                replied=True,
            )  # fmt: skip
        if reply.status >= 300:
            return VendorRefused(self._vendor, f"{said}: refused; is the url right?")
        return None

    def mask(self, text: str) -> str:
        """Return `text` without secrets and of readable length."""
        return masked(text, self._secrets)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
