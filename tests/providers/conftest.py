"""Each adapter beside a sandbox that speaks its dialect, and beside a provider that is canned."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from batchbell.providers import Provider
from batchbell.providers.registry import DIALECTS
from tests.providers.benches import BENCHES, Bench, connected
from tests.providers.canned import Canned, served


@pytest.fixture(params=sorted(DIALECTS))
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    async with BENCHES[request.param]() as bench:
        yield bench


@pytest.fixture
async def canned() -> AsyncIterator[Canned]:
    async with served(Canned()) as canned:
        yield canned


@pytest.fixture
async def openai(canned: Canned) -> AsyncIterator[Provider]:
    async for provider in connected("openai", canned.base_url):
        yield provider
