"""The official library signs in, at a managed identity that is served here."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from msgspec.structs import replace

from batchbell.net.api import ApiClient
from batchbell.net.sessions import provider_session
from batchbell.providers import entra, open_provider
from batchbell.providers.entra import SCOPE, SIGN_IN
from batchbell.providers.profiles import AZURE
from batchbell.sandbox import Sandbox
from tests.providers.benches import account

TOKEN = "eyJhbGciOi.eyJzdWIi.signature"


@pytest.fixture
async def asked(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[str]]:
    """As in Azure's App Service: an address and a secret in the environment."""
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        assert request.headers["X-IDENTITY-HEADER"] == "secret"
        asked.append(request.query["resource"])
        ends = int(time.time()) + 86_400
        return web.json_response(
            {"access_token": TOKEN, "expires_on": str(ends), "token_type": "Bearer"}
        )

    app = web.Application()
    app.router.add_get("/token", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    monkeypatch.setenv("IDENTITY_ENDPOINT", f"http://127.0.0.1:{runner.addresses[0][1]}/token")
    monkeypatch.setenv("IDENTITY_HEADER", "secret")
    entra.tokens.cache_clear()
    yield asked
    entra.tokens.cache_clear()
    await runner.cleanup()


async def test_a_declared_account_without_a_key_is_signed_in(asked: list[str]) -> None:
    async with Sandbox(api_key=TOKEN) as sandbox, provider_session() as session:
        ids = sandbox.azure.add_batches(2)
        provider = open_provider(
            replace(account("azure", AZURE.address(sandbox.azure_url)), from_environment=True),
            SIGN_IN,
            connect=lambda base, headers: ApiClient(base, headers, session=session),
        )
        for _ in range(2):
            page = await provider.list_page()
        assert [one.id for one in page.batches] == ids[::-1]
    assert asked == [SCOPE.removesuffix("/.default")]
