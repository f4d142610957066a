from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest
from openai import AsyncOpenAI

from batchbell.sandbox import Receiver, Sandbox, Schedule

from .making import KEY, FakeClock

SCHEDULE = Schedule(
    validating_seconds=10, in_progress_seconds=100, finalizing_seconds=10, cancelling_seconds=10
)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def sandbox(clock: FakeClock) -> AsyncIterator[Sandbox]:
    async with Sandbox(api_key=KEY, schedule=SCHEDULE, clock=clock) as sandbox:
        yield sandbox


@pytest.fixture
async def client(sandbox: Sandbox) -> AsyncIterator[AsyncOpenAI]:
    """The official SDK, refusing every answer that is not of the declared type."""
    async with AsyncOpenAI(
        api_key=KEY,
        base_url=sandbox.base_url,
        max_retries=0,
        _strict_response_validation=True,
    ) as client:
        yield client


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"}) as session:
        yield session


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as receiver:
        yield receiver
