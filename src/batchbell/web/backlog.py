"""What should have been done and was not, read from the database by whoever is asked.

No figure here needs a live worker to be true.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from batchbell.core import pacing
from batchbell.core import place as rules
from batchbell.core.model import Account
from batchbell.core.notices import UNREACHABLE_FAILURES
from batchbell.core.place import Place
from batchbell.storage import accounts, deliveries, places, results, submitting
from batchbell.storage.engine import Store

LATE_SECONDS = 120.0
"""What is due for longer is worth a warning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """All accounts, and for how many seconds the oldest work of each kind has been due."""

    at: float
    accounts: Sequence[Account]
    deliveries: float
    results: float
    submissions: float
    places: Sequence[Place]
    """Where processes keep results."""

    @property
    def sweep_ages(self) -> dict[str, float]:
        """Seconds since the last good sweep, by account; paused ones are left out."""
        ages = {one.label: pacing.sweep_age(one, self.at) for one in self.accounts}
        return {label: age for label, age in ages.items() if age is not None}

    def warnings(self) -> list[str]:
        """What does not get on, in sentences that name nobody: everybody may ask."""
        unswept = sum(pacing.unswept(one, self.at) is not None for one in self.accounts)
        failing = sum(one.failures >= UNREACHABLE_FAILURES for one in self.accounts)
        found = {
            f"{_accounts(unswept)} not swept, though it is time: is a worker running?": unswept,
            f"Sweeps of {failing} account{'s' * (failing > 1)} fail.": failing,
            f"A webhook has been due for {self.deliveries:.0f} s.": self.deliveries > LATE_SECONDS,
            f"Results have been due to be merged for {self.results:.0f} s.": self.results
            > LATE_SECONDS,
            f"A submission has been due for {self.submissions:.0f} s.": self.submissions
            > LATE_SECONDS,
        }
        apart = rules.apart(self.places, now=self.at)
        said = [sentence for sentence, is_so in found.items() if is_so]
        return said if apart is None else [*said, apart]


def _accounts(number: int) -> str:
    return "1 account is" if number == 1 else f"{number} accounts are"


async def read_backlog(store: Store, *, now: float) -> Backlog:
    """Raises StoreUnavailable."""

    def late(due: float | None) -> float:
        return 0.0 if due is None else max(0.0, now - due)

    return Backlog(
        at=now,
        accounts=await store.read(accounts.list_accounts),
        deliveries=late(await store.read(deliveries.oldest_past_due, now=now)),
        results=late(await store.read(results.next_due)),
        submissions=late(await store.read(submitting.next_due)),
        places=await store.read(places.list_places),
    )
