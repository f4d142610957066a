"""The bytes that receivers get."""

from __future__ import annotations

import json
import time
from typing import Any

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchbell.core import signing
from batchbell.core.model import (
    BatchProblem,
    Counts,
    Dialect,
    EventType,
    Status,
)
from batchbell.core.payload import (
    BODY_MAX_BYTES,
    FRONT_MAX_BYTES,
    PROBLEMS_MAX,
    compact,
    describe,
    dressed,
    event_body,
    portable_json,
)

from .making import NOW, a_batch, a_snapshot

SECRET = signing.make_secret(b"k" * signing.SECRET_BYTES)
ROOM = BODY_MAX_BYTES - FRONT_MAX_BYTES
EMOJI = "\U0001f514"


def body_of(status: Status = Status.COMPLETED, *, occurred_at: float = NOW, **seen: Any) -> str:
    batch = a_batch(status, snapshot=a_snapshot(status, **seen))
    return event_body("evt_1", EventType.COMPLETED, batch, occurred_at=occurred_at)


def data_of(status: Status = Status.COMPLETED, **seen: Any) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(body_of(status, **seen))["data"]
    return data


def plain(body: str, metadata: str | None = None) -> bytes:
    return dressed(body, dialect=Dialect.WATCH, watch_id="wat_1", watch_metadata=metadata)


def awaiter(body: str, metadata: str | None = None) -> bytes:
    return dressed(body, dialect=Dialect.AWAITER, watch_id="wat_1", watch_metadata=metadata)


def unwrapped(body: bytes) -> Any:
    sent = signing.headers([SECRET], message_id="evt_1", timestamp=int(time.time()), body=body)
    return openai.OpenAI(api_key="none").webhooks.unwrap(body, sent, secret=SECRET)


# --- the shape -----------------------------------------------------------------------------------


def test_an_event_is_openais_and_more() -> None:
    """Pitfall 9 and pitfall 26: what the receiver needs, its id included, is in the body."""
    event = json.loads(
        body_of(
            counts=Counts(total=3, completed=2, failed=1),
            endpoint="/v1/chat/completions",
            model="gpt",
            input_file_id="file-i",
            output_file_id="file-o",
            error_file_id="file-e",
            usage={"total_tokens": 9},
            metadata={"job": "nightly"},
        )
    )
    assert event == {
        "id": "evt_1",
        "object": "event",
        "type": "batch.completed",
        "created_at": 1719168000,
        "timestamp": "2024-06-23T18:40:00Z",
        "data": {
            "id": "batch_abc",
            "provider": "openai",
            "account": "openai",
            "status": "completed",
            "outcome": "partial",
            "request_counts": {"total": 3, "completed": 2, "failed": 1},
            "endpoint": "/v1/chat/completions",
            "model": "gpt",
            "input_file_id": "file-i",
            "output_file_id": "file-o",
            "error_file_id": "file-e",
            "errors": [],
            "usage": {"total_tokens": 9},
            "metadata": {"job": "nightly"},
        },
    }


@pytest.mark.parametrize(
    ("type_", "status"),
    [
        (EventType.COMPLETED, Status.COMPLETED),
        (EventType.FAILED, Status.FAILED),
        (EventType.EXPIRED, Status.EXPIRED),
        (EventType.CANCELLED, Status.CANCELLED),
    ],
)
@pytest.mark.parametrize("dress", [plain, awaiter])
def test_the_openai_sdk_unwraps_the_four_and_the_extras_can_be_read(
    type_: EventType, status: Status, dress: Any
) -> None:
    seen = a_snapshot(status, counts=Counts(total=2, completed=1, failed=1))
    body = event_body("evt_1", type_, a_batch(status, snapshot=seen), occurred_at=NOW)
    event = unwrapped(dress(body, '{"mine":"ü"}'))
    expected = type_.value.removeprefix("batch.").title()
    assert type(event).__name__ == f"Batch{expected}WebhookEvent"
    assert (event.id, event.type, event.created_at) == ("evt_1", type_.value, int(NOW))
    assert event.data.id == "batch_abc"
    assert event.data.status == status.value
    assert event.data.request_counts["failed"] == 1
    assert event.watch["metadata"] == {"mine": "ü"}


@pytest.mark.parametrize("status", [Status.EXPIRED, Status.CANCELLED])
def test_a_batch_that_ended_early_hands_over_its_finished_lines(status: Status) -> None:
    """Pitfall 13: they are paid for."""
    counts = Counts(total=9, completed=4, failed=0)
    told = data_of(status, counts=counts, output_file_id="file-o", error_file_id="file-e")
    assert (told["status"], told["outcome"]) == (status.value, "partial")
    assert (told["output_file_id"], told["error_file_id"]) == ("file-o", "file-e")


def test_a_body_is_compact_ascii() -> None:
    body = body_of(metadata={"who": f"Zoë {EMOJI}", "sp ace": "a, b: c"})
    assert body.isascii()
    assert body == json.dumps(json.loads(body), separators=(",", ":"))
    assert json.loads(body)["data"]["metadata"] == {"who": f"Zoë {EMOJI}", "sp ace": "a, b: c"}


def test_half_an_emoji_becomes_a_replacement_and_whole_ones_and_backslashes_stay() -> None:
    text = "\ud83d \udd14 \ud83d\ud83d\udd14 \\ud83d \\\ud83d"
    assert json.loads(compact(text)) == f"\ufffd \ufffd \ufffd{EMOJI} \\ud83d \\\ufffd"


@given(text=st.text(st.characters(exclude_categories=[])))
def test_every_text_becomes_json_that_any_parser_takes(text: str) -> None:
    read = json.loads(compact(text))
    read.encode()  # raises where half a pair is left
    assert read == text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def test_a_batch_that_was_never_seen_has_the_same_fields() -> None:
    told = describe(a_batch(Status.LOST))
    assert set(describe(a_batch(Status.LOST, snapshot=a_snapshot()))) == set(told)
    assert (told["request_counts"], told["errors"], told["metadata"]) == (None, [], {})


def test_a_lost_batch_is_told_in_words_that_receivers_of_the_four_know() -> None:
    """Pitfall 5: nobody was told of an unknown batch."""
    lost = a_batch(Status.LOST)
    event = json.loads(awaiter(event_body("evt_1", EventType.FAILED, lost, occurred_at=NOW)))
    assert event["type"] == "batch.failed"
    assert event["status"] == "failed"
    assert event["data"]["status"] == "lost"
    assert event["data"]["outcome"] == "none"
    assert event["data"]["error"]["code"] == "batch_not_found"


@pytest.mark.parametrize("status", [s for s in Status if s is not Status.LOST])
def test_only_a_lost_batch_has_the_error_of_a_lost_batch(status: Status) -> None:
    assert "error" not in data_of(status)


@pytest.mark.parametrize(
    ("code", "retryable"), [("token_limit_exceeded", True), ("invalid_json_line", False)]
)
def test_a_failure_says_whether_the_same_input_may_pass_later(code: str, retryable: bool) -> None:
    problem = BatchProblem(code=code, message=None)
    assert data_of(Status.FAILED, problems=(problem,))["retryable"] is retryable
    assert "retryable" not in data_of(Status.COMPLETED, problems=(problem,))


def test_the_first_ten_problems_come_with_their_lines() -> None:
    """Pitfall 9: which line was wrong."""
    many = tuple(
        BatchProblem(code="invalid_json_line", message=f"line {n} is no JSON", line=n)
        for n in range(1, 40)
    )
    told = data_of(Status.FAILED, problems=many)["errors"]
    assert [problem["line"] for problem in told] == list(range(1, PROBLEMS_MAX + 1))
    assert told[0] == {
        "code": "invalid_json_line",
        "message": "line 1 is no JSON",
        "param": None,
        "line": 1,
    }


@pytest.mark.parametrize(
    ("occurred_at", "created_at", "timestamp"),
    [
        (NOW + 0.9, int(NOW), "2024-06-23T18:40:00Z"),
        (0.0, 0, "1970-01-01T00:00:00Z"),
        (-1.0, 0, "1970-01-01T00:00:00Z"),
        (NOW * 1e6, 253_402_300_799, "9999-12-31T23:59:59Z"),
        (float("inf"), 253_402_300_799, "9999-12-31T23:59:59Z"),
        (float("nan"), 0, "1970-01-01T00:00:00Z"),
    ],
)
def test_no_time_keeps_an_event_from_being_written(
    occurred_at: float, created_at: int, timestamp: str
) -> None:
    event = json.loads(body_of(occurred_at=occurred_at))
    assert (event["created_at"], event["timestamp"]) == (created_at, timestamp)


# --- what one watch adds -------------------------------------------------------------------------

AS_IT_WAS_ASKED_FOR = [
    (Status.COMPLETED, "completed"),
    (Status.FAILED, "failed"),
    (Status.EXPIRED, "expired"),
    (Status.CANCELLED, "cancelled"),
    (Status.LOST, "failed"),
]


@pytest.mark.parametrize(("status", "word"), AS_IT_WAS_ASKED_FOR)
def test_an_awaiter_gets_its_two_fields_on_top(status: Status, word: str) -> None:
    body = body_of(status)
    sent = awaiter(body)
    assert sent.startswith(b'{"batchId":"batch_abc","status":"%s","id":"evt_1",' % word.encode())
    assert json.loads(sent) == {"batchId": "batch_abc", "status": word, **json.loads(body)}


@pytest.mark.parametrize("metadata", [None, "{}"])
def test_a_plain_watch_without_words_of_its_own_gets_the_canonical_bytes(
    metadata: str | None,
) -> None:
    body = body_of()
    assert plain(body, metadata) == body.encode()
    told = dressed(body, dialect=Dialect.WATCH, watch_id=None, watch_metadata='{"a":"b"}')
    assert told == body.encode()


@given(
    note=st.text(),
    metadata=st.dictionaries(st.text(max_size=20), st.text(max_size=40), min_size=1, max_size=5),
    ascii_=st.booleans(),
    indent=st.sampled_from([None, 2]),
    dialect=st.sampled_from(Dialect),
)
def test_dressing_adds_the_fields_and_touches_nothing(
    note: str, metadata: dict[str, str], ascii_: bool, indent: int | None, dialect: Dialect
) -> None:
    body = body_of(metadata={"note": note})
    words = json.dumps(metadata, ensure_ascii=ascii_, indent=indent)
    sent = dressed(body, dialect=dialect, watch_id="wat_1", watch_metadata=words)
    extra: dict[str, Any] = {"watch": {"id": "wat_1", "metadata": metadata}}
    if dialect is Dialect.AWAITER:
        extra |= {"batchId": "batch_abc", "status": "completed"}
    assert sent.isascii()
    assert json.loads(sent) == json.loads(body) | extra
    assert sent.endswith(body[1:].encode())


def test_what_is_sent_as_new_carries_both_ids() -> None:
    body = '{"id":"evt_1","object":"event","data":{"id":"batch_1"}}'
    sent = dressed(
        body, dialect=Dialect.WATCH, watch_id="wat_1", watch_metadata=None, message_id="evt_2"
    )
    assert sent == b'{"id":"evt_2","replay_of":"evt_1","object":"event","data":{"id":"batch_1"}}'


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ('{"a": 1e999, "b": "x"}', '{"a": 1e999, "b": "x"}'),
        ('{"a":[NaN,-Infinity],"b":"NaN"}', '{"a":[null,null],"b":"NaN"}'),
        ('{"a":"\\ud83d"}', '{"a":"\\ufffd"}'),
        ('{"é":1e999}', '{"\\u00e9":null}'),
    ],
)
def test_json_from_outside_is_sent_as_every_parser_takes_it(text: str, sent: str) -> None:
    assert portable_json(text) == sent
