"""Tokens of Entra ID in place of a key: renewed in time, and only for the operator's accounts."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest
from msgspec.structs import replace

from batchbell.core.errors import ProviderAuthError
from batchbell.net.api import ApiClient
from batchbell.net.sessions import provider_session
from batchbell.providers import Provider, entra, open_provider
from batchbell.providers.entra import EARLY_SECONDS, SIGN_IN, Tokens
from batchbell.providers.profiles import AZURE
from batchbell.providers.registry import key_to_send
from tests.providers.benches import KEY, account
from tests.providers.canned import BATCH, Canned

LASTS_SECONDS = 3_600.0


class Issuer:
    """Gives a new token each time that it is asked, and may be away."""

    def __init__(self) -> None:
        self.now = 1_000_000.0
        self.given = 0
        self.away = False

    def fetch(self) -> tuple[str, float]:
        if self.away:
            raise OSError("no route to the identity\nand more")
        self.given += 1
        return f"eyJhbGciOi.eyJzdWIi.{self.given}", self.now + LASTS_SECONDS


@pytest.fixture
def issuer(monkeypatch: pytest.MonkeyPatch) -> Issuer:
    issuer = Issuer()
    tokens = Tokens(issuer.fetch, clock=lambda: issuer.now)
    monkeypatch.setattr(entra, "tokens", lambda: tokens)
    return issuer


async def opened(base_url: str, *, declared: bool) -> AsyncIterator[Provider]:
    async with provider_session() as session:
        yield open_provider(
            replace(account("azure", base_url), from_environment=declared),
            SIGN_IN,
            connect=lambda base, headers: ApiClient(base, headers, session=session),
        )


async def test_a_token_is_kept_until_shortly_before_its_end(issuer: Issuer) -> None:
    tokens = Tokens(issuer.fetch, clock=lambda: issuer.now)
    first = await tokens.token()
    issuer.now += LASTS_SECONDS - EARLY_SECONDS - 1
    assert await tokens.token() == first
    issuer.now += 1
    assert await tokens.token() != first
    assert issuer.given == 2


async def test_an_old_token_serves_while_it_lasts_and_then_the_account_is_at_fault(
    issuer: Issuer,
) -> None:
    tokens = Tokens(issuer.fetch, clock=lambda: issuer.now)
    first = await tokens.token()
    issuer.away = True
    issuer.now += LASTS_SECONDS - 1
    assert await tokens.token() == first
    issuer.now += 1
    with pytest.raises(ProviderAuthError, match=r"no token: no route to the identity$"):
        await tokens.token()
    issuer.away = False
    assert await tokens.token() != first


async def test_each_call_carries_the_token_of_its_time(issuer: Issuer, canned: Canned) -> None:
    canned.body = json.dumps(BATCH).encode()
    async for provider in opened(canned.base_url, declared=True):
        for _ in range(2):
            await provider.retrieve("batch_1")
            issuer.now += LASTS_SECONDS
        issuer.away = True
        with pytest.raises(ProviderAuthError):
            await provider.retrieve("batch_1")
    sent = [request.headers.get("authorization") for request in canned.asked]
    assert sent == ["Bearer eyJhbGciOi.eyJzdWIi.1", "Bearer eyJhbGciOi.eyJzdWIi.2"]
    assert all("api-key" not in request.headers for request in canned.asked)


async def test_an_account_that_was_added_by_api_does_not_call_as_this_process(
    issuer: Issuer, canned: Canned
) -> None:
    canned.body = json.dumps(BATCH).encode()
    async for provider in opened(canned.base_url, declared=False):
        await provider.retrieve("batch_1")
    assert canned.asked[-1].headers["api-key"] == SIGN_IN
    assert issuer.given == 0


async def test_calls_that_are_passed_on_carry_it_too(issuer: Issuer) -> None:
    token = await key_to_send(SIGN_IN)
    assert AZURE.credentials(token) == {"Authorization": f"Bearer {token}"}
    assert AZURE.credentials(await key_to_send(KEY)) == {"api-key": KEY}
