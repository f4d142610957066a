"""What each refusal of a provider stands for, and what of it may be shown."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchbell.core.errors import (
    ProviderAuthError,
    ProviderBillingError,
    ProviderError,
    ProviderNotFound,
    ProviderRateLimited,
    ProviderRejected,
    ProviderUnavailable,
    SettingsError,
)
from batchbell.net.api import ApiClient
from batchbell.providers import Provider, open_provider
from batchbell.providers.api import duration_seconds, quote_segment, refusal
from tests.providers.canned import Canned, batch_json, list_json
from tests.providers.conftest import KEY, account

HTML = b"<html><body>404 Not Found</body></html>"


def said(message: str = "No.", code: str | None = None, type_: str = "error") -> bytes:
    return json.dumps({"error": {"message": message, "code": code, "type": type_}}).encode()


def refused(status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> ProviderError:
    return refusal(status, headers or {}, body, now=1_000.0, secret=KEY)


@pytest.mark.parametrize(
    ("status", "body", "type_"),
    [
        (401, said(), ProviderAuthError),
        (403, said(), ProviderAuthError),
        (403, HTML, ProviderAuthError),
        (402, said(), ProviderBillingError),
        (402, b"", ProviderBillingError),
        (429, said(code="insufficient_quota"), ProviderBillingError),
        (429, said(type_="insufficient_quota"), ProviderBillingError),
        (400, said(code="billing_hard_limit_reached"), ProviderBillingError),
        (429, said(code="rate_limit_exceeded"), ProviderRateLimited),
        (429, HTML, ProviderRateLimited),
        (404, said(), ProviderNotFound),
        (404, b"", ProviderNotFound),
        (410, said(), ProviderNotFound),
        (404, HTML, ProviderUnavailable),
        (404, b"404 page not found", ProviderUnavailable),
        (404, said(code="unknown_url"), ProviderUnavailable),
        (408, said(), ProviderUnavailable),
        (409, said(), ProviderUnavailable),
        (500, said(), ProviderUnavailable),
        (503, said(code="insufficient_quota"), ProviderUnavailable),
        (529, b"", ProviderUnavailable),
        (301, b"", ProviderUnavailable),
        (400, said(), ProviderRejected),
        (422, b"not JSON", ProviderRejected),
    ],
)
def test_each_status_has_its_class(status: int, body: bytes, type_: type[ProviderError]) -> None:
    error = refused(status, body)
    assert type(error) is type_
    assert error.status == status
    assert error.message


def test_the_providers_own_words_and_code_are_kept() -> None:
    error = refused(400, said("The file is too large.", "file_too_large"))
    assert (error.message, error.code) == ("The file is too large.", "file_too_large")


@pytest.mark.parametrize(
    "body", [b'{"error":"Out of order."}', b'{"message":"Out of order."}', said("Out of order.")]
)
def test_every_form_of_error_is_read(body: bytes) -> None:
    assert refused(500, body).message == "Out of order."


def test_a_redirect_points_at_the_base_url() -> None:
    message = refused(308, b"", {"location": "https://elsewhere.example/v1"}).message
    assert "https://elsewhere.example/v1" in message
    assert "base URL" in message


@pytest.mark.parametrize(
    "quoted",
    [
        f"Incorrect API key provided: {KEY}. You can find yours online.",
        "Incorrect API key provided: sk-proj-ab12***********wxyz.",
        f"Bad header 'Authorization: Bearer {KEY}'",
        f"{'x' * 1195} {KEY}",
    ],
)
def test_no_message_holds_a_key(quoted: str) -> None:
    message = refused(401, said(quoted)).message
    for part in (KEY, KEY[:12], "ab12", "wxyz"):
        assert part not in message


def test_a_message_is_short_and_printable() -> None:
    message = refused(500, said("a\x00\n" * 5_000)).message
    assert len(message) <= 301
    assert message.isprintable()


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after": "9"}, 9.0),
        ({"retry-after": "Thu, 01 Jan 1970 00:17:00 GMT"}, 20.0),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
        ({"x-ratelimit-reset-requests": "6m0s"}, 360.0),
        ({"retry-after": "2", "x-ratelimit-reset-requests": "6m0s"}, 2.0),
        ({"retry-after": "soon"}, None),
        ({}, None),
    ],
)
def test_the_wish_to_wait_is_read_from_any_header(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert refused(429, said(), headers).retry_after_seconds == seconds


def test_only_a_rate_limit_looks_at_the_rate_headers() -> None:
    headers = {"x-ratelimit-reset-requests": "6m0s"}
    assert refused(500, said(), headers).retry_after_seconds is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s", 1.0),
        ("6m0s", 360.0),
        ("20ms", 0.02),
        ("1h2m3.5s", 3723.5),
        ("17", 17.0),
        ("999h", 86_400.0),
        ("", None),
        (None, None),
        ("soon", None),
        ("1s later", None),
        ("-1s", None),
        ("1d", None),
    ],
)
def test_durations_are_read(text: str | None, seconds: float | None) -> None:
    assert duration_seconds(text) == pytest.approx(seconds) if seconds else seconds is None


@given(st.text(max_size=30), st.binary(max_size=100), st.integers(300, 599))
def test_no_answer_breaks_the_reading_of_a_refusal(value: str, body: bytes, status: int) -> None:
    names = ("retry-after", "retry-after-ms", "x-ratelimit-reset-requests", "location")
    error = refused(status, body, dict.fromkeys(names, value))
    assert error.retry_after_seconds is None or 0 <= error.retry_after_seconds <= 86_400


@given(st.text(min_size=1, max_size=40).filter(lambda t: t.isprintable()))
def test_a_quoted_id_is_one_segment(identity: str) -> None:
    quoted = quote_segment(identity)
    assert quoted.isascii()
    assert not set(quoted) & set("/?#\\ ")
    assert quoted not in ("", ".", "..")


# Over HTTP


async def test_the_key_goes_into_its_header_and_nowhere_else(
    openai: Provider, canned: Canned
) -> None:
    canned.body = list_json()
    await openai.list_page("batch_9&limit=1")
    (request,) = canned.asked
    assert request.headers["Authorization"] == f"Bearer {KEY}"
    assert request.headers["User-Agent"].startswith("Batchbell/")
    assert dict(request.query) == {"limit": "100", "after": "batch_9&limit=1"}
    assert request.path == "/v1/batches"


async def test_a_list_that_is_not_there_is_about_the_base_url(
    openai: Provider, canned: Canned
) -> None:
    canned.status, canned.body = 404, said("Not here.")
    with pytest.raises(ProviderRejected, match="base URL"):
        await openai.list_page()


async def test_a_redirect_is_not_followed(openai: Provider, canned: Canned) -> None:
    canned.status, canned.headers = 302, {"Location": f"{canned.base_url}/elsewhere"}
    with pytest.raises(ProviderUnavailable, match="redirects"):
        await openai.retrieve("batch_1")
    assert len(canned.asked) == 1


async def test_cancelling_is_a_post_that_is_answered_with_the_batch(
    openai: Provider, canned: Canned
) -> None:
    canned.body = batch_json(status="cancelling")
    batch = await openai.cancel("batch_1")
    assert batch.provider_status == "cancelling"
    assert [(r.method, r.path) for r in canned.asked] == [("POST", "/v1/batches/batch_1/cancel")]


@pytest.mark.parametrize("body", [b"[]", b"null", b"7", b'"batch_1"', b"<html>", b'{"id":'])
async def test_what_is_no_object_is_no_answer(
    openai: Provider, canned: Canned, body: bytes
) -> None:
    canned.body = body
    with pytest.raises(ProviderUnavailable):
        await openai.retrieve("batch_1")


async def test_a_text_that_a_database_refuses_is_mended(openai: Provider, canned: Canned) -> None:
    canned.body = batch_json(metadata={"note": "a\x00b"})
    assert (await openai.retrieve("batch_1")).metadata == {"note": "a\ufffdb"}


@pytest.mark.parametrize("key", ["", "  ", "sk-a b", "sk-a\nb", "sk-\u00e4"])
def test_a_key_that_cannot_be_sent_is_a_wrong_setting(key: str) -> None:
    with pytest.raises(SettingsError):
        open_provider(account("openai", "https://api.openai.com/v1"), key, connect=ApiClient)


def test_an_unknown_provider_is_a_wrong_setting() -> None:
    with pytest.raises(SettingsError, match="known are: openai"):
        open_provider(account("nobody", "https://example.com"), KEY, connect=ApiClient)
