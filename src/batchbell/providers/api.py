"""What an adapter needs of HTTP, and how it reads a refusal."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from batchbell.core import backoff
from batchbell.core.errors import (
    ProviderAuthError,
    ProviderBillingError,
    ProviderError,
    ProviderNotFound,
    ProviderRateLimited,
    ProviderRejected,
    ProviderUnavailable,
)

MESSAGE_MAX_CHARACTERS = 300
BILLING_CODES = frozenset(
    {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "billing_error"}
)
KEY_LIKE = re.compile(r"\b(sk|bb|whsec|gsk|xai)[-_][A-Za-z0-9*_.-]{3,}|(?i:bearer)\s+\S+")
DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|h|m|s)")
UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}

Reply = tuple[int, Mapping[str, str], bytes]
"""Status, headers (to be asked for in lower case) and body."""


class Api(Protocol):
    """HTTP under one base URL; raises ProviderUnavailable where no whole answer came."""

    async def get_json_bytes(self, path: str, params: Mapping[str, str] | None = None) -> Reply:
        """GET."""
        ...

    async def post(
        self, path: str, body: bytes | None = None, *, timeout_seconds: float | None = None
    ) -> Reply:
        """POST JSON, or nothing. A call that creates something is given longer than others."""
        ...

    async def upload(self, path: str, file: Path, *, name: str, fields: Mapping[str, str]) -> Reply:
        """POST a file as multipart form data, from the disk."""
        ...

    async def delete(self, path: str) -> Reply:
        """DELETE."""
        ...

    def stream(
        self, path: str, *, refuse: Callable[[int, Mapping[str, str], bytes], Exception]
    ) -> AsyncIterator[bytes]:
        """The body of a GET as it arrives; raises what `refuse` makes of a bad status."""
        ...


def quote_segment(identity: str) -> str:
    """An id as one segment of a path: no character of it can end or climb out of the segment."""
    quoted = quote(identity, safe="")
    return quoted.replace(".", "%2E") if quoted in (".", "..") else quoted


def refusal(
    status: int, headers: Mapping[str, str], body: bytes, *, now: float, secret: str
) -> ProviderError:
    """The error that an answer other than 2xx stands for.

    Its message is the provider's own, shortened, and without `secret` or what looks like a key.
    """
    message, code = _said(body)
    type_ = _class_of(status, code, from_api=_is_from_api(body))
    text = clean(message or _plain(status, headers, type_), secret)
    wait = wait_seconds(headers, now=now)
    if type_ is ProviderRateLimited and wait is None:
        wait = duration_seconds(headers.get("x-ratelimit-reset-requests"))
    return type_(text, status=status, code=code, retry_after_seconds=wait)


def _class_of(status: int, code: str | None, *, from_api: bool) -> type[ProviderError]:
    if status == 402 or (400 <= status < 500 and code in BILLING_CODES):
        return ProviderBillingError
    if status in (404, 410):
        # Neither a proxy's page nor a wrong base URL knows of batches: every one would be lost.
        return ProviderNotFound if from_api and code != "unknown_url" else ProviderUnavailable
    if status in (401, 403):
        return ProviderAuthError
    if status == 429:
        return ProviderRateLimited
    if 400 <= status < 500 and status not in (408, 409):
        return ProviderRejected
    return ProviderUnavailable


def _is_from_api(body: bytes) -> bool:
    """Whether the answer is JSON, or at least says nothing else."""
    try:
        return not body.strip() or json.loads(body) is not None
    except (ValueError, RecursionError):
        return False


def _said(body: bytes) -> tuple[str | None, str | None]:
    """The message and the code of `{"error": {"message", "type", "code"}}`, in any of its forms."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return None, None
    error = answer.get("error", answer) if isinstance(answer, dict) else None
    if isinstance(error, str):
        return error, None
    if not isinstance(error, dict):
        return None, None
    words = [_word(error.get(name)) for name in ("code", "type")]
    code = next((w for w in words if w in BILLING_CODES), words[0] or words[1])
    return _word(error.get("message")), code


def _word(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _plain(status: int, headers: Mapping[str, str], type_: type[ProviderError]) -> str:
    if 300 <= status < 400:
        where = headers.get("location", "another address")
        return f"The provider redirects to {where}: is the base URL right?"
    if type_ is ProviderUnavailable and status in (404, 410):
        return f"Something that is not the provider's API answered {status}: is the base URL right?"
    return f"The provider answered {status}."


def clean(text: str, secret: str) -> str:
    """Short, printable, and without keys: providers like to quote the key that they refuse."""
    if secret:
        text = text.replace(secret, "[key]")
    text = KEY_LIKE.sub("[key]", text[: 4 * MESSAGE_MAX_CHARACTERS])
    text = "".join(c if c.isprintable() else " " for c in text).strip()
    return text if len(text) <= MESSAGE_MAX_CHARACTERS else text[:MESSAGE_MAX_CHARACTERS] + "…"


def wait_seconds(headers: Mapping[str, str], *, now: float) -> float | None:
    """`retry-after-ms`, else `retry-after`, as seconds from now; None without a sensible one."""
    milliseconds = headers.get("retry-after-ms", "").strip()
    if re.fullmatch(r"\d{1,12}(\.\d+)?", milliseconds):
        return min(float(milliseconds) / 1000, backoff.RETRY_AFTER_MAX_SECONDS)
    return backoff.retry_after(headers.get("retry-after"), now=now)


def duration_seconds(text: str | None) -> float | None:
    """A duration as `x-ratelimit-reset-requests` writes it: `1s`, `6m0s`, `20ms`, or seconds."""
    text = (text or "").strip()
    if re.fullmatch(r"\d{1,12}(\.\d+)?", text):
        return min(float(text), backoff.RETRY_AFTER_MAX_SECONDS)
    parts = DURATION.findall(text[:40])
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    seconds = sum(float(number) * UNIT_SECONDS[unit] for number, unit in parts)
    return min(seconds, backoff.RETRY_AFTER_MAX_SECONDS)
