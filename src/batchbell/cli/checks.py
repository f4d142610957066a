"""The checks in the order of `doctor`, and those of a server as somebody outside sees it."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from batchbell import checks
from batchbell.checks import Finding, failed, note, ok
from batchbell.cli.connection import key_of, opened
from batchbell.client import AccessRefused, AsyncBatchbell, ClientError, ServerUnreachable
from batchbell.client import Account as ShownAccount
from batchbell.core import polling
from batchbell.core.declared import Declarations
from batchbell.core.errors import (
    BatchbellError,
    SettingsError,
    StoreError,
    StoreInUse,
    StoreOutdated,
)
from batchbell.core.model import DEFAULT_PROJECT, Account
from batchbell.declared import read_declared
from batchbell.net.guard import parse_cidrs
from batchbell.net.proxy import check_proxies
from batchbell.settings import Settings, load_settings
from batchbell.storage import accounts, keys
from batchbell.storage.engine import Store
from batchbell.storage.opening import parse_url

LOOK_AT_WORKERS = (
    "See the log of `batchbell serve`, and of each `batchbell worker`; start one where none runs."
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
    accounts: Sequence[Account] = ()
    """Those of a database that others use too. A SQLite file that no process has open is not swept
    by anybody, and need not be."""
    shown: Sequence[ShownAccount] | None = None
    """Those that the server says; None where it was not asked."""
    declared: Declarations | None = None
    """None where the declarations cannot be read."""
    database: list[Finding] = field(default_factory=list)


async def examine(*, server: str | None, api_key: str | None) -> list[Finding]:
    """Every check, in the order in which things must be right."""
    try:
        settings = load_settings(url=server, api_key=api_key)
        parse_cidrs(settings.allow_cidrs)
        check_proxies(settings)
        parse_url(settings.store_url)
    except SettingsError as error:
        return [failed("settings", str(error), "Mend it first.")]
    patient = Patient(settings, server_is_named=settings.url is not None)
    patient.database = await of_database(patient)
    of_server = await check_server(patient)
    return [
        ok("settings", "All of them can be read."),
        *patient.database,
        *await of_providers(patient),
        *of_server,
        *of_accounts(patient),
        *checks.of_environment(settings, os.environ),
        checks.of_receivers(settings, local=patient.local),
    ]


async def of_database(patient: Patient) -> list[Finding]:
    """Whether it is reached and its schema is ours. Makes and changes nothing."""
    file = checks.database_file(patient.settings)
    found = [] if file is None else list(checks.of_file(file))
    if file is not None and not file.exists():
        return [*found, note("database", "There is no file yet.", "`batchbell serve` makes it.")]
    try:
        async with opened(patient.settings, migrate=False) as store:
            return [*found, *await _look_into(patient, store)]
    except StoreInUse:
        patient.in_use = True
        one = ok("database", "A running process has the SQLite file.")
    except SettingsError as error:
        one = failed("secrets", str(error), "Mend it first: nothing starts without it.")
    except StoreOutdated as error:
        one = failed("database", str(error), "`batchbell migrate`, or start the server.")
    except StoreError as error:
        advice = "Check DATABASE_URL or DATABASE_PATH, and the server."
        one = failed("database", str(error), advice)
    return [*found, one]


async def _look_into(patient: Patient, store: Store) -> list[Finding]:
    found = await checks.of_store(store, patient.settings, now=time.time())
    patient.local = not await store.read(keys.ever_made)
    if checks.database_file(patient.settings) is None:
        patient.accounts = await store.read(accounts.list_accounts)
    return found


async def of_providers(patient: Patient) -> list[Finding]:
    """Those of the accounts that are declared here."""
    try:
        patient.declared = read_declared(patient.settings, os.environ)
    except SettingsError as error:
        return [failed("provider", str(error), "Mend it first: nothing starts without it.")]
    has_others = any(one.source == "api" for one in patient.shown or ()) or any(
        not one.from_environment for one in patient.accounts
    )
    return await checks.of_providers(
        patient.declared, patient.settings, has_others=has_others, clock=time.time
    )


async def check_server(patient: Patient) -> list[Finding]:
    """Whether it answers, is ready, and lets us in."""
    settings = patient.settings
    url = settings.server_url
    async with AsyncBatchbell(url, key_of(settings)) as client:
        try:
            ready = await client.ready()
        except ServerUnreachable as error:
            advice = "`batchbell serve` starts it; BATCHBELL_URL says where it is."
            if patient.server_is_named or patient.in_use:
                return [failed("server", str(error), advice)]
            return [note("server", f"No server runs at {url}.", advice)]
        except ClientError as error:
            return [failed("server", f"{url}: {error}", "Is that a Batchbell server?")]
        if not ready.ready:
            return [failed("server", " ".join(ready.reasons), "Look into its log.")]
        work = checks.of_work(ready.warnings, patient.database, LOOK_AT_WORKERS)
        return [ok("server", f"{url} is ready."), *work, *await _of_access(patient, client)]


async def _of_access(patient: Patient, client: AsyncBatchbell) -> list[Finding]:
    try:
        theirs = await client.accounts()
        known = await client.list_keys()
    except AccessRefused as error:
        advice = "Set BATCHBELL_API_KEY to a key that `batchbell keys create --name NAME` made."
        return [failed("access", error.message, advice)]
    except BatchbellError as error:
        return [failed("access", str(error), "Look into the server's log.")]
    patient.local = not known and patient.local is not False
    patient.shown = theirs
    found = [ok("access", "The server lets this command line in.")]
    ours = [key for key in known if key.project_id == DEFAULT_PROJECT]
    if ours and not any(finding.check == "keys" for finding in patient.database):
        found += checks.of_keys(ours)
    return found


def of_accounts(patient: Patient) -> list[Finding]:
    """Those of the server, or where none was asked those of the database."""
    if patient.shown is not None:
        return [
            finding
            for one in patient.shown
            for finding in checks.of_shown(
                one.name,
                one,
                undeclared=one.source == "environment" and _is_undeclared(patient, one.name),
            )
        ]
    now = time.time()
    return [
        finding
        for one in patient.accounts
        for finding in checks.of_account(
            one.label,
            one.verbs,
            unswept=polling.unswept(one, now),
            undeclared=one.from_environment and _is_undeclared(patient, one.label),
        )
    ]


def _is_undeclared(patient: Patient, name: str) -> bool:
    return patient.declared is not None and name not in patient.declared
