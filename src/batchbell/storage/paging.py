"""Pages of a list, in OpenAI's way: `after` an id, and whether there are more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    items: Sequence[Item]
    has_more: bool


def page_of(found: Sequence[Item], limit: int) -> Page[Item]:
    """A page from up to `limit + 1` items that were read."""
    return Page(found[:limit], len(found) > limit)
