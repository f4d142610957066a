"""What each dialect brings to the conformance suite: a sandbox that speaks it.

A bench is an adapter beside its sandbox. `sandbox` is a running server (`base_url`, `start`,
`stop`), and `sandbox.provider` the state behind it, with the words of `SandboxProvider`:

- `add_batch(total=, metadata=)`, `add_batches(number)`: open batches, the newest first in the list;
- `finish(id, status, failed=, problems=)`, `set_status(id, word)`, `forget(id)`;
- `faults.add(kind, route=, …)`: `status`, `html`, `truncated`, `cut_off`, `reset`, `unauthorized`,
  `rate_limited`, and `rewrite` with `drop` and `fields` of a row;
- `calls[route]`: how often each route was called.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

from batchbell.core.model import DEFAULT_PROJECT, Account
from batchbell.net.api import ApiClient
from batchbell.net.sessions import provider_session
from batchbell.providers import Provider, open_provider
from batchbell.sandbox import Sandbox, SandboxProvider

KEY = "sk-test-0123456789abcdef"
NOW = 1_700_000_500.0


@dataclass(frozen=True)
class Played:
    """One API of a sandbox that plays several."""

    provider: SandboxProvider
    start: Callable[[], Awaitable[None]]
    stop: Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class Bench:
    """An adapter, and the sandbox that it calls."""

    provider: Provider
    sandbox: Sandbox | Played
    gone: str
    """A reference to results that are not there."""
    status_field: str
    """What of a row the status is read from: without it the row makes no sense."""
    id_field: str = "id"
    tags: bool = True
    """Whether the provider keeps a tag, and other metadata."""
    says_why: bool = True
    """Whether a batch that failed says why, and in which line."""


Make = Callable[[], AbstractAsyncContextManager[Bench]]


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


@asynccontextmanager
async def openai() -> AsyncIterator[Bench]:
    async with Sandbox(api_key=KEY, clock=lambda: NOW) as sandbox:
        async for provider in connected("openai", sandbox.base_url):
            yield Bench(provider, sandbox, gone="file-gone", status_field="status")


@asynccontextmanager
async def anthropic() -> AsyncIterator[Bench]:
    async with Sandbox(api_key=KEY, clock=lambda: NOW) as sandbox:
        async for provider in connected("anthropic", sandbox.url):
            yield Bench(
                provider,
                Played(sandbox.anthropic, sandbox.start, sandbox.stop),
                gone=f"{sandbox.url}/v1/messages/batches/msgbatch_gone/results",
                status_field="processing_status",
                tags=False,
                says_why=False,
            )


@asynccontextmanager
async def gemini() -> AsyncIterator[Bench]:
    async with Sandbox(api_key=KEY, clock=lambda: NOW) as sandbox:
        async for provider in connected("gemini", sandbox.gemini_url):
            yield Bench(
                provider,
                Played(sandbox.gemini, sandbox.start, sandbox.stop),
                gone="files/batch-gone",
                status_field="metadata",
                id_field="name",
                tags=False,
                says_why=False,
            )


@asynccontextmanager
async def mistral() -> AsyncIterator[Bench]:
    async with Sandbox(api_key=KEY, clock=lambda: NOW) as sandbox:
        async for provider in connected("mistral", f"{sandbox.mistral_url}/v1"):
            yield Bench(
                provider,
                Played(sandbox.mistral, sandbox.start, sandbox.stop),
                gone="9a1b1a5c-0000-4000-8000-000000000000",
                status_field="status",
                says_why=False,
            )


BENCHES: Mapping[str, Make] = {
    "openai": openai,
    "anthropic": anthropic,
    "gemini": gemini,
    "mistral": mistral,
}
"""One for each dialect in the registry, by its name."""
