"""Accounts that the operator declares, in the environment or in the settings file.

Their API keys stay in the environment of each process, and are never stored.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from batchbell.core.account import DEFAULT_PROJECT, Account
from batchbell.core.limits import Limits
from batchbell.core.model import Batch
from batchbell.core.polling import Pace
from batchbell.core.submission import Expiry


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """One account, of the project `default`."""

    name: str
    provider: str
    base_url: str
    key: str = field(repr=False)
    key_variable: str
    """Where the key was read."""
    hook_secrets: tuple[str, ...] = field(default=(), repr=False)
    """With these the provider signs its own webhooks."""
    hook_audience: str | None = None
    """As in `Account`."""
    in_file: bool
    """Whether a table of the settings file names it; else the variable alone makes it."""
    discover: bool
    pace: Pace
    expiry: Expiry
    limits: Limits
    """What is submitted as one batch."""


class Declarations:
    """All of them, in their order; names are unique."""

    def __init__(self, accounts: Iterable[Declared] = ()) -> None:
        self._known = {one.name: one for one in accounts}

    def __iter__(self) -> Iterator[Declared]:
        return iter(self._known.values())

    def __contains__(self, name: str) -> bool:
        return name in self._known

    def of(self, account: Account) -> Declared | None:
        """The declaration of an account; None where it was added by API, or is declared no more."""
        return self._known.get(account.name) if account.from_environment else None

    def of_batch(self, batch: Batch) -> Declared | None:
        """The declaration of the account that a batch is in. No other account has its name."""
        ours = batch.project_id == DEFAULT_PROJECT
        return self._known.get(batch.account) if ours else None

    def key_of(self, account: Account) -> str | None:
        """The API key of a declared account."""
        found = self.of(account)
        return None if found is None else found.key
