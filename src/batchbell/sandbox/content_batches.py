"""The state of another fake: batches of the Gemini API, and its files. No HTTP here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from batchbell.core.model import Status
from batchbell.sandbox.answers import ApiError
from batchbell.sandbox.files import StoredFile
from batchbell.sandbox.hooks import Headers, by_token
from batchbell.sandbox.inputs import Request, problem
from batchbell.sandbox.jobs import Job, made_up
from batchbell.sandbox.outputs import INPUT_TOKENS, OUTPUT_TOKENS, Writer, said
from batchbell.sandbox.provider import SandboxProvider
from batchbell.sandbox.schedule import ENDS, Progress

MODEL = "gemini-3.5-flash"
KEEP_SECONDS = 48 * 3600
"""How long files are there."""
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
TYPES = "type.googleapis.com/google.ai.generativelanguage.v1main"
STATES = {
    Status.VALIDATING: "PENDING",
    Status.IN_PROGRESS: "RUNNING",
    Status.FINALIZING: "RUNNING",
    Status.COMPLETED: "SUCCEEDED",
    Status.FAILED: "FAILED",
    Status.EXPIRED: "EXPIRED",
    Status.CANCELLED: "CANCELLED",
}
THOUGHTS = 4
"""Of the OUTPUT_TOKENS of an answer."""


@dataclass(slots=True, kw_only=True)
class ContentJob(Job):
    """A batch, whose requests came in a file, or `inline` with the call."""

    inline: bool = False
    embeds: bool = False
    display_name: str | None = None

    def as_object(self, at: Progress) -> dict[str, Any]:
        """The operation. Answers that it holds itself are not in it: see `answers`."""
        kind = "EmbedContentBatch" if self.embeds else "GenerateContentBatch"
        ended = at.status in ENDS
        stamp = at.stamps.get(f"{at.status}_at") if ended else None
        inner: dict[str, Any] = {
            "@type": f"{TYPES}.{kind}",
            "model": f"models/{self.model}",
            "displayName": self.display_name,
            "inputConfig": None if self.inline else {"fileName": self.input_file_id},
            "output": self._output() if ended else None,
            "createTime": time_of(self.created_at),
            "endTime": time_of(stamp),
            "updateTime": time_of(self.created_at if stamp is None else stamp),
            "batchStats": self._stats(at),
            "state": self.word or f"BATCH_STATE_{STATES[at.status]}",
            "name": self.id,
        }
        metadata = {name: value for name, value in inner.items() if value is not None}
        shown: dict[str, Any] = {"name": self.id, "metadata": metadata}
        if ended:
            shown["done"] = True
            error = self._error(at)
            shown |= {"error": error} if error else {"response": self._response()}
        return shown

    def _output(self) -> dict[str, Any] | None:
        return {"responsesFile": self.output_file_id} if self.output_file_id else None

    def _response(self) -> dict[str, Any]:
        kind = "EmbedContentBatchOutput" if self.embeds else "GenerateContentBatchOutput"
        return {"@type": f"{TYPES}.{kind}", **(self._output() or {})}

    def _stats(self, at: Progress) -> dict[str, str]:
        """As text, and without what is 0."""
        completed, failed = self.counts or (at.completed, at.failed)
        left = 0 if at.status is Status.COMPLETED else self.total - completed - failed
        numbers = {
            "requestCount": self.total,
            "successfulRequestCount": completed,
            "failedRequestCount": failed,
            "pendingRequestCount": left,
        }
        return {name: str(number) for name, number in numbers.items() if number}

    def _error(self, at: Progress) -> dict[str, Any] | None:
        match at.status:
            case Status.FAILED:
                texts = [one["message"] for one in self.problems]
                quota = "You have exhausted the enqueued tokens of this model."
                return {"code": 3 if texts else 8, "message": " ".join(texts) or quota}
            case Status.EXPIRED:
                return {"code": 4, "message": "The batch did not end within 48 hours."}
            case Status.CANCELLED:
                return {"code": 1, "message": "The batch was cancelled."}
            case _:
                return None


def time_of(seconds: float | None) -> str | None:
    """With nanoseconds, as Google writes it."""
    if seconds is None:
        return None
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S.%f}000Z"


class ContentWriter(Writer):
    """Writes answers, in the order of the requests."""

    def rows(self, requests: Sequence[Request], *, embeds: bool) -> list[dict[str, Any]]:
        """What is said to each request."""
        failed = set(map(id, self._failed))
        make = self._embedding if embeds else self._content
        return [
            {"error": {"code": 3, "message": "The sandbox made this request fail."}}
            if id(request) in failed
            else {"response": make(request)}
            for request in requests
        ]

    def _content(self, request: Request) -> dict[str, Any]:
        candidate = {
            "content": {"parts": [{"text": said(request)}], "role": "model"},
            "finishReason": "STOP",
            "index": 0,
        }
        return {
            "candidates": [candidate],
            "usageMetadata": {
                "promptTokenCount": INPUT_TOKENS,
                "candidatesTokenCount": OUTPUT_TOKENS - THOUGHTS,
                "thoughtsTokenCount": THOUGHTS,
                "totalTokenCount": INPUT_TOKENS + OUTPUT_TOKENS,
                "promptTokensDetails": [{"modality": "TEXT", "tokenCount": INPUT_TOKENS}],
            },
            "modelVersion": self._model,
            "responseId": self._token("answer", request),
        }

    def _embedding(self, request: Request) -> dict[str, Any]:
        token = self._token("answer", request)
        values = [byte / 255 for byte in bytes.fromhex(token)]
        return {"embedding": {"values": values}, "tokenCount": str(INPUT_TOKENS)}


class ContentBatches(SandboxProvider):
    """A fake of the Gemini API's batches, with the words of `SandboxProvider`.

    Of `metadata` only `display_name` is shown. Files are those of `SandboxProvider`, under names.
    """

    job_type = ContentJob
    default_model = MODEL

    def begin(self, model: str, body: Mapping[str, Any], *, embeds: bool) -> dict[str, Any]:
        """Make a batch as `models/{model}:batchGenerateContent` does. Raises ApiError."""
        asked = body.get("batch")
        if not isinstance(asked, dict):
            raise ApiError(400, "* BatchGenerateContentRequest.batch: must be specified")
        config = asked.get("inputConfig") or asked.get("input_config")
        config = config if isinstance(config, dict) else {}
        name = config.get("fileName") or config.get("file_name")
        requests, problems = _inline(config) if name is None else _lines(self.file(name).content)
        if not requests and not problems:
            raise ApiError(400, "* BatchGenerateContentRequest.batch.input_config: has no requests")
        return self._begin(
            total=max(len(requests), 1),
            model=model,
            requests=tuple(requests),
            problems=problems,
            input_file_id=name or "",
            inline=name is None,
            embeds=embeds,
            display_name=asked.get("displayName") or asked.get("display_name"),
            hook_urls=_hook_urls(asked.get("webhookConfig") or asked.get("webhook_config")),
        )

    def _targets(self, job: Job) -> Mapping[str, Headers]:
        """What a batch asks for itself counts in place of the hook of all."""
        own = {url: by_token(f"evt_{job.id}", url) for url in job.hook_urls}
        return own or super()._targets(job)

    def _event(self, job: Job, at: Progress) -> Mapping[str, Any]:
        word = "succeeded" if at.status is Status.COMPLETED else at.status.value
        return {
            "type": f"batch.{word}",
            "version": "v1",
            "timestamp": time_of(at.stamps[f"{at.status}_at"]),
            "data": {"id": job.id},
        }

    def add_batch(self, *, inline: bool = False, **same: Any) -> str:
        """As `SandboxProvider.add_batch`; the requests of an `inline` one came with the call."""
        id = super().add_batch(**same)
        job = self._jobs[id]
        assert isinstance(job, ContentJob)
        job.inline = inline
        job.display_name = (job.metadata or {}).get("display_name")
        return id

    def cancel(self, batch_id: str) -> dict[str, Any]:
        """Ask for an end. Raises ApiError: 404, or 400 once it has ended."""
        try:
            super().cancel(batch_id)
        except ApiError as error:
            if error.status != 409:
                raise
            raise ApiError(400, f"The batch {batch_id} has already ended.") from None
        return {}

    def delete(self, batch_id: str) -> dict[str, Any]:
        """Forget a batch, and the answers that it holds. Raises ApiError (404)."""
        self.forget(batch_id)
        return {}

    def operation(self, batch_id: str) -> dict[str, Any]:
        """A batch with the answers that it holds, twice. Raises ApiError (404)."""
        shown, job = self.retrieve(batch_id), self._job(batch_id)
        if not isinstance(job, ContentJob) or not job.inline or "response" not in shown:
            return shown
        answers = {"inlinedResponses": {"inlinedResponses": self._rows(job, keys_inside=True)}}
        metadata = {**shown["metadata"], "output": answers}
        return {**shown, "metadata": metadata, "response": {**shown["response"], **answers}}

    def file(self, file_id: str) -> StoredFile:
        """Raises ApiError: 403 for a file that is not there, as at Google."""
        try:
            return super().file(file_id)
        except ApiError:
            name = file_id.removeprefix("files/")
            text = f"You do not have permission to access the File {name} or it may not exist."
            raise ApiError(403, text) from None

    def generated(self, file_id: str) -> StoredFile:
        """A file that may be downloaded: none that was uploaded. Raises ApiError."""
        file = self.file(file_id)
        if file.purpose != "batch_output":
            raise ApiError(400, f"The file {file_id} was uploaded, and cannot be downloaded.")
        return file

    def remove_file(self, file_id: str) -> dict[str, Any]:
        """Raises ApiError (403)."""
        self.file(file_id)
        self.delete_file(file_id)
        return {}

    def keep_upload(self, content: bytes, *, display_name: str, mime_type: str) -> StoredFile:
        """A file whose upload is over."""
        file = StoredFile(
            id=self._new_file_id(),
            filename=display_name,
            purpose=mime_type,
            created_at=int(self.clock()),
            expires_at=int(self.clock()) + KEEP_SECONDS,
            make=lambda: content,
        )
        self._files.put(file)
        return file

    def upload_id(self) -> str:
        """A name for an upload that begins."""
        return self._new_id("", 24, LETTERS)

    def knows(self, batch_id: str) -> bool:
        """Whether there has been such a batch."""
        return batch_id in self._place

    def _rows(self, job: ContentJob, *, keys_inside: bool = False) -> list[dict[str, Any]]:
        at = job.progress(self.clock())
        requests = list(job.requests if job.requests is not None else made_up(job.total))
        writer = ContentWriter(
            batch_id=job.id,
            endpoint="",
            model=job.model or MODEL,
            status=at.status,
            requests=requests,
            created_at=int(job.created_at),
            completed=at.completed,
            failed=at.failed,
        )
        rows = writer.rows(requests, embeds=job.embeds)
        named = []
        for request, row in zip(requests, rows, strict=True):
            key = {"key": request.custom_id} if request.custom_id else {}
            if keys_inside:
                named.append({**row, **({"metadata": key} if key else {})})
            else:
                named.append({**key, **row})
        return named

    def _settle(self, job: Job, at: Progress) -> None:
        job.settled = True
        assert isinstance(job, ContentJob)
        if job.inline or at.status is not Status.COMPLETED:
            return
        name = f"files/batch-{job.id.removeprefix('batches/')}"
        file = StoredFile(
            id=name,
            filename=name,
            purpose="batch_output",
            created_at=at.stamps["completed_at"],
            expires_at=at.stamps["completed_at"] + KEEP_SECONDS,
            make=lambda: "".join(json.dumps(row) + "\n" for row in self._rows(job)).encode(),
        )
        self._files.put(file)
        job.output_file_id = name

    def _keep(self, job: Job) -> None:
        job.schedule = replace(job.schedule, cancelling_seconds=0.0)
        super()._keep(job)

    def _new_batch_id(self) -> str:
        return self._new_id("batches/", 36, LETTERS)

    def _new_file_id(self) -> str:
        return self._new_id("files/", 12, LETTERS)

    def _no_batch(self, batch_id: str) -> ApiError:
        return ApiError(404, "Requested entity was not found.")


def _hook_urls(config: Any) -> tuple[str, ...]:
    uris = config.get("uris") if isinstance(config, dict) else None
    return tuple(str(one) for one in uris) if isinstance(uris, list) else ()


def _inline(config: Mapping[str, Any]) -> tuple[list[Request], tuple[dict[str, Any], ...]]:
    inner = config.get("requests")
    rows = inner.get("requests") if isinstance(inner, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ApiError(400, "* BatchGenerateContentRequest.batch.input_config: has no requests")
    keys = [row["metadata"] if isinstance(row.get("metadata"), dict) else {} for row in rows]
    found = [
        _request(key.get("key"), row.get("request")) for key, row in zip(keys, rows, strict=True)
    ]
    return found, ()


def _lines(content: bytes) -> tuple[list[Request], tuple[dict[str, Any], ...]]:
    requests: list[Request] = []
    for number, line in enumerate(content.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            requests.append(_request(row.get("key"), row["request"]))
        except (ValueError, KeyError, AttributeError, ApiError):
            text = f"Line {number} of the input file is no request."
            return [], (problem("INVALID_ARGUMENT", text, line=number),)
    return requests, ()


def _request(key: Any, request: Any) -> Request:
    if not isinstance(request, dict):
        raise ApiError(400, "* BatchGenerateContentRequest.batch.input_config: has no request")
    contents = request.get("contents")
    last = contents[-1] if isinstance(contents, list) and contents else request.get("content")
    parts = last.get("parts") if isinstance(last, dict) else None
    text = parts[-1].get("text") if isinstance(parts, list) and parts else None
    return Request(str(key) if key is not None else "", text if isinstance(text, str) else "")
