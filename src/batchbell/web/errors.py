"""Every error that is answered, in OpenAI's shape."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import msgspec
from starlette.responses import Response

from batchbell.api import errors as api
from batchbell.api.answers import made_of
from batchbell.core.errors import (
    AccessDenied,
    AddressRefused,
    ChildDied,
    InvalidRequest,
    ProviderUnavailable,
    ResultsGone,
    ResultsUnavailable,
    StoreUnavailable,
    is_full,
)

RETRY_SECONDS = 5
FULL_RETRY_SECONDS = 60
PROBLEMS_MAX = 100
"""Problems of one body that are answered."""


class Code(StrEnum):
    """What programs may compare `error.code` with. Explained in docs/reference/errors.md."""

    INVALID_VALUE = "invalid_value"
    MISSING_FIELD = "missing_field"
    INVALID_JSON = "invalid_json"
    UNKNOWN_PARAMETER = "unknown_parameter"
    DUPLICATE_PARAMETER = "duplicate_parameter"
    UNSUPPORTED_BODY = "unsupported_body"
    BODY_TOO_LARGE = "body_too_large"
    ADDRESS_REFUSED = "address_refused"
    NO_ACCOUNT = "no_account"
    NO_GATEWAY = "no_gateway"
    NO_SUBMISSIONS = "no_submissions"
    UNKNOWN_ACCOUNT = "unknown_account"
    AMBIGUOUS_ACCOUNT = "ambiguous_account"
    TOO_MANY_ENDPOINTS = "too_many_endpoints"
    NOTHING_TO_RESEND = "nothing_to_resend"
    NAME_TAKEN = "name_taken"
    WATCH_DIFFERS = "watch_differs"
    CONFLICT = "conflict"
    ACCOUNT_IN_USE = "account_in_use"
    ACCOUNT_FROM_ENVIRONMENT = "account_from_environment"
    NOT_SEALED = "not_sealed"
    CREDENTIALS_REQUIRED = "credentials_required"
    NOT_FOUND = "not_found"
    UNKNOWN_URL = "unknown_url"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    NO_HOOKS = "no_hooks"
    HOOK_REFUSED = "hook_refused"
    MISSING_API_KEY = "missing_api_key"
    INVALID_API_KEY = "invalid_api_key"
    TOO_MANY_WRONG_KEYS = "too_many_wrong_keys"
    HOST_NOT_ALLOWED = "host_not_allowed"
    ORIGIN_NOT_ALLOWED = "origin_not_allowed"
    REMOTE_NOT_ALLOWED = "remote_not_allowed"
    TOO_MANY_STREAMS = "too_many_streams"
    BODY_STALLED = "body_stalled"
    REQUEST_TIMEOUT = "request_timeout"
    HEADERS_TOO_LARGE = "headers_too_large"
    PROVIDER_UNAVAILABLE = "provider_unavailable"
    NOT_ENDED = "not_ended"
    LINK_EXPIRED = "link_expired"
    TABLES_NOT_INSTALLED = "tables_not_installed"
    RESULTS_NOT_READY = "results_not_ready"
    RESULTS_FAILED = "results_failed"
    RESULTS_EXPUNGED = "results_expunged"
    RANGE_NOT_SATISFIABLE = "range_not_satisfiable"
    RESULTS_GONE = "results_gone"
    WORK_INTERRUPTED = "work_interrupted"
    RESULTS_UNAVAILABLE = "results_unavailable"
    INVALID_REQUESTS = "invalid_requests"
    IDEMPOTENCY_KEY_REUSED = "idempotency_key_reused"
    STORE_UNAVAILABLE = "store_unavailable"
    STORAGE_FULL = "storage_full"
    INTERNAL_ERROR = "internal_error"


KINDS = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong with a body; `index` counts the items of a list from 0."""

    message: str
    param: str | None
    code: str = Code.INVALID_VALUE
    index: int | None = None
    line: int | None = None
    """Of a file, from 1."""


class InvalidBody(InvalidRequest):
    """A body cannot be taken, for one reason or for several; the first one speaks for all."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        first = problems[0]
        others = len(problems) - 1
        message = first.message
        if others:
            listed = f"; `problems` lists the first {PROBLEMS_MAX}"
            message += (
                f" ({others:,} more{listed if others >= PROBLEMS_MAX else ' in `problems`'}.)"
            )
        super().__init__(message, param=first.param, code=first.code)
        self.problems = tuple(problems[:PROBLEMS_MAX])


def error_response(
    status: int,
    message: str,
    *,
    code: str,
    param: str | None = None,
    problems: Sequence[Problem] = (),
    headers: dict[str, str] | None = None,
) -> Response:
    """`{"error": {"message", "type", "param", "code"}}`, and `problems` where there are several.

    One that names a line is listed even if it is the only one.
    """
    listed = len(problems) > 1 or any(problem.line is not None for problem in problems)
    error = api.Error(
        message=message,
        type=KINDS.get(status, "server_error" if status >= 500 else "invalid_request_error"),
        param=param,
        code=str(code),
        problems=tuple(_shown(problem) for problem in problems) if listed else None,
    )
    body = msgspec.json.encode(api.ErrorBody(error=error))
    return Response(body, status, headers, media_type="application/json")


def _shown(problem: Problem) -> api.Problem:
    return made_of(api.Problem, problem, line=problem.line)


def response_to(error: Exception) -> Response:
    """What a caller gets to know of an error. What was not raised on purpose is not explained."""
    match error:
        case InvalidRequest():
            return error_response(
                error.status,
                error.message,
                code=error.code,
                param=error.param,
                problems=error.problems if isinstance(error, InvalidBody) else (),
            )
        case AddressRefused():
            return error_response(400, str(error), code=Code.ADDRESS_REFUSED, param="url")
        case AccessDenied():
            return error_response(
                error.status, error.message, code=error.code, headers=_access_headers(error)
            )
        case ResultsGone():
            return error_response(
                410, "The results were deleted after their time.", code=Code.RESULTS_GONE
            )
        case ProviderUnavailable() | ResultsUnavailable() | StoreUnavailable() | ChildDied():
            return _away(error)
        case _:
            return _unforeseen(error)


def _unforeseen(error: Exception) -> Response:
    if is_full(error):
        return _full()
    return error_response(
        500, "Something went wrong here; the log says what.", code=Code.INTERNAL_ERROR
    )


def _full() -> Response:
    return error_response(
        507,
        "The disk of this server is full. Nothing was written; its operator must make room.",
        code=Code.STORAGE_FULL,
        headers={"Retry-After": str(FULL_RETRY_SECONDS)},
    )


def _access_headers(error: AccessDenied) -> dict[str, str] | None:
    if error.retry_after_seconds is not None:
        return {"Retry-After": str(math.ceil(error.retry_after_seconds))}
    return {"WWW-Authenticate": "Bearer"} if error.status == 401 else None


def _away(
    error: ProviderUnavailable | ResultsUnavailable | StoreUnavailable | ChildDied,
) -> Response:
    """Somebody whom we need does not answer."""
    if is_full(error):
        return _full()
    match error:
        case ProviderUnavailable():
            return error_response(502, error.message, code=Code.PROVIDER_UNAVAILABLE)
        case ResultsUnavailable():
            return _not_now(str(error), Code.RESULTS_UNAVAILABLE)
        case ChildDied():
            return _not_now(str(error), Code.WORK_INTERRUPTED)
        case _:
            return _not_now("The database does not answer just now.", Code.STORE_UNAVAILABLE)


def _not_now(why: str, code: Code) -> Response:
    return error_response(
        503,
        f"{why} Try again in a few seconds.",
        code=code,
        headers={"Retry-After": str(RETRY_SECONDS)},
    )
