"""Serving the fake provider on a port."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import TracebackType

import aiohttp
from aiohttp import web

from batchbell.sandbox import azure, groq
from batchbell.sandbox.api import Played, sandbox_app
from batchbell.sandbox.azure import AzureProvider
from batchbell.sandbox.batch_jobs import BatchJobs
from batchbell.sandbox.content_batches import ContentBatches
from batchbell.sandbox.gemini import PREFIX as GEMINI
from batchbell.sandbox.groq import GroqProvider
from batchbell.sandbox.hooks import Announcement, Hook
from batchbell.sandbox.message_batches import MessageBatches
from batchbell.sandbox.mistral import PREFIX as MISTRAL
from batchbell.sandbox.provider import SandboxProvider
from batchbell.sandbox.receiver import Received, Receiver
from batchbell.sandbox.schedule import Schedule

RING_SECONDS = 5.0
"""How long a webhook's receiver may take."""
RINGS_EVERY_SECONDS = 1.0
SHUTDOWN_SECONDS = 0.1
"""How long a call in flight may still take when the server stops."""


class Sandbox:
    """A running provider: `async with Sandbox() as sandbox`, then `sandbox.base_url`.

    `stop` and `start` may be called as well: the port and everything the provider knows stay.
    """

    def __init__(
        self,
        provider: SandboxProvider | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        api_key: str | None = None,
        schedule: Schedule | None = None,
        clock: Callable[[], float] = time.time,
        seed: int | None = None,
    ) -> None:
        """Port 0 is any free port. The last four are for the provider, unless one is given."""
        self.provider = provider or SandboxProvider(
            api_key=api_key, schedule=schedule, clock=clock, seed=seed
        )
        self.anthropic = MessageBatches(
            api_key=self.provider.api_key,
            schedule=self.provider.schedule,
            clock=self.provider.clock,
            seed=seed,
        )
        """The same for Anthropic's API, at `url`."""
        self.gemini = ContentBatches(
            api_key=self.provider.api_key,
            schedule=self.provider.schedule,
            clock=self.provider.clock,
            seed=seed,
        )
        """The same for the Gemini API, at `gemini_url`."""
        self.mistral = BatchJobs(
            api_key=self.provider.api_key,
            schedule=self.provider.schedule,
            clock=self.provider.clock,
            seed=seed,
        )
        """The same for Mistral's API, at `mistral_url`."""
        self.groq = GroqProvider(
            api_key=self.provider.api_key,
            schedule=self.provider.schedule,
            clock=self.provider.clock,
            seed=seed,
        )
        """The same for Groq's, at `groq_url`."""
        self.azure = AzureProvider(
            api_key=self.provider.api_key,
            schedule=self.provider.schedule,
            clock=self.provider.clock,
            seed=seed,
        )
        """The same for Azure OpenAI, at `azure_url`."""
        self.host = host
        self.port = port
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """The root, without a slash at its end: what an Anthropic SDK takes for `base_url`.

        `/sandbox/…` lies below it.
        """
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    @property
    def base_url(self) -> str:
        """What an OpenAI SDK takes for `base_url`."""
        return f"{self.url}/v1"

    @property
    def gemini_url(self) -> str:
        """What Google's SDK takes for `base_url`."""
        return f"{self.url}{GEMINI}"

    @property
    def mistral_url(self) -> str:
        """What Mistral's SDK takes for `server_url`."""
        return f"{self.url}{MISTRAL}"

    @property
    def groq_url(self) -> str:
        """What Groq's SDK takes for `base_url`."""
        return f"{self.url}{groq.PREFIX}"

    @property
    def azure_url(self) -> str:
        """What `AzureOpenAI` of OpenAI's SDK takes for `azure_endpoint`."""
        return f"{self.url}{azure.PREFIX}"

    async def start(self) -> None:
        """Serve. Raises OSError when the port is taken."""
        runner = web.AppRunner(
            sandbox_app(
                Played(
                    self.provider,
                    self.anthropic,
                    self.gemini,
                    self.mistral,
                    self.groq,
                    self.azure,
                )
            ),
            access_log=None,
            shutdown_timeout=SHUTDOWN_SECONDS,
        )
        await runner.setup()
        self._runner = runner
        try:
            await web.TCPSite(runner, self.host, self.port).start()
        except OSError:
            await self.stop()
            raise
        self.port = runner.addresses[0][1]

    async def ring(self) -> list[int]:
        """Send every webhook that is due; the answers' status codes, 0 where none came.

        OpenAI, Gemini and Azure send some, where `hook` of their state says so; Gemini also where
        a batch asks for one itself. What is answered 2xx is not sent again.
        """
        answers = []
        timeout = aiohttp.ClientTimeout(total=RING_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            for provider in (self.provider, self.gemini, self.azure):
                for one in provider.to_announce():
                    status = await _sent(session, one)
                    provider.note_announced(one.batch_id, arrived=200 <= status < 300)
                    answers.append(status)
        return answers

    async def stop(self) -> None:
        """Close every connection; calls that hang are let go."""
        self.provider.faults.release()
        self.anthropic.faults.release()
        self.gemini.faults.release()
        self.mistral.faults.release()
        self.groq.faults.release()
        self.azure.faults.release()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def __aenter__(self) -> Sandbox:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()


async def _sent(session: aiohttp.ClientSession, one: Announcement) -> int:
    try:
        async with session.post(
            one.url, data=one.body, headers=one.headers, allow_redirects=False
        ) as answer:
            return answer.status
    except (aiohttp.ClientError, OSError, ValueError):
        return 0


async def serve_sandbox(
    host: str = "127.0.0.1",
    port: int = 0,
    api_key: str | None = None,
    *,
    schedule: Schedule | None = None,
    hook: Hook | None = None,
    on_ready: Callable[[Sandbox], None] | None = None,
) -> None:
    """Serve a provider until cancelled. `on_ready` is called once the port is open.

    `hook` is where OpenAI sends its webhooks. Those that are due are sent every second.

    Raises OSError when the port is taken.
    """
    async with Sandbox(host=host, port=port, api_key=api_key, schedule=schedule) as sandbox:
        if on_ready is not None:
            on_ready(sandbox)
        sandbox.provider.hook = hook
        while True:
            await sandbox.ring()
            await asyncio.sleep(RINGS_EVERY_SECONDS)


async def serve_receiver(
    host: str = "127.0.0.1",
    port: int = 0,
    secret: str | None = None,
    *,
    on_ready: Callable[[Receiver], None] | None = None,
    on_received: Callable[[Received], None] | None = None,
) -> None:
    """Serve a webhook receiver until cancelled. Nothing is kept: `on_received` is called for each.

    Raises OSError when the port is taken.
    """
    async with Receiver(
        host=host, port=port, secret=secret, keep=False, on_received=on_received
    ) as receiver:
        if on_ready is not None:
            on_ready(receiver)
        await asyncio.Event().wait()
