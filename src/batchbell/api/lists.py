"""Lists: a page at a time."""

from __future__ import annotations

from typing import Annotated, Generic, TypeVar

from batchbell.api.answers import Object, about

T = TypeVar("T")


class Page(Object, Generic[T], frozen=True, kw_only=True, tag="list"):
    """A page of a list: ask for the next one with `after` set to `last_id`."""

    data: tuple[T, ...]
    first_id: str | None
    last_id: str | None
    has_more: Annotated[bool, about("Whether there is a page after this one.")]
