"""Following events as they are recorded, so that none is missed and few come twice.

Ids sort by the time when they were made, but not always by the time when they can be seen: a
transaction that began earlier may commit later, clocks of two hosts differ, and ids of one
millisecond are in no order. So a reader does not only ask for what comes after the newest id: it
looks again at the ids of the last `OVERLAP_SECONDS`, and leaves out those that it knows.
"""

from __future__ import annotations

import math

from batchbell.core.ids import first_id, time_of

TRANSACTION_SECONDS = 30.0
"""No transaction of a live process that records events lasts longer: the store ends it by then."""
FROZEN_SECONDS = 45.0
"""How much longer one of a process that was stopped may last, until the database ends it: a
statement, and the time that it may be idle."""
OVERLAP_SECONDS = TRANSACTION_SECONDS + FROZEN_SECONDS
"""What is not seen this long after its id was made was never committed."""
KEPT_BEFORE_PRUNING = 1_000


class Window:
    """The ids that came lately, from `after` on, which came already."""

    def __init__(self, after: str) -> None:
        self.newest = after
        self._known = {after}
        self._prune_at = KEPT_BEFORE_PRUNING

    def start(self, *, now: float = math.inf) -> str:
        """From which id on to look again. A newest id from a clock ahead of `now` hides nothing."""
        return first_id("evt", at=min(time_of(self.newest), now) - OVERLAP_SECONDS)

    def is_new(self, id: str) -> bool:
        """Whether it did not come yet."""
        return id not in self._known

    def add(self, id: str, *, now: float = math.inf) -> None:
        """It came. Ids from before the window are forgotten."""
        self._known.add(id)
        self.newest = max(self.newest, id)
        if len(self._known) >= self._prune_at:
            start = self.start(now=now)
            self._known = {known for known in self._known if known >= start}
            self._prune_at = max(KEPT_BEFORE_PRUNING, 2 * len(self._known))
