"""Errors, in OpenAI's shape."""

from __future__ import annotations

from typing import Annotated

from batchbell.api.answers import Answer, about


class Problem(Answer, frozen=True, kw_only=True):
    """One of several things that are wrong with a body."""

    message: str
    param: str | None
    code: str
    index: Annotated[int | None, about("Of an item of a list, from 0.")]
    line: Annotated[int | None, about("Of a file, from 1.")] = None


Problems = Annotated[tuple[Problem, ...], about("All that is wrong, where that is several things.")]


class Error(Answer, frozen=True, kw_only=True):
    message: str
    type: str
    param: str | None
    code: str
    problems: Problems | None = None


class ErrorBody(Answer, frozen=True, kw_only=True):
    """How every error is answered."""

    error: Error


class PassedError(Answer, frozen=True, kw_only=True):
    message: str | None = None
    type: str | None = None
    param: str | None = None
    code: str | int | None = None
    problems: Problems | None = None


class PassedErrorBody(Answer, frozen=True, kw_only=True):
    """An error of ours, or one that the provider answered."""

    error: PassedError | str
