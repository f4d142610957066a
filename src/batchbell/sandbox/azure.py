"""A fake of Azure OpenAI's batches: OpenAI's API with another key, and with habits of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from aiohttp import web
from yarl import URL

from batchbell.core.model import Status
from batchbell.sandbox.answers import ApiError
from batchbell.sandbox.files import StoredFile
from batchbell.sandbox.gate import sent
from batchbell.sandbox.jobs import Job
from batchbell.sandbox.provider import ENDPOINTS, SandboxProvider
from batchbell.sandbox.schedule import Progress

PREFIX = "/azure"
PATHS = ("/openai/v1", "/openai")
"""The second is that of dated versions of the API, which `AzureOpenAI` of the SDK calls."""
ROUTE = "azure."
BLOBS = f"{PREFIX}/blobs"
DAY_SECONDS = 86_400
KINDS = ("input", "output", "error")


class AzureJob(Job):
    """A batch of Azure's. One that failed says so with the time of another end."""

    def as_object(self, at: Progress) -> dict[str, Any]:
        shown = Job.as_object(self, at)
        if at.status is Status.FAILED:
            shown |= {
                "completed_at": shown["failed_at"],
                "failed_at": None,
                "request_counts": None,
            }
        return shown | {f"{kind}_blob": "" for kind in KINDS}


class AzureProvider(SandboxProvider):
    """The state behind it, with all that a test may force."""

    job_type = AzureJob
    endpoints: ClassVar[frozenset[str]] = ENDPOINTS | {"/chat/completions"}
    expiry_seconds = range(14 * DAY_SECONDS, 30 * DAY_SECONDS + 1)

    def __init__(self, **how: Any) -> None:
        super().__init__(**how)
        self.processing_seconds = 0.0
        """How long a file that was uploaded is not processed."""
        self.blobs: str | None = None
        """The host of the customer's own storage, where the files of batches are then."""
        self.signed = True
        """Whether addresses of blobs have a signature; without one they are refused."""

    def shown(self, row: dict[str, Any], url: URL) -> dict[str, Any]:
        if self.blobs is None:
            return row
        origin = url.origin().with_host(self.blobs)
        changes: dict[str, Any] = {}
        for kind in KINDS:
            if file_id := row[f"{kind}_file_id"]:
                blob = origin.with_path(f"{BLOBS}/{file_id}")
                blob = blob.with_query(sig="secret") if self.signed else blob
                changes |= {f"{kind}_file_id": None, f"{kind}_blob": str(blob)}
        return {**row, **changes}

    def _store(self, *args: Any, purpose: str, **how: Any) -> StoredFile:
        file = super()._store(*args, purpose=purpose, **how)
        if purpose == "batch":
            file.ready_at = self.clock() + self.processing_seconds
        return file

    def _settle(self, job: Job, at: Progress) -> None:
        """One that failed leaves an error file of no bytes."""
        super()._settle(job, at)
        if at.status is Status.FAILED:
            job.error_file_id = self._left_behind(job, at, "error", lambda: b"")

    def create(self, body: Mapping[str, Any]) -> dict[str, Any]:
        file_id = body.get("input_file_id")
        if isinstance(file_id, str) and self._input_is_pending(file_id):
            text = f"The file {file_id} is not in the processed state. Please try again later."
            raise ApiError(400, text, code="invalidPayload")
        return super().create(body)

    def _input_is_pending(self, file_id: str) -> bool:
        try:
            return self.clock() < self.file(file_id).ready_at
        except ApiError:
            return False


def check_key(request: web.Request, wanted: str | None) -> None:
    """A key in its own header, or a token of Entra ID."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    key = request.headers.get("api-key") or (token if scheme.lower() == "bearer" else "")
    if not key or (wanted is not None and key != wanted):
        text = (
            "Access denied due to invalid subscription key or wrong API endpoint. Make sure to"
            " provide a valid key for an active subscription and use a correct regional API"
            " endpoint for your resource."
        )
        raise ApiError(401, text, code="401")


def blob_route(provider: AzureProvider) -> web.RouteDef:
    """The customer's storage: it knows its own signature, and no key of the API."""

    async def blob(request: web.Request) -> web.StreamResponse:
        if request.headers.keys() & {"api-key", "Authorization"} or "sig" not in request.query:
            text = "<Error><Code>PublicAccessNotPermitted</Code></Error>"
            return web.Response(status=409, text=text, content_type="application/xml")
        file = provider.file(request.match_info["id"])
        return await sent(request, file.content, {"ETag": f'"{file.id}"'})

    return web.get(f"{BLOBS}/{{id}}", blob)
