"""Accounts: their routes, what a request may ask for, and those of a project kept at hand."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Annotated, Any
from urllib.parse import urlsplit, urlunsplit

from fastapi import Query, Request
from starlette.responses import Response

from batchbell.api import accounts as api
from batchbell.api.accounts import AccountChanges, AccountRequest
from batchbell.api.answers import made_of
from batchbell.api.lists import Page
from batchbell.core import polling, signing
from batchbell.core.declared import Declarations
from batchbell.core.errors import InvalidRequest, ProviderError, SettingsError
from batchbell.core.model import DEFAULT_PROJECT, Account
from batchbell.net.api import ApiClient, checked_base
from batchbell.net.guard import AddressRules
from batchbell.net.proxy import provider_proxy
from batchbell.providers import Provider, open_provider
from batchbell.providers.profiles import DEFAULT, PROFILES
from batchbell.providers.registry import is_sendable, key_to_send, named_profile, provider_by_name
from batchbell.storage import accounts
from batchbell.storage.engine import Store
from batchbell.web.bodies import Check, read, read_json
from batchbell.web.cache import Remembered
from batchbell.web.call import Call, Caller, Context, answer, page_answer
from batchbell.web.errors import Code
from batchbell.web.openapi import answers, takes
from batchbell.web.parameters import strict_router

ACCOUNTS_KEPT_SECONDS = 0.5
"""An account that another process has added or removed is known within this."""
PROJECTS_KEPT_MAX = 1000


class Directory:
    """Asks the database for a project's accounts twice a second at most."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._known: dict[str, Remembered[Mapping[str, Account]]] = {}

    def forget(self) -> None:
        """Call when an account was added or removed here: it counts from the next request on."""
        self._known.clear()

    def at_hand(self, project_id: str) -> Mapping[str, Account] | None:
        """As `of`, where the database need not be asked; else None."""
        known = self._known.get(project_id)
        return None if known is None else known.at_hand()

    async def of(self, project_id: str) -> Mapping[str, Account]:
        """Those that can be watched, by name; the first one is the default."""
        if project_id not in self._known and len(self._known) >= PROJECTS_KEPT_MAX:
            self._known.clear()
        known = self._known.setdefault(
            project_id,
            Remembered(
                lambda: self._load(project_id),
                seconds=ACCOUNTS_KEPT_SECONDS,
                clock=self._context.clock,
            ),
        )
        return await known.get()

    async def _load(self, project_id: str) -> Mapping[str, Account]:
        found = await self._context.store.read(accounts.list_accounts, project_id)
        declared = self._context.declared
        return {one.name: one for one in found if not one.from_environment or declared.of(one)}


TEST_SECONDS = 15.0
HINT_CHARACTERS = 4


def read_account(body: Any, rules: AddressRules, project_id: str) -> dict[str, Any]:
    """All that a new account is made of. Raises InvalidBody."""
    checks = _checks(rules) | {"provider": _check_provider}
    made = read(AccountRequest, body, checks)
    if project_id == DEFAULT_PROJECT and made.name == DEFAULT.name:
        raise InvalidRequest(
            f"The name {made.name!r} is kept for the account that comes from"
            f" {DEFAULT.key_variable}: choose another.",
            param="name",
            code=Code.NAME_TAKEN,
            status=409,
        )
    profile = named_profile(made.provider or provider_by_name(made.name))
    given = made.base_url or profile.base_url
    if given is None:
        raise InvalidRequest(
            f"{profile.title} has no address that is the same for everybody: send base_url.",
            param="base_url",
            code=Code.MISSING_FIELD,
        )
    return {
        "name": made.name,
        "provider": profile.name,
        "base_url": profile.address(checked_base(given)),
        "credentials": made.api_key.strip(),
        "discover": bool(made.discover),
        "hook_secrets": made.hook_secrets or (),
        "hook_audience": made.hook_audience,
    }


def read_changes(body: Any, rules: AddressRules) -> dict[str, Any]:
    """What is to be different; null changes nothing. Raises InvalidBody."""
    made = read(AccountChanges, body, _checks(rules))
    values: dict[str, Any] = {}
    if made.base_url is not None:
        values["base_url"] = checked_base(made.base_url)
    if made.api_key is not None:
        values["credentials"] = made.api_key.strip()
    if made.state is not None:
        values["paused"] = made.state == "paused"
    if made.discover is not None:
        values["discover"] = made.discover
    if made.hook_secrets is not None:
        values["hook_secrets"] = made.hook_secrets
    if made.hook_audience is not None:
        values["hook_audience"] = made.hook_audience
    return values


def _checks(rules: AddressRules) -> dict[str, Check]:
    return {
        "base_url": lambda url: _check_base(url, rules),
        "api_key": _check_api_key,
        "hook_secrets": _check_hook_secrets,
    }


def _check_provider(name: str | None) -> None:
    try:
        named_profile(name or DEFAULT.name)
    except SettingsError as error:
        raise InvalidRequest(str(error)) from error


def _check_base(url: str | None, rules: AddressRules) -> None:
    """As for webhooks: whoever may add an account names a URL that this server calls."""
    if url is None:
        return
    rules.check_url(url)
    try:
        checked_base(url)
    except SettingsError as error:
        raise InvalidRequest(str(error)) from error


def _check_api_key(key: str | None) -> None:
    if key is not None and not is_sendable(key.strip()):
        raise InvalidRequest("api_key is empty, or holds a character that no API key has.")


def _check_hook_secrets(secrets: Sequence[str] | None) -> None:
    for secret in secrets or ():
        signing.check_secret(secret)


def check_sealed(store: Store) -> None:
    """Raise InvalidRequest where credentials would be stored as they are."""
    if not store.seals:
        raise InvalidRequest(
            "This database keeps no provider credentials, because it has no key to seal them"
            " with: set BATCHBELL_MASTER_KEY for each process, and start again.",
            param="api_key",
            code=Code.NOT_SEALED,
        )


async def api_key_of(context: Context, account: Account) -> str:
    """The credentials to call with. Raises InvalidRequest where this process has none."""
    declared = context.declared.key_of(account)
    if declared is not None:
        try:
            return await key_to_send(declared)
        except ProviderError as error:
            raise InvalidRequest(str(error), code=Code.NO_ACCOUNT) from error
    kept = await context.store.read(accounts.credentials_of, account.id)
    if kept is None:
        raise InvalidRequest(
            f"This process has no API key for account {account.name!r}. Declare the account in the"
            " environment or the settings file, and start again.",
            code=Code.NO_ACCOUNT,
        )
    return kept


@asynccontextmanager
async def way_to(context: Context, account: Account, api_key: str) -> AsyncIterator[Provider]:
    """The way to an account's provider, under the rules that its watcher calls by.

    Raises SettingsError for one that we do not know.
    """
    rules = None if account.from_environment else context.rules()
    async with AsyncExitStack() as stack:

        def connect(base_url: str, headers: Any) -> ApiClient:
            client = ApiClient(
                base_url,
                headers,
                rules=rules,
                proxy=provider_proxy(context.settings),
                timeout_seconds=TEST_SECONDS,
            )
            stack.push_async_callback(client.aclose)
            return client

        yield open_provider(account, api_key, connect=connect)


async def probe(context: Context, account: Account, api_key: str) -> api.AccountTest:
    """List the account's batches once."""
    error: ProviderError | SettingsError | None = None
    begun = time.perf_counter()
    try:
        async with way_to(context, account, api_key) as provider:
            await provider.list_page()
    except (ProviderError, SettingsError) as caught:
        error = caught
    return api.AccountTest(
        account_id=account.id,
        ok=error is None,
        error=None if error is None else WORDS.get(type(error).__name__, "settings"),
        message=None if error is None else str(error),
        status=getattr(error, "status", None),
        latency_ms=round((time.perf_counter() - begun) * 1000, 1),
    )


WORDS = {
    "ProviderAuthError": "auth",
    "ProviderBillingError": "billing",
    "ProviderRateLimited": "rate_limited",
    "ProviderNotFound": "not_found",
    "ProviderRejected": "rejected",
    "ProviderUnavailable": "unavailable",
    "MalformedBatch": "malformed",
}
"""What `error` says of a test that failed."""


router = strict_router("access")

Force = Annotated[
    bool, Query(description="Also where batches are open, which then are watched no more.")
]


@router.post(
    "/v1/accounts",
    summary="Add an account, watched from now on",
    openapi_extra=takes(AccountRequest),
    **answers(api.Account, 409, 413, status=201, says="The account."),
)
async def add_account(call: Caller, request: Request) -> Response:
    return answer(await shown(call, await add(call, await read_json(request))), 201)


async def add(call: Call, body: Any) -> Account:
    """Add an account, watched from now on. Raises InvalidRequest."""
    context = call.context
    wanted = read_account(body, context.rules(), call.project_id)
    check_sealed(context.store)
    added = await context.store.write(
        accounts.add, call.project_id, **wanted, mint=context.mint, now=context.clock()
    )
    call.surface.directory.forget()
    return added


@router.get(
    "/v1/accounts",
    summary="List accounts, the default first, then the oldest",
    **answers(Page[api.Account]),
)
async def list_accounts(call: Caller) -> Response:
    found = await call.context.store.read(accounts.list_accounts, call.project_id)
    data = [await shown(call, one) for one in found]
    return page_answer(data)


@router.get(
    "/v1/accounts/{account_id}",
    summary="One account, by id or name",
    **answers(api.Account, 404),
)
async def get_account(call: Caller, account_id: str) -> Response:
    return answer(await shown(call, await _find(call, account_id)))


@router.post(
    "/v1/accounts/{account_id}",
    summary="Change an account's address, API key or state",
    openapi_extra=takes(AccountChanges),
    **answers(api.Account, 404, 409, 413),
)
async def change_account(call: Caller, account_id: str, request: Request) -> Response:
    return answer(await shown(call, await update(call, account_id, await read_json(request))))


async def update(call: Call, account_id: str, body: Any) -> Account:
    """Change an account as a body says; returns it. Raises NotFound, InvalidRequest."""
    context = call.context
    changes = read_changes(body, context.rules())
    if "credentials" in changes or changes.get("hook_secrets"):
        check_sealed(context.store)
    if "base_url" in changes:
        found = await _find(call, account_id)
        if profile := PROFILES.get(found.provider):
            changes["base_url"] = profile.address(changes["base_url"])
    return await change(call, account_id, **changes)


@router.delete(
    "/v1/accounts/{account_id}",
    summary="Remove an account, and forget its API key",
    **answers(api.AccountDeleted, 404, 409),
)
async def remove_account(call: Caller, account_id: str, force: Force = False) -> Response:
    found, still_open = await remove(call, account_id, force=force)
    return answer(api.AccountDeleted(id=found.id, deleted=True, open_batches=still_open))


async def remove(call: Call, word: str, *, force: bool) -> tuple[Account, int]:
    """Remove an account; returns it, and how many of its batches had not ended."""
    context, found = call.context, await _find(call, word)
    still_open = await context.store.write(
        accounts.remove,
        call.project_id,
        found.id,
        force=force,
        declared=context.declared.of(found) is not None,
        now=context.clock(),
    )
    call.surface.directory.forget()
    return found, still_open


@router.post(
    "/v1/accounts/{account_id}/pause",
    summary="Sweep an account no more until it is resumed",
    **answers(api.Account, 404),
)
async def pause_account(call: Caller, account_id: str) -> Response:
    return answer(await shown(call, await change(call, account_id, paused=True)))


@router.post(
    "/v1/accounts/{account_id}/resume",
    summary="Sweep an account again, at once",
    **answers(api.Account, 404),
)
async def resume_account(call: Caller, account_id: str) -> Response:
    return answer(await shown(call, await change(call, account_id, paused=False)))


@router.post(
    "/v1/accounts/{account_id}/test",
    summary="List an account's batches at its provider once, and say what came of it",
    **answers(api.AccountTest, 400, 404, says="What came of it."),
)
async def test_account(call: Caller, account_id: str) -> Response:
    return answer(await test(call, account_id))


async def test(call: Call, word: str) -> api.AccountTest:
    """List an account's batches once. Raises NotFound, and InvalidRequest without an API key."""
    found = await _find(call, word)
    return await probe(call.context, found, await api_key_of(call.context, found))


async def _find(call: Call, word: str) -> Account:
    return await call.context.store.read(accounts.find, call.project_id, word)


async def change(call: Call, word: str, **changes: Any) -> Account:
    """Change an account; returns it as it is then. Raises NotFound, InvalidRequest."""
    context = call.context
    return await context.store.write(
        accounts.change,
        call.project_id,
        word,
        **changes,
        now=context.clock(),
    )


async def shown(call: Call, found: Account) -> api.Account:
    """An account as it is answered, without its credentials."""
    credentials = await call.context.store.read(accounts.credentials_of, found.id)
    return made_of(
        api.Account,
        found,
        found.verbs,
        base_url=_without_credentials(found.base_url),
        source="environment" if found.from_environment else "api",
        api_key_hint=None if credentials is None else _hint(credentials),
        discover=found.discovers,
        hooks=await _hooks(call.context, found),
        unswept=polling.unswept(found, call.context.clock()),
    )


async def _hooks(context: Context, found: Account) -> api.AccountHooks | None:
    """None where the provider sends none."""
    profile = PROFILES.get(found.provider)
    if profile is None or profile.hooks is None:
        return None
    kept = await context.store.read(accounts.hook_secrets_of, found.id)
    declared = context.declared.of(found)
    chosen = (
        context.settings.chooses_pace if declared is None else not declared.pace.relaxed_seconds
    )
    arrivals = found.arrivals
    return api.AccountHooks(
        url=f"{context.settings.link_url}{hook_path(found)}",
        secrets=len(hook_secrets_of(context.declared, found, kept)),
        per_batch=profile.hooks.keys_path is not None,
        received_at=_second(arrivals.last_at),
        announced_in_a_row=arrivals.in_a_row,
        missed_at=_second(arrivals.missed_at),
        relaxed=arrivals.in_a_row >= polling.PROOFS and not chosen,
    )


def _second(time: float | None) -> int | None:
    return None if time is None else int(time)


def hook_path(account: Account) -> str:
    """Where the webhooks of its provider arrive."""
    return f"/hooks/{account.id}"


def hook_secrets_of(declared: Declarations, account: Account, kept: Sequence[str]) -> Sequence[str]:
    """The secrets that webhooks of the account's provider are verified with."""
    found = declared.of(account)
    return kept if found is None else found.hook_secrets


def _hint(secret: str) -> str:
    """Enough to tell two keys apart; of a short one nothing."""
    return f"…{secret[-HINT_CHARACTERS:]}" if len(secret) >= 4 * HINT_CHARACTERS else "…"


def _without_credentials(url: str) -> str:
    """The URL without what may be secret in it: user info and the query."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
