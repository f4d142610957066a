"""OpenAI's dialect, and that of the many hosts that speak it.

Strict about what we rely on, an id and a status word; whatever else makes no sense is left out.
Sources: https://platform.openai.com/docs/api-reference/batch, OpenAI's OpenAPI document, and what
other hosts were seen to answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from batchbell.core.errors import (
    MalformedBatch,
    ProviderError,
    ProviderRejected,
    ProviderUnavailable,
)
from batchbell.core.model import BatchProblem, Snapshot, Status
from batchbell.core.results import Arrived
from batchbell.core.twins import CREATE_SECONDS, Marks
from batchbell.providers.api import Api, quote_segment
from batchbell.providers.calls import Calls
from batchbell.providers.lists import ROWS_MAX, WHOLE_ROWS_MAX, Rows, page_in, snapshot_in
from batchbell.providers.profile import ListStyle, Profile
from batchbell.providers.protocol import Dialect, Order, Page
from batchbell.providers.search import find_twins
from batchbell.providers.values import (
    ID_MAX_CHARACTERS,
    PROBLEMS_MAX,
    STATUS_MAX_CHARACTERS,
    Undecodable,
    counts_of,
    decode,
    id_in,
    metadata_of,
    problem_of,
    stamps_of,
    text_of,
    usage_of,
    without_nul,
)
from batchbell.providers.verdicts import Complaint, Subject

Words = Mapping[str, Status]

STATUSES: Words = {
    **{status.value: status for status in Status if status is not Status.LOST},
    "created": Status.VALIDATING,
    "scheduling": Status.VALIDATING,
    "canceling": Status.CANCELLING,
    "canceled": Status.CANCELLED,
}
"""Words in lower case. `lost` is ours alone: no provider may say it."""

STAMPS = (
    "created_at",
    "in_progress_at",
    "expires_at",
    "finalizing_at",
    "completed_at",
    "failed_at",
    "expired_at",
    "cancelling_at",
    "cancelled_at",
)
_stamps = attrgetter(*STAMPS)

STORAGE_PASSING = frozenset({408, 425, 429})
"""4xx of a storage that say: not now."""


class OpenAI:
    """The adapter. `secret` is the API key, to be kept out of messages; `api` sends it."""

    lines = None

    def __init__(self, profile: Profile, api: Api, secret: str, clock: Callable[[], float]) -> None:
        self.profile = profile
        self._calls = Calls(api, shape=complaint_in, secret=secret, clock=clock)

    async def list_page(
        self,
        cursor: str | None = None,
        *,
        open_only: bool = False,
        known: Mapping[int, str] | None = None,
    ) -> Page:
        """As `Provider.list_page`. A 404 here is about the base URL."""
        params = {"limit": str(self.profile.page_size)}
        if cursor is not None:
            params["after"] = cursor
        whole = self.profile.list_style is ListStyle.WHOLE
        body = await self._calls.get(PATHS.batches(), None if whole else params)
        return await self._calls.read(lambda: page_from(body, cursor, self.profile, known), body)

    async def retrieve(self, batch_id: str) -> Snapshot:
        """As `Provider.retrieve`. An answer about another batch is malformed."""
        about = Subject("batch", batch_id)
        body = await self._calls.get(PATHS.batch(batch_id), about=about)
        return await self._calls.read(lambda: self._one(body, batch_id), body)

    async def cancel(self, batch_id: str) -> Snapshot:
        """As `Provider.cancel`."""
        about = Subject("batch", batch_id)
        body = await self._calls.post(PATHS.cancel(batch_id), about=about)
        return self._one(body, batch_id)

    async def upload(self, requests: Path, *, name: str, expires_seconds: int | None = None) -> str:
        """As `Provider.upload`."""
        fields = {"purpose": "batch"}
        for word, value in _expiry(expires_seconds).items():
            fields[f"expires_after[{word}]"] = str(value)
        body = await self._calls.upload(PATHS.files(), requests, name=name, fields=fields)
        identity = id_in(body)
        if identity is None:
            raise ProviderUnavailable("The provider's answer to an upload names no file.")
        return identity

    async def submit(self, order: Order) -> Snapshot:
        """As `Provider.submit`. The tag is a pair of the metadata."""
        asked: dict[str, Any] = {
            "input_file_id": order.file,
            "endpoint": order.endpoint,
            "completion_window": self.profile.windows[0],
            "metadata": dict([*order.metadata.items(), *([order.tag] if order.tag else [])]),
        }
        if expiry := _expiry(order.output_expires_seconds):
            asked["output_expires_after"] = expiry
        body = await self._calls.post(
            PATHS.batches(),
            msgspec.json.encode(asked),
            about=Subject("file", order.file or ""),
            timeout_seconds=CREATE_SECONDS,
        )
        return snapshot_in(body, Row, reader_of(self.profile))

    async def find(self, marks: Marks) -> tuple[list[Snapshot], bool]:
        """As `Provider.find`: the list has no filter, so all of it is looked through."""
        return await find_twins(self, marks)

    async def results(
        self, reference: str, target: Path, *, most_bytes: int, plain: bool = False
    ) -> Arrived:
        """As `Provider.results`: a reference is the id of a file, or the URL of a blob."""
        stored = _host_in(reference)
        try:
            return await self._calls.download(
                PATHS.content(reference) if stored is None else reference,
                target,
                about=Subject("file", reference),
                most_bytes=most_bytes,
                plain=plain,
            )
        except ProviderError as error:
            if stored is None or error.status is None:
                raise
            refused = 400 <= error.status < 500 and error.status not in STORAGE_PASSING
            type_ = ProviderRejected if refused else ProviderUnavailable
            raise type_(
                f"The file is at {stored}, which answered {error.status}. Batchbell has no key for"
                " it: the address must be signed, or readable without one.",
                status=error.status,
            ) from error

    async def delete(self, reference: str) -> None:
        """As `Provider.delete`. What is in a storage of the customer's own stays there."""
        if _host_in(reference) is not None:
            return
        await self._calls.delete(PATHS.file(reference), about=Subject("file", reference))

    def _one(self, body: bytes, batch_id: str) -> Snapshot:
        try:
            names = decode(body, dict[str, msgspec.Raw])
        except Undecodable:
            raise ProviderUnavailable("The provider's answer is not a JSON object.") from None
        if "id" not in names:
            raise self._calls.refusal(200, {}, body)
        snapshot = snapshot_in(body, Row, reader_of(self.profile))
        if snapshot.id != batch_id:
            raise MalformedBatch(f"The provider answered with batch {snapshot.id[:80]!r} instead.")
        return snapshot


class Paths:
    """As `Gateway`: the calls of OpenAI's SDKs go on as they come."""

    def batches(self) -> str:
        return "/batches"

    def batch(self, batch_id: str) -> str:
        return f"/batches/{quote_segment(batch_id)}"

    def cancel(self, batch_id: str) -> str:
        return f"{self.batch(batch_id)}/cancel"

    def files(self) -> str:
        return "/files"

    def file(self, file_id: str) -> str:
        return f"/files/{quote_segment(file_id)}"

    def content(self, file_id: str) -> str:
        return f"{self.file(file_id)}/content"

    def snapshot_in(self, body: bytes, profile: Profile) -> Snapshot | None:
        try:
            return snapshot_in(without_nul(body), Row, reader_of(profile))
        except MalformedBatch:
            return None

    def file_id_in(self, body: bytes) -> str | None:
        return id_in(body)


PATHS = Paths()
DIALECT = Dialect(name="openai", open=OpenAI, gateway=PATHS)


def words_of(profile: Profile) -> Words:
    """The status words of a host."""
    return {**STATUSES, **profile.statuses} if profile.statuses else STATUSES


def reader_of(profile: Profile) -> Callable[[Row], Snapshot]:
    """How rows of a host are read."""
    return partial(snapshot_of, words=words_of(profile), runs_on=profile.runs_on)


def _host_in(reference: str) -> str | None:
    """The host of a reference that is a URL: of Azure's blobs, and of SiliconFlow's files."""
    is_url = reference.lower().startswith(("http://", "https://"))
    return (urlsplit(reference).hostname or "nowhere") if is_url else None


def complaint_in(answer: Any) -> Complaint | None:
    """OpenAI's error shape: `{"error": {"message", "type", "param", "code"}}`.

    vLLM and Mistral write the same without `error` around it, and `"object": "error"`.
    """
    if not isinstance(answer, dict):
        return None
    error = answer.get("error")
    if answer.get("object") == "error":
        error = answer
    if not isinstance(error, dict) or not error.keys() & {"type", "code", "param"}:
        return None
    message = error.get("message")
    if not isinstance(message, str):
        return None
    words = (str(error.get(name) or "") for name in ("code", "type"))
    codes = tuple(word for word in words if word not in ("", "None", "null"))
    return Complaint(message, codes)


def _expiry(seconds: int | None) -> dict[str, str | int]:
    """As OpenAI writes it; empty without one."""
    return {} if seconds is None else {"anchor": "created_at", "seconds": seconds}


def page_from(
    body: bytes, cursor: str | None, profile: Profile, known: Mapping[int, str] | None = None
) -> Page:
    """The page in a list answer to `cursor`. Raises ProviderUnavailable where it is no list."""
    whole = profile.list_style is ListStyle.WHOLE
    rows = Rows(most=WHOLE_ROWS_MAX if whole else ROWS_MAX)
    return page_in(body, cursor, Row, reader_of(profile), rows=rows, whole=whole, known=known)


class Row(msgspec.Struct, gc=False):
    """A batch as it came; nothing in it is to be trusted yet."""

    id: Any = None
    status: Any = None
    endpoint: Any = None
    model: Any = None
    completion_window: Any = None
    input_file_id: Any = None
    output_file_id: Any = None
    error_file_id: Any = None
    input_blob: Any = None
    output_blob: Any = None
    error_blob: Any = None
    created_at: Any = None
    in_progress_at: Any = None
    expires_at: Any = None
    finalizing_at: Any = None
    completed_at: Any = None
    failed_at: Any = None
    expired_at: Any = None
    cancelling_at: Any = None
    cancelled_at: Any = None
    request_counts: Any = None
    errors: Any = None
    error: Any = None
    usage: Any = None
    metadata: Any = None


def snapshot_from(raw: bytes | msgspec.Raw, words: Words = STATUSES) -> Snapshot:
    """The snapshot in the JSON of one batch. Raises MalformedBatch."""
    return snapshot_in(raw, Row, partial(snapshot_of, words=words))


def snapshot_of(row: Row, words: Words, *, runs_on: bool = False) -> Snapshot:
    """The snapshot of one row. Raises MalformedBatch.

    With storage of the customer's own Azure names blobs, by URL, in place of files.
    """
    if not isinstance(row.id, str) or not 0 < len(row.id) <= ID_MAX_CHARACTERS:
        raise MalformedBatch("A batch has no id.")
    if not isinstance(row.status, str) or not row.status:
        raise MalformedBatch("The batch has no status.")
    return Snapshot(
        id=row.id,
        provider_status=row.status[:STATUS_MAX_CHARACTERS],
        status=words.get(row.status.lower()),
        counts=counts_of(row.request_counts),
        endpoint=text_of(row.endpoint),
        model=text_of(row.model),
        completion_window=text_of(row.completion_window),
        input_file_id=text_of(row.input_file_id) or text_of(row.input_blob),
        output_file_id=text_of(row.output_file_id) or text_of(row.output_blob),
        error_file_id=text_of(row.error_file_id) or text_of(row.error_blob),
        timestamps=stamps_of(dict(zip(STAMPS, _stamps(row), strict=True))),
        problems=_problems(row) if row.errors or row.error else (),
        usage=usage_of(row.usage),
        metadata=metadata_of(row.metadata) if isinstance(row.metadata, dict) else None,
        runs_on=runs_on,
    )


def _problems(row: Row) -> tuple[BatchProblem, ...]:
    found = row.errors.get("data") if isinstance(row.errors, dict) else row.errors
    if not isinstance(found, list):
        found = [row.error] if row.error else []
    return tuple(problem_of(entry) for entry in found[:PROBLEMS_MAX] if entry)
