"""What a line says, as the cells of a row."""

from __future__ import annotations

import json
from typing import Any

import pytest

from batchbell.files.lines import Fate, not_run
from batchbell.files.rows import Row, row


def of(body: Any = None, status: Any = 200, error: Any = None, **more: Any) -> Row:
    response = {"status_code": status, "request_id": "req_1", "body": body}
    line = {"id": "batch_req_1", "custom_id": "a", "response": response, "error": error, **more}
    found = row(json.dumps(line).encode())
    assert found is not None
    return found


CHAT = {
    "id": "chatcmpl-1",
    "model": "gpt-5-mini",
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "Yes."}, "finish_reason": "stop"},
        {"index": 1, "message": {"role": "assistant", "content": "No."}, "finish_reason": "length"},
    ],
    "usage": {
        "prompt_tokens": 9,
        "completion_tokens": 5,
        "prompt_tokens_details": {"cached_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 3},
    },
}


def test_a_chat_completion_has_a_cell_for_each_thing_that_is_asked_of_it() -> None:
    found = of(CHAT)
    assert json.loads(found.body or "") == CHAT
    assert found._replace(body=None) == Row(
        custom_id="a",
        status=Fate.SUCCEEDED,
        status_code=200,
        model="gpt-5-mini",
        content="Yes.",
        finish_reason="stop",
        error_code=None,
        error_message=None,
        input_tokens=9,
        cached_tokens=4,
        output_tokens=5,
        reasoning_tokens=3,
        id="batch_req_1",
        request_id="req_1",
        body=None,
    )


def test_a_response_has_the_text_of_all_its_messages() -> None:
    said = [{"type": "output_text", "text": word} for word in ("One, ", "two")]
    output = [
        {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "Hm."}]},
        {"type": "message", "content": said},
        {"type": "message", "content": [{"type": "refusal", "refusal": "No."}]},
        {"type": "message", "content": [{"type": "output_text", "text": "."}]},
    ]
    usage = {"input_tokens": 7, "output_tokens": 2}
    found = of({"model": "gpt-5", "status": "completed", "output": output, "usage": usage})
    assert (found.content, found.finish_reason) == ("One, two.", "completed")
    assert (found.input_tokens, found.output_tokens, found.cached_tokens) == (7, 2, 0)
    cut = {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
    assert of({**cut, "output": output[1:2]}).finish_reason == "max_output_tokens"


@pytest.mark.parametrize(
    ("choice", "content"),
    [
        ({"text": "and so on", "finish_reason": "length"}, "and so on"),
        ({"message": {"content": [{"type": "text", "text": "a"}, {"text": "b"}]}}, "ab"),
        ({"message": {"content": ""}}, ""),
        ({"message": {"content": None, "refusal": "No."}}, None),
        ({"message": {"content": None, "tool_calls": []}}, None),
        ({"message": {"content": [{"type": "image"}]}}, None),
        ({"message": "text"}, None),
        ("text", None),
    ],
)
def test_the_text_of_a_choice(choice: Any, content: str | None) -> None:
    assert of({"choices": [choice]}).content == content


@pytest.mark.parametrize("body", [{"data": [{"embedding": [0.5]}]}, {"choices": []}, {"output": 1}])
def test_what_has_no_text_has_no_content(body: Any) -> None:
    assert of(body).content is None
    assert of(body).body == json.dumps(body)


def test_a_message_has_the_text_of_all_its_blocks_and_why_it_stopped() -> None:
    blocks = [{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "Des "}]
    content = [*blocks, {"type": "text", "text": "Moines"}]
    body = {"type": "message", "model": "m", "content": content, "stop_reason": "end_turn"}
    found = row(
        json.dumps({"custom_id": "a", "response": {"status_code": 200, "body": body}}).encode()
    )
    assert found is not None
    assert (found.content, found.finish_reason, found.model) == ("Des Moines", "end_turn", "m")


def test_a_candidate_has_the_text_of_its_parts_and_why_it_stopped() -> None:
    parts = [{"text": "Hm.", "thought": True}, {"text": "Des "}, {"text": "Moines"}]
    candidate = {"content": {"parts": parts, "role": "model"}, "finishReason": "STOP", "index": 0}
    used = {"promptTokenCount": 15, "candidatesTokenCount": 2, "thoughtsTokenCount": "62"}
    for usage in (used, {**used, "thoughtsTokenCount": 62, "cachedContentTokenCount": 9}):
        found = of({"candidates": [candidate], "modelVersion": "m", "usageMetadata": usage})
        assert (found.content, found.finish_reason, found.model) == ("Des Moines", "STOP", "m")
        assert (found.input_tokens, found.output_tokens, found.reasoning_tokens) == (15, 64, 62)
    assert found.cached_tokens == 9
    blocked = of({"promptFeedback": {"blockReason": "SAFETY"}, "modelVersion": "m"})
    assert (blocked.content, blocked.finish_reason) == (None, "SAFETY")
    refused = of({"error": {"code": 400, "message": "No.", "status": "INVALID_ARGUMENT"}}, 400)
    assert (refused.error_code, refused.error_message) == ("INVALID_ARGUMENT", "No.")


def test_a_refused_request_says_why() -> None:
    """Pitfall 16: a 400 line may carry `error: null`."""
    found = of({"error": {"code": None, "type": "bad", "message": "No such model."}}, 400)
    assert (found.status, found.status_code) == (Fate.FAILED, 400)
    assert (found.error_code, found.error_message) == ("bad", "No such model.")
    assert of({"error": "boom"}, 500).error_message == "boom"
    bare = {"object": "error", "message": "Invalid model", "type": "invalid_model", "code": "1500"}
    found = of(bare, 400)
    assert (found.error_code, found.error_message) == ("1500", "Invalid model")


def test_a_request_that_was_not_run_says_why() -> None:
    found = row(not_run("a", "batch_expired", "Too late."))
    assert found is not None
    assert (found.status, found.error_code, found.error_message, found.body, found.status_code) == (
        Fate.NOT_RUN,
        "batch_expired",
        "Too late.",
        None,
        None,
    )


def test_a_value_of_another_type_leaves_its_cell_empty() -> None:
    usage = {"prompt_tokens": 10**30, "completion_tokens": 1}
    found = of({"model": 5, "choices": 7, "usage": usage}, status=True, id=5)
    assert (found.model, found.content, found.status_code, found.id) == (None, None, None, None)
    assert found.input_tokens is None


def test_the_body_is_as_the_provider_wrote_it() -> None:
    body = b'{"b" : 1.50, "a":"\\u00e9\\u0000"}'
    found = row(b'{"custom_id":"a","response":{"status_code":200,"body":%s}}' % body)
    assert found is not None
    assert found.body == body.decode()
