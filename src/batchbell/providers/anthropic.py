"""Anthropic's dialect: Message Batches.

A batch has no files, no metadata and no endpoint: its requests come with the call that creates it,
and nothing of it tells which call that was. It says `ended` however it ended, and its counts say
how. Results are lines at one address. Sources: https://docs.claude.com/en/api/messages-batches,
the `anthropic` SDK 2.14, and answers that were recorded in August 2026.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import msgspec

from batchbell.core.errors import MalformedBatch, ProviderUnavailable
from batchbell.core.form import Form, ModelPlace
from batchbell.core.model import Counts, Snapshot, Status
from batchbell.core.results import NOT_RUN, Arrived
from batchbell.core.twins import Marks
from batchbell.providers.api import Api, quote_segment
from batchbell.providers.calls import Calls
from batchbell.providers.lists import page_in, snapshot_in
from batchbell.providers.profile import Profile
from batchbell.providers.protocol import Asked, Dialect, Lines, Order, Page, Passage, Verb
from batchbell.providers.search import find_twins
from batchbell.providers.values import (
    ID_MAX_CHARACTERS,
    STATUS_MAX_CHARACTERS,
    Undecodable,
    count_of,
    counts_of,
    decode,
    stamps_of,
    text_of,
    without_nul,
)
from batchbell.providers.verdicts import Complaint, Subject
from batchbell.threads import disk

BATCHES = "/v1/messages/batches"
ENDPOINT = "/v1/messages"
"""What every request of a batch asks."""
RESULTS = re.compile(rf"{BATCHES}/([^/?#]+)/results/?$")
CALL = re.compile(rf"{BATCHES}(?:/([^/?#]+)(/cancel|/results)?)?")
"""The calls for batches: which batch, and what of it."""
WEB = re.compile(r"https?://", re.IGNORECASE)
RUNNING: Mapping[str, Status] = {
    "in_progress": Status.IN_PROGRESS,
    "canceling": Status.CANCELLING,
}
ENDED = "ended"
END_STAMPS: Mapping[Status, str] = {
    Status.COMPLETED: "completed_at",
    Status.FAILED: "failed_at",
    Status.EXPIRED: "expired_at",
    Status.CANCELLED: "cancelled_at",
}
HTTP_STATUSES: Mapping[str, int] = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
"""What the Messages API answers with an error of each type."""
WRITTEN_BYTES = 2**20
"""Written to the disk at once."""
UNKNOWN_HTTP_STATUS = 500
"""Of an error whose type is new: whoever retries by status tries once more."""


class Anthropic:
    """The adapter. `secret` is the API key, to be kept out of messages; `api` sends it."""

    lines: Lines

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
        """As `Provider.list_page`, newest first."""
        params = {"limit": str(self.profile.page_size)}
        if cursor is not None:
            params["after_id"] = cursor
        body = await self._calls.get(BATCHES, params)
        return await self._calls.read(
            lambda: page_in(body, cursor, Row, snapshot_of, known=known), body
        )

    async def retrieve(self, batch_id: str) -> Snapshot:
        """As `Provider.retrieve`. An answer about another batch is malformed."""
        body = await self._calls.get(_path(batch_id), about=Subject("batch", batch_id))
        return await self._calls.read(lambda: self._one(body, batch_id), body)

    async def cancel(self, batch_id: str) -> Snapshot:
        """As `Provider.cancel`. A batch that has ended is refused with 400."""
        about = Subject("batch", batch_id)
        body = await self._calls.post(f"{_path(batch_id)}/cancel", about=about)
        return self._one(body, batch_id)

    async def upload(
        self, requests: Path, *, name: str, expires_seconds: int | None = None
    ) -> str | None:
        """As `Provider.upload`: there are no files."""
        return None

    async def submit(self, order: Order) -> Snapshot:
        """As `Provider.submit`. There is nowhere for a tag."""
        body = order.requests.with_suffix(".json")
        try:
            await disk(_write_requests, order.requests, body, self.lines)
            answer = await self._calls.post_file(BATCHES, body)
        finally:
            await disk(partial(body.unlink, missing_ok=True))
        return snapshot_from(answer)

    async def find(self, marks: Marks) -> tuple[list[Snapshot], bool]:
        """As `Provider.find`: by the number of requests and the time."""
        return await find_twins(self, marks)

    async def results(
        self, reference: str, target: Path, *, most_bytes: int, plain: bool = False
    ) -> Arrived:
        """As `Provider.results`: a reference is the address of the results.

        One that has the API's own path is asked for below our base URL, because gateways pass on
        the address of the API behind them. Another one is called as it is; `api` sends our key to
        our own host alone.
        """
        batch_id = _batch_of(reference)
        foreign = "#" in reference and WEB.match(reference) is not None
        path = reference if foreign else f"{_path(batch_id)}/results"
        about = Subject("batch", batch_id)
        return await self._calls.download(
            path, target, about=about, most_bytes=most_bytes, plain=plain
        )

    async def delete(self, reference: str) -> None:
        """As `Provider.delete`. Results are deleted with their batch, and only so."""
        batch_id = _batch_of(reference)
        await self._calls.delete(_path(batch_id), about=Subject("batch", batch_id))

    def _one(self, body: bytes, batch_id: str) -> Snapshot:
        try:
            names = decode(body, dict[str, msgspec.Raw])
        except Undecodable:
            raise ProviderUnavailable("The provider's answer is not a JSON object.") from None
        if "id" not in names:
            raise self._calls.refusal(200, {}, body)
        snapshot = snapshot_from(body)
        if snapshot.id != batch_id:
            raise MalformedBatch(f"The provider answered with batch {snapshot.id[:80]!r} instead.")
        return snapshot


def _path(batch_id: str) -> str:
    return f"{BATCHES}/{quote_segment(batch_id)}"


def reference_of(results_url: str, batch_id: str) -> str:
    """The address of results, which names the batch in any case: in its path or its fragment."""
    found = RESULTS.search(results_url)
    if found is not None and unquote(found[1]) == batch_id:
        return results_url
    return f"{results_url.partition('#')[0]}#{quote(batch_id, safe='')}"


def _batch_of(reference: str) -> str:
    """The id of the batch that a reference names."""
    address, _, fragment = reference.partition("#")
    found = RESULTS.search(address)
    return unquote(fragment or (found[1] if found else address))


def complaint_in(answer: Any) -> Complaint | None:
    """Anthropic's error shape: `{"type": "error", "error": {"type", "message"}}`."""
    if not isinstance(answer, dict) or answer.get("type") != "error":
        return None
    error = answer.get("error")
    if not isinstance(error, dict):
        return None
    type_, message = error.get("type"), error.get("message")
    if not isinstance(type_, str) or not isinstance(message, str):
        return None
    return Complaint(message, (type_,))


class Row(msgspec.Struct, gc=False):
    """A batch as it came; nothing in it is to be trusted yet."""

    id: Any = None
    processing_status: Any = None
    request_counts: Any = None
    created_at: Any = None
    expires_at: Any = None
    ended_at: Any = None
    cancel_initiated_at: Any = None
    archived_at: Any = None
    results_url: Any = None


def snapshot_from(raw: bytes | msgspec.Raw) -> Snapshot:
    """The snapshot in the JSON of one batch. Raises MalformedBatch."""
    return snapshot_in(raw, Row, snapshot_of)


def snapshot_of(row: Row) -> Snapshot:
    """The snapshot of one row. Raises MalformedBatch."""
    if not isinstance(row.id, str) or not 0 < len(row.id) <= ID_MAX_CHARACTERS:
        raise MalformedBatch("A batch has no id.")
    word = row.processing_status
    if not isinstance(word, str) or not word:
        raise MalformedBatch("The batch has no processing_status.")
    status = status_of(word, row.request_counts, was_cancelled=bool(row.cancel_initiated_at))
    url = text_of(row.results_url)
    if url is None and text_of(row.archived_at) is not None:
        # Results that are gone are asked for all the same: the API says that they are gone, and
        # nobody takes the batch for one without answers.
        url = f"{_path(row.id)}/results"
    return Snapshot(
        id=row.id,
        provider_status=word[:STATUS_MAX_CHARACTERS],
        status=status,
        counts=_counts(row.request_counts),
        endpoint=ENDPOINT,
        timestamps=_timestamps(row, status),
        results_ref=None if url is None else reference_of(url, row.id),
    )


def status_of(word: str, counts: Any, *, was_cancelled: bool) -> Status | None:
    """OpenAI's word for where a batch stands; None where `word` is new.

    How one ended, its counts say. As at OpenAI, one that left requests out has expired or was
    cancelled, whatever else was answered. One whose requests were all refused has failed.
    """
    if word.lower() != ENDED:
        return RUNNING.get(word.lower())
    numbers = counts if isinstance(counts, dict) else {}
    names = ("succeeded", "errored", "canceled", "expired")
    succeeded, errored, canceled, expired = (count_of(numbers.get(name)) or 0 for name in names)
    if canceled and (was_cancelled or not expired):
        return Status.CANCELLED
    if expired:
        return Status.EXPIRED
    return Status.FAILED if errored and not succeeded else Status.COMPLETED


def _counts(value: Any) -> Counts | None:
    """None where no request is counted: there is no batch without any."""
    counts = counts_of(value)
    return counts if counts is not None and counts.total > 0 else None


def _timestamps(row: Row, status: Status | None) -> dict[str, int]:
    named = {
        "created_at": row.created_at,
        "expires_at": row.expires_at,
        "cancelling_at": row.cancel_initiated_at,
    }
    if status is not None and status in END_STAMPS:
        named[END_STAMPS[status]] = row.ended_at
    return stamps_of(named)


class _Result(msgspec.Struct, gc=False):
    type: str
    message: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()


class _Line(msgspec.Struct, gc=False):
    custom_id: msgspec.Raw
    result: _Result


class _Request(msgspec.Struct, gc=False):
    custom_id: msgspec.Raw
    body: msgspec.Raw


def _write_requests(lines: Path, target: Path, form: Lines) -> None:
    """The body of the call that creates a batch; called in a thread."""
    with lines.open("rb") as source, target.open("wb", WRITTEN_BYTES) as body:
        before = b'{"requests":['
        for line in source:
            body.write(before + form.own(line))
            before = b",\n"
        body.write(b"]}")


class MessageLines:
    """As `Lines`: a line of results is `{"custom_id", "result": {"type", …}}`."""

    form = Form(
        body="params",
        addressed=False,
        endpoint=ENDPOINT,
        endpoints=(ENDPOINT,),
        model=ModelPlace.ANY,
    )

    def own(self, line: bytes) -> bytes:
        """As `Lines.own`: one of the `requests` of a call."""
        found = decode(line, _Request)
        return msgspec.json.encode({"custom_id": found.custom_id, "params": found.body})

    def request(self, line: bytes) -> bytes:
        """As `Lines.request`: there are no input files."""
        return line

    def answer(self, line: bytes) -> bytes:
        """As `Lines.answer`. An error's HTTP status is that which the Messages API would have."""
        try:
            found = decode(line, _Line)
            response, error = _outer(found.result)
        except (Undecodable, KeyError):
            return line
        whole = {"id": None, "custom_id": found.custom_id, "response": response, "error": error}
        return msgspec.json.encode(whole)


def _outer(result: _Result) -> tuple[dict[str, Any] | None, dict[str, str] | None]:
    """`response` and `error`. Raises KeyError for a type that is new, Undecodable for no answer."""
    match result.type:
        case "succeeded" if result.message:
            return {"status_code": 200, "request_id": None, "body": result.message}, None
        case "errored" if result.error:
            type_, request_id = _error_of(result.error)
            status = HTTP_STATUSES.get(type_ or "", UNKNOWN_HTTP_STATUS)
            body = {"status_code": status, "request_id": request_id, "body": result.error}
            return body, None
        case "canceled":
            return None, _not_run(Status.CANCELLED)
        case "expired":
            return None, _not_run(Status.EXPIRED)
        case other:
            raise KeyError(other)


def _not_run(status: Status) -> dict[str, str]:
    code, message = NOT_RUN[status]
    return {"code": code, "message": message}


def _error_of(raw: msgspec.Raw) -> tuple[str | None, str | None]:
    """The type of an error, and the id of the request; both shapes of it are seen."""
    found = decode(raw, object)
    if not isinstance(found, dict):
        return None, None
    inner = found.get("error")
    type_ = inner.get("type") if isinstance(inner, dict) else found.get("type")
    return text_of(type_), text_of(found.get("request_id"))


VERBS = {
    ("POST", False, None): Verb.CREATE,
    ("GET", False, None): Verb.OTHER,
    ("GET", True, None): Verb.BATCH,
    ("POST", True, "/cancel"): Verb.BATCH,
    ("DELETE", True, None): Verb.OTHER,
    ("GET", True, "/results"): Verb.CONTENT,
}
"""By method, whether a batch is named, and what of it."""


class NativeCalls:
    """As `Native`: what Anthropic's SDKs call."""

    root = ""
    links = frozenset({"results_url"})
    secrets: frozenset[str] = frozenset()

    def passage(self, method: str, path: str, query: str = "") -> Passage | None:
        """As `Native.passage`: all that the API has for batches."""
        found = CALL.fullmatch(path)
        if found is None:
            return None
        batch_id = None if found[1] is None else unquote(found[1])
        verb = VERBS.get((method, batch_id is not None, found[2]))
        return None if verb is None or batch_id in (".", "..") else Passage(verb, batch_id)

    def location(self, batch_id: str) -> str:
        """As `Native.location`."""
        return _path(batch_id)

    def asked(self, path: str, body: Mapping[str, msgspec.Raw]) -> Asked:
        """As `Native.asked`: the requests themselves, and nothing else."""
        try:
            requests = decode(body["requests"], list[msgspec.Raw])
        except (Undecodable, KeyError):
            return Asked()
        return Asked(lines=len(requests), endpoint=ENDPOINT)

    def tagged(self, body: Mapping[str, msgspec.Raw], tag: tuple[str, str]) -> bytes | None:
        """As `Native.tagged`: a batch has nowhere for one."""
        return None

    def snapshot_in(self, body: bytes, profile: Profile) -> Snapshot | None:
        """As `Native.snapshot_in`."""
        try:
            return snapshot_from(without_nul(body))
        except MalformedBatch:
            return None

    def error(self, status: int, code: str, message: str) -> Mapping[str, Any]:
        """As `Native.error`: the SDK chooses its exception by the status, and shows the message."""
        by_status = {status: type_ for type_, status in HTTP_STATUSES.items()}
        other = "invalid_request_error" if status < 500 else "api_error"
        error = {"type": by_status.get(status, other), "message": message, "code": code}
        return {"type": "error", "error": error, "request_id": None}


Anthropic.lines = MessageLines()
DIALECT = Dialect(name="anthropic", open=Anthropic, lines=Anthropic.lines, native=NativeCalls())
