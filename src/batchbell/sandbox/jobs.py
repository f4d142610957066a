"""One batch as the sandbox keeps it, and as the API shows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from batchbell.core.model import Status
from batchbell.sandbox.faults import STAMPS
from batchbell.sandbox.inputs import Request
from batchbell.sandbox.outputs import Writer, usage
from batchbell.sandbox.schedule import ENDS, Progress, Schedule, progress


@dataclass(slots=True, kw_only=True)
class Job:
    """A batch. What a schedule does not say, a test may force: `forced`, `word`, `counts`."""

    id: str
    created_at: float
    schedule: Schedule
    total: int
    model: str | None
    endpoint: str = "/v1/chat/completions"
    completion_window: str = "24h"
    input_file_id: str = ""
    metadata: dict[str, str] | None = None
    requests: tuple[Request, ...] | None = None
    """None for a batch that was added without a file: its requests are made up when needed."""
    problems: tuple[dict[str, Any], ...] = ()
    keep_output_seconds: int | None = None
    cancel_asked_at: float | None = None
    forced: Progress | None = None
    word: str | None = None
    counts: tuple[int, int] | None = None
    hook_urls: tuple[str, ...] = ()
    """Where whoever made it wants to hear of its end."""
    announced: int = 0
    """How often its end was announced, or tried to; TRIES_MAX ends that."""
    settled: bool = False
    """Whether its output files have been made."""
    output_file_id: str | None = None
    error_file_id: str | None = None

    def progress(self, now: float) -> Progress:
        if self.forced is not None:
            return self.forced
        return progress(
            self.schedule,
            created_at=self.created_at,
            total=self.total,
            valid=not self.problems,
            cancelled_at=self.cancel_asked_at,
            now=now,
        )

    def writer(self, at: Progress) -> Writer:
        """For the files of a batch that has ended."""
        return Writer(
            batch_id=self.id,
            endpoint=self.endpoint,
            model=self.model or "",
            status=at.status,
            requests=self.requests if self.requests is not None else made_up(self.total),
            created_at=int(self.created_at),
            completed=at.completed,
            failed=at.failed,
        )

    def as_object(self, at: Progress) -> dict[str, Any]:
        """The batch in OpenAI's shape."""
        created_at = int(self.created_at)
        completed, failed = self.counts or (at.completed, at.failed)
        counted = at.status not in (Status.VALIDATING, Status.FAILED)
        shown = {
            "id": self.id,
            "object": "batch",
            "endpoint": self.endpoint,
            "model": self.model,
            "errors": self._errors(at),
            "input_file_id": self.input_file_id,
            "completion_window": self.completion_window,
            "status": self.word or at.status.value,
            "output_file_id": self.output_file_id,
            "error_file_id": self.error_file_id,
            "created_at": created_at,
            "expires_at": created_at + int(self.schedule.expires_seconds),
            "request_counts": {
                "total": self.total if counted else 0,
                "completed": completed,
                "failed": failed,
            },
            "usage": usage(at.completed if at.status in ENDS else 0),
            "metadata": self.metadata,
        }
        for stamp in STAMPS:
            shown[stamp] = at.stamps.get(stamp)
        return shown

    def _errors(self, at: Progress) -> dict[str, Any] | None:
        if at.status is not Status.FAILED:
            return None
        return {"object": "list", "data": list(self.problems or (self._over_quota(),))}

    def _over_quota(self) -> dict[str, Any]:
        text = (
            f"Enqueued token limit reached for {self.model} in organization org-sandbox. "
            "Limit: 90,000 enqueued tokens. Please try again once some in_progress batches "
            "have been completed."
        )
        return {"code": "token_limit_exceeded", "line": None, "message": text, "param": None}


def made_up(total: int) -> Sequence[Request]:
    """Requests for a batch that has no input file."""
    return [Request(f"request-{n}", "") for n in range(1, total + 1)]
