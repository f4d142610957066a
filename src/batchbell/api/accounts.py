"""Accounts. Credentials are sent only, and answered never."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from batchbell.api.answers import Answer, Object, Second, about, one_of
from batchbell.api.fields import URL_MAX, Flag, Name, Request, Storable, Text
from batchbell.core.account import AccountState

API_KEY_MAX = 1000
HOOK_SECRETS_MAX = 5

BaseUrl = Annotated[
    str,
    Field(min_length=1, max_length=URL_MAX, examples=["https://api.openai.com/v1"]),
    Storable,
]
ApiKey = Annotated[str, Field(min_length=1, max_length=API_KEY_MAX), Storable]


HookSecrets = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=API_KEY_MAX), Storable]],
    Field(max_length=HOOK_SECRETS_MAX, examples=[["whsec_…"]]),
]
"""With these the provider signs its own webhooks; several while one is replaced by another."""


HookAudience = Annotated[str, Field(min_length=1, max_length=URL_MAX), Storable]
"""The `aud` of tokens that sign webhooks about single batches. Default: the address they go to."""


class AccountRequest(Request):
    name: Name
    provider: Annotated[Text, Field(examples=["openai"])] | None = None
    """Default: `openai`."""
    base_url: BaseUrl | None = None
    api_key: ApiKey
    discover: Flag = None
    hook_secrets: HookSecrets | None = None
    hook_audience: HookAudience | None = None


class AccountChanges(Request):
    base_url: BaseUrl | None = None
    api_key: ApiKey | None = None
    state: Literal["active", "paused"] | None = None
    discover: Flag = None
    hook_secrets: HookSecrets | None = None
    """They replace those that are there; none at all turns the webhooks off."""
    hook_audience: HookAudience | None = None


class AccountHooks(Answer, frozen=True, kw_only=True):
    """Webhooks that the provider itself sends when a batch has ended."""

    url: Annotated[str, about("Where the provider is to send them.")]
    secrets: Annotated[int, about("How many secrets they are verified with.")]
    per_batch: Annotated[
        bool, about("Whether single batches may ask for one, which needs no secret.")
    ]
    received_at: Annotated[Second | None, about("When one was last taken.")]
    announced_in_a_row: Annotated[
        int, about("How many ends they have announced since one was missed.")
    ]
    missed_at: Annotated[
        Second | None, about("When an end was last found that none had announced in time.")
    ]
    relaxed: Annotated[bool, about("Whether the account is polled less often because of them.")]


class Account(Object, frozen=True, kw_only=True, tag="account"):
    """An account, without its credentials."""

    id: str
    name: str
    provider: str
    base_url: str
    source: Annotated[
        str,
        one_of(("environment", "api")),
        about("Who keeps the API key: the `environment` of the processes, or we (`api`)."),
    ]
    api_key_hint: str | None
    state: Annotated[str, one_of(AccountState)]
    reason: str | None
    list_error: Annotated[str | None, about("Why its list of batches cannot be read.")]
    retrieve_error: Annotated[str | None, about("Why single batches cannot be read.")]
    list_stale: Annotated[bool, about("Whether the list shows batches as they were.")]
    discover: bool
    hooks: Annotated[AccountHooks | None, about("Null where the provider sends no webhooks.")]
    swept_at: Annotated[Second | None, about("When a sweep last ended.")]
    succeeded_at: Annotated[Second | None, about("When a sweep last ended well.")]
    unswept: Annotated[str | None, about("Why it is not swept, though it should be.")]
    created_at: Second


class AccountDeleted(Object, frozen=True, kw_only=True, tag="account.deleted"):
    id: str
    deleted: Literal[True]
    open_batches: Annotated[int, about("These had not ended, and are watched no more.")]


class AccountTest(Object, frozen=True, kw_only=True, tag="account.test"):
    """What came of listing the account's batches once."""

    account_id: str
    ok: bool
    error: Annotated[str | None, about("A class of errors, such as `auth`.")]
    message: str | None
    status: int | None
    latency_ms: float
