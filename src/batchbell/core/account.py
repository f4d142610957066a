"""Accounts: a provider, credentials, and how their sweeps fare."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

DEFAULT_PROJECT = "default"
"""The project that is always there."""


class AccountState(StrEnum):
    """`active` sweeps go out; `failing` ones slowly, and `reason` says why; `paused` ones not."""

    ACTIVE = "active"
    FAILING = "failing"
    PAUSED = "paused"


class Verbs(Struct, frozen=True):
    """Which ways of looking at an account's batches fail. Sweeps go on by the others."""

    list_error: str | None = None
    """Why its list of batches cannot be read, or not to its end."""
    retrieve_error: str | None = None
    """Why batches cannot be read one by one."""
    list_stale: bool = False
    """The list shows batches as they were; they are read one by one until it agrees again."""


class Arrivals(Struct, frozen=True):
    """How webhooks of the provider itself about the account's batches arrive."""

    last_at: float | None = None
    """When one was last taken; None where none ever was."""
    in_a_row: int = 0
    """How many ends they have announced since one was missed."""
    missed_at: float | None = None
    """When the end of a batch was last found that none had announced in time."""


class Account(Struct, frozen=True, kw_only=True):
    """A provider, a base URL and credentials: one rate budget, swept as one.

    Credentials are not here, so that no log line can show them.
    """

    id: str
    project_id: str
    name: str
    provider: str
    base_url: str
    state: AccountState = AccountState.ACTIVE
    reason: str | None = None
    failures: int = 0
    pages: int | None = None
    """List pages that the last listing sweep needed."""
    due_at: float = 0.0
    not_before: float = 0.0
    swept_at: float | None = None
    """When a sweep last ended, well or not."""
    succeeded_at: float | None = None
    """When a sweep last ended well."""
    lease_until: float | None = None
    lease_token: str | None = None
    created_at: float = 0.0
    from_environment: bool = False
    """Its key is in the environment of the processes, and it is not changed by API."""
    discover_since: float | None = None
    """Batches made after this are found in the list, though nobody named them; None if not."""

    hook_audience: str | None = None
    """Whom tokens are for that sign webhooks of its provider; None: whoever its address names."""

    verbs: Verbs = Verbs()
    arrivals: Arrivals = Arrivals()

    @property
    def discovers(self) -> bool:
        return self.discover_since is not None

    @property
    def label(self) -> str:
        """The name that metrics and logs use: names are unique within a project only."""
        return self.name if self.project_id == DEFAULT_PROJECT else f"{self.project_id}/{self.name}"
