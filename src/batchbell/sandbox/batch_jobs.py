"""The state of another fake: Mistral's batch jobs and files. No HTTP here."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from batchbell.core.model import Status
from batchbell.sandbox.answers import ApiError
from batchbell.sandbox.files import StoredFile
from batchbell.sandbox.inputs import Request
from batchbell.sandbox.jobs import Job, made_up
from batchbell.sandbox.outputs import Writer
from batchbell.sandbox.provider import SandboxProvider
from batchbell.sandbox.schedule import ENDS, Progress

MODEL = "mistral-small-latest"
ENDPOINTS = frozenset(
    {
        "/v1/chat/completions",
        "/v1/embeddings",
        "/v1/fim/completions",
        "/v1/moderations",
        "/v1/chat/moderations",
        "/v1/ocr",
        "/v1/classifications",
        "/v1/chat/classifications",
        "/v1/conversations",
        "/v1/audio/transcriptions",
    }
)
WORDS: Mapping[Status, str] = {
    Status.VALIDATING: "QUEUED",
    Status.IN_PROGRESS: "RUNNING",
    Status.FINALIZING: "RUNNING",
    Status.CANCELLING: "CANCELLATION_REQUESTED",
    Status.COMPLETED: "SUCCESS",
    Status.FAILED: "FAILED",
    Status.EXPIRED: "TIMEOUT_EXCEEDED",
    Status.CANCELLED: "CANCELLED",
}
HOURS = range(1, 7 * 24)
UPLOADED, OUTPUT, ERROR = "batch_request", "batch_result", "batch_error"
"""Kinds of files."""


@dataclass(slots=True, kw_only=True)
class MistralJob(Job):
    """A job of any number of input files; one that is `inline` leaves its answers in itself."""

    input_files: tuple[str, ...] = ()
    inline: bool = False

    def as_object(self, at: Progress) -> dict[str, Any]:
        """The job in Mistral's shape, without its answers."""
        succeeded, failed = self.counts or (at.completed, at.failed)
        ended = at.status in ENDS
        return {
            "id": self.id,
            "object": "batch",
            "input_files": list(self.input_files or (self.input_file_id,)),
            "metadata": self.metadata,
            "endpoint": self.endpoint,
            "model": self.model,
            "agent_id": None,
            "output_file": self.output_file_id,
            "error_file": self.error_file_id,
            "errors": self._wrong(at),
            "outputs": None,
            "status": self.word or WORDS[at.status],
            "created_at": int(self.created_at),
            "started_at": at.stamps.get("in_progress_at"),
            "completed_at": at.stamps.get(f"{at.status}_at") if ended else None,
            "total_requests": self.total,
            "completed_requests": succeeded + failed,
            "succeeded_requests": succeeded,
            "failed_requests": failed,
        }

    def _wrong(self, at: Progress) -> list[dict[str, Any]]:
        if at.status is not Status.FAILED:
            return []
        text = "The sandbox made this job fail."
        return [{"message": one["message"], "count": 1} for one in self.problems] or [
            {"message": text, "count": self.total}
        ]

    def writer(self, at: Progress) -> JobWriter:
        return JobWriter(
            batch_id=self.id,
            endpoint=self.endpoint,
            model=self.model or MODEL,
            status=at.status,
            requests=self.requests if self.requests is not None else made_up(self.total),
            created_at=int(self.created_at),
            completed=at.completed,
            failed=at.failed,
        )


class JobWriter(Writer):
    """Writes Mistral's lines. Of requests that did not run it says nothing."""

    def errors(self) -> bytes:
        return "".join(json.dumps(self._failure(one)) + "\n" for one in self._failed).encode()

    def _failure(self, request: Request) -> dict[str, Any]:
        error = {
            "object": "error",
            "message": "The sandbox made this request fail.",
            "type": "invalid_request_error",
            "param": None,
            "code": "sandbox_failure",
        }
        return self._row(request, self._response(request, 400, error), None)

    def _response(self, request: Request, status: int, body: dict[str, Any]) -> dict[str, Any]:
        return {"status_code": status, "body": body}


class BatchJobs(SandboxProvider):
    """A fake of Mistral's batch jobs and files, with the words of `SandboxProvider`."""

    job_type = MistralJob
    default_model = MODEL

    def create(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Make a job as `POST /v1/batch/jobs` does. Raises ApiError."""
        endpoint, rows = body.get("endpoint"), body.get("requests")
        files: list[str] = body.get("input_files") or []
        if endpoint not in ENDPOINTS:
            raise ApiError(422, f"body.endpoint: Input should be one of {sorted(ENDPOINTS)}")
        if body.get("timeout_hours", 24) not in HOURS:
            raise ApiError(422, "body.timeout_hours: Input should be at least 1, less than 168")
        if bool(files) == bool(rows):
            raise ApiError(422, "body: Exactly one of input_files and requests must be given")
        if rows:
            lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
            files = [self.upload(lines, filename="requests.jsonl", purpose="batch")["id"]]
        requests, wrong, total = self._read(files)
        metadata = body.get("metadata")
        return self._begin(
            schedule=self.schedule.overridden(metadata or {}),
            total=total,
            model=body.get("model") or next((one.model for one in requests if one.model), None),
            endpoint=endpoint,
            input_files=tuple(files),
            metadata=metadata,
            requests=tuple(requests),
            problems=tuple(wrong),
        )

    def _read(self, files: Sequence[str]) -> tuple[list[Request], list[dict[str, Any]], int]:
        """The requests of the files, what is wrong with some, and how many lines there are."""
        lines = [
            line for id in files for line in self.file(id).content.splitlines() if line.strip()
        ]
        requests, wrong = [], []
        for place, line in enumerate(lines):
            try:
                requests.append(_request(place, json.loads(line)))
            except (ValueError, KeyError, TypeError, AttributeError):
                wrong.append({"message": "Invalid JSON line."})
        return requests, wrong, len(lines)

    def add_batch(self, *, inline: bool = False, **same: Any) -> str:
        """As `SandboxProvider.add_batch`; an `inline` job leaves its answers in itself alone."""
        id = super().add_batch(**same)
        job = self._jobs[id]
        assert isinstance(job, MistralJob)
        job.inline = inline
        return id

    def job(self, batch_id: str, *, inline: bool) -> dict[str, Any]:
        """A job, with its answers where they are asked for. Raises ApiError (404, 422)."""
        shown, job = self.retrieve(batch_id), self._job(batch_id)
        at = job.progress(self.clock())
        if not inline or at.status not in ENDS or at.status is Status.FAILED:
            return shown
        assert isinstance(job, MistralJob)
        writer = job.writer(at)
        lines = (writer.output() + writer.errors()).splitlines()
        return {**shown, "outputs": [json.loads(line) for line in lines]}

    def numbered_page(
        self,
        number: int,
        size: int,
        *,
        statuses: Collection[str] = (),
        fits: Callable[[MistralJob], bool] = lambda _: True,
        newest_first: bool = True,
        skip: int = 0,
    ) -> tuple[list[dict[str, Any]], int]:
        """The jobs of a page, from 0, and how many there are on all; `skip` passes over rows."""
        order = reversed(self._order) if newest_first else iter(self._order)
        now = self.clock()
        found = [
            job
            for id in order
            if isinstance(job := self._jobs.get(id), MistralJob)
            and (not statuses or (job.word or WORDS[job.progress(now).status]) in statuses)
            and fits(job)
        ]
        start = number * size + skip
        return [self._look(job) for job in found[start : start + size]], len(found)

    def cancel(self, batch_id: str) -> dict[str, Any]:
        """Ask for an end. Raises ApiError: 404, or 400 once it has ended."""
        try:
            return super().cancel(batch_id)
        except ApiError as error:
            if error.status != 409:
                raise
            raise ApiError(400, f"Job {batch_id} has already ended.") from None

    def delete(self, batch_id: str) -> dict[str, Any]:
        """Forget a job, and not its files. Raises ApiError (404)."""
        self.forget(batch_id)
        return {"id": batch_id, "object": "batch", "deleted": True}

    def file(self, file_id: str) -> StoredFile:
        """Raises ApiError (404)."""
        try:
            return super().file(file_id)
        except ApiError:
            raise ApiError(404, f"No file matches the id {file_id}.") from None

    def files(self) -> list[StoredFile]:
        """All files, the newest first. Looks at every job first: those that ended left some."""
        page = self.file_page(purpose=None, after=None, limit=10**9, newest_first=True)
        return [self.file(row["id"]) for row in page["data"]]

    def _settle(self, job: Job, at: Progress) -> None:
        job.settled = True
        assert isinstance(job, MistralJob)
        if job.inline or at.status is Status.FAILED:
            return
        writer = job.writer(at)
        if at.completed:
            job.output_file_id = self._left_behind(job, at, OUTPUT, writer.output)
        if at.failed:
            job.error_file_id = self._left_behind(job, at, ERROR, writer.errors)

    def _store(self, make: Callable[[], bytes], **facts: Any) -> StoredFile:
        """Files do not expire."""
        return super()._store(make, **{**facts, "keep_seconds": None})

    def _new_batch_id(self) -> str:
        return str(UUID(int=self._random.getrandbits(128), version=4))

    def _new_file_id(self) -> str:
        return self._new_batch_id()

    def _job(self, batch_id: str) -> Job:
        try:
            UUID(batch_id)
        except ValueError:
            raise ApiError(
                422, "Input should be a valid UUID", param="job_id", code="uuid_parsing"
            ) from None
        return super()._job(batch_id)

    def _no_batch(self, batch_id: str) -> ApiError:
        return ApiError(404, f"Job {batch_id} not found.")


def _request(place: int, row: Mapping[str, Any]) -> Request:
    """A request without a custom_id has the number of its line for it."""
    body = row["body"]
    messages, model = body.get("messages"), body.get("model")
    last = messages[-1] if isinstance(messages, list) and messages else None
    said = last.get("content") if isinstance(last, dict) else body.get("input")
    custom_id = row.get("custom_id")
    return Request(
        str(place) if custom_id is None else str(custom_id),
        said if isinstance(said, str) else "",
        model if isinstance(model, str) else "",
    )
