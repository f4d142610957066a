"""How much a provider takes as one batch, and what a batch is to us."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct


class Limits(Struct, frozen=True, kw_only=True):
    """What a provider takes as one batch."""

    lines: int = 50_000
    bytes: int = 200 * 10**6
    line_bytes: int = 64 * 2**20
    tokens: int | None = None
    """Prompt tokens, by estimate; None where no limit is known."""
    custom_id_characters: int = 512
    custom_id: str | None = None
    """The pattern of a whole custom_id; None where any character may stand in one."""


class BatchKind(StrEnum):
    """What a batch is to us."""

    SINGLE = "single"
    """Somebody made it at the provider."""
    PART = "part"
    """We made it there, for a submission. Only the submission is announced."""
    JOINED = "joined"
    """A submission: it has parts, and no provider knows of it."""
