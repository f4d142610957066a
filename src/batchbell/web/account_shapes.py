"""Accounts as they are answered, without their credentials."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from batchbell.core.model import AccountState


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
