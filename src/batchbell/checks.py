"""What must be right for Batchbell to work: each check answers with findings that say what to do.

`batchbell doctor` shows them on the command line, and the dashboard on its system page. A check
looks and changes nothing, and raises nothing on purpose. Those of the providers call out; all
others read this machine and the database alone.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Literal, Protocol

from batchbell.api.accounts import Account as ShownAccount
from batchbell.api.accounts import AccountHooks
from batchbell.core import place
from batchbell.core.account import Verbs
from batchbell.core.declared import Declarations, Declared
from batchbell.core.errors import (
    ProviderAuthError,
    ProviderBillingError,
    ProviderError,
    ProviderRateLimited,
    ProviderRejected,
    SettingsError,
)
from batchbell.core.model import DEFAULT_PROJECT, Account
from batchbell.core.place import Place
from batchbell.net.api import ApiClient, Reply
from batchbell.net.guard import parse_cidrs
from batchbell.net.proxy import Proxy, provider_proxy
from batchbell.providers import open_provider
from batchbell.providers.profiles import DEFAULT, PROFILES
from batchbell.providers.registry import named_profile
from batchbell.settings import Settings, misspelt_variables
from batchbell.storage import keys, opening, places
from batchbell.storage.clock import database_time
from batchbell.storage.engine import Store
from batchbell.storage.opening import parse_url
from batchbell.storage.sealing import Seal

SKEW_NOTE_SECONDS = 5.0
SKEW_FAILED_SECONDS = 60.0
"""Receivers refuse timestamps that are five minutes off, and workers share leases by the clock."""
PROVIDER_TIMEOUT_SECONDS = 10.0
DAY_SECONDS = 86_400.0

NO_WORKER = "Start `batchbell serve` or `batchbell worker`, and look into its log."
SHARE = "A relative path is another folder in each working directory, and in each container."
MOVE = (
    "If you moved the place, move its files along, with `.batchbell-place`; else set"
    " BATCHBELL_RESULTS_URL back. Links to what is missing fail."
)
PLACES_SHOWN = 5
THEIR_PROXIES = frozenset({"HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"})
OUR_PROXIES = {"provider_proxy": "providers", "webhook_proxy": "receivers of webhooks"}
"""Our settings, and who is called through each."""

State = Literal["ok", "note", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one check found: `advice` says what to do."""

    check: str
    state: State
    says: str
    advice: str | None = None


def ok(check: str, says: str, advice: str | None = None) -> Finding:
    return Finding(check=check, state="ok", says=says, advice=advice)


def note(check: str, says: str, advice: str | None = None) -> Finding:
    """Something for people to judge."""
    return Finding(check=check, state="note", says=says, advice=advice)


def failed(check: str, says: str, advice: str | None = None) -> Finding:
    return Finding(check=check, state="failed", says=says, advice=advice)


# --- the database and its files --------------------------------------------------------------


def database_file(settings: Settings) -> Path | None:
    """The file of SQLite; None for a server."""
    if not settings.is_sqlite:
        return None
    return Path(parse_url(settings.store_url).database or "").expanduser()


def of_file(file: Path) -> Iterator[Finding]:
    """SQLite itself, and who may read its files.

    New files are their owner's alone; those of before, or that were copied, may not be.
    """
    yield ok("sqlite", f"SQLite {sqlite3.sqlite_version}.")
    files = [one for name in ("", "-wal", "-shm") if (one := Path(f"{file}{name}")).exists()]
    open_ = [str(one) for one in files if os.name == "posix" and one.stat().st_mode & 0o077]
    if open_:
        yield note(
            "database",
            f"Others on this machine may read {', '.join(open_)}.",
            f"chmod 600 {' '.join(open_)}",
        )


async def of_store(store: Store, settings: Settings, *, now: float) -> list[Finding]:
    """Its schema, keys, secrets, clock, and where results are kept. Raises StoreError."""
    found = [ok("database", f"It answers; schema {await store.read(opening.check)}.")]
    if await store.read(keys.ever_made):
        found += of_keys(await store.read(keys.list_keys, DEFAULT_PROJECT))
    found.append(_of_secrets(store, settings))
    found += of_places(
        await store.read(places.list_places),
        now=now,
        keep_seconds=settings.results_retention_days * DAY_SECONDS,
    )
    theirs = await store.read(database_time)
    return found if theirs is None else [*found, of_clock(theirs, "the database's", now=now)]


class KnownKey(Protocol):
    """A key as it is stored, or as the server shows it."""

    @property
    def id(self) -> str: ...
    @property
    def revoked_at(self) -> float | None: ...


def of_keys(known: Sequence[KnownKey]) -> Iterator[Finding]:
    """Whether somebody can look after the server, by the keys of the project `default`."""
    in_force = [key for key in known if key.revoked_at is None]
    if not in_force:
        yield failed(
            "keys",
            "No API key of the project `default` is in force: nobody can look after this server.",
            "batchbell keys create --name NAME, on the server's machine",
        )
    elif len(in_force) == 1:
        yield note(
            "keys",
            f"One API key of the project `default` is in force, {in_force[0].id}: if it is lost or"
            " revoked, nobody can look after this server.",
            "`batchbell keys create --name NAME` makes another one for that day.",
        )


def _of_secrets(store: Store, settings: Settings) -> Finding:
    """Whether secrets are sealed, and by which key."""
    if not store.seals:
        return note(
            "secrets",
            "Secrets are kept as they are: there is no master key.",
            "Set BATCHBELL_MASTER_KEY for all processes: openssl rand -base64 32"
            if database_file(settings) is None
            else "`batchbell serve` makes it.",
        )
    first, *others = Seal(store.keys.keys).ids
    also = f"; {', '.join(others)} opens, too" if others else ""
    return ok("secrets", f"They are sealed under key {first} of {store.keys.source}{also}.")


def of_places(known: Sequence[Place], *, now: float, keep_seconds: float) -> Iterator[Finding]:
    """Whether all processes keep results in one place, and where they were kept before."""
    used = place.in_use(known, now=now)
    if warning := place.apart(known, now=now):
        yield failed("results", f"{warning} They are: {_listed(used)}.", SHARE)
    elif used:
        yield ok("results", f"They are kept in {used[0]}.")
    former = place.former(known, now=now, keep_seconds=keep_seconds)
    if used and former:
        says = f"Older results may be in {_listed(former)}, which no process uses now."
        yield note("results", says, MOVE)


def _listed(known: Sequence[Place]) -> str:
    rest = len(known) - PLACES_SHOWN
    shown = "; ".join(str(one) for one in known[:PLACES_SHOWN])
    return shown if rest <= 0 else f"{shown}; and {rest} more"


def of_clock(theirs: float, whose: str, *, now: float) -> Finding:
    """What to think of another clock that says `theirs` now."""
    skew = now - theirs
    if abs(skew) <= SKEW_NOTE_SECONDS:
        return ok("clock", f"As {whose} clock, within a few seconds.")
    return Finding(
        check="clock",
        state="failed" if abs(skew) > SKEW_FAILED_SECONDS else "note",
        says=f"It is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} {whose} clock.",
        advice="Set the clock, best by NTP: receivers refuse signatures with a wrong time.",
    )


def of_work(warnings: Sequence[str], said: Sequence[Finding], advice: str) -> list[Finding]:
    """What the server warns of, but for what a check of the database has `said` already."""
    return [
        failed("work", warning, advice)
        for warning in warnings
        if not any(one.says.startswith(warning) for one in said)
    ]


# --- accounts --------------------------------------------------------------------------------


def of_shown(name: str, shown: ShownAccount, *, undeclared: bool) -> Iterator[Finding]:
    """How an account fares, by what the server shows of it."""
    return of_account(
        name,
        shown,
        unswept=shown.unswept,
        undeclared=undeclared,
        state=shown.state,
        reason=shown.reason,
        hooks=shown.hooks,
    )


def of_account(
    name: str,
    verbs: ShownAccount | Verbs,
    *,
    unswept: str | None,
    undeclared: bool,
    state: str = "",
    reason: str | None = None,
    hooks: AccountHooks | None = None,
) -> Iterator[Finding]:
    """How its sweeps and the webhooks of its provider fare, by what is known of them."""
    if undeclared:
        yield note(
            "account",
            f"Account {name} was declared once, and is not any more: it is not watched.",
            "Declare it again, in the environment or in the settings file, or remove it:"
            f" batchbell accounts remove {name}",
        )
    if unswept:
        yield failed("account", f"Account {name} is not swept: {unswept}", NO_WORKER)
    if reason:
        says = f"Account {name} is {state}: {reason}"
        yield failed("account", says, "See what `provider` says: it lists the batches once.")
    yield from _of_verbs(name, verbs)
    if hooks is not None:
        yield from _of_hooks(name, hooks)


def _of_verbs(name: str, seen: ShownAccount | Verbs) -> Iterator[Finding]:
    """What sweeps do without: batches are watched by the other ways, later or at a higher cost."""
    if seen.list_stale:
        yield note(
            "account",
            f"The list of account {name} is out of date: it contradicts what the provider says of"
            " single batches. Open batches are read one by one, by id, so their ends arrive later.",
            "Look for a cache or a proxy before its base URL. The list is used again by itself"
            " as soon as it agrees.",
        )
    if seen.list_error:
        yield note(
            "account",
            f"The list of account {name} cannot be read: {seen.list_error} Open batches are read"
            " one by one, by id, so their ends arrive later, and no batch is discovered.",
            "Ask the provider whether this API key may list batches.",
        )
    if seen.retrieve_error:
        yield note(
            "account",
            f"Single batches of account {name} cannot be read: {seen.retrieve_error} They are"
            " watched by its list alone.",
            "Ask the provider whether this API key may read batches.",
        )


def _of_hooks(name: str, hooks: AccountHooks) -> Iterator[Finding]:
    """Whether webhooks of the provider itself arrive, where they are expected."""
    if hooks.secrets and hooks.received_at is None:
        yield note(
            "hooks",
            f"Account {name} has a secret for webhooks of its provider, and none has come yet.",
            f"The provider must call {hooks.url}, and reach it from outside. Until then all is"
            " polled.",
        )
    elif hooks.missed_at is not None and hooks.announced_in_a_row == 0:
        yield note(
            "hooks",
            f"The provider of account {name} did not announce the last end; a poll has found it.",
            f"Look at what it says of its calls to {hooks.url}, and for `hook.refused` in our log.",
        )
    elif hooks.relaxed:
        says = f"The provider of account {name} announces ends itself: it is polled less often."
        yield ok("hooks", says)


# --- providers, which are called -------------------------------------------------------------


class _Listener(ApiClient):
    """Also keeps the headers of the last answer, for their date."""

    headers: Mapping[str, str] = {}

    async def get_json_bytes(self, path: str, params: Mapping[str, str] | None = None) -> Reply:
        reply = await super().get_json_bytes(path, params)
        self.headers = reply[1]
        return reply


async def of_providers(
    declared: Declarations,
    settings: Settings,
    *,
    has_others: bool,
    clock: Callable[[], float],
) -> list[Finding]:
    """One list call for each declared account, with its key, which costs nothing.

    `has_others` says that there are accounts which were added by API: then none need be declared.
    """
    if not list(declared):
        nothing = failed(
            "provider",
            f"{DEFAULT.key_variable} is not set, and no account is declared: nothing can be"
            " watched.",
            f"export {DEFAULT.key_variable}=sk-…",
        )
        return [] if has_others else [nothing]
    async with _listening() as listeners:
        proxy = provider_proxy(settings)
        found = [await _ask(one, listeners, proxy=proxy) for one in declared]
        dates = filter(None, (_date(listener.headers) for listener in listeners))
        clocks = [of_clock(date, "the provider's", now=clock()) for date in dates][:1]
    if len(found) > 1:
        found = [
            replace(finding, says=f"Account {one.name}: {finding.says}")
            for one, finding in zip(declared, found, strict=True)
        ]
    return [*found, *clocks]


@contextlib.asynccontextmanager
async def _listening() -> AsyncIterator[list[_Listener]]:
    """The clients that were made are closed at the end."""
    made: list[_Listener] = []
    try:
        yield made
    finally:
        for listener in made:
            await listener.aclose()


async def _ask(declared: Declared, listeners: list[_Listener], *, proxy: Proxy | None) -> Finding:
    def connect(base_url: str, headers: Mapping[str, str]) -> _Listener:
        listeners.append(
            _Listener(base_url, headers, proxy=proxy, timeout_seconds=PROVIDER_TIMEOUT_SECONDS)
        )
        return listeners[-1]

    account = Account(
        id="acc_doctor",
        project_id=DEFAULT_PROJECT,
        name=declared.name,
        provider=declared.provider,
        base_url=declared.base_url,
    )
    try:
        page = await open_provider(account, declared.key, connect=connect).list_page()
    except SettingsError as error:
        return failed("provider", str(error), "Mend it first.")
    except ProviderError as error:
        return _refused(error, declared)
    count = f"{len(page.batches)}{' or more' if page.next_cursor else ''}"
    return ok("provider", f"{declared.base_url} accepts the key, and lists {count} batches.")


def _refused(error: ProviderError, declared: Declared) -> Finding:
    """The provider's no, and what helps."""
    says = f"{declared.base_url}: {error.message}"
    profile = named_profile(declared.provider)
    address = "base_url" if declared.in_file else profile.base_url_variable or "base_url"
    match error:
        case ProviderAuthError():
            key = declared.key_variable
            advice = f"Check {key}: it must be of the project whose batches are watched."
        case ProviderBillingError():
            advice = "Settle the bill or raise the limit in the provider's console."
        case ProviderRateLimited():
            waits = "The key works; Batchbell waits by itself when this happens."
            return note("provider", says, waits)
        case ProviderRejected():
            advice = f"Check {address}: it ends in /v1 at most hosts."
        case _:
            advice = f"Check the network and {address}; Batchbell itself tries for ever."
    return failed("provider", says, advice)


def _date(headers: Mapping[str, str]) -> float | None:
    value = next((v for name, v in headers.items() if name.lower() == "date"), None)
    try:
        return parsedate_to_datetime(value).timestamp() if value else None
    except ValueError:
        return None


# --- the environment -------------------------------------------------------------------------


def of_environment(settings: Settings, environment: Mapping[str, str]) -> Iterator[Finding]:
    """Variables that do nothing, though they look as if they did."""
    yield from _of_unused_proxies(settings, environment)
    variables = [one for profile in PROFILES.values() for one in profile.key_variables]
    variables += [one for profile in PROFILES.values() if (one := profile.base_url_variable)]
    variables += [one.hooks.secret_variable for one in PROFILES.values() if one.hooks is not None]
    for name, meant in misspelt_variables(environment, variables).items():
        says = f"{name} is set, and Batchbell does not read it."
        yield note("environment", says, f"Did you mean {meant}?")


def _of_unused_proxies(settings: Settings, environment: Mapping[str, str]) -> Iterator[Finding]:
    """Whether the environment names a proxy that is not used: Batchbell has its own settings."""
    known = settings.model_dump()
    unused = [name for name in OUR_PROXIES if not known.get(name)]
    named = sorted({name.upper() for name, value in environment.items() if value} & THEIR_PROXIES)
    if not named or not unused:
        return
    ours = " and ".join(f"BATCHBELL_{name.upper()}" for name in unused)
    yield note(
        "proxy",
        f"{', '.join(named)} is set, and Batchbell does not use it: it calls"
        f" {' and '.join(OUR_PROXIES[name] for name in unused)} directly.",
        f"Where a proxy is the only way out, set {ours}.",
    )


def of_receivers(settings: Settings, *, local: bool | None) -> Finding:
    """Which addresses webhooks may go to now; `local` is None where that is not known."""
    cidrs = [str(cidr) for cidr in parse_cidrs(settings.allow_cidrs)]
    allowed = ["https to public addresses"]
    if settings.allow_http or local:
        allowed.append("plain http")
    if local:
        allowed.append("this machine, because no key was made yet (local mode)")
    says = f"Webhooks may go to: {', '.join([*allowed, *cidrs])}."
    if local is None:
        says += " In local mode also plain http and this machine."
    advice = None if cidrs else "BATCHBELL_ALLOW_CIDRS and BATCHBELL_ALLOW_HTTP allow more."
    return ok("receivers", says, advice)
