"""The parts of one process: its store, its metrics, and what it knows of keys and accounts."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import threading
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog

from batchbell.access import Access
from batchbell.core import signing
from batchbell.core.declared import Declarations
from batchbell.core.errors import SettingsError
from batchbell.core.ids import Minter
from batchbell.core.model import DEFAULT_PROJECT, Account
from batchbell.declared import read_declared
from batchbell.files.results_store import Folder, ResultsStore, open_results_store
from batchbell.net.api import ApiClient
from batchbell.net.client import Sender
from batchbell.net.guard import parse_cidrs
from batchbell.net.proxy import check_proxies
from batchbell.net.relay import Relay
from batchbell.observability import Metrics
from batchbell.places import Placing
from batchbell.process import calm_collector, raise_file_limit, share_interpreter
from batchbell.providers import Provider
from batchbell.providers.profiles import DEFAULT
from batchbell.settings import Settings
from batchbell.storage import accounts, opening, projects
from batchbell.storage.engine import Store
from batchbell.storage.opening import open_store
from batchbell.threads import children, disk
from batchbell.web.call import Context
from batchbell.workers.loop import Loops

log = structlog.get_logger("batchbell.runtime")


_minter = Minter(clock=time.time, randomness=os.urandom)
_minting = threading.Lock()


def mint(prefix: str) -> str:
    """A new id, by the clock and the system's randomness, behind all that this process made."""
    with _minting:  # the thread that writes to SQLite makes some
        return _minter(prefix)


@dataclass(slots=True)
class Runtime:
    """One process's parts."""

    settings: Settings
    store: Store
    metrics: Metrics
    access: Access
    results_store: ResultsStore
    declared: Declarations
    accounts: Sequence[Account]
    """Those that could be watched at the start."""
    loops: Loops | None = None
    clients: set[ApiClient] = field(default_factory=set)
    """Open connections to providers."""
    providers: dict[str, Provider] = field(default_factory=dict)
    """The ways to the providers of the accounts that are watched, by the account's id."""

    def context(self, sender: Sender, relay: Relay) -> Context:
        """What the HTTP surface is given."""
        return Context(
            store=self.store,
            settings=self.settings,
            declared=self.declared,
            metrics=self.metrics,
            clock=time.time,
            mint=mint,
            rules=self.access.rules,
            keys_changed=self.access.changed.set,
            results_store=self.results_store,
            sender=sender,
            relay=relay,
            workers_alive=lambda: {} if self.loops is None else self.loops.alive(),
        )


@contextlib.asynccontextmanager
async def open_runtime(
    settings: Settings, declared: Declarations | None = None
) -> AsyncIterator[Runtime]:
    """Open the database, migrated, with its project and the accounts that are declared.

    By default those are read from the environment and the settings.
    """
    if declared is None:
        declared = read_declared(settings, os.environ)
    parse_cidrs(settings.allow_cidrs)
    check_proxies(settings)
    results_store = open_results_store(settings.results_place)
    raise_file_limit()
    calm_collector()
    share_interpreter()
    store = await open_store(settings.store_url, master_key=settings.master_keys)
    try:
        if isinstance(results_store, Folder):
            log.info("results folder", path=str(results_store.root))
        log_keys(store)
        await ensure_secret(store, settings)
        if settings.is_sqlite:
            await store.write(opening.release_all, now=time.time())
        access = Access(settings)
        await access.look(store)
        watched = await ensure_accounts(store, declared)
        runtime = Runtime(settings, store, Metrics(), access, results_store, declared, watched)
        placing = Placing(
            store,
            results_store,
            settings.results_place,
            marker=mint("plc"),
            keep_seconds=settings.results_retention_days * 86400.0,
            clock=time.time,
        )
        async with (
            _beside(access.keep_looking(store)),
            _beside(placing.keep_noting()),
        ):
            yield runtime
    finally:
        await disk(children.end)
        await store.close()


@contextlib.asynccontextmanager
async def _beside(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run something while the context lasts."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def log_keys(store: Store) -> None:
    """What the operator must know of the key that seals, where it is made or missing."""
    if store.keys.made:
        log.warning("made the master key: back it up with the database", file=store.keys.source)
    if not store.seals:
        log.warning(
            "secrets are kept as they are: set BATCHBELL_MASTER_KEY, or whoever reads the database"
            " can sign webhooks",
            advice="openssl rand -base64 32",
        )


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


async def ensure_accounts(store: Store, declared: Declarations) -> list[Account]:
    """Write the declared accounts to the database; returns all that can be watched.

    Raises SettingsError where a table of the settings file takes the name of another account.
    """
    for one in declared:
        try:
            await store.write(
                accounts.ensure_account,
                project_id=DEFAULT_PROJECT,
                name=one.name,
                provider=one.provider,
                base_url=one.base_url,
                discover=one.discover,
                rings=bool(one.hook_secrets),
                mint=mint,
                now=time.time(),
            )
        except SettingsError:
            if one.in_file:
                raise
            # The variable may be there for another program: it must not end this one.
            log.warning("no account made: its name is taken", name=one.name, of=one.key_variable)
    known = await store.read(accounts.list_accounts)
    for account in known:
        if account.from_environment and declared.of(account) is None:
            log.warning("account is not declared any more, and not watched", account=account.label)
    watched = [a for a in known if not a.from_environment or declared.of(a) is not None]
    if not watched:
        log.warning(
            f"no account: set {DEFAULT.key_variable}, or add one, or nothing can be watched"
        )
    return watched
