"""OpenAI's error shape, and the errors that the sandbox answers with."""

from __future__ import annotations

from typing import Any


class ApiError(Exception):
    """An answer other than 2xx; `body()` is what the client reads."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        type_: str = "invalid_request_error",
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.type = type_
        self.headers = headers or {}

    def body(self) -> dict[str, Any]:
        return {
            "error": {
                "message": self.message,
                "type": self.type,
                "param": self.param,
                "code": self.code,
            }
        }


def missing(name: str) -> ApiError:
    """A parameter that must be there is not."""
    return ApiError(
        400,
        f"Missing required parameter: '{name}'.",
        param=name,
        code="missing_required_parameter",
    )


def invalid(name: str, why: str) -> ApiError:
    """A parameter has a value that cannot be taken."""
    return ApiError(400, f"Invalid '{name}': {why}", param=name, code="invalid_value")


def no_batch(batch_id: str) -> ApiError:
    return ApiError(404, f"No batch found with id '{batch_id}'.")


def no_file(file_id: str) -> ApiError:
    return ApiError(404, f"No such File object: {file_id}", param="id")


def bad_key(key: str) -> ApiError:
    if not key:
        return ApiError(
            401,
            "You didn't provide an API key. Send it in an Authorization header: "
            "`Authorization: Bearer YOUR_KEY`.",
        )
    shown = key[:3] + "*" * 8 + key[-4:] if len(key) > 12 else "*" * len(key)
    return ApiError(401, f"Incorrect API key provided: {shown}.", code="invalid_api_key")


def limit_of(text: str | None, *, default: int, maximum: int) -> int:
    """The `limit` of a list call. Zero is an empty page at OpenAI, not an error."""
    if text is None:
        return default
    try:
        limit = int(text)
    except ValueError:
        raise ApiError(
            400,
            f"Invalid type for 'limit': expected an integer, but got {text!r} instead.",
            param="limit",
            code="invalid_type",
        ) from None
    if limit < 0:
        raise _out_of_range(f"below minimum value. Expected a value >= 0, but got {limit}", "below")
    if limit > maximum:
        what = f"above maximum value. Expected a value <= {maximum}, but got {limit}"
        raise _out_of_range(what, "above")
    return limit


def _out_of_range(what: str, side: str) -> ApiError:
    word = "min" if side == "below" else "max"
    return ApiError(
        400,
        f"Invalid 'limit': integer {what} instead.",
        param="limit",
        code=f"integer_{side}_{word}_value",
    )
