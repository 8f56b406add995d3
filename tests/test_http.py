"""What can happen on the way to a vendor, and what it is called; no secret in any of it."""

import logging
import traceback
from datetime import UTC, datetime
from urllib.parse import quote

import httpx
import pytest

from klake.errors import BadCredentials, BadPage, RateLimited, VendorDown, VendorError, VendorRefused
from klake.ingest.http import Http, client_for, is_loopback, masked
from klake.sandbox.server import Sandbox
from klake.schemas.clock import ManualClock

SECRET = "s3cret-of-a-user"
NOW = datetime(2026, 11, 20, 8, tzinfo=UTC)


def http(answer, largest: int = 1000) -> Http:
    client = client_for("https://api.example", 5.0, httpx.MockTransport(answer))
    return Http("qos", "https://api.example/", ManualClock(NOW), (SECRET,), client, largest)


def asked(answer, **more):
    return http(answer, **more).post("/kline", b"{}", {"key": SECRET}, {"key": SECRET})


def raising(error: Exception):
    def answer(request: httpx.Request) -> httpx.Response:
        raise error

    return answer


@pytest.mark.parametrize(
    ("error", "ours"),
    [
        (httpx.ConnectError(f"refused {SECRET}"), VendorDown),
        (httpx.ReadTimeout(f"at ?key={SECRET}"), VendorDown),
        (httpx.ConnectTimeout("slow"), VendorDown),
        (httpx.RemoteProtocolError(f"broke {SECRET}"), VendorDown),
        (httpx.ReadError(""), VendorDown),
        (httpx.ProxyError(f"{SECRET}"), VendorDown),
        (httpx.DecodingError(f"zip {SECRET}"), BadPage),
        (httpx.UnsupportedProtocol(f"x://{SECRET}"), VendorRefused),
        (httpx.InvalidURL(f"x://{SECRET}"), VendorRefused),
    ],
)
def test_every_failure_of_the_way_has_a_class_and_no_secret(error, ours):
    with pytest.raises(VendorError) as caught:
        asked(raising(error))

    told = "".join(traceback.format_exception(caught.value))
    assert type(caught.value) is ours
    assert SECRET not in told
    assert SECRET not in caught.value.zh


@pytest.mark.parametrize(
    ("status", "headers", "ours", "wait_s"),
    [
        (429, {"retry-after": "7"}, RateLimited, 7.0),
        (429, {}, RateLimited, 0.0),
        (429, {"retry-after": "Fri, 20 Nov 2026 08:00:30 GMT"}, RateLimited, 30.0),
        (429, {"retry-after": "soon"}, RateLimited, 0.0),
        (503, {"retry-after": "3"}, RateLimited, 3.0),
        (503, {}, VendorDown, None),
        (504, {"content-type": "text/html"}, VendorDown, None),
        (500, {}, VendorDown, None),
        (408, {}, VendorDown, None),
        (401, {}, BadCredentials, None),
        (301, {"location": "https://elsewhere"}, VendorRefused, None),
        (404, {}, VendorRefused, None),
        (200, {"content-type": "text/html; charset=utf-8"}, VendorDown, None),
    ],
)
def test_a_status_has_a_class(status, headers, ours, wait_s):
    sender = http(lambda request: httpx.Response(status, headers=headers, content=b"{}"))

    error = sender.failure(sender.post("/kline", b"{}", {}))

    assert type(error) is ours
    assert wait_s is None or error.wait_s == wait_s


def test_a_web_page_without_a_media_type_is_known_by_its_first_bytes():
    sender = http(lambda request: httpx.Response(200, content=b" <!DOCTYPE html><html>"))

    assert type(sender.failure(sender.post("/kline", b"{}", {}))) is VendorDown


def test_a_good_reply_comes_whole_and_is_no_failure():
    sender = http(lambda request: httpx.Response(200, json={"msg": "OK"}))

    reply = sender.post("/kline", b"{}", {})

    assert (reply.status, reply.body, reply.kind) == (200, b'{"msg":"OK"}', "application/json")
    assert sender.failure(reply) is None


def test_a_body_without_end_is_cut_off():
    with pytest.raises(BadPage, match="larger than 10 bytes"):
        asked(lambda request: httpx.Response(200, content=b"x" * 11), largest=10)


@pytest.mark.parametrize("level", [logging.INFO, logging.DEBUG])
@pytest.mark.parametrize("key", [SECRET, "a key/with+odd=signs&more", "密钥"])
def test_a_key_in_the_query_is_in_no_log(level, key, caplog):
    with Sandbox(clock_start=NOW) as sandbox, caplog.at_level(level):
        client = client_for(sandbox.qos_url, 5.0)
        sender = Http("qos", sandbox.qos_url, ManualClock(NOW), (key,), client)
        sender.post("/kline", b"{}", {}, {"key": key})
        sender.close()

    logged = [r.getMessage() for r in caplog.records if r.name.startswith("http")]
    assert any("key=***" in text for text in logged)
    assert not any(form in text for text in logged for form in (key, quote(key), quote(key, safe="")))


def test_who_breaks_off_or_fails_has_replied_and_who_does_not_answer_has_not():
    def broken(request: httpx.Request) -> httpx.Response:
        def parts():
            yield b"{"
            raise httpx.RemoteProtocolError("peer closed")

        return httpx.Response(200, content=parts())

    with pytest.raises(VendorDown, match="broke off") as half:
        asked(broken)
    with pytest.raises(VendorDown) as none:
        asked(raising(httpx.ConnectError("refused")))
    assert (half.value.replied, none.value.replied) == (True, False)
    failing = http(lambda request: httpx.Response(504))
    assert failing.failure(failing.post("/kline", b"{}", {})).replied


def test_a_redirect_is_not_followed_because_it_would_carry_the_key():
    seen = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(str(request.url))
        return httpx.Response(302, headers={"location": "https://elsewhere/"})

    assert asked(answer).status == 302
    assert len(seen) == 1


def test_secrets_are_masked_longest_first_and_long_texts_cut():
    assert masked("ab abc", ("ab", "abc", "")) == "*** ***"
    assert len(masked("x" * 1000, ())) < 200


@pytest.mark.parametrize(
    ("url", "here"),
    [
        ("http://127.0.0.1:80", True),
        ("http://localhost/x", True),
        ("http://[::1]:9", True),
        ("https://api.qos.hk", False),
    ],
)
def test_loopback_is_known_so_that_no_proxy_sees_its_key(url, here, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:1")
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.example:1")

    assert is_loopback(url) is here
    assert client_for(url, 1.0).trust_env is not here
