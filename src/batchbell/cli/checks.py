"""What `doctor` looks at. Each check answers with findings, and raises nothing on purpose."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Literal

from batchbell.cli.connection import key_of, opened
from batchbell.client import (
    AccessRefused,
    AccountHooks,
    AsyncBatchbell,
    ClientError,
    Key,
    ServerUnreachable,
)
from batchbell.client import Account as ClientAccount
from batchbell.core import place, polling
from batchbell.core.account import Verbs
from batchbell.core.declared import Declarations, Declared
from batchbell.core.errors import (
    BatchbellError,
    ProviderAuthError,
    ProviderBillingError,
    ProviderError,
    ProviderRateLimited,
    ProviderRejected,
    SettingsError,
    StoreError,
    StoreInUse,
    StoreOutdated,
)
from batchbell.core.model import DEFAULT_PROJECT, Account
from batchbell.core.place import Place
from batchbell.declared import read_declared
from batchbell.net.api import ApiClient, Reply
from batchbell.net.guard import parse_cidrs
from batchbell.net.proxy import Proxy, check_proxies, provider_proxy
from batchbell.providers import open_provider
from batchbell.providers.profiles import DEFAULT, PROFILES
from batchbell.providers.registry import named_profile
from batchbell.runtime import is_sqlite
from batchbell.settings import Settings, load_settings, misspelt_variables
from batchbell.storage import accounts, keys, opening, places
from batchbell.storage.clock import database_time
from batchbell.storage.engine import Store
from batchbell.storage.opening import parse_url
from batchbell.storage.sealing import Seal

SKEW_NOTE_SECONDS = 5.0
SKEW_FAILED_SECONDS = 60.0
"""Receivers refuse timestamps that are five minutes off, and workers share leases by the clock."""
PROVIDER_TIMEOUT_SECONDS = 10.0

LOOK_AT_WORKERS = (
    "See the log of `batchbell serve`, and of each `batchbell worker`; start one where none runs."
)
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


NO_KEY = Finding(
    check="keys",
    state="failed",
    says="No API key of the project `default` is in force: nobody can look after this server.",
    advice="batchbell keys create --name NAME, on the server's machine",
)


@dataclass(slots=True)
class Patient:
    """What the checks learn from each other."""

    settings: Settings
    server_is_named: bool
    """Somebody said where the server is: then it must answer."""
    local: bool | None = None
    """Whether no key is in force; None where that is not known."""
    in_use: bool = False
    """Another process has the SQLite file."""
    accounts: Sequence[Account] | None = None
    """Those of a database that others use too."""
    declared: Declarations | None = None
    """None where the declarations cannot be read."""
    findings: list[Finding] = field(default_factory=list)

    def add(self, check: str, state: State, says: str, advice: str | None = None) -> None:
        self.findings.append(Finding(check=check, state=state, says=says, advice=advice))


async def examine(*, server: str | None, api_key: str | None) -> list[Finding]:
    """Every check, in the order in which things must be right."""
    try:
        settings = load_settings(url=server, api_key=api_key)
        cidrs = parse_cidrs(settings.allow_cidrs)
        check_proxies(settings)
        parse_url(settings.store_url)
    except SettingsError as error:
        return [Finding(check="settings", state="failed", says=str(error), advice="Mend it first.")]
    patient = Patient(settings, server_is_named=settings.url is not None)
    patient.add("settings", "ok", "All of them can be read.")
    await check_database(patient)
    await check_provider(patient)
    await check_server(patient)
    check_sweeps(patient)
    check_unused_proxies(patient)
    check_misspelt(patient)
    check_receivers(patient, [str(cidr) for cidr in cidrs])
    return patient.findings


async def check_database(patient: Patient) -> None:
    """Whether it is reached and its schema is ours. Makes and changes nothing."""
    settings = patient.settings
    if is_sqlite(settings):
        patient.add("sqlite", "ok", f"SQLite {sqlite3.sqlite_version}.")
        if not _file(settings).exists():
            patient.add("database", "note", "There is no file yet.", "`batchbell serve` makes it.")
            return
        _look_at_mode(patient, _file(settings))
    try:
        async with opened(settings, migrate=False) as store:
            await _look_into(patient, store)
    except StoreInUse:
        patient.in_use = True
        patient.add("database", "ok", "A running process has the SQLite file.")
    except SettingsError as error:
        patient.add("secrets", "failed", str(error), "Mend it first: nothing starts without it.")
    except StoreOutdated as error:
        patient.add("database", "failed", str(error), "`batchbell migrate`, or start the server.")
    except StoreError as error:
        patient.add(
            "database", "failed", str(error), "Check DATABASE_URL or DATABASE_PATH, and the server."
        )


def _look_at_mode(patient: Patient, file: Path) -> None:
    """New files are their owner's alone; those of before, or that were copied, may not be."""
    files = [one for name in ("", "-wal", "-shm") if (one := Path(f"{file}{name}")).exists()]
    open_ = [str(one) for one in files if os.name == "posix" and one.stat().st_mode & 0o077]
    if open_:
        patient.add(
            "database",
            "note",
            f"Others on this machine may read {', '.join(open_)}.",
            f"chmod 600 {' '.join(open_)}",
        )


def _file(settings: Settings) -> Path:
    return Path(parse_url(settings.store_url).database or "").expanduser()


async def _look_into(patient: Patient, store: Store) -> None:
    revision = await store.read(opening.check)
    patient.local = not await store.read(keys.ever_made)
    patient.add("database", "ok", f"It answers; schema {revision}.")
    if not patient.local and not await store.read(keys.any_in_force, DEFAULT_PROJECT):
        patient.findings.append(NO_KEY)
    elif not patient.local:
        _look_at_last_key(patient, await store.read(keys.list_keys, DEFAULT_PROJECT))
    _look_at_keys(patient, store)
    _look_at_places(patient, await store.read(places.list_places))
    theirs = await store.read(database_time)
    if theirs is not None:
        patient.accounts = await store.read(accounts.list_accounts)
        patient.findings.append(clock_finding(theirs, "the database's"))


def _look_at_places(patient: Patient, known: Sequence[Place]) -> None:
    """Whether all processes keep results in one place, and where they were kept before."""
    now = time.time()
    used = place.in_use(known, now=now)
    if warning := place.apart(known, now=now):
        patient.add("results", "failed", f"{warning} They are: {_listed(used)}.", SHARE)
    elif used:
        patient.add("results", "ok", f"They are kept in {used[0]}.")
    keep_seconds = patient.settings.results_retention_days * 86400.0
    former = place.former(known, now=now, keep_seconds=keep_seconds)
    if used and former:
        says = f"Older results may be in {_listed(former)}, which no process uses now."
        patient.add("results", "note", says, MOVE)


def _listed(known: Sequence[Place]) -> str:
    rest = len(known) - PLACES_SHOWN
    shown = "; ".join(str(one) for one in known[:PLACES_SHOWN])
    return shown if rest <= 0 else f"{shown}; and {rest} more"


def _look_at_keys(patient: Patient, store: Store) -> None:
    """Whether secrets are sealed, and by which key."""
    if not store.seals:
        makes_file = is_sqlite(patient.settings)
        patient.add(
            "secrets",
            "note",
            "Secrets are kept as they are: there is no master key.",
            "`batchbell serve` makes it."
            if makes_file
            else "Set BATCHBELL_MASTER_KEY for all processes: openssl rand -base64 32",
        )
        return
    first, *others = Seal(store.keys.keys).ids
    also = f"; {', '.join(others)} opens, too" if others else ""
    says = f"They are sealed under key {first} of {store.keys.source}{also}."
    patient.add("secrets", "ok", says)


def clock_finding(theirs: float, whose: str) -> Finding:
    """What to think of another clock that says `theirs` now."""
    skew = time.time() - theirs
    off = f"{abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} {whose} clock"
    advice = "Set the clock, best by NTP: receivers refuse signatures with a wrong time."
    if abs(skew) > SKEW_FAILED_SECONDS:
        return Finding(check="clock", state="failed", says=f"It is {off}.", advice=advice)
    if abs(skew) > SKEW_NOTE_SECONDS:
        return Finding(check="clock", state="note", says=f"It is {off}.", advice=advice)
    return Finding(check="clock", state="ok", says=f"As {whose} clock, within a few seconds.")


class _Listener(ApiClient):
    """Also keeps the headers of the last answer, for their date."""

    headers: Mapping[str, str] = {}

    async def get_json_bytes(self, path: str, params: Mapping[str, str] | None = None) -> Reply:
        reply = await super().get_json_bytes(path, params)
        self.headers = reply[1]
        return reply


async def check_provider(patient: Patient) -> None:
    """One list call for each declared account, with its key, which costs nothing."""
    try:
        declared = read_declared(patient.settings, os.environ)
    except SettingsError as error:
        patient.add("provider", "failed", str(error), "Mend it first: nothing starts without it.")
        return
    patient.declared = declared
    if not list(declared):
        patient.add(
            "provider",
            "failed",
            f"{DEFAULT.key_variable} is not set, and no account is declared: nothing can be"
            " watched.",
            f"export {DEFAULT.key_variable}=sk-…",
        )
        return
    async with _listening() as listeners:
        proxy = provider_proxy(patient.settings)
        found = [await _ask(one, listeners, proxy=proxy) for one in declared]
        if len(found) > 1:
            found = [
                replace(finding, says=f"Account {one.name}: {finding.says}")
                for one, finding in zip(declared, found, strict=True)
            ]
        patient.findings += found
        dates = filter(None, (_date(listener.headers) for listener in listeners))
        if (date := next(dates, None)) is not None:
            patient.findings.append(clock_finding(date, "the provider's"))


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
        return Finding(check="provider", state="failed", says=str(error), advice="Mend it first.")
    except ProviderError as error:
        return _refused(error, declared)
    count = f"{len(page.batches)}{' or more' if page.next_cursor else ''}"
    return Finding(
        check="provider",
        state="ok",
        says=f"{declared.base_url} accepts the key, and lists {count} batches.",
    )


def _refused(error: ProviderError, declared: Declared) -> Finding:
    """The provider's no, and what helps."""
    state: State = "failed"
    profile = named_profile(declared.provider)
    address = "base_url" if declared.in_file else profile.base_url_variable or "base_url"
    match error:
        case ProviderAuthError():
            key = declared.key_variable
            advice = f"Check {key}: it must be of the project whose batches are watched."
        case ProviderBillingError():
            advice = "Settle the bill or raise the limit in the provider's console."
        case ProviderRateLimited():
            state, advice = "note", "The key works; Batchbell waits by itself when this happens."
        case ProviderRejected():
            advice = f"Check {address}: it ends in /v1 at most hosts."
        case _:
            advice = f"Check the network and {address}; Batchbell itself tries for ever."
    return Finding(
        check="provider", state=state, says=f"{declared.base_url}: {error.message}", advice=advice
    )


def _date(headers: Mapping[str, str]) -> float | None:
    value = next((v for name, v in headers.items() if name.lower() == "date"), None)
    try:
        return parsedate_to_datetime(value).timestamp() if value else None
    except ValueError:
        return None


async def check_server(patient: Patient) -> None:
    """Whether it answers, is ready, and lets us in."""
    settings = patient.settings
    url = settings.server_url
    async with AsyncBatchbell(url, key_of(settings)) as client:
        try:
            ready = await client.ready()
        except ServerUnreachable as error:
            expected = patient.server_is_named or patient.in_use
            patient.add(
                "server",
                "failed" if expected else "note",
                str(error) if expected else f"No server runs at {url}.",
                "`batchbell serve` starts it; BATCHBELL_URL says where it is.",
            )
            return
        except ClientError as error:
            patient.add("server", "failed", f"{url}: {error}", "Is that a Batchbell server?")
            return
        if not ready.ready:
            patient.add("server", "failed", " ".join(ready.reasons), "Look into its log.")
            return
        patient.add("server", "ok", f"{url} is ready.")
        for warning in ready.warnings:
            if not any(found.says.startswith(warning) for found in patient.findings):
                patient.add("work", "failed", warning, LOOK_AT_WORKERS)
        await _check_access(patient, client)


async def _check_access(patient: Patient, client: AsyncBatchbell) -> None:
    try:
        theirs = await client.accounts()
        found = await client.list_keys()
        patient.local = not found and patient.local is not False
    except AccessRefused as error:
        advice = "Set BATCHBELL_API_KEY to a key that `batchbell keys create --name NAME` made."
        patient.add("access", "failed", error.message, advice)
        return
    except BatchbellError as error:
        patient.add("access", "failed", str(error), "Look into the server's log.")
        return
    patient.add("access", "ok", "The server lets this command line in.")
    if not any(finding.check == "keys" for finding in patient.findings):
        _look_at_last_key(patient, found)
    patient.accounts = None  # the server has just said more
    for account in theirs:
        if account.source == "environment":
            _look_at_declaration(patient, account.name)
        if account.unswept:
            says = f"Account {account.name} is not swept: {account.unswept}"
            patient.add("account", "failed", says, NO_WORKER)
        if account.reason:
            says = f"Account {account.name} is {account.state}: {account.reason}"
            patient.add("account", "failed", says, "See `provider` above.")
        _look_at_verbs(patient, account.name, account)
        if account.hooks is not None:
            _look_at_hooks(patient, account.name, account.hooks)


def _look_at_last_key(patient: Patient, found: Sequence[Key | keys.Key]) -> None:
    """Whether one key alone can look after the server, before it is lost."""
    in_force = [key for key in found if key.revoked_at is None]
    if len(in_force) == 1 and in_force[0].project_id == DEFAULT_PROJECT:
        patient.add(
            "keys",
            "note",
            f"One API key of the project `default` is in force, {in_force[0].id}: if it is lost or"
            " revoked, nobody can look after this server.",
            "`batchbell keys create --name NAME` makes another one for that day.",
        )


def _look_at_verbs(patient: Patient, name: str, seen: ClientAccount | Verbs) -> None:
    """What sweeps do without: batches are watched by the other ways, later or at a higher cost."""
    if seen.list_stale:
        patient.add(
            "account",
            "note",
            f"The list of account {name} is out of date: it contradicts what the provider says of"
            " single batches. Open batches are read one by one, by id, so their ends arrive later.",
            "Look for a cache or a proxy before its base URL. The list is used again by itself"
            " as soon as it agrees.",
        )
    if seen.list_error:
        patient.add(
            "account",
            "note",
            f"The list of account {name} cannot be read: {seen.list_error} Open batches are read"
            " one by one, by id, so their ends arrive later, and no batch is discovered.",
            "Ask the provider whether this API key may list batches.",
        )
    if seen.retrieve_error:
        patient.add(
            "account",
            "note",
            f"Single batches of account {name} cannot be read: {seen.retrieve_error} They are"
            " watched by its list alone.",
            "Ask the provider whether this API key may read batches.",
        )


def _look_at_hooks(patient: Patient, name: str, hooks: AccountHooks) -> None:
    """Whether webhooks of the provider itself arrive, where they are expected."""
    if hooks.secrets and hooks.received_at is None:
        patient.add(
            "hooks",
            "note",
            f"Account {name} has a secret for webhooks of its provider, and none has come yet.",
            f"The provider must call {hooks.url}, and reach it from outside. Until then all is"
            " polled.",
        )
    elif hooks.missed_at is not None and hooks.announced_in_a_row == 0:
        patient.add(
            "hooks",
            "note",
            f"The provider of account {name} did not announce the last end; a poll has found it.",
            f"Look at what it says of its calls to {hooks.url}, and for `hook.refused` in our log.",
        )
    elif hooks.relaxed:
        says = f"The provider of account {name} announces ends itself: it is polled less often."
        patient.add("hooks", "ok", says)


def _look_at_declaration(patient: Patient, name: str) -> None:
    """Whether an account without an API key in the database is still declared."""
    if patient.declared is not None and name not in patient.declared:
        patient.add(
            "account",
            "note",
            f"Account {name} was declared once, and is not any more: it is not watched.",
            "Declare it again, in the environment or in the settings file, or remove it:"
            f" batchbell accounts remove {name}",
        )


def check_sweeps(patient: Patient) -> None:
    """Whether somebody sweeps the accounts, by the database, where no server has said it.

    A SQLite file that no process has open is not swept by anybody, and need not be.
    """
    for account in patient.accounts or ():
        if account.from_environment:
            _look_at_declaration(patient, account.label)
        if why := polling.unswept(account, time.time()):
            says = f"Account {account.label} is not swept: {why}"
            patient.add("account", "failed", says, NO_WORKER)
        _look_at_verbs(patient, account.label, account.verbs)


def check_unused_proxies(patient: Patient) -> None:
    """Whether the environment names a proxy that is not used: Batchbell has its own settings."""
    settings = patient.settings.model_dump()
    unused = [name for name in OUR_PROXIES if not settings.get(name)]
    named = sorted({name.upper() for name, value in os.environ.items() if value} & THEIR_PROXIES)
    if not named or not unused:
        return
    ours = " and ".join(f"BATCHBELL_{name.upper()}" for name in unused)
    patient.add(
        "proxy",
        "note",
        f"{', '.join(named)} is set, and Batchbell does not use it: it calls"
        f" {' and '.join(OUR_PROXIES[name] for name in unused)} directly.",
        f"Where a proxy is the only way out, set {ours}.",
    )


def check_misspelt(patient: Patient) -> None:
    """Whether the environment has a variable that is nearly one of ours: it does nothing."""
    variables = [one for profile in PROFILES.values() for one in profile.key_variables]
    variables += [one for profile in PROFILES.values() if (one := profile.base_url_variable)]
    variables += [one.hooks.secret_variable for one in PROFILES.values() if one.hooks is not None]
    for name, meant in misspelt_variables(os.environ, variables).items():
        says = f"{name} is set, and Batchbell does not read it."
        patient.add("environment", "note", says, f"Did you mean {meant}?")


def check_receivers(patient: Patient, cidrs: list[str]) -> None:
    """Which addresses webhooks may go to now."""
    allowed = ["https to public addresses"]
    if patient.settings.allow_http or patient.local:
        allowed.append("plain http")
    if patient.local:
        allowed.append("this machine, because no key was made yet (local mode)")
    allowed += cidrs
    says = f"Webhooks may go to: {', '.join(allowed)}."
    if patient.local is None:
        says += " In local mode also plain http and this machine."
    advice = None if cidrs else "BATCHBELL_ALLOW_CIDRS and BATCHBELL_ALLOW_HTTP allow more."
    patient.add("receivers", "ok", says, advice)
