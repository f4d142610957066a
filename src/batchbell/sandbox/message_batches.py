"""The state of the other fake: Anthropic's Message Batches. No HTTP here."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from batchbell.core.model import Status
from batchbell.sandbox.answers import ApiError
from batchbell.sandbox.inputs import Request
from batchbell.sandbox.jobs import Job, made_up
from batchbell.sandbox.outputs import INPUT_TOKENS, OUTPUT_TOKENS, Writer, said
from batchbell.sandbox.provider import ALPHABET, SandboxProvider
from batchbell.sandbox.schedule import ENDS, Progress

MODEL = "claude-sonnet-5"
MAX_REQUESTS = 100_000
KEEP_SECONDS = 29 * 86_400
"""How long results are there, from when the batch was made."""
CUSTOM_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
LEFT_OUT = {Status.EXPIRED: "expired", Status.CANCELLED: "canceled"}
"""What becomes of requests that have no answer when a batch ends so."""


class MessageJob(Job):
    """A batch of messages. Its counts stay 0 until it has ended, whatever was answered."""

    __slots__ = ()

    def as_object(self, at: Progress) -> dict[str, Any]:
        """The batch in Anthropic's shape; `results_url` is a path."""
        ended = at.status in ENDS
        stamp = at.stamps.get(f"{at.status}_at") if ended else None
        return {
            "id": self.id,
            "type": "message_batch",
            "processing_status": self.word or _word(at.status),
            "request_counts": self._request_counts(at, ended=ended),
            "ended_at": _time(stamp),
            "created_at": _time(self.created_at),
            "expires_at": _time(self.created_at + self.schedule.expires_seconds),
            "archived_at": None,
            "cancel_initiated_at": _time(self.cancel_asked_at),
            "results_url": f"/v1/messages/batches/{self.id}/results" if ended else None,
        }

    def split(self, at: Progress) -> tuple[int, int]:
        """How many requests succeeded, and how many erred: all, where the batch has failed."""
        if at.status is Status.FAILED:
            return 0, self.total
        return at.completed, at.failed

    def _request_counts(self, at: Progress, *, ended: bool) -> dict[str, int]:
        counts = dict.fromkeys(("processing", "succeeded", "errored", "canceled", "expired"), 0)
        if not ended:
            return {**counts, "processing": self.total}
        counts["succeeded"], counts["errored"] = self.counts or self.split(at)
        left = self.total - counts["succeeded"] - counts["errored"]
        counts[LEFT_OUT.get(at.status, "processing")] = max(left, 0)
        return counts


def _word(status: Status) -> str:
    if status in ENDS:
        return "ended"
    return "canceling" if status is Status.CANCELLING else "in_progress"


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat()


class MessageWriter(Writer):
    """Writes the lines of the results, in an order that is not the input's."""

    def results(self) -> bytes:
        rows = [(request, self._message(request)) for request in self._succeeded]
        rows += [(request, self._error(request)) for request in self._failed]
        left = {"type": LEFT_OUT.get(self._status, "expired")}
        rows += [(request, left) for request in self._skipped]
        lines = [{"custom_id": request.custom_id, "result": result} for request, result in rows]
        return "".join(json.dumps(line) + "\n" for line in lines).encode()

    def _message(self, request: Request) -> dict[str, Any]:
        message = {
            "model": request.model or self._model,
            "id": f"msg_{self._token('answer', request)}",
            "type": "message",
            "role": "assistant",
            "content": [{"type": "text", "text": said(request)}],
            "stop_reason": "end_turn",
            "stop_sequence": None,
            "usage": {
                "input_tokens": INPUT_TOKENS,
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 0,
                "output_tokens": OUTPUT_TOKENS,
                "service_tier": "batch",
            },
        }
        return {"type": "succeeded", "message": message}

    def _error(self, request: Request) -> dict[str, Any]:
        text = "The sandbox made this request fail."
        error = {
            "type": "error",
            "error": {"type": "invalid_request_error", "message": text},
            "request_id": f"req_{self._token('request', request)}",
        }
        return {"type": "errored", "error": error}


class MessageBatches(SandboxProvider):
    """A fake of Anthropic's Message Batches, with the words of `SandboxProvider`.

    There are no files and no metadata: what `add_batch` is given as metadata is not shown.
    """

    job_type = MessageJob
    default_model = MODEL

    def create(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Make a batch as `POST /v1/messages/batches` does. Raises ApiError (400)."""
        rows = body.get("requests")
        if not isinstance(rows, list) or not rows:
            raise ApiError(400, "requests: List should have at least 1 item")
        if len(rows) > MAX_REQUESTS:
            raise ApiError(400, f"requests: List should have at most {MAX_REQUESTS} items")
        requests = [_request(place, row) for place, row in enumerate(rows)]
        ids = [request.custom_id for request in requests]
        if len(set(ids)) < len(ids):
            raise ApiError(400, "requests: custom_id must be unique within a batch")
        return self._begin(total=len(requests), model=requests[0].model, requests=tuple(requests))

    def finish(
        self,
        batch_id: str,
        status: Status | str = Status.COMPLETED,
        *,
        completed: int | None = None,
        failed: int = 0,
        problems: Sequence[dict[str, Any]] = (),
    ) -> None:
        """As `SandboxProvider.finish`. Of one that expired or was cancelled nothing was answered
        unless `completed` says so, and all requests of a `failed` one were refused."""
        if completed is None and Status(status) in LEFT_OUT:
            completed = 0
        super().finish(batch_id, status, completed=completed, failed=failed, problems=problems)

    def cancel(self, batch_id: str) -> dict[str, Any]:
        """Ask for an end. Raises ApiError: 404, or 400 once it has ended."""
        try:
            return super().cancel(batch_id)
        except ApiError as error:
            if error.status != 409:
                raise
            text = f"Message batch {batch_id} has already ended."
            raise ApiError(400, text) from None

    def delete(self, batch_id: str) -> dict[str, Any]:
        """Forget a batch and its results. Raises ApiError: 404, or 400 while it runs."""
        if not self._ended(self._job(batch_id)) and not self.lenient:
            raise ApiError(400, f"Message batch {batch_id} cannot be deleted while it is running.")
        self.forget(batch_id)
        return {"id": batch_id, "type": "message_batch_deleted"}

    def results(self, batch_id: str) -> bytes:
        """The lines of a batch that has ended. Raises ApiError (404)."""
        job = self._job(batch_id)
        if not self._ended(job) or self._archived(job):
            raise ApiError(404, f"Message batch {batch_id} has no available results.")
        at = job.progress(self.clock())
        assert isinstance(job, MessageJob)
        completed, failed = job.split(at)
        return MessageWriter(
            batch_id=job.id,
            endpoint="/v1/messages",
            model=job.model or MODEL,
            status=at.status,
            requests=job.requests if job.requests is not None else made_up(job.total),
            created_at=int(job.created_at),
            completed=completed,
            failed=failed,
        ).results()

    def page_before(self, before: str, *, limit: int) -> tuple[list[dict[str, Any]], bool]:
        """The batches that are next newer than `before`, newest first, and whether more are."""
        if before not in self._place and not self.lenient:
            raise _no_cursor("before_id", before)
        place = self._place.get(before, -1) + 1
        newer = [self._jobs[id] for id in self._order[place:] if id in self._jobs]
        return [self._look(job) for job in reversed(newer[:limit])], len(newer) > limit

    def page(
        self, *, after: str | None = None, limit: int = 20, skip: int = 0
    ) -> tuple[list[dict[str, Any]], bool]:
        """As `SandboxProvider.page`."""
        if after is not None and after not in self._place and not self.lenient:
            raise _no_cursor("after_id", after)
        return super().page(after=after, limit=limit, skip=skip)

    def _new_batch_id(self) -> str:
        return self._new_id("msgbatch_01", 22, ALPHABET)

    def _no_batch(self, batch_id: str) -> ApiError:
        return ApiError(404, f"Could not find message batch with id {batch_id}.")

    def _look(self, job: Job) -> dict[str, Any]:
        shown = job.as_object(job.progress(self.clock()))
        if not self._archived(job):
            return shown
        archived_at = _time(job.created_at + KEEP_SECONDS)
        return {**shown, "archived_at": archived_at, "results_url": None}

    def _ended(self, job: Job) -> bool:
        return job.progress(self.clock()).status in ENDS

    def _archived(self, job: Job) -> bool:
        return self.clock() >= job.created_at + KEEP_SECONDS


def _no_cursor(name: str, id: str) -> ApiError:
    return ApiError(400, f"{name}: Could not find message batch with id {id}.")


def _request(place: int, row: Any) -> Request:
    """One request; what it asks is judged later, as at Anthropic."""
    where = f"requests.{place}"
    if not isinstance(row, dict):
        raise ApiError(400, f"{where}: Input should be an object")
    custom_id, params = row.get("custom_id"), row.get("params")
    if not isinstance(custom_id, str):
        raise ApiError(400, f"{where}.custom_id: Field required")
    if not CUSTOM_ID.fullmatch(custom_id):
        text = "String should match pattern '^[a-zA-Z0-9_-]{1,64}$'"
        raise ApiError(400, f"{where}.custom_id: {text}")
    if not isinstance(params, dict):
        raise ApiError(400, f"{where}.params: Field required")
    model = params.get("model")
    return Request(custom_id, _prompt(params), model if isinstance(model, str) else MODEL)


def _prompt(params: Mapping[str, Any]) -> str:
    messages = params.get("messages")
    last = messages[-1] if isinstance(messages, list) and messages else None
    content = last.get("content") if isinstance(last, dict) else None
    if isinstance(content, list) and content and isinstance(content[-1], dict):
        content = content[-1].get("text")
    return content if isinstance(content, str) else ""
