"""From a body to an account: what may be asked for, and whether it works."""

from __future__ import annotations

import time
from typing import Any

from batchbell.core.errors import InvalidRequest, ProviderError, SettingsError
from batchbell.core.model import DEFAULT_PROJECT, NAME_PATTERN, Account
from batchbell.net.api import ApiClient, checked_base
from batchbell.net.proxy import provider_proxy
from batchbell.providers import open_provider
from batchbell.providers.registry import ADAPTERS, is_sendable
from batchbell.settings import OPENAI_URL
from batchbell.storage import enrolling
from batchbell.storage.engine import Store
from batchbell.web.account_shapes import (
    API_KEY_MAX,
    BASE_URL_MAX,
    NAME_MAX,
    AccountChanges,
    AccountRequest,
    AccountTest,
)
from batchbell.web.bodies import Fields
from batchbell.web.context import Context
from batchbell.web.faults import Code
from batchbell.web.registering import NAME_SHAPE, webhook_url

TEST_SECONDS = 15.0
ENVIRONMENT_NAME = "openai"


class AccountForm:
    """Reads what a body asks of an account, under the address rules of this moment."""

    def __init__(self, context: Context, project_id: str) -> None:
        self._rules = context.rules()
        self._project_id = project_id

    def add(self, body: Any) -> dict[str, Any]:
        """All that a new account is made of. Raises InvalidBody."""
        fields = Fields(body, AccountRequest)
        name = fields.text("name", most=NAME_MAX, pattern=NAME_PATTERN, shape=NAME_SHAPE)
        provider = fields.text("provider", most=NAME_MAX)
        if provider and provider not in ADAPTERS:
            known = ", ".join(sorted(ADAPTERS))
            fields.wrong("provider", f"There is no provider {provider!r}: {known}.")
        base_url = self._base_url(fields) if fields.get("base_url") is not None else OPENAI_URL
        wanted = {
            "name": name,
            "provider": provider,
            "base_url": base_url,
            "credentials": _api_key(fields),
            "discover": fields.flag("discover"),
        }
        fields.raise_problems()
        if self._project_id == DEFAULT_PROJECT and name == ENVIRONMENT_NAME:
            raise InvalidRequest(
                f"The name {name!r} is kept for the account that comes from OPENAI_API_KEY:"
                " choose another.",
                param="name",
                code=Code.NAME_TAKEN,
                status=409,
            )
        return wanted

    def changes(self, body: Any) -> dict[str, Any]:
        """Those of the fields that the body names. Raises InvalidBody."""
        fields = Fields(body, AccountChanges)
        values: dict[str, Any] = {}
        if fields.get("base_url") is not None:
            values["base_url"] = self._base_url(fields)
        if fields.get("api_key") is not None:
            values["credentials"] = _api_key(fields)
        state = fields.get("state")
        if state not in (None, "active", "paused"):
            fields.wrong("state", "state must be active or paused.")
        elif state is not None:
            values["paused"] = state == "paused"
        if fields.get("discover") is not None:
            values["discover"] = fields.flag("discover")
        fields.raise_problems()
        return values

    def _base_url(self, fields: Fields) -> str:
        """As for webhooks: whoever may add an account names a URL that this server calls."""
        url = webhook_url(fields, "base_url", self._rules)[:BASE_URL_MAX]
        try:
            return checked_base(url) if url else ""
        except SettingsError as error:
            fields.wrong("base_url", str(error))
            return ""


def _api_key(fields: Fields) -> str:
    key = fields.text("api_key", most=API_KEY_MAX).strip()
    if key and not is_sendable(key):
        fields.wrong("api_key", "api_key holds a character that no API key has.")
    return key


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
    kept = await context.store.read(enrolling.credentials_of, account.id)
    set_here = context.settings.openai_api_key
    if account.from_environment and set_here is not None:
        return set_here.get_secret_value()
    if kept is None:
        raise InvalidRequest(
            f"This process has no API key for account {account.name!r}: set OPENAI_API_KEY and"
            " start again.",
            code=Code.NO_ACCOUNT,
        )
    return kept


async def probe(context: Context, account: Account, api_key: str) -> AccountTest:
    """List the account's batches once, under the rules that its watcher calls by."""
    rules = None if account.from_environment else context.rules()
    clients: list[ApiClient] = []

    def connect(base_url: str, headers: Any) -> ApiClient:
        client = ApiClient(
            base_url,
            headers,
            rules=rules,
            proxy=provider_proxy(context.settings),
            timeout_seconds=TEST_SECONDS,
        )
        clients.append(client)
        return client

    error: ProviderError | SettingsError | None = None
    begun = time.perf_counter()
    try:
        await open_provider(account, api_key, connect=connect).list_page()
    except (ProviderError, SettingsError) as trouble:
        error = trouble
    finally:
        for client in clients:
            await client.aclose()
    return AccountTest(
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
