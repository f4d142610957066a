"""Filters and pages of lists, from a query and back into one."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, TypeVar
from urllib.parse import urlencode

from pydantic import BaseModel

from batchbell.core.errors import InvalidRequest
from batchbell.storage.paging import Page
from batchbell.web.dashboard.formats import HOUR

TIMES: Mapping[str, str] = {
    "": "any time",
    "1": "the last hour",
    "24": "the last 24 hours",
    "168": "the last 7 days",
    "720": "the last 30 days",
}
"""By hours."""

Word = TypeVar("Word", bound=StrEnum)


class Asked(BaseModel):
    """What a list is asked for in its query. What is empty asks for nothing."""

    after: str = ""
    """The id that the page before ended with."""

    @property
    def filters(self) -> dict[str, str]:
        """All but the page, without what is empty."""
        return {name: value.strip() for name, value in self if name != "after" and value.strip()}


def word_of(words: type[Word], given: str) -> Word | None:
    """The word that is meant; None for nothing, and for what is no such word."""
    return words(given) if given in set(words) else None


def since(hours: str, now: float) -> float | None:
    """The moment from which on; None for any."""
    return now - float(hours) * HOUR if hours and hours in TIMES else None


def pairs_of(given: str) -> dict[str, str]:
    """`name=value` and more of them, with commas between. Raises InvalidRequest."""
    pairs = {}
    for one in filter(None, (word.strip() for word in given.split(","))):
        name, sign, value = one.partition("=")
        if not sign or not name.strip():
            raise InvalidRequest(f"Write metadata as name=value, not {one[:80]!r}.")
        pairs[name.strip()] = value.strip()
    return pairs


def older(page: Page[Any], filters: Mapping[str, str]) -> str | None:
    """The query of the page behind this one; None where there is none."""
    if not page.has_more or page.last_id is None:
        return None
    kept = {name: value for name, value in filters.items() if value}
    return urlencode({**kept, "after": page.last_id})
