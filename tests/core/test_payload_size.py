"""No body is longer than twenty kilobytes, and what was left out is named."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchbell.core.model import MAX_ID_LENGTH, BatchProblem, Dialect, EventType, Status
from batchbell.core.payload import (
    BODY_MAX_BYTES,
    FRONT_MAX_BYTES,
    TEXT_MAX_BYTES,
    compact,
    dressed,
    event_body,
)

from .making import NOW, a_batch, a_snapshot

ROOM = BODY_MAX_BYTES - FRONT_MAX_BYTES
EMOJI = "\U0001f514"


def body_of(status: Status = Status.COMPLETED, **seen: Any) -> str:
    batch = a_batch(status, snapshot=a_snapshot(status, **seen))
    return event_body("evt_1", EventType.COMPLETED, batch, occurred_at=NOW)


def data_of(status: Status = Status.COMPLETED, **seen: Any) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(body_of(status, **seen))["data"]
    return data


def test_what_fits_is_sent_whole() -> None:
    told = data_of(
        metadata={"k": "v" * 15_000}, problems=(BatchProblem(code="c", message="m" * 900),)
    )
    assert "omitted" not in told
    assert len(told["metadata"]["k"]) == 15_000
    assert len(told["errors"][0]["message"]) == 900


@pytest.mark.parametrize("length", [20_000, 10**6])
@pytest.mark.parametrize("letter", ["m", "é", EMOJI, '"', "\x00", "\ud83d"])
def test_a_very_long_error_message_is_cut_and_its_code_and_line_stay(
    length: int, letter: str
) -> None:
    problem = BatchProblem(code="invalid_json_line", message=letter * length, line=7)
    body = body_of(Status.FAILED, problems=(problem,), metadata={"job": "nightly"})
    assert len(body) <= ROOM
    data = json.loads(body)["data"]
    (told,) = data["errors"]
    assert (told["code"], told["line"]) == ("invalid_json_line", 7)
    assert told["message"].endswith("…")
    assert len(compact(told["message"])) <= TEXT_MAX_BYTES
    assert len(compact(told["message"])) > TEXT_MAX_BYTES * 0.8
    assert data["metadata"] == {"job": "nightly"}
    assert "omitted" not in data


@pytest.mark.parametrize(
    ("huge", "omitted"),
    [
        ({"metadata": {"k": "v" * 30_000}}, ["metadata"]),
        ({"usage": {"k": list(range(9000))}}, ["metadata", "usage"]),
        ({"model": "m" * 30_000}, ["metadata", "usage", "model"]),
        (
            {"model": "m" * 9_000, "endpoint": "e" * 30_000},
            ["metadata", "usage", "endpoint"],
        ),
        ({"output_file_id": EMOJI * 9_000}, ["metadata", "usage", "output_file_id"]),
    ],
)
def test_what_does_not_fit_is_left_out_and_named(huge: Any, omitted: list[str]) -> None:
    """Pitfall 30: a webhook that was only too large was never sent."""
    seen = {"metadata": {"a": "b"}, "usage": {"total_tokens": 1}, "error_file_id": "file-e"} | huge
    body = body_of(**seen)
    data = json.loads(body)["data"]
    assert len(body) <= ROOM
    assert data["omitted"] == omitted
    assert not set(omitted) & set(data)
    assert (data["id"], data["status"], data["error_file_id"]) == (
        "batch_abc",
        "completed",
        "file-e",
    )


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "usage",
    [{"a": float("nan")}, {"a": [float("inf")]}, {"a": {1, 2}}, {"a": nested(100_000)}],
    ids=["nan", "infinity", "no JSON", "deep"],
)
def test_a_part_that_is_no_json_does_not_keep_the_event_from_being_sent(usage: Any) -> None:
    data = data_of(usage=usage, metadata={"a": "b"})
    assert data["omitted"] == ["usage"]
    assert data["metadata"] == {"a": "b"}


texts = st.one_of(
    st.none(),
    st.text(st.characters(exclude_categories=[]), max_size=20),
    st.builds(lambda c, n: c * n, st.characters(exclude_categories=[]), st.integers(0, 30_000)),
)
problem_lists = st.lists(
    st.builds(
        BatchProblem,
        code=texts,
        message=texts,
        param=texts,
        line=st.one_of(st.none(), st.integers(0, 10**4000)),
    ),
    max_size=12,
).map(tuple)
snapshots = st.fixed_dictionaries(
    {
        "problems": problem_lists,
        "model": texts,
        "endpoint": texts,
        "input_file_id": texts,
        "output_file_id": texts,
        "error_file_id": texts,
        "usage": st.one_of(st.none(), st.dictionaries(st.text(), texts, max_size=9)),
        "metadata": st.dictionaries(st.text(), st.text(), max_size=9),
    }
)
metadata_texts = st.one_of(
    st.none(),
    st.dictionaries(st.text(max_size=64), st.text(max_size=512), max_size=16),
    st.builds(lambda n: {"k": "é" * n}, st.integers(0, 30_000)),
)


@given(
    seen=snapshots,
    status=st.sampled_from(Status),
    metadata=metadata_texts,
    ascii_=st.booleans(),
    dialect=st.sampled_from(Dialect),
)
def test_no_body_is_ever_longer_than_twenty_kilobytes(
    seen: dict[str, Any],
    status: Status,
    metadata: dict[str, str] | None,
    ascii_: bool,
    dialect: Dialect,
) -> None:
    """Pitfall 30: whatever a provider or a watch says, as long as the id is a possible one."""
    batch = a_batch(status, id="b" * MAX_ID_LENGTH, snapshot=a_snapshot(status, **seen))
    body = event_body("evt_1", EventType.COMPLETED, batch, occurred_at=NOW)
    assert len(body) <= ROOM
    words = None if metadata is None else json.dumps(metadata, ensure_ascii=ascii_)
    sent = dressed(body, dialect=dialect, watch_id="wat_" + "0" * 25, watch_metadata=words)
    assert len(sent) <= BODY_MAX_BYTES
    assert json.loads(sent)["data"]["id"] == batch.id


def test_watch_metadata_that_does_not_fit_is_left_out_and_named() -> None:
    """Pitfall 30."""
    sent = dressed(
        body_of(),
        dialect=Dialect.AWAITER,
        watch_id="wat_1",
        watch_metadata=json.dumps({"k": "v" * 30_000}),
    )
    event = json.loads(sent)
    assert event["watch"] == {"id": "wat_1", "omitted": ["metadata"]}
    assert event["batchId"] == "batch_abc"


@pytest.mark.parametrize("dialect", list(Dialect))
def test_watch_metadata_may_fill_a_body_to_the_last_byte(dialect: Dialect) -> None:
    body = body_of(problems=(BatchProblem(code="c", message="m" * 15_000),))

    def sent(length: int) -> bytes:
        words = json.dumps({"k": "v" * length})
        return dressed(body, dialect=dialect, watch_id="wat_1", watch_metadata=words)

    room = BODY_MAX_BYTES - len(sent(0))
    assert len(sent(room)) == BODY_MAX_BYTES
    assert json.loads(sent(room))["watch"]["metadata"] == {"k": "v" * room}
    assert "omitted" in json.loads(sent(room + 1))["watch"]
