"""How an error is answered that may be the provider's."""

from __future__ import annotations

from msgspec import Struct


class PassedError(Struct, frozen=True, kw_only=True):
    message: str | None = None
    type: str | None = None
    param: str | None = None
    code: str | int | None = None


class PassedErrorBody(Struct, frozen=True, kw_only=True):
    """An error of ours, or one that the provider answered."""

    error: PassedError | str
