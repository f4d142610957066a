"""From the JSON of an OpenAI-shaped batch to a Snapshot.

Strict about what we rely on, an id and a status word; whatever else makes no sense is left out.
100,000 batches may pass through here in one sweep.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any, TypeVar

import msgspec

from batchbell.core.errors import MalformedBatch
from batchbell.core.model import BatchProblem, Counts, Snapshot, Status
from batchbell.core.polling import PAGE_SIZE
from batchbell.providers.protocol import Malformed

T = TypeVar("T")

PROBLEMS_MAX = 100
TEXT_MAX_CHARACTERS = 2_000
ID_MAX_CHARACTERS = 1_000
STATUS_MAX_CHARACTERS = 200
METADATA_MAX = 100
"""OpenAI takes 16 pairs."""
USAGE_MAX = 1_000
USAGE_MAX_BYTES = 20_000
LATEST_SECONDS = 100_000_000_000
"""Beyond this a number is no epoch second: it may be milliseconds, or nonsense."""

STATUSES: Mapping[str, Status] = {
    **{status.value: status for status in Status if status is not Status.LOST},
    "created": Status.VALIDATING,
    "scheduling": Status.VALIDATING,
    "canceling": Status.CANCELLING,
    "canceled": Status.CANCELLED,
}
"""Words in lower case. `lost` is ours alone: no provider may say it."""

STAMPS = (
    "created_at",
    "in_progress_at",
    "expires_at",
    "finalizing_at",
    "completed_at",
    "failed_at",
    "expired_at",
    "cancelling_at",
    "cancelled_at",
)


class Row(msgspec.Struct, gc=False):
    """A batch as it came; nothing in it is to be trusted yet."""

    id: Any = None
    status: Any = None
    endpoint: Any = None
    model: Any = None
    completion_window: Any = None
    input_file_id: Any = None
    output_file_id: Any = None
    error_file_id: Any = None
    created_at: Any = None
    in_progress_at: Any = None
    expires_at: Any = None
    finalizing_at: Any = None
    completed_at: Any = None
    failed_at: Any = None
    expired_at: Any = None
    cancelling_at: Any = None
    cancelled_at: Any = None
    request_counts: Any = None
    errors: Any = None
    error: Any = None
    usage: Any = None
    metadata: Any = None


class Named(msgspec.Struct):
    """What is left of a row that makes no sense."""

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


def snapshot_from(raw: bytes | msgspec.Raw) -> Snapshot:
    """The snapshot in the JSON of one batch. Raises MalformedBatch."""
    try:
        return snapshot_of(decode(raw, Row))
    except Undecodable as error:
        raise MalformedBatch(f"A batch is not a JSON object: {error}"[:200]) from None


ROWS_MAX = 10 * PAGE_SIZE
"""Rows of one page that are read: a host that does not page may send more than were asked for."""
SCANNED_BYTES = 256 * 2**10
"""A longer page is read row by row, and only as far as its rows count."""
SPACE = re.compile(r"[ \t\r\n]*")


class Listing(msgspec.Struct):
    """A list page whose rows are read one by one, so that one bad row spoils only itself.

    Go writes an empty list as null.
    """

    data: list[Any] | None
    has_more: Any = None
    last_id: Any = None
    surplus: bool = False
    """Whether there were more rows than are read."""


class _RawListing(msgspec.Struct):
    data: list[msgspec.Raw] | None
    has_more: Any = None
    last_id: Any = None


def listing_in(body: bytes) -> Listing:
    """The rows of a list answer, at most `ROWS_MAX`. Raises Undecodable where it is no list.

    Some hosts answer with a bare array.
    """
    if len(body) > SCANNED_BYTES:
        return _scanned(body)
    found = decode(body, _RawListing | list[msgspec.Raw])  # type: ignore[arg-type]
    if isinstance(found, list):
        found = _RawListing(data=found)
    rows: list[Any] = found.data or []
    return Listing(rows[:ROWS_MAX], found.has_more, found.last_id, len(rows) > ROWS_MAX)


def _scanned(body: bytes) -> Listing:
    """The same without a decode of the whole: what is small as text may be large in memory."""
    text = body.decode("utf-8-sig", "replace")
    try:
        start = _past_space(text, 0)
        if text[start] == "[":
            return _elements(text, start)[0]
        return _members(text, start)
    except (ValueError, IndexError, RecursionError) as error:
        raise Undecodable(str(error)[:200]) from None


_scan = json.JSONDecoder(parse_constant=lambda _: None).raw_decode


def _past_space(text: str, at: int) -> int:
    found = SPACE.match(text, at)
    return at if found is None else found.end()


def _elements(text: str, at: int) -> tuple[Listing, int]:
    """The elements of the array that begins here, and where it ends; surplus ones are not read."""
    rows: list[Any] = []
    at = _past_space(text, at + 1)
    while text[at] != "]":
        if len(rows) == ROWS_MAX:
            return Listing(rows, has_more=True, surplus=True), at
        row, at = _scan(text, at)
        rows.append(row)
        at = _past_space(text, at)
        if text[at] == ",":
            at = _past_space(text, at + 1)
    return Listing(rows), at + 1


def _members(text: str, at: int) -> Listing:
    """The listing in the object that begins here. Nothing after surplus rows is read."""
    if text[at] != "{":
        raise ValueError("The answer is no object.")
    listing, others = None, {}
    at = _past_space(text, at + 1)
    while text[at] != "}":
        name, at = _scan(text, at)
        at = _past_space(text, at)
        if text[at] != ":":
            raise ValueError("The answer is no object.")
        at = _past_space(text, at + 1)
        if name == "data" and text[at] == "[":
            listing, at = _elements(text, at)
            if listing.surplus:
                return listing
        else:
            others[str(name)[:20]], at = _scan(text, at)
        at = _past_space(text, at)
        if text[at] == ",":
            at = _past_space(text, at + 1)
    if listing is None:
        if others.get("data", 0) is not None:
            raise ValueError("The answer has no list.")
        listing = Listing([])
    return Listing(listing.data, others.get("has_more"), others.get("last_id"))


def read_row(row: Any) -> Snapshot | Malformed:
    """One row of a list, decoded once: a batch, or what is wrong with it."""
    try:
        found = decode(row, Row) if isinstance(row, msgspec.Raw) else msgspec.convert(row, Row)
    except (Undecodable, msgspec.ValidationError) as error:
        return Malformed(None, f"A batch is not a JSON object: {error}"[:200])
    try:
        return snapshot_of(found)
    except MalformedBatch as error:
        named = isinstance(found.id, str) and 0 < len(found.id) <= ID_MAX_CHARACTERS
        return Malformed(found.id if named else None, error.message)


def snapshot_of(row: Row) -> Snapshot:
    """The snapshot of one row. Raises MalformedBatch."""
    if not isinstance(row.id, str) or not 0 < len(row.id) <= ID_MAX_CHARACTERS:
        raise MalformedBatch("A batch has no id.")
    if not isinstance(row.status, str) or not row.status:
        raise MalformedBatch("The batch has no status.")
    return Snapshot(
        id=row.id,
        provider_status=row.status[:STATUS_MAX_CHARACTERS],
        status=STATUSES.get(row.status.lower()),
        counts=_counts(row.request_counts),
        endpoint=_text(row.endpoint),
        model=_text(row.model),
        completion_window=_text(row.completion_window),
        input_file_id=_text(row.input_file_id),
        output_file_id=_text(row.output_file_id),
        error_file_id=_text(row.error_file_id),
        timestamps=_timestamps(row),
        problems=_problems(row) if row.errors or row.error else (),
        usage=_usage(row.usage),
        metadata=_metadata(row.metadata) if isinstance(row.metadata, dict) else None,
    )


def id_in(raw: bytes | msgspec.Raw) -> str | None:
    """The id of a row that makes no sense, if that much can be read."""
    try:
        identity = decode(raw, Named).id
    except Undecodable:
        return None
    return identity if isinstance(identity, str) and identity else None


def _text(value: Any) -> str | None:
    """Providers write "" where they mean null. Nothing that we keep is as long as the limit."""
    good = isinstance(value, str) and 0 < len(value) <= TEXT_MAX_CHARACTERS
    return value if good else None


def _usage(value: Any) -> dict[str, Any] | None:
    if not isinstance(value, dict) or len(value) > USAGE_MAX:
        return None
    try:
        return value if len(msgspec.json.encode(value)) <= USAGE_MAX_BYTES else None
    except (ValueError, RecursionError):
        return None


def _timestamps(row: Row) -> dict[str, int]:
    stamps = {}
    for name in STAMPS:
        value = getattr(row, name)
        if value is not None:
            seconds = epoch_seconds(value)
            if seconds is not None:
                stamps[name] = seconds
    return stamps


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


def _counts(value: Any) -> Counts | None:
    """The counts under any of their names; they are whole where all are there and agree.

    Anthropic's have no total: it is the sum of all ends.
    """
    if not isinstance(value, dict):
        return None
    total, completed, failed = (_first(value, names) for names in (TOTAL, COMPLETED, FAILED))
    if total is None and completed is None and failed is None:
        return None
    others = sum(_count(value.get(name)) or 0 for name in NOT_RUN)
    done = (completed or 0) + (failed or 0)
    known = completed is not None and failed is not None
    if total is None:
        known = known and not value.keys() & set(TOTAL)
        return Counts(
            total=done + others, completed=completed or 0, failed=failed or 0, whole=known
        )
    if failed is None and completed == total:
        known = True
    whole = known and done <= total
    return Counts(total=total, completed=completed or 0, failed=failed or 0, whole=whole)


def _first(value: Mapping[str, Any], names: Sequence[str]) -> int | None:
    counts = (_count(value.get(name)) for name in names)
    return next((count for count in counts if count is not None), None)


def _count(value: Any) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 16:
        return int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if type(value) is int and 0 <= value < 10**15 else None


def _problems(row: Row) -> tuple[BatchProblem, ...]:
    found = row.errors.get("data") if isinstance(row.errors, dict) else row.errors
    if not isinstance(found, list):
        found = [row.error] if row.error else []
    return tuple(_problem(entry) for entry in found[:PROBLEMS_MAX] if entry)


def _problem(entry: Any) -> BatchProblem:
    if not isinstance(entry, dict):
        return BatchProblem(code=None, message=_shown(entry))
    return BatchProblem(
        code=_shown(entry.get("code")),
        message=_shown(entry.get("message")),
        param=_shown(entry.get("param")),
        line=_count(entry.get("line")),
    )


def _shown(value: Any) -> str | None:
    if value is None or value == "":
        return None
    return _as_text(value)[:TEXT_MAX_CHARACTERS]


def _metadata(values: dict[Any, Any]) -> dict[str, str]:
    told = islice(((k, v) for k, v in values.items() if v is not None), METADATA_MAX)
    return {str(key)[:TEXT_MAX_CHARACTERS]: _as_text(v)[:TEXT_MAX_CHARACTERS] for key, v in told}


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
