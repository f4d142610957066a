"""Writing a batch's output and error files, in an order that is not the input's."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Sequence
from typing import Any

from batchbell.core.model import Status
from batchbell.sandbox.inputs import Request

INPUT_TOKENS = 24
OUTPUT_TOKENS = 9
"""Every answer costs the same, so that a batch's usage is the sum of its lines."""

NOT_EXECUTED = {
    Status.EXPIRED: ("batch_expired", "This request could not be executed before the batch ended."),
    Status.CANCELLED: (
        "batch_cancelled",
        "This request was not executed: the batch was cancelled.",
    ),
}


def usage(answers: int) -> dict[str, Any]:
    """A batch's `usage` after so many successful answers."""
    spent, made = answers * INPUT_TOKENS, answers * OUTPUT_TOKENS
    return {
        "input_tokens": spent,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": made,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": spent + made,
    }


class Writer:
    """Splits a batch's requests by fate and writes the lines of either file.

    The same batch gives the same bytes every time: what is chance is seeded with its id.
    """

    def __init__(
        self,
        *,
        batch_id: str,
        endpoint: str,
        model: str,
        status: Status,
        requests: Sequence[Request],
        created_at: int,
        completed: int,
        failed: int,
    ) -> None:
        self._endpoint = endpoint
        self._model = model
        self._status = status
        self._created_at = created_at
        self._batch_id = batch_id
        shuffled = list(requests)
        random.Random(batch_id).shuffle(shuffled)  # noqa: S311 - an order, not a secret
        self._succeeded = shuffled[:completed]
        self._failed = shuffled[completed : completed + failed]
        self._skipped = shuffled[completed + failed :]

    def output(self) -> bytes:
        body = BODIES.get(self._endpoint, _plain)
        return _lines([self._success(request, body) for request in self._succeeded])

    def errors(self) -> bytes:
        rows = [self._failure(request) for request in self._failed]
        if self._status in NOT_EXECUTED:
            code, message = NOT_EXECUTED[self._status]
            error = {"code": code, "message": message}
            rows += [self._row(request, None, error) for request in self._skipped]
        return _lines(rows)

    def _success(self, request: Request, body: Body) -> dict[str, Any]:
        answer = body(request, self._token("answer", request), self._model, self._created_at)
        return self._row(request, self._response(request, 200, answer), None)

    def _failure(self, request: Request) -> dict[str, Any]:
        error = {
            "message": "The sandbox made this request fail.",
            "type": "invalid_request_error",
            "param": "messages",
            "code": "sandbox_failure",
        }
        return self._row(request, self._response(request, 400, {"error": error}), None)

    def _response(self, request: Request, status: int, body: dict[str, Any]) -> dict[str, Any]:
        return {
            "status_code": status,
            "request_id": self._token("request", request),
            "body": body,
        }

    def _row(
        self, request: Request, response: dict[str, Any] | None, error: dict[str, Any] | None
    ) -> dict[str, Any]:
        return {
            "id": "batch_req_" + self._token("line", request),
            "custom_id": request.custom_id,
            "response": response,
            "error": error,
        }

    def _token(self, kind: str, request: Request) -> str:
        text = f"{self._batch_id}.{kind}.{request.custom_id}"
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _lines(rows: Sequence[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=True) + "\n" for row in rows).encode()


Body = Callable[[Request, str, str, int], dict[str, Any]]


def said(request: Request) -> str:
    """What the sandbox answers."""
    return f"The sandbox heard: {request.prompt[:200]}"


def _chat(request: Request, token: str, model: str, created_at: int) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{token}",
        "object": "chat.completion",
        "created": created_at,
        "model": model,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": said(request), "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": INPUT_TOKENS,
            "completion_tokens": OUTPUT_TOKENS,
            "total_tokens": INPUT_TOKENS + OUTPUT_TOKENS,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
        },
        "system_fingerprint": None,
    }


def _response(request: Request, token: str, model: str, created_at: int) -> dict[str, Any]:
    text = {"type": "output_text", "text": said(request), "annotations": []}
    return {
        "id": f"resp_{token}",
        "object": "response",
        "created_at": created_at,
        "status": "completed",
        "model": model,
        "output": [
            {
                "id": f"msg_{token}",
                "type": "message",
                "status": "completed",
                "role": "assistant",
                "content": [text],
            }
        ],
        "usage": usage(1),
    }


def _embedding(_request: Request, token: str, model: str, _created_at: int) -> dict[str, Any]:
    vector = [byte / 255 for byte in bytes.fromhex(token)]
    return {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": vector}],
        "model": model,
        "usage": {"prompt_tokens": INPUT_TOKENS, "total_tokens": INPUT_TOKENS},
    }


def _plain(_request: Request, token: str, model: str, _created_at: int) -> dict[str, Any]:
    return {"id": token, "model": model, "object": "sandbox.answer"}


BODIES: dict[str, Body] = {
    "/v1/chat/completions": _chat,
    "/v1/responses": _response,
    "/v1/embeddings": _embedding,
}
