"""What a host needs that speaks a known dialect: facts, and no code."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from msgspec import structs

from batchbell.core.errors import ProviderRateLimited, SettingsError
from batchbell.core.model import Snapshot, Status
from batchbell.core.submission import Expiry
from batchbell.providers import Provider
from batchbell.providers.profile import Auth, ExpiryRange, ListStyle, Profile
from batchbell.providers.profiles import (
    DEFAULT,
    GROQ,
    MOONSHOT,
    NOVITA,
    OPENAI,
    PERPLEXITY,
    PROFILES,
    SILICONFLOW,
    ZHIPU,
)
from batchbell.providers.registry import DIALECTS, named_profile
from tests.providers.benches import KEY, connected
from tests.providers.canned import BATCH, Canned

NEW = replace(
    OPENAI,
    name="new",
    title="New",
    auth=Auth("x-new-key", ""),
    headers={"x-new-version": "7"},
    statuses={"progress": Status.IN_PROGRESS},
    list_style=ListStyle.WHOLE,
)
"""A host with a status word of its own, and a list without pages."""


@pytest.fixture
async def new(canned: Canned, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Provider]:
    monkeypatch.setitem(PROFILES, "new", NEW)  # type: ignore[arg-type]
    async for provider in connected("new", canned.base_url):
        yield provider


async def test_a_hosts_own_word_and_a_whole_list_are_facts(new: Provider, canned: Canned) -> None:
    rows = [{**BATCH, "id": f"b{n}", "status": "PROGRESS"} for n in range(1_500)]
    for body in (rows, {"object": "list", "data": rows, "has_more": True}):
        canned.body = json.dumps(body).encode()
        page = await new.list_page()
        assert {batch.status for batch in page.batches} == {Status.IN_PROGRESS}
        assert (len(page.batches), page.next_cursor, page.fault) == (1_500, None, None)
    asked = canned.asked[-1]
    assert (asked.path, dict(asked.query)) == ("/v1/batches", {})


async def test_a_hosts_headers_go_with_every_call(new: Provider, canned: Canned) -> None:
    canned.body = json.dumps(BATCH).encode()
    assert (await new.retrieve("batch_1")).status is Status.COMPLETED
    headers = canned.asked[-1].headers
    assert (headers["x-new-key"], headers["x-new-version"]) == (KEY, "7")
    assert "authorization" not in headers


@pytest.mark.parametrize(
    ("range_", "wanted", "asked"),
    [
        (ExpiryRange(floor_seconds=3600, ceiling_seconds=7200), 60, 3600),
        (ExpiryRange(floor_seconds=3600, ceiling_seconds=7200), 3600, 3600),
        (ExpiryRange(floor_seconds=3600, ceiling_seconds=7200), 10**9, 7200),
        (ExpiryRange(floor_seconds=3600, ceiling_seconds=7200), None, None),
        (None, 3600, None),
    ],
)
def test_an_expiry_is_brought_into_the_hosts_range(
    range_: ExpiryRange | None, wanted: int | None, asked: int | None
) -> None:
    both = Expiry(input_seconds=wanted, output_seconds=wanted)
    near = replace(OPENAI, expiry=range_).expiry_near(both)
    assert near == Expiry(input_seconds=asked, output_seconds=asked)


@pytest.mark.parametrize(
    ("profile", "given", "meant"),
    [
        (OPENAI, "https://llm.internal/v1", "https://llm.internal/v1"),
        (OPENAI, "https://llm.internal", "https://llm.internal"),
        (GROQ, "https://api.groq.com", "https://api.groq.com/openai/v1"),
        (GROQ, "https://api.groq.com/openai", "https://api.groq.com/openai/v1"),
        (GROQ, "https://api.groq.com/openai/v1", "https://api.groq.com/openai/v1"),
        (GROQ, "http://127.0.0.1:8089", "http://127.0.0.1:8089/openai/v1"),
        (GROQ, "https://proxy.internal/groq", "https://proxy.internal/groq/openai/v1"),
        (GROQ, "https://proxy.internal/xopenai", "https://proxy.internal/xopenai/openai/v1"),
        (PERPLEXITY, "https://api.perplexity.ai", "https://api.perplexity.ai/v1"),
        (PERPLEXITY, "https://api.perplexity.ai/v1", "https://api.perplexity.ai/v1"),
    ],
)
def test_an_address_may_be_written_as_for_either_sdk(
    profile: Profile, given: str, meant: str
) -> None:
    assert profile.address(given) == meant


@pytest.mark.parametrize(
    ("profile", "base_url", "own"),
    [
        (OPENAI, "https://api.openai.com/v1", True),
        (OPENAI, "https://eu.api.openai.com/v1", False),
        (OPENAI, "http://127.0.0.1:4000/v1", False),
        (MOONSHOT, "https://api.moonshot.cn/v1", True),
        (MOONSHOT, "https://moonshot.cn.example/v1", False),
        (MOONSHOT, "https://notmoonshot.cn/v1", False),
    ],
)
def test_time_between_looks_is_asked_for_at_the_hosts_own_address(
    profile: Profile, base_url: str, own: bool
) -> None:
    slow = replace(profile, look_seconds=60.0)
    assert slow.look_seconds_at(base_url) == (60.0 if own else 0.0)


@pytest.mark.parametrize(
    ("profile", "word", "status"),
    [
        (NOVITA, "PROGRESS", Status.IN_PROGRESS),
        (NOVITA, "VALIDATING", Status.VALIDATING),
        (SILICONFLOW, "in_queue", Status.VALIDATING),
    ],
)
async def test_words_of_a_host_are_read_in_any_case(
    canned: Canned, profile: Profile, word: str, status: Status
) -> None:
    canned.body = json.dumps({**BATCH, "status": word}).encode()
    async for provider in connected(profile.name, canned.base_url):
        assert (await provider.retrieve("batch_1")).status is status


async def test_a_429_of_groq_is_waited_out_as_its_headers_say(canned: Canned) -> None:
    """Its docs name `retry-after`; without it the time to the next request is in a duration."""
    canned.status = 429
    error = {"message": "Rate limit reached", "type": "requests", "code": "rate_limit_exceeded"}
    canned.body = json.dumps({"error": error}).encode()
    waits = []
    for headers in ({"retry-after": "7"}, {"x-ratelimit-reset-requests": "2m59.56s"}):
        canned.headers = headers
        async for provider in connected("groq", canned.base_url):
            with pytest.raises(ProviderRateLimited) as caught:
                await provider.list_page()
            waits.append(caught.value.retry_after_seconds)
    assert waits == [7.0, 179.56]


def test_limits_are_those_of_the_documents() -> None:
    assert (GROQ.limits.bytes, SILICONFLOW.limits.lines) == (100 * 10**6, 5_000)
    assert (ZHIPU.limits.custom_id_characters, OPENAI.limits.custom_id_characters) == (64, 512)


def test_an_unknown_provider_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(SettingsError, match="Did you mean 'openai'"):
        named_profile("open-ai")
    with pytest.raises(SettingsError, match="is of provider 'openai', at a base_url of its own"):
        named_profile("litellm")


@pytest.mark.parametrize("profile", PROFILES.values(), ids=lambda profile: profile.name)
def test_the_facts_of_a_host_agree(profile: Profile) -> None:
    assert PROFILES[profile.name] is profile
    assert profile.dialect in DIALECTS
    assert profile.windows
    assert profile.page_size > 0
    assert all(word == word.lower() for word in profile.statuses)
    assert Status.LOST not in profile.statuses.values()
    assert profile.base_url is None or profile.address(profile.base_url) == profile.base_url
    assert profile.expiry is None or profile.expiry.floor_seconds <= profile.expiry.ceiling_seconds


def test_a_host_says_until_when_it_keeps_results() -> None:
    seen = Snapshot(
        id="b",
        provider_status="done",
        status=Status.COMPLETED,
        results_ref="b",
        timestamps={"created_at": 1_000, "completed_at": 5_000},
    )
    days = {"openai": 30, "anthropic": 29, "gemini": 2}
    since = {"openai": 5_000, "anthropic": 1_000, "gemini": 5_000}
    for name, number in days.items():
        assert PROFILES[name].results_expire_at(seen) == since[name] + number * 86_400
    gemini = PROFILES["gemini"]
    assert gemini.results_expire_at(structs.replace(seen, results_ref=None)) is None
    assert gemini.results_expire_at(structs.replace(seen, timestamps={})) is None
    assert replace(gemini, retention_seconds=None).results_expire_at(seen) is None


def test_no_two_hosts_share_a_variable() -> None:
    named = [one for p in PROFILES.values() for one in p.key_variables]
    named += [p.base_url_variable for p in PROFILES.values() if p.base_url_variable]
    assert len(named) == len(set(named))
    assert DEFAULT.name in PROFILES
