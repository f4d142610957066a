"""Plain values out of whatever JSON a provider sends.

Tolerant: what makes no sense is None. 100,000 batches may pass through here in one sweep.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any, TypeVar

import msgspec

from batchbell.core.model import BatchProblem, Counts

T = TypeVar("T")

TEXT_MAX_CHARACTERS = 2_000
ID_MAX_CHARACTERS = 1_000
STATUS_MAX_CHARACTERS = 200
METADATA_MAX = 100
PROBLEMS_MAX = 100
USAGE_MAX = 1_000
USAGE_MAX_BYTES = 20_000
LATEST_SECONDS = 100_000_000_000
"""Beyond this a number is no epoch second: it may be milliseconds, or nonsense."""


class _Named(msgspec.Struct):
    """What is left of an object that makes no sense."""

    id: Any = None


class Undecodable(ValueError):
    """This is not JSON, or not of the shape that was asked for."""


def decode(body: bytes | msgspec.Raw, type_: type[T]) -> T:
    """Decode JSON, mended where only its texts are broken. Raises Undecodable."""
    try:
        return msgspec.json.decode(body, type=type_)
    except msgspec.ValidationError as error:
        raise Undecodable(str(error)) from None  # whole JSON of another shape: nothing to mend
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        pass
    try:
        return msgspec.json.decode(_mended(bytes(body)), type=type_)
    except (ValueError, RecursionError) as error:
        raise Undecodable(str(error)) from None


def _mended(body: bytes) -> bytes:
    """Without half a surrogate pair, bytes that are no UTF-8, or NaN: one row, one odd letter."""
    value = json.loads(body.decode("utf-8-sig", "replace"), parse_constant=lambda _: None)
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")


def without_nul(body: bytes) -> bytes:
    """PostgreSQL takes no U+0000 in a text."""
    return body.replace(b"\\u0000", b"\\ufffd") if b"\\u0000" in body else body


def id_in(raw: bytes | msgspec.Raw) -> str | None:
    """The id of a row that makes no sense, if that much can be read."""
    try:
        identity = decode(raw, _Named).id
    except Undecodable:
        return None
    return identity if isinstance(identity, str) and identity else None


def text_of(value: Any) -> str | None:
    """Providers write "" where they mean null. Nothing that we keep is as long as the limit."""
    good = isinstance(value, str) and 0 < len(value) <= TEXT_MAX_CHARACTERS
    return value if good else None


def usage_of(value: Any) -> dict[str, Any] | None:
    if not isinstance(value, dict) or len(value) > USAGE_MAX:
        return None
    try:
        return value if len(msgspec.json.encode(value)) <= USAGE_MAX_BYTES else None
    except (ValueError, RecursionError):
        return None


def epoch_seconds(value: Any) -> int | None:
    """Unix seconds as a number or digits, RFC 3339, or a bare date (UTC); None for the rest.

    A number that would be far beyond any calendar is in milli-, micro- or nanoseconds, as some
    clocks count, and is read as such.
    """
    if type(value) is int:
        while LATEST_SECONDS <= value < LATEST_SECONDS * 10**9:
            value //= 1000
        return value if 0 < value < LATEST_SECONDS else None
    if isinstance(value, float):
        return epoch_seconds(int(value)) if math.isfinite(value) else None
    if not isinstance(value, str) or len(value) > 40:
        return None
    try:
        return epoch_seconds(float(value))
    except ValueError:
        return _iso_seconds(value)


def stamps_of(named: Mapping[str, Any]) -> dict[str, int]:
    """The times that make sense, by name."""
    return {
        name: seconds
        for name, value in named.items()
        if value is not None and (seconds := epoch_seconds(value)) is not None
    }


def _iso_seconds(text: str) -> int | None:
    try:
        time = datetime.fromisoformat(text.strip())
        aware = time if time.tzinfo else time.replace(tzinfo=UTC)
        return epoch_seconds(int(aware.timestamp()))
    except (ValueError, OverflowError):
        return None


TOTAL = ("total", "total_requests", "total_count")
COMPLETED = ("completed", "succeeded", "success", "successful", "completed_requests")
FAILED = ("failed", "errored", "error", "errors", "failed_requests")
NOT_RUN = ("canceled", "cancelled", "expired", "processing", "pending", "in_progress", "queued")


def counts_of(value: Any) -> Counts | None:
    """The counts under any of their names; they are whole where all are there and agree.

    Anthropic's have no total: it is the sum of all ends.
    """
    if not isinstance(value, dict):
        return None
    total, completed, failed = (_first(value, names) for names in (TOTAL, COMPLETED, FAILED))
    if total is None and completed is None and failed is None:
        return None
    done = (completed or 0) + (failed or 0)
    known = completed is not None and failed is not None
    if total is None:
        known = known and not value.keys() & set(TOTAL)
        others = sum(count_of(value.get(name)) or 0 for name in NOT_RUN)
        return Counts(
            total=done + others, completed=completed or 0, failed=failed or 0, whole=known
        )
    if failed is None and completed == total:
        known = True
    whole = known and done <= total
    return Counts(total=total, completed=completed or 0, failed=failed or 0, whole=whole)


def _first(value: Mapping[str, Any], names: Sequence[str]) -> int | None:
    for name in names:
        if (count := count_of(value.get(name))) is not None:
            return count
    return None


def count_of(value: Any) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 16:
        return int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if type(value) is int and 0 <= value < 10**15 else None


def problem_of(entry: Any) -> BatchProblem:
    """One of the provider's errors about a batch."""
    if not isinstance(entry, dict):
        return BatchProblem(code=None, message=shown_of(entry))
    return BatchProblem(
        code=shown_of(entry.get("code")),
        message=shown_of(entry.get("message")),
        param=shown_of(entry.get("param")),
        line=count_of(entry.get("line")),
    )


def shown_of(value: Any) -> str | None:
    if value is None or value == "":
        return None
    return _as_text(value)[:TEXT_MAX_CHARACTERS]


def metadata_of(values: dict[Any, Any]) -> dict[str, str]:
    pairs = islice(((k, v) for k, v in values.items() if v is not None), METADATA_MAX)
    return {str(key)[:TEXT_MAX_CHARACTERS]: _as_text(v)[:TEXT_MAX_CHARACTERS] for key, v in pairs}


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
