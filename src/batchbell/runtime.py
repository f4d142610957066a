"""The one place that wires everything: opens the store, starts the workers, serves HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import secrets
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field

import structlog
import uvicorn

from batchbell.core import signing
from batchbell.core.errors import SettingsError, StoreUnavailable
from batchbell.core.ids import new_id
from batchbell.core.model import DEFAULT_PROJECT, Account
from batchbell.core.pacing import Pace
from batchbell.net.api import ApiClient
from batchbell.net.client import Sender, WebhookSender
from batchbell.net.guard import AddressRules, parse_cidrs
from batchbell.observability import Metrics
from batchbell.process import calm_collector, raise_file_limit, stopped_by_signal
from batchbell.providers import open_provider
from batchbell.settings import Settings
from batchbell.storage import accounts, keys, leases, projects
from batchbell.storage.engine import Store
from batchbell.storage.opening import open_store, parse_url
from batchbell.web.app import create_app, end_streams
from batchbell.web.context import Context
from batchbell.workers.dispatcher import Dispatcher
from batchbell.workers.janitor import Janitor
from batchbell.workers.loop import Crew, Loop, Worker
from batchbell.workers.replayer import Replayer
from batchbell.workers.watcher import Watcher

log = structlog.get_logger("batchbell.runtime")

STOP_SECONDS = 20.0
"""From SIGTERM to the end: what is under way then is cut off, and its lease will run out."""
DRAIN_SECONDS = 3
"""Of these, what HTTP callers get to finish, while the workers stop already."""
ACCESS_SECONDS = 1.0
"""How often the keys are looked at again: another process may have made the first one."""
TESTS_AT_ONCE = 20
"""Test events that callers may have under way."""
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def mint(prefix: str) -> str:
    """A new id, by the clock and the system's randomness."""
    return new_id(prefix, now=time.time(), rand=os.urandom(10))


@dataclass(slots=True)
class Access:
    """Whether this is local mode, and so which addresses webhooks may go to."""

    settings: Settings
    local: bool = True
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    _rules: AddressRules = field(default_factory=AddressRules)

    async def look(self, store: Store) -> None:
        """Read whether a key is in force. Raises StoreUnavailable."""
        self.local = not await store.read(keys.any_key)
        self._rules = AddressRules(
            allow_http=self.local or self.settings.allow_http,
            allow_loopback=self.local,
            allow_cidrs=parse_cidrs(self.settings.allow_cidrs),
        )

    def rules(self) -> AddressRules:
        return self._rules

    async def keep_looking(self, store: Store) -> None:
        """Look again whenever a key changes here, and regularly for those made elsewhere."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ACCESS_SECONDS):
                    await self.changed.wait()
            self.changed.clear()
            with contextlib.suppress(StoreUnavailable):
                await self.look(store)


@dataclass(slots=True)
class Runtime:
    """One process's parts."""

    settings: Settings
    store: Store
    metrics: Metrics
    access: Access
    accounts: Mapping[str, Account]
    loops: list[Loop] = field(default_factory=list)

    def context(self, sender: Sender) -> Context:
        """What the HTTP surface is given."""
        return Context(
            store=self.store,
            settings=self.settings,
            metrics=self.metrics,
            clock=time.time,
            mint=mint,
            rules=self.access.rules,
            keys_changed=self.access.changed.set,
            accounts=self.accounts,
            sender=sender,
            workers_alive=lambda: {f"{loop.worker.name}": loop.alive() for loop in self.loops},
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


async def _accounts(store: Store, settings: Settings) -> dict[str, Account]:
    if settings.openai_api_key is None:
        log.warning("no account: set OPENAI_API_KEY, or nothing can be watched")
        return {}
    account = await store.write(
        accounts.ensure_account,
        project_id=DEFAULT_PROJECT,
        name="openai",
        provider="openai",
        base_url=settings.openai_base_url.rstrip("/"),
        mint=mint,
        now=time.time(),
    )
    return {account.name: account}


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
            *[await _watcher(runtime, account, stack) for account in runtime.accounts.values()],
        ]
        runtime.loops = [
            Loop(worker, clock=time.time, rand=random.random, metrics=runtime.metrics)
            for worker in workers
        ]
        crew = Crew(runtime.loops)
        try:
            yield crew
        finally:
            crew.stop()
            await crew.ended(within_seconds=STOP_SECONDS - DRAIN_SECONDS - 1.0)


async def _watcher(runtime: Runtime, account: Account, stack: contextlib.AsyncExitStack) -> Watcher:
    assert runtime.settings.openai_api_key is not None

    def connect(base_url: str, headers: Mapping[str, str]) -> ApiClient:
        client = ApiClient(base_url, headers)
        stack.push_async_callback(client.aclose)
        return client

    api_key = runtime.settings.openai_api_key.get_secret_value()
    return Watcher(
        runtime.store,
        open_provider(account, api_key, connect=connect),
        account.id,
        pace=Pace(
            poll_interval_seconds=runtime.settings.poll_interval_seconds,
            calls_per_minute=runtime.settings.calls_per_minute,
        ),
        clock=time.time,
        mint=mint,
        rand=random.random,
        metrics=runtime.metrics,
    )


class _Server(uvicorn.Server):
    """Leaves the signals to us: the workers stop with the server."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.asynccontextmanager
async def serving(runtime: Runtime, listener: socket.socket) -> AsyncIterator[None]:
    """Serve HTTP on a bound socket while the context lasts."""
    async with WebhookSender(runtime.access.rules, max_connections=TESTS_AT_ONCE) as sender:
        app = create_app(runtime.context(sender))
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


def bind(settings: Settings, *, local: bool) -> socket.socket:
    """Listen. Raises SettingsError where this host may not be bound, or the port is taken."""
    if local and settings.host not in LOOPBACK:
        raise SettingsError(
            f"No API key was made yet, so Batchbell will not listen on {settings.host}: anybody"
            " there could use it. Make one first: batchbell keys create --name NAME"
        )
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=2048)
    except OSError as error:
        raise SettingsError(
            f"Cannot listen on {settings.host}:{settings.port}: {error.strerror or error}."
            " Set PORT or HOST to another."
        ) from error


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
