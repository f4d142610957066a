"""How a dialect writes a request on a line, as far as a submission must know it.

Inside Batchbell a request has OpenAI's shape: `custom_id`, `method`, `url` and `body`. `files.
preflight` reads a form into it, and the dialect's `Lines.own` writes it back.
"""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum

from msgspec import Struct


class ModelPlace(StrEnum):
    """Where a batch names its model."""

    ONE = "one"
    """In each request, and all requests of a batch have the same."""
    ANY = "any"
    """In each request, and each may have another."""
    APART = "apart"
    """Beside the requests, which have one."""


class Form(Struct, frozen=True, kw_only=True):
    """A line of requests."""

    identity: str = "custom_id"
    """The field that says whose a line is."""
    body: str = "body"
    """The field with the request itself."""
    addressed: bool = True
    """Whether a line has `method` and `url`, and whatever else OpenAI may come to read."""
    endpoint: str | None = None
    """What is asked where nobody says otherwise."""
    endpoints: Collection[str] = ()
    """All that can be asked; empty where a provider may know others."""
    model: ModelPlace = ModelPlace.ONE
