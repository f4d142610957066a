"""The one place that wires everything: opens the store, starts the workers, serves HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import secrets
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import structlog
import uvicorn

from batchbell.access import Access, bind
from batchbell.core import signing
from batchbell.core.errors import SettingsError
from batchbell.core.ids import new_id
from batchbell.core.model import DEFAULT_PROJECT, Account
from batchbell.core.pacing import Pace
from batchbell.net.api import ApiClient
from batchbell.net.client import Sender, WebhookSender
from batchbell.net.guard import parse_cidrs
from batchbell.net.relay import Relay
from batchbell.observability import Metrics
from batchbell.process import calm_collector, raise_file_limit, stopped_by_signal
from batchbell.providers import open_provider
from batchbell.settings import Settings
from batchbell.storage import accounts, leases, projects
from batchbell.storage.engine import Store
from batchbell.storage.opening import open_store, parse_url
from batchbell.web.app import create_app, end_streams
from batchbell.web.context import Context
from batchbell.workers.dispatcher import Dispatcher
from batchbell.workers.janitor import Janitor
from batchbell.workers.loop import Crew, Loop, Worker
from batchbell.workers.replayer import Replayer
from batchbell.workers.roster import Post, Roster
from batchbell.workers.watcher import Watcher

log = structlog.get_logger("batchbell.runtime")

STOP_SECONDS = 20.0
"""From SIGTERM to the end: what is under way then is cut off, and its lease will run out."""
DRAIN_SECONDS = 3
"""Of these, what HTTP callers get to finish, while the workers stop already."""
TESTS_AT_ONCE = 20
"""Test events that callers may have under way."""


def mint(prefix: str) -> str:
    """A new id, by the clock and the system's randomness."""
    return new_id(prefix, now=time.time(), rand=os.urandom(10))


@dataclass(slots=True)
class Runtime:
    """One process's parts."""

    settings: Settings
    store: Store
    metrics: Metrics
    access: Access
    accounts: Sequence[Account]
    """Those that could be watched at the start."""
    crew: Crew | None = None
    clients: set[ApiClient] = field(default_factory=set)
    """Open connections to providers."""

    @property
    def environment_key(self) -> str | None:
        """The credentials of the environment's account."""
        key = self.settings.openai_api_key
        return None if key is None else key.get_secret_value()

    def context(self, sender: Sender, relay: Relay) -> Context:
        """What the HTTP surface is given."""
        return Context(
            store=self.store,
            settings=self.settings,
            metrics=self.metrics,
            clock=time.time,
            mint=mint,
            rules=self.access.rules,
            keys_changed=self.access.changed.set,
            sender=sender,
            relay=relay,
            workers_alive=lambda: {} if self.crew is None else self.crew.alive(),
        )


@contextlib.asynccontextmanager
async def open_runtime(settings: Settings) -> AsyncIterator[Runtime]:
    """Open the database, migrated, with its project and the accounts of the environment."""
    parse_cidrs(settings.allow_cidrs)
    raise_file_limit()
    calm_collector()
    store = await open_store(settings.store_url, master_key=settings.master_keys)
    try:
        tell_of_keys(store)
        await ensure_secret(store, settings)
        if is_sqlite(settings):
            await store.write(leases.release_all, now=time.time())
        access = Access(settings)
        await access.look(store)
        runtime = Runtime(settings, store, Metrics(), access, await _accounts(store, settings))
        looking = asyncio.create_task(access.keep_looking(store))
        try:
            yield runtime
        finally:
            looking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await looking
    finally:
        await store.close()


def tell_of_keys(store: Store) -> None:
    """What the operator must know of the key that seals, where it is made or missing."""
    if store.keys.made:
        log.warning("made the master key: back it up with the database", file=store.keys.source)
    if not store.seals:
        log.warning(
            "secrets are kept as they are: set BATCHBELL_MASTER_KEY, or whoever reads the database"
            " can sign webhooks",
            advice="openssl rand -base64 32",
        )


def is_sqlite(settings: Settings) -> bool:
    """Whether the database serves one process only."""
    return parse_url(settings.store_url).drivername == "sqlite"


async def ensure_secret(store: Store, settings: Settings) -> str:
    """The secret that signs webhooks: the one that is set, else the one made at first start."""
    made = signing.make_secret(secrets.token_bytes(signing.SECRET_BYTES))
    now = time.time()
    await store.write(projects.ensure_project, id=DEFAULT_PROJECT, secret=made, now=now)
    if settings.webhook_secret is not None:
        chosen = signing.check_secret(settings.webhook_secret.get_secret_value())
        await store.write(projects.set_webhook_secret, DEFAULT_PROJECT, chosen)
        return chosen
    kept = await store.read(projects.webhook_secret, DEFAULT_PROJECT)
    assert kept is not None
    return kept


async def _accounts(store: Store, settings: Settings) -> list[Account]:
    if settings.openai_api_key is not None:
        await store.write(
            accounts.ensure_account,
            project_id=DEFAULT_PROJECT,
            name="openai",
            provider="openai",
            base_url=settings.openai_base_url.rstrip("/"),
            discover=settings.discover,
            mint=mint,
            now=time.time(),
        )
    known = await store.read(accounts.list_accounts)
    watched = [a for a in known if not a.from_environment or settings.openai_api_key is not None]
    if not watched:
        log.warning("no account: set OPENAI_API_KEY, or add one, or nothing can be watched")
    return watched


@contextlib.asynccontextmanager
async def running_workers(runtime: Runtime) -> AsyncIterator[Crew]:
    """Run every worker while the context lasts; then stop them, within STOP_SECONDS."""
    settings, store = runtime.settings, runtime.store
    async with contextlib.AsyncExitStack() as stack:
        sender = await stack.enter_async_context(
            WebhookSender(runtime.access.rules, max_connections=settings.max_in_flight)
        )
        workers: list[Worker] = [
            Dispatcher(
                store,
                sender,
                clock=time.time,
                mint=mint,
                rand=random.random,
                metrics=runtime.metrics,
                max_in_flight=settings.max_in_flight,
                timeout_seconds=settings.delivery_timeout_seconds,
            ),
            Janitor(
                store,
                clock=time.time,
                retention_days=settings.retention_days,
                attempt_retention_days=settings.attempt_retention_days,
            ),
            Replayer(store, clock=time.time, mint=mint, metrics=runtime.metrics),
        ]
        crew = runtime.crew = Crew(_loop(runtime, worker) for worker in workers)
        stack.push_async_callback(_close_clients, runtime)
        try:
            await _watch_accounts(runtime, crew)
            yield crew
        finally:
            crew.stop()
            await crew.ended(within_seconds=STOP_SECONDS - DRAIN_SECONDS - 1.0)


def _loop(runtime: Runtime, worker: Worker, *, vital: bool = True) -> Loop:
    return Loop(worker, clock=time.time, rand=random.random, metrics=runtime.metrics, vital=vital)


async def _watch_accounts(runtime: Runtime, crew: Crew) -> None:
    """Watch the accounts that there are, and from then on those that come."""
    roster = Roster(
        runtime.store,
        crew,
        lambda account, post: _watcher(runtime, account, post),
        environment_key=runtime.environment_key,
        rules=runtime.access.rules,
    )
    await roster.step()
    crew.add(_loop(runtime, roster))


def _watcher(runtime: Runtime, account: Account, post: Post) -> Loop:
    """The loop that watches an account, with connections of its own.

    Only the operator's own account is vital: whoever adds one that hangs harms nobody else.
    """
    clients: list[ApiClient] = []

    def connect(base_url: str, headers: Mapping[str, str]) -> ApiClient:
        clients.append(ApiClient(base_url, headers, rules=post.rules))
        runtime.clients.update(clients)
        return clients[-1]

    async def release() -> None:
        for client in clients:
            await client.aclose()
        runtime.clients.difference_update(clients)

    watcher = Watcher(
        runtime.store,
        open_provider(account, post.key, connect=connect),
        account.id,
        pace=Pace(
            poll_interval_seconds=runtime.settings.poll_interval_seconds,
            calls_per_minute=runtime.settings.calls_per_minute,
        ),
        clock=time.time,
        mint=mint,
        rand=random.random,
        metrics=runtime.metrics,
        rules=runtime.access.rules,
        release=release,
    )
    return _loop(runtime, watcher, vital=account.from_environment)


async def _close_clients(runtime: Runtime) -> None:
    """Those of watchers that were cut off."""
    for client in runtime.clients:
        await client.aclose()


class _Server(uvicorn.Server):
    """Leaves the signals to us: the workers stop with the server."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.asynccontextmanager
async def serving(runtime: Runtime, listener: socket.socket) -> AsyncIterator[None]:
    """Serve HTTP on a bound socket while the context lasts."""
    async with (
        WebhookSender(runtime.access.rules, max_connections=TESTS_AT_ONCE) as sender,
        Relay() as relay,
    ):
        app = create_app(runtime.context(sender, relay))
        quiet = {"log_config": None, "access_log": False, "server_header": False}
        drain = {"timeout_graceful_shutdown": DRAIN_SECONDS}
        config = uvicorn.Config(app, lifespan="off", **quiet, **drain)  # type: ignore[arg-type]
        server = _Server(config)
        task = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield
        finally:
            end_streams(app)
            server.should_exit = True
            await task


async def serve(
    settings: Settings,
    *,
    workers: bool = True,
    on_ready: Callable[[Runtime, str], None] | None = None,
) -> None:
    """Serve, and watch and deliver unless `workers` is False, until SIGTERM or SIGINT.

    `on_ready` is told the URL once the port is open.
    """
    stopped = stopped_by_signal()
    async with open_runtime(settings) as runtime:
        listener = bind(settings, local=runtime.access.local)
        async with contextlib.AsyncExitStack() as stack:
            crew = await stack.enter_async_context(running_workers(runtime)) if workers else None
            await stack.enter_async_context(serving(runtime, listener))
            url = url_of(listener)
            log.info("serving", url=url)
            if on_ready is not None:
                on_ready(runtime, url)
            await stopped.wait()
            log.info("stopping")
            if crew is not None:
                crew.stop()
    log.info("stopped")


def url_of(listener: socket.socket) -> str:
    """Where a listening socket is reached."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def work(settings: Settings, *, on_ready: Callable[[Runtime], None] | None = None) -> None:
    """Watch and deliver without serving, beside other processes, until SIGTERM or SIGINT."""
    if is_sqlite(settings):
        raise SettingsError(
            "SQLite serves one process, and `batchbell serve` already works in it. For more"
            " workers set DATABASE_URL=postgresql://…"
        )
    stopped = stopped_by_signal()
    async with open_runtime(settings) as runtime, running_workers(runtime):
        if settings.metrics_port is not None:
            runtime.metrics.serve(settings.host, settings.metrics_port)
        log.info("working")
        if on_ready is not None:
            on_ready(runtime)
        await stopped.wait()
        log.info("stopping")
    log.info("stopped")
