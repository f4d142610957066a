"""What may be raised by the client.

ClientError
├── ServerUnreachable     no connection, or it broke: is the server running?
├── WaitTimedOut          the batch has not ended in the time given
└── ApiError              the server answered with an error
    ├── AccessRefused     401, 403: the key is missing or wrong, or keys must be made first
    ├── NothingFound      404
    └── ServerUnavailable 5xx: worth trying again
"""

from __future__ import annotations

from batchbell.api.errors import Problem
from batchbell.core.errors import BatchbellError


class ClientError(BatchbellError):
    """The root of the client's errors."""


class ServerUnreachable(ClientError):
    """No connection, or it broke. Whether the server did what was asked is not known."""


class WaitTimedOut(ClientError):
    """The batch has not ended in the time given."""


class ApiError(ClientError):
    """The server answered with an error: `message`, `param`, `code` and the HTTP `status`.

    `problems` are all that was wrong, where that was more than one thing.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int,
        code: str | None = None,
        param: str | None = None,
        problems: tuple[Problem, ...] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.code = code
        self.param = param
        self.problems = problems


class AccessRefused(ApiError):
    """401 or 403: no key, a wrong key, or a server that takes calls from its own machine only."""


class NothingFound(ApiError):
    """404: nothing of that id."""


class ServerUnavailable(ApiError):
    """5xx: the server cannot answer now."""


def api_error(
    message: str,
    *,
    status: int,
    code: str | None = None,
    param: str | None = None,
    problems: tuple[Problem, ...] = (),
) -> ApiError:
    """The class that fits the status."""
    kind: type[ApiError] = ApiError
    if status in (401, 403):
        kind = AccessRefused
    elif status == 404:
        kind = NothingFound
    elif status >= 500:
        kind = ServerUnavailable
    return kind(message, status=status, code=code, param=param, problems=problems)
