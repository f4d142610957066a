"""Lists: what a query asks them for, one page of them, and the query of the page behind it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum
from typing import Any, TypeVar
from urllib.parse import urlencode

from pydantic import BaseModel, model_validator
from starlette.responses import Response

from batchbell.core.errors import InvalidRequest
from batchbell.core.nearest import hint, shown
from batchbell.storage.paging import Page
from batchbell.web.dashboard import formats
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
    """What a list is asked for in its query. What is empty asks for nothing.

    Whatever else is asked for is refused, as it is by the API: a list that ignored a name or a word
    would show what nobody asked for.
    """

    after: str = ""
    """The id that the page before ended with."""

    @model_validator(mode="before")
    @classmethod
    def _is_known(cls, given: Mapping[str, object]) -> Mapping[str, object]:
        for name in given:
            check_word(cls.model_fields, name, "filter")
        return given

    @property
    def filters(self) -> dict[str, str]:
        """All but the page, without what is empty."""
        return {name: value.strip() for name, value in self if name != "after" and value.strip()}


def word_of(words: type[Word], given: str, param: str) -> Word | None:
    """The word that is meant; None for nothing. Raises InvalidRequest for what is no such word."""
    check_word([*words], given, param)
    return words(given) if given else None


def check_word(words: Collection[str], given: str, param: str) -> None:
    """Raises InvalidRequest for what is neither one of these words nor nothing."""
    if given and given not in words:
        says = f"There is no {formats.words(param)} {shown(given)}. {hint(given, words)}"
        raise InvalidRequest(says.rstrip(), param=param)


def since(hours: str, now: float) -> float | None:
    """The moment from which on; None for any. Raises InvalidRequest."""
    check_word([one for one in TIMES if one], hours, "number of hours")
    return now - float(hours) * HOUR if hours else None


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
    newest = urlencode(asked.filters)
    older = urlencode({**asked.filters, "after": page.last_id}) if page.has_more else None
    return {"newest": newest, "older": older, "is_first": not asked.after}
