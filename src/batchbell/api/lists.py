"""Lists: a page at a time."""

from __future__ import annotations

from typing import Annotated, Generic, TypeVar

from batchbell.api.answers import Object, about

T = TypeVar("T")


class Page(Object, Generic[T], frozen=True, kw_only=True, tag="list"):
    """A page of a list: ask for the next one with `after` set to `last_id`.

    Where much is to be looked at and little is found, a page may hold fewer than asked for, or
    nothing, and still have more behind it.
    """

    data: tuple[T, ...]
    first_id: str | None
    last_id: Annotated[str | None, about("Where the next page goes on.")]
    has_more: Annotated[bool, about("Whether there is a page after this one.")]
