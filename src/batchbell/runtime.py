"""The one place that wires everything: opens the store, starts the workers, serves HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping

import structlog
import uvicorn

from batchbell.access import bind
from batchbell.core.alarms import Patience
from batchbell.core.deletion import Deletes
from batchbell.core.errors import SettingsError
from batchbell.core.model import Account, Batch
from batchbell.core.polling import Pace
from batchbell.core.submission import Expiry
from batchbell.declared import pace_of
from batchbell.files.results_store import scratch_of
from batchbell.net.api import ApiClient
from batchbell.net.client import Caller, WebhookSender
from batchbell.net.proxy import provider_proxy, webhook_proxy
from batchbell.net.relay import Relay
from batchbell.parts import Runtime as Runtime  # noqa: PLC0414 - what callers are given
from batchbell.parts import ensure_secret as ensure_secret  # noqa: PLC0414
from batchbell.parts import mint as mint  # noqa: PLC0414
from batchbell.parts import open_runtime as open_runtime  # noqa: PLC0414
from batchbell.process import stopped_by_signal
from batchbell.providers import Provider, open_provider
from batchbell.settings import Settings
from batchbell.web.app import create_app, end_streams
from batchbell.web.connections import Connection, keep_watch
from batchbell.workers.cleaner import Cleaner
from batchbell.workers.collector import Collector
from batchbell.workers.dispatcher import Dispatcher
from batchbell.workers.janitor import Janitor
from batchbell.workers.lookout import Lookout
from batchbell.workers.loop import Loop, Loops, Worker
from batchbell.workers.replayer import Replayer
from batchbell.workers.ring import calls_most
from batchbell.workers.seeker import Seeker
from batchbell.workers.submitter import Submitter
from batchbell.workers.watcher import Watcher
from batchbell.workers.watchers import Post, Watchers

log = structlog.get_logger("batchbell.runtime")

STOP_SECONDS = 20.0
"""From SIGTERM to the end: what is under way then is cut off, and its lease will run out."""
DRAIN_SECONDS = 3
"""Of these, what HTTP callers get to finish, while the workers stop already."""
TESTS_AT_ONCE = 20
"""Test events that callers may have under way."""


@contextlib.asynccontextmanager
async def running_workers(runtime: Runtime) -> AsyncIterator[Loops]:
    """Run every worker while the context lasts; then stop them, within STOP_SECONDS."""
    settings, store = runtime.settings, runtime.store
    async with contextlib.AsyncExitStack() as stack:
        sender = await stack.enter_async_context(
            WebhookSender(
                runtime.access.rules,
                max_connections=calls_most(settings.max_in_flight),
                proxy=webhook_proxy(settings),
            )
        )
        dispatcher = _dispatcher(runtime, sender)
        workers: list[Worker] = [
            dispatcher,
            Janitor(
                store,
                clock=time.time,
                retention_days=settings.retention_days,
                attempt_retention_days=settings.attempt_retention_days,
                results_store=runtime.results_store,
            ),
            Replayer(store, clock=time.time, mint=mint, metrics=runtime.metrics),
            Lookout(
                store,
                clock=time.time,
                mint=mint,
                metrics=runtime.metrics,
                patience=Patience(
                    stalled_after=settings.stalled_after_seconds,
                    expiring_soon=settings.expiring_soon_seconds,
                ),
            ),
            _collector(runtime, rushed=dispatcher.rushed),
            _submitter(runtime),
            Seeker(
                store,
                runtime.providers.get,
                clock=time.time,
                mint=mint,
                metrics=runtime.metrics,
            ),
            *_cleaners(runtime),
        ]
        loops = runtime.loops = Loops(_loop(runtime, worker) for worker in workers)
        stack.push_async_callback(_close_clients, runtime)
        try:
            await _watch_accounts(runtime, loops)
            yield loops
        finally:
            loops.stop()
            await loops.ended(within_seconds=STOP_SECONDS - DRAIN_SECONDS - 1.0)


def _loop(runtime: Runtime, worker: Worker, *, vital: bool = True) -> Loop:
    return Loop(worker, clock=time.time, rand=random.random, metrics=runtime.metrics, vital=vital)


def _dispatcher(runtime: Runtime, sender: Caller) -> Dispatcher:
    settings = runtime.settings
    return Dispatcher(
        runtime.store,
        sender,
        clock=time.time,
        mint=mint,
        rand=random.random,
        metrics=runtime.metrics,
        max_in_flight=settings.max_in_flight,
        timeout_seconds=settings.delivery_timeout_seconds,
        public_url=settings.link_url,
    )


def _collector(runtime: Runtime, *, rushed: Callable[[], bool]) -> Collector:
    settings, results_store = runtime.settings, runtime.results_store
    return Collector(
        runtime.store,
        results_store,
        runtime.providers.get,
        clock=time.time,
        mint=mint,
        rand=random.random,
        metrics=runtime.metrics,
        scratch=scratch_of(results_store),
        inline_max_bytes=settings.inline_results_max_bytes,
        retention_days=settings.results_retention_days,
        rushed=rushed,
        file_max_bytes=settings.results_max_bytes,
        deletes=settings.delete_provider_files,
    )


def _submitter(runtime: Runtime) -> Submitter:
    return Submitter(
        runtime.store,
        runtime.results_store,
        runtime.providers.get,
        clock=time.time,
        mint=mint,
        rand=random.random,
        metrics=runtime.metrics,
        scratch=scratch_of(runtime.results_store),
        expiry=lambda batch: _expiry_of(runtime, batch),
    )


def _expiry_of(runtime: Runtime, batch: Batch) -> Expiry:
    declared, settings = runtime.declared.of_batch(batch), runtime.settings
    if declared is not None:
        return declared.expiry
    return Expiry(
        input_seconds=settings.input_expires_after_seconds,
        output_seconds=settings.output_expires_after_seconds,
    )


def _pace_of(runtime: Runtime, account: Account, provider: Provider) -> Pace:
    declared, settings = runtime.declared.of(account), runtime.settings
    if declared is not None:
        return declared.pace
    return pace_of(settings, provider.profile, account.base_url)


def _cleaners(runtime: Runtime) -> list[Worker]:
    """Nobody deletes anything where that is not wished for."""
    if runtime.settings.delete_provider_files is Deletes.NONE:
        return []
    cleaner = Cleaner(
        runtime.store,
        runtime.results_store,
        runtime.providers.get,
        clock=time.time,
        mint=mint,
        rand=random.random,
        metrics=runtime.metrics,
    )
    return [cleaner]


async def _watch_accounts(runtime: Runtime, loops: Loops) -> None:
    """Watch the accounts that there are, and from then on those that come."""
    watchers = Watchers(
        runtime.store,
        loops,
        lambda account, post: _watcher(runtime, account, post),
        key_of=runtime.declared.key_of,
        rules=runtime.access.rules,
    )
    await watchers.step()
    loops.add(_loop(runtime, watchers))


def _watcher(runtime: Runtime, account: Account, post: Post) -> Loop:
    """The loop that watches an account, with connections of its own.

    Only an account of a variable is vital: one of many that hangs must not make a server unready.
    """
    clients: list[ApiClient] = []

    def connect(base_url: str, headers: Mapping[str, str]) -> ApiClient:
        proxy = provider_proxy(runtime.settings)
        clients.append(ApiClient(base_url, headers, rules=post.rules, proxy=proxy))
        runtime.clients.update(clients)
        return clients[-1]

    async def release() -> None:
        for client in clients:
            await client.aclose()
        runtime.clients.difference_update(clients)
        if runtime.providers.get(account.id) is provider:
            del runtime.providers[account.id]

    provider = runtime.providers[account.id] = open_provider(account, post.key, connect=connect)
    watcher = Watcher(
        runtime.store,
        provider,
        account.id,
        pace=_pace_of(runtime, account, provider),
        clock=time.time,
        mint=mint,
        rand=random.random,
        metrics=runtime.metrics,
        rules=runtime.access.rules,
        release=release,
    )
    declared = runtime.declared.of(account)
    return _loop(runtime, watcher, vital=declared is not None and not declared.in_file)


async def _close_clients(runtime: Runtime) -> None:
    """Those of watchers that were cut off."""
    for client in runtime.clients:
        await client.aclose()


class _Server(uvicorn.Server):
    """Leaves the signals to us: the workers stop with the server."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _proxies(settings: Settings) -> dict[str, object]:
    """Nobody's word on where a caller is counts, but that of the proxies that are named."""
    trusted = [word.strip() for word in settings.trusted_proxies.split(",") if word.strip()]
    return {"proxy_headers": bool(trusted), "forwarded_allow_ips": trusted}


@contextlib.asynccontextmanager
async def serving(runtime: Runtime, listener: socket.socket) -> AsyncIterator[None]:
    """Serve HTTP on a bound socket while the context lasts."""
    async with (
        WebhookSender(
            runtime.access.rules,
            max_connections=TESTS_AT_ONCE,
            proxy=webhook_proxy(runtime.settings),
        ) as sender,
        Relay(proxy=provider_proxy(runtime.settings)) as relay,
    ):
        app = create_app(runtime.context(sender, relay))
        quiet = {"log_config": None, "access_log": False, "server_header": False}
        drain = {"timeout_graceful_shutdown": DRAIN_SECONDS, **_proxies(runtime.settings)}
        how = {"http": Connection, "ws": "none", "lifespan": "off"}
        server = _Server(uvicorn.Config(app, **how, **quiet, **drain))  # type: ignore[arg-type]
        task = asyncio.create_task(server.serve(sockets=[listener]))
        watch = asyncio.create_task(
            keep_watch(server.server_state.connections, seconds=Connection.limits.look_seconds)
        )
        try:
            yield
        finally:
            watch.cancel()
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

    `on_ready` gets the URL once the port is open.
    """
    stopped = stopped_by_signal()
    async with open_runtime(settings) as runtime:
        listener = bind(settings, local=runtime.access.local)
        async with contextlib.AsyncExitStack() as stack:
            loops = await stack.enter_async_context(running_workers(runtime)) if workers else None
            await stack.enter_async_context(serving(runtime, listener))
            url = url_of(listener)
            log.info("serving", url=url)
            if on_ready is not None:
                on_ready(runtime, url)
            await stopped.wait()
            log.info("stopping")
            if loops is not None:
                loops.stop()
    log.info("stopped")


def url_of(listener: socket.socket) -> str:
    """Where a listening socket is reached."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def work(settings: Settings, *, on_ready: Callable[[Runtime], None] | None = None) -> None:
    """Watch and deliver without serving, beside other processes, until SIGTERM or SIGINT."""
    if settings.is_sqlite:
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
