"""From what happened to the exact bytes that are sent.

An event's canonical body is written once, when it happens: OpenAI's event shape and more beside
it, so that OpenAI's SDKs unwrap it. What only one watch asked for is added at the moment of
sending, without reading the body again.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from batchbell.core import alarms
from batchbell.core.attachment import Attachment
from batchbell.core.model import Alarm, Batch, Counts, Dialect, EventType, Snapshot, Status
from batchbell.core.notices import Notice

PROBLEMS_MAX = 10
BODY_MAX_BYTES = 20_000
"""Standard Webhooks asks for small payloads; what does not fit is dropped, and named."""
FRONT_MAX_BYTES = 512
"""Kept free in a canonical body for the fields that one watch adds."""
TEXT_MAX_BYTES = 400
"""No text stays longer than this where the body would be too long."""
DROPPABLE = ("metadata", "errors", "usage", "parts")
CUTTABLE = ("last_error", "needs_you", "reason")
"""Texts of a notice that providers and receivers had a say in."""
LAST_SECOND = 253_402_300_799
"""The end of the year 9999, where calendars end."""

SUSPECT = re.compile(r"NaN|Infinity|\\u[dD]")
"""In JSON that not every parser takes, or in words."""
ESCAPE = re.compile(r"\\(?:(ud[89ab]..\\ud[c-f]..)|(ud[89a-f]..)|.)")

RETRYABLE_CODES = frozenset({"token_limit_exceeded"})
"""Failures of the moment: the same input passes when other batches of the model have ended."""

NOT_FOUND = {
    "code": "batch_not_found",
    "message": "The provider knows no batch of this id for this account (404, confirmed twice).",
}


_encoded = json.JSONEncoder(separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode


def compact(value: Any) -> str:
    """JSON as it is sent: ASCII, no spaces, and only what every parser takes.

    Half a surrogate pair becomes U+FFFD: providers cut texts in the middle of an emoji. Raises
    ValueError for NaN and infinities.
    """
    text = _encoded(value)
    return ESCAPE.sub(_whole, text) if "\\ud" in text else text


def _whole(escape: re.Match[str]) -> str:
    return "\\ufffd" if escape[2] else escape[0]


def event_body(
    event_id: str,
    type_: EventType,
    batch: Batch,
    *,
    occurred_at: float,
    encode: Callable[[Any], str] = compact,
) -> str:
    """The canonical body of an event about `batch` as it now is.

    `encode` writes as `compact` does, and may be faster. At most `BODY_MAX_BYTES - FRONT_MAX_BYTES`
    long, whatever the provider said: error texts are cut (and end in `…`), then whole parts are
    left out, and `data.omitted` names them.
    """
    return _fit(_event(event_id, type_, describe(batch), occurred_at), encode)


def alarm_body(event_id: str, alarm: Alarm, batch: Batch, *, about: Batch, now: float) -> str:
    """The canonical body of `batch.stalled` and `batch.expiring_soon`.

    `about` is the batch itself, or the part of a submission that it rings for.
    """
    data = describe(batch) | alarm_object(alarm, about)
    return _fit(_event(event_id, alarms.EVENT_OF[alarm], data, now))


def alarm_object(alarm: Alarm, about: Batch) -> dict[str, Any]:
    """Why an alarm rings, under `data`."""
    return {
        "cause": alarm.value,
        "reason": alarms.reason(alarm, about),
        "batch_id": about.id,
        "provider_status": about.snapshot.provider_status if about.snapshot else None,
        "expires_at": _whole_second(alarms.expires_at(about)),
        "last_progress_at": _whole_second(about.progress_at),
    }


def _whole_second(time: float | None) -> int | None:
    return None if time is None else int(min(max(0.0, time), LAST_SECOND))


def notice_body(event_id: str, notice: Notice) -> str:
    """The canonical body of a notice: as long as that of a batch's event at most."""
    data = {k: _short(v) if k in CUTTABLE and v else v for k, v in notice.data.items()}
    return _fit(_event(event_id, notice.type, data, notice.at))


def _event(
    event_id: str, type_: EventType, data: dict[str, Any], occurred_at: float
) -> dict[str, Any]:
    second = int(min(max(0.0, occurred_at), LAST_SECOND))
    return {
        "id": event_id,
        "object": "event",
        "type": type_.value,
        "created_at": second,
        "timestamp": _stamp(second),
        "data": data,
    }


@lru_cache(maxsize=256)
def _stamp(second: int) -> str:
    """Of what is seen together, many have ended in the same second."""
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _fit(event: dict[str, Any], encode: Callable[[Any], str] = compact) -> str:
    data = event["data"]
    body = _sendable(event, encode)
    if body is None:
        for part in DROPPABLE:
            if _sendable(data.get(part)) is None:
                _omit(data, part)
        body = compact(event)
    if _fits(body):
        return body
    for problem in data.get("errors", ()):
        problem.update({k: _short(v) for k, v in problem.items() if isinstance(v, str)})
    for part in [*DROPPABLE, *_overlong(data)]:
        body = compact(event)
        if _fits(body):
            return body
        _omit(data, part)
    return compact(event)


def _fits(body: str) -> bool:
    return len(body) <= BODY_MAX_BYTES - FRONT_MAX_BYTES


def _sendable(value: Any, encode: Callable[[Any], str] = compact) -> str | None:
    try:
        return encode(value)
    except (ValueError, TypeError, RecursionError):
        return None


def _omit(data: dict[str, Any], part: str) -> None:
    if data.get(part):
        del data[part]
        data.setdefault("omitted", []).append(part)


def _overlong(data: Mapping[str, Any]) -> list[str]:
    """Names of texts that no provider should send: an id cut short would be a wrong one."""
    texts = {name: value for name, value in data.items() if isinstance(value, str)}
    return [n for n, text in texts.items() if n != "id" and len(compact(text)) > TEXT_MAX_BYTES]


def _short(text: str) -> str:
    if len(compact(text)) <= TEXT_MAX_BYTES:
        return text
    kept = text[:TEXT_MAX_BYTES]
    while len(compact(kept + "…")) > TEXT_MAX_BYTES:
        kept = kept[: len(kept) * 9 // 10]
    return kept + "…"


def describe(batch: Batch) -> dict[str, Any]:
    """What a webhook says of a batch, under `data`."""
    seen = batch.snapshot or Snapshot(id=batch.id, provider_status="", status=None)
    outcome = batch.outcome
    data: dict[str, Any] = {
        "id": batch.id,
        "provider": batch.provider,
        "account": batch.account,
        "status": batch.status.value,
        "outcome": outcome.value if outcome else None,
        "request_counts": counts_object(seen.counts),
        "endpoint": seen.endpoint,
        "model": seen.model,
        "input_file_id": seen.input_file_id,
        "output_file_id": seen.output_file_id,
        "error_file_id": seen.error_file_id,
        "errors": problems(seen, limit=PROBLEMS_MAX),
        "usage": seen.usage,
        "metadata": dict(seen.metadata or {}),
    }
    if seen.parts:
        data["parts"] = list(seen.parts)
    if batch.status is Status.LOST:
        data["error"] = NOT_FOUND
    if batch.status is Status.FAILED:
        data["retryable"] = any(p.code in RETRYABLE_CODES for p in seen.problems)
    return data


def counts_object(counts: Counts | None) -> dict[str, int] | None:
    """Counts as OpenAI's `request_counts`."""
    if counts is None:
        return None
    return {"total": counts.total, "completed": counts.completed, "failed": counts.failed}


def problems(seen: Snapshot, *, limit: int | None = None) -> list[dict[str, Any]]:
    """The provider's own errors, the first `limit` of them, with their line numbers."""
    return [
        {"code": p.code, "message": p.message, "param": p.param, "line": p.line}
        for p in seen.problems[:limit]
    ]


def bare(body: str) -> str:
    """The event without what the batch was about: OpenAI's own fields, and the batch's id."""
    event = json.loads(body)
    return compact({**event, "data": {"id": event["data"]["id"]}})


def dressed(
    body: str,
    *,
    dialect: Dialect,
    watch_id: str | None,
    watch_metadata: str | None,
    message_id: str | None = None,
    results: str | None = None,
    attachment: Attachment | None = None,
) -> bytes:
    """The bytes for one watch: its own fields in front of the event's, the rest untouched.

    `watch_metadata` is JSON text as the watch gave it. Where it would make the body longer than
    `BODY_MAX_BYTES` it is left out, and `watch.omitted` says so. With a `message_id` that is the
    body's `id`, and the event's own stands in `replay_of`. `results` is JSON text that becomes
    `data.results`; it alone may make the body longer. Where the files in `attachment` are merged,
    outcome and counts are those of the files: an event never contradicts what comes with it.
    """
    front = ""
    if results is not None and attachment is not None:
        body = _agreeing(body, attachment)
    if message_id is not None:
        body = _renamed(body, message_id)
    if dialect is Dialect.AWAITER:
        event = json.loads(body)
        front += (
            f'"batchId":{compact(event["data"]["id"])},"status":{compact(_plain_status(event))},'
        )
    if watch_id is not None and watch_metadata is not None and watch_metadata != "{}":
        words = f'"metadata":{ascii_json(watch_metadata)}'
        watch = f'"watch":{{"id":{compact(watch_id)},'
        if len(front) + len(watch) + len(words) + len("},") + len(body) > BODY_MAX_BYTES:
            words = '"omitted":["metadata"]'
        front += watch + words + "},"
    if results is not None:
        body = f'{body[:-2]},"results":{results}}}}}'
    return ("{" + front + body[1:]).encode("ascii")


def _agreeing(body: str, attachment: Attachment) -> str:
    """The event with the outcome and the counts of the files, once they are merged."""
    if attachment.outcome is None or attachment.counts is None:
        return body
    event = json.loads(body)
    data = event["data"]
    counts = dict(zip(("total", "completed", "failed"), attachment.counts, strict=True))
    if "outcome" not in data or (data["outcome"], data.get("request_counts")) == (
        attachment.outcome,
        counts,
    ):
        return body
    data.update(outcome=attachment.outcome, request_counts=counts)
    return compact(event)


def _renamed(body: str, message_id: str) -> str:
    """A canonical body begins with its id."""
    event_id, end = json.JSONDecoder().raw_decode(body, len('{"id":'))
    return f'{{"id":{compact(message_id)},"replay_of":{compact(event_id)}' + body[end:]


def ascii_json(text: str) -> str:
    """JSON text as it is sent."""
    return text if text.isascii() else compact(json.loads(text))


def portable_json(text: str) -> str:
    """JSON text from outside as it is sent: NaN and infinities become null.

    Raises ValueError and RecursionError where it cannot be read.
    """
    if text.isascii() and not SUSPECT.search(text):
        return text
    return compact(json.loads(text, parse_constant=lambda _: None, parse_float=finite))


def finite(digits: str) -> float | None:
    """The number, unless it is too large for one."""
    number = float(digits)
    return number if math.isfinite(number) else None


def _plain_status(event: Mapping[str, Any]) -> str:
    """The status for receivers that know the four ends only: what is lost has failed.

    A bare event does not tell the status, but its type does.
    """
    status = event["data"].get("status") or event["type"].removeprefix("batch.")
    return "failed" if status == Status.LOST else status
