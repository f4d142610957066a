"""Accounts as they are sent and answered. Credentials are sent only, and answered never."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from batchbell.core.model import NAME_PATTERN, AccountState

NAME_MAX = 100
API_KEY_MAX = 1000
BASE_URL_MAX = 2048

Name = Annotated[str, Meta(pattern=NAME_PATTERN, min_length=1, max_length=NAME_MAX)]
BaseUrl = Annotated[str, Meta(min_length=1, max_length=BASE_URL_MAX)]
ApiKey = Annotated[str, Meta(min_length=1, max_length=API_KEY_MAX)]
Wanted = Literal["active", "paused"]


class AccountRequest(Struct, frozen=True, kw_only=True):
    name: Name
    provider: Annotated[str, Meta(min_length=1, max_length=NAME_MAX)]
    base_url: BaseUrl | None = None
    api_key: ApiKey
    discover: bool = False


class AccountChanges(Struct, frozen=True, kw_only=True):
    base_url: BaseUrl | None = None
    api_key: ApiKey | None = None
    state: Wanted | None = None
    discover: bool | None = None


class Account(Struct, frozen=True, kw_only=True):
    """`source` says who keeps the API key: the `environment` of the processes, or we (`api`)."""

    id: str
    object: Literal["account"] = "account"
    name: str
    provider: str
    base_url: str
    source: Literal["environment", "api"]
    api_key_hint: str | None
    state: AccountState
    trouble: str | None
    list_error: str | None
    retrieve_error: str | None
    list_stale: bool
    discover: bool
    swept_at: int | None
    succeeded_at: int | None
    """When a sweep last ended well."""
    unswept: str | None
    """Why it is not swept, though it should be."""
    created_at: int


class AccountDeleted(Struct, frozen=True, kw_only=True):
    """`open_batches` had not ended, and are watched no more."""

    id: str
    object: Literal["account.deleted"] = "account.deleted"
    deleted: bool = True
    open_batches: int


class AccountTest(Struct, frozen=True, kw_only=True):
    """What came of listing the account's batches once."""

    object: Literal["account.test"] = "account.test"
    account_id: str
    ok: bool
    error: str | None
    message: str | None
    status: int | None
    latency_ms: float
