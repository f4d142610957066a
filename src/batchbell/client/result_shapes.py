"""What the server says of merged results."""

from __future__ import annotations

from msgspec import Struct


class Tokens(Struct, frozen=True, kw_only=True):
    """What the answers of one model used; `cached_tokens` are among the input's."""

    requests: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    reasoning_tokens: int


class ProviderFiles(Struct, frozen=True, kw_only=True):
    """What becomes of the files at the provider: `kept`, `due`, `deleted` or `failed`.

    `reason` says why something is still there, where it was to be deleted.
    """

    state: str
    due_at: int | None = None
    deleted_at: int | None = None
    reason: str | None = None


class Results(Struct, frozen=True, kw_only=True):
    """How far the merged results are, and what is in them."""

    state: str
    lines: int | None = None
    bytes: int | None = None
    succeeded: int | None = None
    failed: int | None = None
    not_run: int | None = None
    in_input_order: bool | None = None
    usage: dict[str, Tokens] | None = None
    notes: tuple[str, ...] | None = None
    trouble: str | None = None
    provider_files: ProviderFiles | None = None
