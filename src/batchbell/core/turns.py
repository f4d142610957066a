"""Whose turn it is: a pool of a few places, shared fairly by owners who want many.

`Turns` is for what waits in memory, `with_room` for what waits in the database.

Pure bookkeeping. The owner with the fewest places is served first, then the owner who was served
longest ago, then what was added first.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from typing import Generic, TypeVar

from msgspec import Struct

Item = TypeVar("Item")


class Turns(Generic[Item]):
    """At most `most` items under way, and at most `most_of_one` of one owner."""

    def __init__(self, *, most: int, most_of_one: int) -> None:
        self._most = most
        self._most_of_one = most_of_one
        self._under_way: Counter[str] = Counter()
        self._waiting: dict[str, deque[Item]] = {}
        """By owner. The one who was served last stands last."""

    @property
    def under_way(self) -> int:
        """Items that were taken and have not ended."""
        return self._under_way.total()

    def add(self, owner: str, item: Item) -> None:
        """Let an item wait for its turn."""
        self._waiting.setdefault(owner, deque()).append(item)

    def take(self) -> tuple[str, Item] | None:
        """The next item, which is under way from now on; None when none may start now."""
        if self.under_way >= self._most:
            return None
        able = [owner for owner in self._waiting if self._under_way[owner] < self._most_of_one]
        if not able:
            return None
        owner = min(able, key=self._under_way.__getitem__)
        waiting = self._waiting.pop(owner)
        item = waiting.popleft()
        if waiting:
            self._waiting[owner] = waiting
        self._under_way[owner] += 1
        return owner, item

    def ended(self, owner: str) -> None:
        """An item of this owner has ended: its place is free."""
        self._under_way[owner] -= 1
        if self._under_way[owner] <= 0:
            del self._under_way[owner]


class Waiting(Struct, frozen=True, kw_only=True):
    """An account with jobs of one kind to be done, and when the first of them is due."""

    account_id: str
    project_id: str
    due_at: float
    """Where all of them are in a worker's hands, when the first lease runs out."""


def with_room(
    waiting: Iterable[Waiting],
    *,
    of_account: Mapping[str, int],
    of_project: Mapping[str, int],
    most_of_account: int,
    most_of_project: int,
) -> list[Waiting]:
    """The accounts of which one more job may be begun now, whose turn it is first.

    Given is how many jobs of each account and project are under way. Who has the fewest comes
    first, then who has waited longest.
    """
    able = [
        (of_project.get(one.project_id, 0), of_account.get(one.account_id, 0), one.due_at, one)
        for one in waiting
        if of_account.get(one.account_id, 0) < most_of_account
        and of_project.get(one.project_id, 0) < most_of_project
    ]
    return [one for *_, one in sorted(able, key=lambda row: row[:3])]
