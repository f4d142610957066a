"""Each adapter beside a sandbox that speaks its dialect, and beside a provider that is canned."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from batchbell.core.model import DEFAULT_PROJECT, Account
from batchbell.net.api import ApiClient
from batchbell.net.sessions import provider_session
from batchbell.providers import Provider, open_provider
from batchbell.sandbox import Sandbox
from tests.providers.canned import Canned, served

KEY = "sk-test-0123456789abcdef"
NOW = 1_700_000_500.0
DIALECTS = ["openai"]
"""Every provider whose adapter must pass the conformance suite."""


def account(provider: str, base_url: str) -> Account:
    return Account(
        id="acc_1", project_id=DEFAULT_PROJECT, name=provider, provider=provider, base_url=base_url
    )


async def connected(provider: str, base_url: str, key: str = KEY) -> AsyncIterator[Provider]:
    async with provider_session() as session:
        yield open_provider(
            account(provider, base_url),
            key,
            connect=lambda base, headers: ApiClient(
                base, headers, session=session, timeout_seconds=5.0
            ),
            clock=lambda: NOW,
        )


@dataclass
class Bench:
    """An adapter and the sandbox that it calls."""

    provider: Provider
    sandbox: Sandbox


@pytest.fixture(params=DIALECTS)
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    async with Sandbox(api_key=KEY, clock=lambda: NOW) as sandbox:
        async for provider in connected(request.param, sandbox.base_url):
            yield Bench(provider, sandbox)


@pytest.fixture
async def canned() -> AsyncIterator[Canned]:
    async with served(Canned()) as canned:
        yield canned


@pytest.fixture
async def openai(canned: Canned) -> AsyncIterator[Provider]:
    async for provider in connected("openai", canned.base_url):
        yield provider
