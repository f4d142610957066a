"""A real server on a free port, over a real database."""

from __future__ import annotations

import asyncio
import io
import json
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import structlog
import uvicorn

from batchbell.core.model import DEFAULT_PROJECT, Account, Mint
from batchbell.declared import read_declared
from batchbell.files.results_store import Folder
from batchbell.net.client import WebhookSender
from batchbell.net.guard import AddressRules
from batchbell.net.relay import Relay
from batchbell.observability import Metrics, configure_logging
from batchbell.sandbox import OPEN, Sandbox, SandboxProvider
from batchbell.settings import Settings
from batchbell.storage.accounts import ensure_account
from batchbell.storage.engine import Store
from batchbell.web.app import create_app
from batchbell.web.call import Context
from batchbell.web.connections import Connection

from ..conftest import Clock
from .making import Served

Logged = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> Iterator[Logged]:
    """What was logged so far, as a real server logs it."""
    written = io.StringIO()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", written)
        configure_logging(level="info", format="json")
    yield lambda: [json.loads(line) for line in written.getvalue().splitlines()]
    structlog.reset_defaults()


@pytest.fixture
def rules() -> AddressRules:
    """As in local mode."""
    return AddressRules(allow_http=True, allow_loopback=True)


@pytest.fixture
async def sandbox(clock: Clock) -> AsyncIterator[Sandbox]:
    """A provider; the server calls it where a module's `provider_url` leads to it."""
    async with Sandbox(api_key="sk-test", schedule=OPEN, clock=clock) as sandbox:
        yield sandbox


@pytest.fixture
def provider(sandbox: Sandbox) -> SandboxProvider:
    return sandbox.provider


@pytest.fixture
def provider_url() -> str:
    """Where nobody is; tests of what goes on to a provider have one there."""
    return "http://127.0.0.1:9/v1"


@pytest.fixture
async def account(store: Store, mint: Mint, clock: Clock, provider_url: str) -> Account:
    """The account `openai` of the project `default`."""
    return await store.write(
        ensure_account,
        project_id=DEFAULT_PROJECT,
        name="openai",
        provider="openai",
        base_url=provider_url,
        mint=mint,
        now=clock(),
    )


@pytest.fixture
def accounts(account: Account) -> dict[str, Account]:
    return {account.name: account}


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    """Bound before the server starts: whoever connects early waits in the backlog."""
    with socket.create_server(("127.0.0.1", 0)) as bound:
        yield bound


@pytest.fixture
async def served(
    store: Store,
    accounts: dict[str, Account],  # in the database by now
    clock: Clock,
    mint: Mint,
    rules: AddressRules,
    listening: socket.socket,
    tmp_path: Path,
) -> AsyncIterator[Served]:
    workers: dict[str, bool] = {}
    key_changes: list[None] = []
    sender, relay = WebhookSender(lambda: rules), Relay()
    context = Context(
        store=store,
        settings=Settings(),
        declared=read_declared(Settings(), {"OPENAI_API_KEY": "sk-test"}),
        metrics=Metrics(),
        clock=clock,
        mint=mint,
        rules=lambda: rules,
        keys_changed=lambda: key_changes.append(None),
        results_store=Folder(tmp_path / "results"),
        sender=sender,
        relay=relay,
        workers_alive=lambda: workers,
    )
    app = create_app(context)
    how: Any = {"http": Connection, "proxy_headers": False, "lifespan": "off"}
    config = uvicorn.Config(app, log_config=None, access_log=False, server_header=False, **how)
    server = uvicorn.Server(config)
    await _start(server, listening)
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    async with httpx2.AsyncClient(base_url=url, timeout=30) as http:
        yield Served(
            url,
            app,
            context,
            http,
            accounts,
            server.server_state.connections,
            workers,
            key_changes,
        )
    await _end(server)
    await relay.aclose()
    await sender.aclose()


async def _start(server: uvicorn.Server, listening: socket.socket) -> None:
    """As uvicorn does, but for its looking ten times a second whether it should end."""
    server.config.load()
    server.lifespan = server.config.lifespan_class(server.config)
    await server.startup(sockets=[listening])
    await server.on_tick(0)


async def _end(server: uvicorn.Server) -> None:
    state = server.server_state
    for listener in server.servers:
        listener.close()
    for connection in list(state.connections):
        connection.shutdown()
    await asyncio.gather(*state.tasks)
    for listener in server.servers:
        await listener.wait_closed()
