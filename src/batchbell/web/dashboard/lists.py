"""Lists: what a query asks them for, one page of them, and the query of the page behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, TypeVar
from urllib.parse import urlencode

from pydantic import BaseModel
from starlette.responses import Response

from batchbell.core.errors import InvalidRequest
from batchbell.storage.paging import Page
from batchbell.web.dashboard.formats import HOUR
from batchbell.web.dashboard.page import Visitor, show

PAGE = 50
"""Rows of one page."""

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


def show_list(
    visitor: Visitor,
    section: str,
    page: Page[Any],
    asked: Asked,
    *,
    rows: Sequence[Any] | None = None,
    **more: Any,
) -> Response:
    """A page of a section's list; `rows` are what is shown of its items."""
    return show(
        visitor,
        f"{section}.html",
        section=section,
        title=section.capitalize(),
        rows=page.items if rows is None else rows,
        filters=asked,
        times=TIMES,
        **paging(page, asked),
        **more,
    )


def paging(page: Page[Any], asked: Asked) -> dict[str, Any]:
    """What the links below a list are made of."""
    older = urlencode({**asked.filters, "after": page.last_id}) if page.has_more else None
    return {"older": older, "is_first": not asked.after}
