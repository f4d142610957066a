"""Filters and pages of lists, from a query and back into one."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, TypeVar
from urllib.parse import urlencode

from batchbell.storage.paging import Page

Word = TypeVar("Word", bound=StrEnum)


def word_of(words: type[Word], given: str) -> Word | None:
    """The word that is meant; None for nothing, and for what is no such word."""
    return words(given) if given in set(words) else None


def older(page: Page[Any], filters: Mapping[str, str]) -> str | None:
    """The query of the page behind this one; None where there is none."""
    if not page.has_more:
        return None
    kept = {name: value for name, value in filters.items() if value}
    return urlencode({**kept, "after": page.items[-1].id})
