"""Merged results: how far they are, and what is in them."""

from __future__ import annotations

from typing import Annotated

from batchbell.api.answers import Answer, Second, about, one_of
from batchbell.core.attachment import ResultsState
from batchbell.core.deletion import DeletionState


class Tokens(Answer, frozen=True, kw_only=True):
    """What the answers of one model used, in tokens."""

    requests: int
    input_tokens: int
    cached_tokens: Annotated[int, about("Of the input's.")]
    output_tokens: int
    reasoning_tokens: int


class ProviderFiles(Answer, frozen=True, kw_only=True):
    """What becomes of the files at the provider that the results were made of."""

    state: Annotated[str, one_of(DeletionState)]
    due_at: Second | None
    deleted_at: Second | None
    reason: Annotated[str | None, about("Why a file is still there, where it was to be deleted.")]


class Results(Answer, frozen=True, kw_only=True):
    """The merged results. Counts and `usage` are what the provider's files hold."""

    state: Annotated[str, one_of(ResultsState)]
    lines: int | None
    bytes: int | None
    succeeded: int | None
    failed: int | None
    not_run: int | None
    in_input_order: bool | None
    usage: Annotated[dict[str, Tokens] | None, about("By model.")]
    notes: Annotated[tuple[str, ...] | None, about("What did not add up.")]
    reason: str | None
    provider_files: ProviderFiles
