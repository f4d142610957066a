"""Mistral's dialect: batch jobs.

A job has any number of input files, and up to two files with results, of lines in OpenAI's shape.
Its list has numbered pages, and may be asked for what has not ended alone. Sources:
https://docs.mistral.ai/api/#tag/batch, https://docs.mistral.ai/capabilities/batch, and the SDK
`mistralai` 3.7.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qs, unquote, urlencode
from uuid import UUID

import msgspec
from msgspec.structs import replace

from batchbell import threads
from batchbell.core.errors import (
    MalformedBatch,
    ProviderNotFound,
    ProviderRejected,
    ProviderUnavailable,
)
from batchbell.core.form import Form, ModelPlace
from batchbell.core.model import BETWEEN, BatchProblem, Counts, Snapshot, Status
from batchbell.core.results import Arrived
from batchbell.core.twins import CREATE_SECONDS, Marks
from batchbell.providers.api import Api, quote_segment
from batchbell.providers.calls import Calls
from batchbell.providers.input_file import written
from batchbell.providers.lists import Rows, page_in, snapshot_in
from batchbell.providers.profile import Profile
from batchbell.providers.protocol import Asked, Dialect, Lines, Order, Page, Passage, Verb
from batchbell.providers.search import find_twins
from batchbell.providers.values import (
    ID_MAX_CHARACTERS,
    PROBLEMS_MAX,
    STATUS_MAX_CHARACTERS,
    Undecodable,
    count_of,
    counts_of,
    decode,
    id_in,
    metadata_of,
    problem_of,
    stamps_of,
    text_of,
    without_nul,
)
from batchbell.providers.verdicts import Complaint, Subject

T = TypeVar("T")

JOBS = "/batch/jobs"
FILES = "/files"
CHAT = "/v1/chat/completions"
"""What is asked where nobody says otherwise."""
IN_JOB = "jobs/"
"""How a reference begins to a job that names no file: its answers may stand in the job itself."""
ANSWERS = "outputs"
STATUSES: Mapping[str, Status] = {
    "queued": Status.VALIDATING,
    "running": Status.IN_PROGRESS,
    "cancellation_requested": Status.CANCELLING,
    "success": Status.COMPLETED,
    "failed": Status.FAILED,
    "timeout_exceeded": Status.EXPIRED,
    "cancelled": Status.CANCELLED,
}
OPEN = tuple(word.upper() for word, status in STATUSES.items() if not status.ended)
END_STAMPS: Mapping[Status, str] = {
    Status.COMPLETED: "completed_at",
    Status.FAILED: "failed_at",
    Status.EXPIRED: "expired_at",
    Status.CANCELLED: "cancelled_at",
}
INVALID = 422


class Mistral:
    """The adapter. `secret` is the API key, to be kept out of messages; `api` sends it."""

    lines: Lines

    def __init__(self, profile: Profile, api: Api, secret: str, clock: Callable[[], float]) -> None:
        self.profile = profile
        self._calls = Calls(api, shape=complaint_in, secret=secret, clock=clock)
        self._filters = True
        self._rows = Rows(total="total", size=profile.page_size)

    async def list_page(
        self,
        cursor: str | None = None,
        *,
        open_only: bool = False,
        known: Mapping[int, str] | None = None,
    ) -> Page:
        """As `Provider.list_page`, newest first."""
        body = await self._listed(cursor or "0", OPEN if open_only and self._filters else ())
        return await self._calls.read(
            lambda: page_in(body, cursor, Row, snapshot_of, rows=self._rows, known=known), body
        )

    async def _listed(self, number: str, words: Sequence[str]) -> bytes:
        """A page of jobs of these statuses; of any, from a host that refuses to choose."""
        pairs = [("page", number), ("page_size", str(self.profile.page_size))]
        try:
            return await self._calls.get(
                f"{JOBS}?{urlencode([*pairs, *(('status', word) for word in words)])}"
            )
        except ProviderRejected:
            if not words:
                raise
        self._filters = False
        return await self._calls.get(f"{JOBS}?{urlencode(pairs)}")

    async def retrieve(self, batch_id: str) -> Snapshot:
        """As `Provider.retrieve`. An answer about another batch is malformed."""
        return _in_itself(await self._retrieved(batch_id))

    async def _retrieved(self, batch_id: str) -> Snapshot:
        try:
            body = await self._calls.get(_path(batch_id), about=Subject("job", batch_id))
        except ProviderRejected as error:
            if error.status != INVALID or _is_uuid(batch_id):
                raise
            # The API says no more of an id that no job can have than that it is none.
            raise ProviderNotFound(error.message, status=INVALID, from_api=True) from error
        return await self._calls.read(lambda: self._one(body, batch_id), body)

    async def cancel(self, batch_id: str) -> Snapshot:
        """As `Provider.cancel`."""
        about = Subject("job", batch_id)
        body = await self._calls.post(f"{_path(batch_id)}/cancel", about=about)
        return self._one(body, batch_id)

    async def upload(
        self, requests: Path, *, name: str, expires_seconds: int | None = None
    ) -> str | None:
        """As `Provider.upload`. Files do not expire."""
        async with written(requests, self.lines) as own:
            body = await self._calls.upload(FILES, own, name=name, fields={"purpose": "batch"})
        identity = id_in(body)
        if identity is None:
            raise ProviderUnavailable("The provider's answer to an upload names no file.")
        return identity

    async def submit(self, order: Order) -> Snapshot:
        """As `Provider.submit`. The tag is a pair of the metadata."""
        asked: dict[str, Any] = {
            "input_files": [order.file],
            "endpoint": order.endpoint,
            "model": order.model,
            "metadata": dict([*order.metadata.items(), *([order.tag] if order.tag else [])]),
            "timeout_hours": int(self.profile.windows[0].removesuffix("h")),
        }
        body = await self._calls.post(
            JOBS,
            msgspec.json.encode(asked),
            about=Subject("file", order.file or ""),
            timeout_seconds=CREATE_SECONDS,
        )
        return snapshot_in(body, Row, snapshot_of)

    async def find(self, marks: Marks) -> tuple[list[Snapshot], bool]:
        """As `Provider.find`.

        The list is read whole, and not by its filter of metadata: a host that filters otherwise
        than we expect would hide a job that is there.
        """
        return await find_twins(self, replace(marks, own_input=True))

    async def results(
        self, reference: str, target: Path, *, most_bytes: int, plain: bool = False
    ) -> Arrived:
        """As `Provider.results`: a reference names files, or a job that named none.

        Of the job the files are taken that it names by now, else the answers within it.
        """
        files = reference.split(BETWEEN)
        if reference.startswith(IN_JOB):
            job_id = reference.removeprefix(IN_JOB)
            files = list((await self._retrieved(job_id)).answers)
            if not files:
                return await self._inline(job_id, target, most_bytes=most_bytes, plain=plain)
        if len(files) > 1:
            return await self._joined(files, target, most_bytes=most_bytes)
        return await self._file(files[0], target, most_bytes=most_bytes, plain=plain)

    async def _inline(self, job_id: str, target: Path, *, most_bytes: int, plain: bool) -> Arrived:
        arrived = await self._calls.download(
            f"{_path(job_id)}?inline=true",
            target,
            about=Subject("job", job_id),
            most_bytes=most_bytes,
            plain=plain,
        )
        return replace(arrived, inside=ANSWERS)

    async def _file(self, id: str, target: Path, *, most_bytes: int, plain: bool) -> Arrived:
        return await self._calls.download(
            f"{_file_path(id)}/content",
            target,
            about=Subject("file", id),
            most_bytes=most_bytes,
            plain=plain,
        )

    async def _joined(self, ids: Sequence[str], target: Path, *, most_bytes: int) -> Arrived:
        """Several files as one, in their order. None of them may come packed."""
        part, left = target.with_name(f"{target.name}.part"), most_bytes
        arrived = Arrived()
        for place, id in enumerate(ids):
            arrived = await self._file(id, part, most_bytes=left, plain=True)
            if (arrived.encoding or "identity").lower() != "identity":
                raise ProviderUnavailable(f"The provider packed file {id} though asked not to.")
            left -= await threads.disk(_append, part, target, anew=not place)
        return arrived

    async def delete(self, reference: str) -> None:
        """As `Provider.delete`. Answers within a job are deleted with it, and only so."""
        if reference.startswith(IN_JOB):
            job_id = reference.removeprefix(IN_JOB)
            await self._calls.delete(_path(job_id), about=Subject("job", job_id))
            return
        for id in reference.split(BETWEEN):
            await self._calls.delete(_file_path(id), about=Subject("file", id))

    def _one(self, body: bytes, batch_id: str) -> Snapshot:
        try:
            names = decode(body, dict[str, msgspec.Raw])
        except Undecodable:
            raise ProviderUnavailable("The provider's answer is not a JSON object.") from None
        if "id" not in names:
            raise self._calls.refusal(200, {}, body)
        snapshot = snapshot_in(body, Row, snapshot_of)
        if snapshot.id != batch_id:
            raise MalformedBatch(f"The provider answered with batch {snapshot.id[:80]!r} instead.")
        return snapshot


CALLS = re.compile(rf"({JOBS}|{FILES})(?:/([^/?#]+)(/cancel|/content|/url)?)?")
"""The calls for jobs and files: which of them, and what of it."""
VERBS = {
    ("POST", JOBS, False, None): Verb.CREATE,
    ("GET", JOBS, False, None): Verb.OTHER,
    ("GET", JOBS, True, None): Verb.BATCH,
    ("POST", JOBS, True, "/cancel"): Verb.BATCH,
    ("DELETE", JOBS, True, None): Verb.OTHER,
    ("POST", FILES, False, None): Verb.UPLOAD,
    ("GET", FILES, False, None): Verb.OTHER,
    ("GET", FILES, True, None): Verb.OTHER,
    ("DELETE", FILES, True, None): Verb.OTHER,
    ("GET", FILES, True, "/content"): Verb.CONTENT,
    ("GET", FILES, True, "/url"): Verb.OTHER,
}
"""By method, what it is for, whether one is named, and what of it."""
ERROR_TYPES: Mapping[int, str] = {
    401: "unauthorized",
    404: "not_found",
    429: "rate_limited",
    502: "service_unavailable",
    503: "service_unavailable",
}


class NativeCalls:
    """As `Native`: what Mistral's SDK calls for jobs and files."""

    root = "/v1"
    links: frozenset[str] = frozenset()
    """Signed addresses of files need no key, and are no calls of the API."""
    secrets: frozenset[str] = frozenset()

    def passage(self, method: str, path: str, query: str = "") -> Passage | None:
        """As `Native.passage`. A job that is read with its answers may be as long as they are."""
        found = CALLS.fullmatch(path)
        if found is None:
            return None
        base, id = found[1], None if found[2] is None else unquote(found[2])
        verb = VERBS.get((method, base, id is not None, found[3]))
        if verb is None or id in (".", ".."):
            return None
        if base == FILES:
            return Passage(verb)
        inline = parse_qs(query).get("inline", [""])[-1].lower() in ("true", "1")
        return Passage(Verb.CONTENT if verb is Verb.BATCH and inline else verb, id)

    def location(self, batch_id: str) -> str:
        """As `Native.location`."""
        return _path(batch_id)

    def asked(self, path: str, body: Mapping[str, msgspec.Raw]) -> Asked:
        """As `Native.asked`: by its files, or the number of its requests, and its metadata."""
        metadata = _value(body, "metadata", dict[str, Any])
        requests = _value(body, "requests", list[msgspec.Raw])
        return Asked(
            lines=len(requests) if requests else None,
            input_file_id=_inputs(_value(body, "input_files", list[Any])),
            endpoint=_value(body, "endpoint", str),
            metadata=metadata_of(metadata) if metadata else None,
        )

    def tagged(self, body: Mapping[str, msgspec.Raw], tag: tuple[str, str]) -> bytes | None:
        """As `Native.tagged`: the metadata is the caller's."""
        return None

    def snapshot_in(self, body: bytes, profile: Profile) -> Snapshot | None:
        """As `Native.snapshot_in`."""
        try:
            return snapshot_in(without_nul(body), Row, snapshot_of)
        except MalformedBatch:
            return None

    def error(self, status: int, code: str, message: str) -> Mapping[str, Any]:
        """As `Native.error`: the SDK shows the whole body."""
        other = "invalid_request_error" if status < 500 else "internal_server_error"
        type_ = ERROR_TYPES.get(status, other)
        return {"object": "error", "message": message, "type": type_, "param": None, "code": code}


def _value(body: Mapping[str, msgspec.Raw], name: str, kind: type[T]) -> T | None:
    """A field of a call, if it can be read."""
    try:
        return decode(body[name], kind)
    except (KeyError, Undecodable):
        return None


class JobLines:
    """As `Lines`: a request is `{"custom_id", "body"}`, and answers have OpenAI's shape."""

    form = Form(addressed=False, endpoint=CHAT, model=ModelPlace.APART)

    def own(self, line: bytes) -> bytes:
        """As `Lines.own`."""
        found = decode(line, _Request)
        return msgspec.json.encode(found)

    def request(self, line: bytes) -> bytes:
        """As `Lines.request`: nothing that we need is called otherwise."""
        return line

    def answer(self, line: bytes) -> bytes:
        """As `Lines.answer`."""
        return line


class _Request(msgspec.Struct, gc=False):
    custom_id: msgspec.Raw
    body: msgspec.Raw


Mistral.lines = JobLines()
DIALECT = Dialect(name="mistral", open=Mistral, lines=Mistral.lines, native=NativeCalls())


def _path(batch_id: str) -> str:
    return f"{JOBS}/{quote_segment(batch_id)}"


def _file_path(id: str) -> str:
    return f"{FILES}/{quote_segment(id)}"


def _is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True


def _append(part: Path, target: Path, *, anew: bool) -> int:
    """Move the lines of a file, of which the last may not end; returns how many bytes it has."""
    with part.open("rb") as source, target.open("wb" if anew else "ab") as file:
        shutil.copyfileobj(source, file)
        file.write(b"\n")
    size = part.stat().st_size
    part.unlink()
    return size


def complaint_in(answer: Any) -> Complaint | None:
    """Mistral's error shapes: `{"object": "error", "message", "type", "code"}`, and `{"detail"}`.

    The detail is a text, or a list of what is wrong where; it may also be the message of the other.
    """
    if not isinstance(answer, dict) or "id" in answer:
        return None
    if answer.get("object") == "error":
        words = (str(answer.get(name) or "") for name in ("code", "type"))
        message = answer.get("message")
        inner = message.get("detail") if isinstance(message, dict) else message
        return Complaint(_said(inner), tuple(word for word in words if word))
    message = _said(answer.get("detail"))
    return None if message is None else Complaint(message)


def _said(detail: Any) -> str | None:
    if isinstance(detail, list):
        return "; ".join(map(_fault, detail[:PROBLEMS_MAX])) or None
    return detail if isinstance(detail, str) and detail else None


def _fault(entry: Any) -> str:
    """What is wrong with one value of a request, and where that stands."""
    found = entry if isinstance(entry, dict) else {"msg": entry}
    place = found.get("loc")
    where = ".".join(map(str, place)) if isinstance(place, list) else ""
    return ": ".join(filter(None, (where, str(found.get("msg") or found.get("type") or ""))))


class Row(msgspec.Struct, gc=False):
    """A job as it came; nothing in it is to be trusted yet."""

    id: Any = None
    status: Any = None
    endpoint: Any = None
    model: Any = None
    input_files: Any = None
    output_file: Any = None
    error_file: Any = None
    created_at: Any = None
    started_at: Any = None
    completed_at: Any = None
    total_requests: Any = None
    completed_requests: Any = None
    succeeded_requests: Any = None
    failed_requests: Any = None
    errors: Any = None
    metadata: Any = None


def snapshot_of(row: Row) -> Snapshot:
    """The snapshot of one row. Raises MalformedBatch."""
    if not isinstance(row.id, str) or not 0 < len(row.id) <= ID_MAX_CHARACTERS:
        raise MalformedBatch("A batch has no id.")
    if not isinstance(row.status, str) or not row.status:
        raise MalformedBatch("The batch has no status.")
    status = STATUSES.get(row.status.lower())
    return Snapshot(
        id=row.id,
        provider_status=row.status[:STATUS_MAX_CHARACTERS],
        status=status,
        counts=_counts(row),
        endpoint=text_of(row.endpoint),
        model=text_of(row.model),
        input_file_id=_inputs(row.input_files),
        output_file_id=text_of(row.output_file),
        error_file_id=text_of(row.error_file),
        timestamps=_timestamps(row, status),
        problems=_problems(row.errors),
        metadata=metadata_of(row.metadata) if isinstance(row.metadata, dict) else None,
    )


def _in_itself(seen: Snapshot) -> Snapshot:
    """With a reference to the job, where it has answers and names no file of them."""
    counts = seen.counts
    ended = seen.status is not None and seen.status.ended
    if not ended or seen.answers or counts is None or not counts.completed + counts.failed:
        return seen
    return replace(seen, results_ref=f"{IN_JOB}{seen.id}")


def _inputs(files: Any) -> str | None:
    """One reference to all input files."""
    ids = [id for id in files if text_of(id)] if isinstance(files, list) else [text_of(files)]
    return text_of(BETWEEN.join(id for id in ids if id))


def _counts(row: Row) -> Counts | None:
    """Mistral counts what is done, and of that what succeeded and what failed."""
    done, failed = count_of(row.completed_requests), count_of(row.failed_requests)
    succeeded = count_of(row.succeeded_requests)
    if succeeded is None and done is not None and failed is not None:
        succeeded = max(done - failed, 0)
    if failed is None and done is not None and succeeded is not None:
        failed = max(done - succeeded, 0)
    named = {"total": count_of(row.total_requests), "completed": succeeded, "failed": failed}
    return counts_of({name: number for name, number in named.items() if number is not None})


def _timestamps(row: Row, status: Status | None) -> dict[str, int]:
    named = {"created_at": row.created_at, "in_progress_at": row.started_at}
    if status is not None and status in END_STAMPS:
        named[END_STAMPS[status]] = row.completed_at
    return stamps_of(named)


def _problems(errors: Any) -> tuple[BatchProblem, ...]:
    """`errors` are messages, and how many requests each is about."""
    found = errors if isinstance(errors, list) else []
    return tuple(_problem(entry) for entry in found[:PROBLEMS_MAX] if entry)


def _problem(entry: Any) -> BatchProblem:
    problem = problem_of(entry)
    number = count_of(entry.get("count")) if isinstance(entry, dict) else None
    if problem.message is None or number is None or number < 2:
        return problem
    return replace(problem, message=f"{problem.message} ({number:,} times)")
