"""What is answered about merged results, as types."""

from __future__ import annotations

from msgspec import Struct

from batchbell.core.attachment import ResultsState
from batchbell.core.deletion import DeletionState


class Tokens(Struct, frozen=True, kw_only=True):
    """What the answers of one model used; `cached_tokens` are among the input's."""

    requests: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    reasoning_tokens: int


class ProviderFiles(Struct, frozen=True, kw_only=True):
    """What becomes of the files at the provider that the results were made of.

    `reason` says why something is still there, where it was to be deleted.
    """

    state: DeletionState
    due_at: int | None = None
    deleted_at: int | None = None
    reason: str | None = None


class Results(Struct, frozen=True, kw_only=True):
    """The merged results: counts and `usage` are what the provider's files hold."""

    state: ResultsState
    lines: int | None = None
    bytes: int | None = None
    succeeded: int | None = None
    failed: int | None = None
    not_run: int | None = None
    in_input_order: bool | None = None
    usage: dict[str, Tokens] | None = None
    notes: list[str] | None = None
    """What did not add up."""
    trouble: str | None = None
    provider_files: ProviderFiles
