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
from batchbell.providers.api import quote_segment
from batchbell.providers.openai import complaint_in
from batchbell.providers.verdicts import Subject, refusal
from tests.providers.benches import KEY, account
from tests.providers.canned import Canned, batch_json, list_json

HTML = b"<html><body>404 Not Found</body></html>"


def said(message: str = "No.", code: str | None = None, type_: str = "error") -> bytes:
    return json.dumps({"error": {"message": message, "code": code, "type": type_}}).encode()


def refused(status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> ProviderError:
    return refusal(
        status,
        headers or {},
        body,
        shape=complaint_in,
        about=Subject("batch", "batch_1"),
        now=1_000.0,
        secret=KEY,
    )


NONE_SUCH = said("No batch found with id 'batch_1'.")
ENQUEUED = "Enqueued token limit reached. Limit: 90,000 enqueued tokens. Please try again later."

PROXIES = {
    "Kong": b'{"message":"no Route matched with those values"}',
    "Envoy, empty": b"",
    "FastAPI": b'{"detail":"Not Found"}',
    "APISIX": b'{"error_msg":"404 Route Not Found"}',
    "Spring": b'{"status":404,"error":"Not Found","path":"/v1/batches/batch_1"}',
    "nginx": HTML,
    "NestJS": b'{"statusCode":404,"message":"Cannot GET /v1/batches/batch_1","error":"Not Found"}',
    "Azure API Management": b'{"statusCode":404,"message":"Resource not found"}',
    "Go": b"404 page not found",
    "null": b"null",
    "text": b'"batch_1 not found"',
    "a list": b'[{"error":{"message":"No batch batch_1","code":"x"}}]',
    "LiteLLM": said("Not Found", "404"),
    "another address": said("Invalid URL (GET /v1/batches/batch_1)", "unknown_url"),
    "no code": said("Invalid URL (GET /v1/batches/batch_1)"),
    "another batch": said("Nothing here called batch_12"),
    "Azure, deployment": said("The API deployment for batch_1 does not exist", "NotFound"),
    "no type": b'{"error":{"message":"batch_1 not found"}}',
}


@pytest.mark.parametrize("status", [404, 410])
@pytest.mark.parametrize("proxy", PROXIES)
def test_a_404_that_is_not_the_apis_own_word_about_this_id_is_doubtful(
    proxy: str, status: int
) -> None:
    """An outage of the gateway in front must not lose every batch of the account."""
    error = refused(status, PROXIES[proxy])
    assert type(error) is ProviderUnavailable
    assert error.message


@pytest.mark.parametrize(
    "body",
    [
        NONE_SUCH,
        said("Batch not found"),
        said("Nothing of that name", "batch_not_found"),
        said("No such batch"),
        said("The id batch_1 is not known to us, or was removed."),
        b'{"object":"error","message":"The batch batch_1 does not exist","code":404}',
        b'{"type":"error","error":{"type":"not_found_error","message":"batch_1 not found"}}',
    ],
)
def test_the_apis_own_word_about_this_id_is_believed(body: bytes) -> None:
    for status in (404, 410):
        error = refused(status, body)
        assert type(error) is ProviderNotFound
        assert error.from_api


@pytest.mark.parametrize(
    ("status", "body", "type_"),
    [
        (401, said(), ProviderAuthError),
        (401, HTML, ProviderAuthError),
        (403, said(), ProviderAuthError),
        (403, HTML, ProviderUnavailable),
        (403, b'{"message":"Forbidden"}', ProviderUnavailable),
        (403, said("Temporarily blocked, try again later."), ProviderUnavailable),
        (402, said(), ProviderBillingError),
        (402, b"", ProviderBillingError),
        (429, said(code="insufficient_quota"), ProviderBillingError),
        (429, said(type_="insufficient_quota"), ProviderBillingError),
        (429, said("You exceeded your current quota, please check."), ProviderBillingError),
        (429, said(type_="exceeded_current_quota_error"), ProviderBillingError),
        (400, said(code="billing_hard_limit_reached"), ProviderBillingError),
        (400, said("Your credit balance is too low to use the API."), ProviderBillingError),
        (400, said("Access denied.", "Arrearage"), ProviderBillingError),
        (403, said("Insufficient balance."), ProviderBillingError),
        (429, said(code="rate_limit_exceeded"), ProviderRateLimited),
        (429, HTML, ProviderRateLimited),
        (429, b"", ProviderRateLimited),
        (400, said(ENQUEUED, "token_limit_exceeded"), ProviderRateLimited),
        (400, said("Slow down.", "Throttling.RateQuota"), ProviderRateLimited),
        (407, HTML, ProviderUnavailable),
        (408, said(), ProviderUnavailable),
        (409, said(), ProviderUnavailable),
        (421, said(), ProviderUnavailable),
        (423, said(), ProviderUnavailable),
        (425, said(), ProviderUnavailable),
        (400, said("The server is overloaded, please try again later."), ProviderUnavailable),
        (400, said("The file is not ready."), ProviderUnavailable),
        (500, said(), ProviderUnavailable),
        (503, said(code="insufficient_quota"), ProviderUnavailable),
        (529, b"", ProviderUnavailable),
        (301, b"", ProviderUnavailable),
        (200, said("Try later."), ProviderUnavailable),
        (200, said(code="insufficient_quota"), ProviderBillingError),
        (200, said(code="rate_limit_exceeded"), ProviderRateLimited),
        (400, said(), ProviderRejected),
        (400, said("Bad file. Please try again with another."), ProviderRejected),
        (405, said(), ProviderRejected),
        (422, said(), ProviderRejected),
        (400, b"", ProviderUnavailable),
        (405, HTML, ProviderUnavailable),
        (422, b"not JSON", ProviderUnavailable),
        (422, b'{"detail":[{"loc":["path"],"msg":"bad"}]}', ProviderUnavailable),
    ],
)
def test_each_status_has_its_class(status: int, body: bytes, type_: type[ProviderError]) -> None:
    error = refused(status, body)
    assert type(error) is type_
    assert error.status == status
    assert error.message


def test_a_404_about_nothing_of_an_id_is_final_where_the_api_says_so() -> None:
    def about_none(body: bytes) -> ProviderError:
        return refusal(404, {}, body, shape=complaint_in, now=0.0)

    assert type(about_none(said("The model x does not exist"))) is ProviderRejected
    assert type(about_none(said("Unknown URL", "unknown_url"))) is ProviderUnavailable
    assert type(about_none(HTML)) is ProviderUnavailable


def test_an_error_longer_than_any_is_read_no_further() -> None:
    assert type(refused(404, said(f"batch_1 not found {'x' * 70_000}"))) is ProviderUnavailable


def test_the_providers_own_words_and_code_are_kept() -> None:
    error = refused(400, said("The file is too large.", "file_too_large"))
    assert (error.message, error.code) == ("The file is too large.", "file_too_large")


@pytest.mark.parametrize(
    "body",
    [
        b'{"error":"Out of order."}',
        b'{"message":"Out of order."}',
        b'{"detail":"Out of order."}',
        b'{"error_msg":"Out of order."}',
        said("Out of order."),
    ],
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
        ({"retry-after": "1m30s"}, 90.0),
        ({"retry-after": "1020"}, 1020.0),
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
    canned.status, canned.body = 404, b""
    with pytest.raises(ProviderUnavailable, match="base URL"):
        await openai.list_page()
    canned.body = said("Not here.")
    with pytest.raises(ProviderRejected, match="Not here"):
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


NO_ANSWERS = [b"", b" ", b"[]", b"null", b"7", b'"batch_1"', b"<html>", b'{"id":', b"{}", NONE_SUCH]


@pytest.mark.parametrize("body", [*NO_ANSWERS, b'{"detail":"Not Found"}', b'{"status":"UP"}'])
async def test_what_is_no_object_of_a_batch_is_no_answer(
    openai: Provider, canned: Canned, body: bytes
) -> None:
    canned.body = body
    with pytest.raises(ProviderUnavailable):
        await openai.retrieve("batch_1")


@pytest.mark.parametrize("status", [202, 204])
async def test_a_success_without_a_body_is_doubtful(
    openai: Provider, canned: Canned, status: int
) -> None:
    canned.status = status
    for call in (openai.list_page, lambda: openai.retrieve("batch_1")):
        with pytest.raises(ProviderUnavailable, match="empty"):
            await call()


async def test_a_web_page_as_a_success_is_said_to_be_one(openai: Provider, canned: Canned) -> None:
    canned.body = HTML
    with pytest.raises(ProviderUnavailable, match="web page"):
        await openai.list_page()


async def test_a_text_that_a_database_refuses_is_mended(openai: Provider, canned: Canned) -> None:
    canned.body = batch_json(metadata={"note": "a\x00b"})
    assert (await openai.retrieve("batch_1")).metadata == {"note": "a\ufffdb"}


@pytest.mark.parametrize("key", ["", "  ", "sk-a b", "sk-a\nb", "sk-\u00e4"])
def test_a_key_that_cannot_be_sent_is_a_wrong_setting(key: str) -> None:
    with pytest.raises(SettingsError):
        open_provider(account("openai", "https://api.openai.com/v1"), key, connect=ApiClient)


def test_an_unknown_provider_is_a_wrong_setting() -> None:
    with pytest.raises(SettingsError, match=r"Known here: anthropic, .* gemini, groq, mistral, "):
        open_provider(account("nobody", "https://example.com"), KEY, connect=ApiClient)
