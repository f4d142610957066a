"""Gemini's dialect: batches of the Gemini API, which are long-running operations.

A batch has requests in a file, and then its results are in one; or they came with the call, and
then the operation itself holds the answers, twice. Sources:
https://ai.google.dev/gemini-api/docs/batch-api, https://ai.google.dev/api/batch-api, the SDK
`google-genai` 3.6, and answers that were recorded in July 2026.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import msgspec
from msgspec.structs import replace

from batchbell import threads
from batchbell.core.backoff import duration_seconds
from batchbell.core.errors import (
    MalformedBatch,
    ProviderRejected,
    ProviderUnavailable,
)
from batchbell.core.form import Form, ModelPlace
from batchbell.core.model import BatchProblem, Counts, Snapshot, Status
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
    STATUS_MAX_CHARACTERS,
    Undecodable,
    count_of,
    decode,
    shown_of,
    stamps_of,
    text_of,
    without_nul,
)
from batchbell.providers.verdicts import Complaint, Subject

VERSION = "/v1beta"
BATCHES = "batches/"
FILES = "files/"
GENERATE, EMBED = "/v1beta/models:generateContent", "/v1beta/models:embedContent"
"""What the requests of a batch may ask."""
VERBS: Mapping[str, str] = {GENERATE: "batchGenerateContent", EMBED: "asyncBatchEmbedContent"}
"""By what is asked, the verb of a model that makes a batch."""
JSON_LINES = "application/jsonl"
WEB = re.compile(r"https?://", re.IGNORECASE)
TAGGED = re.compile(r"(batchbell_[a-z]+)=(.+)")
"""A display name that holds a tag: a batch has nothing else that could."""
ANSWERS = "inlinedResponses"
"""The array of answers that an operation holds, wherever it is."""
SHOWN = (
    "name,done,error,response/responsesFile,metadata(state,model,displayName,createTime,updateTime,"
    "endTime,batchStats,inputConfig/fileName,output/responsesFile)"
)
"""What is asked for of a batch. Without it one that has ended comes with all its answers, twice."""
ROWS = Rows(
    "operations", cursor="nextPageToken", beside=frozenset({"nextPageToken", "unreachable"})
)
GIVES_UP_SECONDS = 48 * 3600
"""A batch that has not ended so long after it was made has expired."""
STATES: Mapping[str, Status] = {
    "queued": Status.VALIDATING,
    "pending": Status.VALIDATING,
    "running": Status.IN_PROGRESS,
    "updating": Status.IN_PROGRESS,
    "paused": Status.IN_PROGRESS,
    "cancelling": Status.CANCELLING,
    "succeeded": Status.COMPLETED,
    "partially_succeeded": Status.COMPLETED,
    "failed": Status.FAILED,
    "expired": Status.EXPIRED,
    "cancelled": Status.CANCELLED,
}
"""By what follows `BATCH_STATE_`, or `JOB_STATE_` as SDKs write it."""
END_STAMPS: Mapping[Status, str] = {
    Status.COMPLETED: "completed_at",
    Status.FAILED: "failed_at",
    Status.EXPIRED: "expired_at",
    Status.CANCELLED: "cancelled_at",
}
CODES: Mapping[int, tuple[str, int]] = {
    1: ("CANCELLED", 499),
    2: ("UNKNOWN", 500),
    3: ("INVALID_ARGUMENT", 400),
    4: ("DEADLINE_EXCEEDED", 504),
    5: ("NOT_FOUND", 404),
    6: ("ALREADY_EXISTS", 409),
    7: ("PERMISSION_DENIED", 403),
    8: ("RESOURCE_EXHAUSTED", 429),
    9: ("FAILED_PRECONDITION", 400),
    10: ("ABORTED", 409),
    11: ("OUT_OF_RANGE", 400),
    12: ("UNIMPLEMENTED", 501),
    13: ("INTERNAL", 500),
    14: ("UNAVAILABLE", 503),
    15: ("DATA_LOSS", 500),
    16: ("UNAUTHENTICATED", 401),
}
"""The words of `google.rpc.Code`, and the HTTP status that goes with each."""
WORDS: Mapping[str, int] = dict(CODES.values())
NOT_FOUND = 404
UNKNOWN_HTTP_STATUS = 500
NOTHING = (b"", b"null", b'""', b"[]")
EMPTY = (*NOTHING, b"{}")


class Gemini:
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
        """As `Provider.list_page`, in an order that is not documented."""
        params = {
            # Without a size the list was seen empty: googleapis/python-genai#1250.
            "pageSize": str(self.profile.page_size),
            "fields": f"nextPageToken,operations({SHOWN})",
        }
        if cursor is not None:
            params["pageToken"] = cursor
        body = await self._get(f"{VERSION}/batches", params)
        return await self._calls.read(
            lambda: page_in(body, cursor, Row, snapshot_of, rows=ROWS, known=known), body
        )

    async def retrieve(self, batch_id: str) -> Snapshot:
        """As `Provider.retrieve`. An answer about another batch is malformed."""
        about = Subject("batch", batch_id)
        body = await self._get(_path(batch_id), {"fields": SHOWN}, about)
        return await self._calls.read(lambda: self._one(body, batch_id), body)

    async def cancel(self, batch_id: str) -> Snapshot:
        """As `Provider.cancel`. The answer to the call is empty: the batch is read after it."""
        await self._calls.post(f"{_path(batch_id)}:cancel", about=Subject("batch", batch_id))
        return await self.retrieve(batch_id)

    async def upload(
        self, requests: Path, *, name: str, expires_seconds: int | None = None
    ) -> str | None:
        """As `Provider.upload`: a call that starts, and one with all of the file.

        Google deletes files after a time of its own.
        """
        async with written(requests, self.lines) as own:
            size = (await threads.disk(own.stat)).st_size
            said = await self._calls.headers_of_post(
                f"/upload{VERSION}/files",
                msgspec.json.encode({"file": {"displayName": name, "mimeType": JSON_LINES}}),
                headers={
                    "X-Goog-Upload-Protocol": "resumable",
                    "X-Goog-Upload-Command": "start",
                    "X-Goog-Upload-Header-Content-Length": str(size),
                    "X-Goog-Upload-Header-Content-Type": JSON_LINES,
                },
            )
            address = said.get("x-goog-upload-url", "")
            if not WEB.match(address):
                raise ProviderUnavailable("The provider says nowhere to send the file to.")
            body = await self._calls.post_file(
                address,
                own,
                headers={
                    "Content-Type": JSON_LINES,
                    "X-Goog-Upload-Command": "upload, finalize",
                    "X-Goog-Upload-Offset": "0",
                },
            )
        identity = _uploaded(body)
        if identity is None:
            raise ProviderUnavailable("The provider's answer to an upload names no file.")
        return identity

    async def submit(self, order: Order) -> Snapshot:
        """As `Provider.submit`. The tag is the batch's name, and there is no other metadata."""
        asked: dict[str, Any] = {"inputConfig": {"fileName": order.file}}
        if order.tag is not None:
            asked["displayName"] = "=".join(order.tag)
        model = quote_segment((order.model or "").removeprefix("models/"))
        try:
            body = await self._calls.post(
                f"{VERSION}/models/{model}:{VERBS[order.endpoint]}",
                msgspec.json.encode({"batch": asked}),
                about=Subject("file", order.file or ""),
                timeout_seconds=CREATE_SECONDS,
            )
        except ProviderUnavailable as error:
            if error.status != NOT_FOUND or not error.from_api:
                raise
            # It is the model that is not there: this call names nothing else but the file.
            raise ProviderRejected(error.message, status=error.status, code=error.code) from error
        return snapshot_in(body, Row, snapshot_of)

    async def find(self, marks: Marks) -> tuple[list[Snapshot], bool]:
        """As `Provider.find`."""
        return await find_twins(self, marks)

    async def results(
        self, reference: str, target: Path, *, most_bytes: int, plain: bool = False
    ) -> Arrived:
        """As `Provider.results`: a reference is the name of a file, or of a batch with answers.

        Uploaded files, and with them the input, are not given back by the API.
        """
        in_batch = reference.startswith(BATCHES)
        path = _path(reference) + "?fields=name,response&prettyPrint=false"
        if not in_batch:
            path = f"{_file_path(reference)}:download?alt=media"
        about = Subject("batch" if in_batch else "file", reference)
        arrived = await self._calls.download(
            path, target, about=about, most_bytes=most_bytes, plain=plain
        )
        return replace(arrived, inside=ANSWERS) if in_batch else arrived

    async def delete(self, reference: str) -> None:
        """As `Provider.delete`. Answers within a batch are deleted with it, and only so."""
        in_batch = reference.startswith(BATCHES)
        path = _path(reference) if in_batch else _file_path(reference)
        await self._calls.delete(path, about=Subject("batch" if in_batch else "file", reference))

    async def _get(
        self, path: str, params: Mapping[str, str], about: Subject | None = None
    ) -> bytes:
        """A part of an answer, or all of it from a host that refuses to choose."""
        try:
            return await self._calls.get(path, params, about=about)
        except ProviderRejected as error:
            if "field" not in error.message.lower():
                raise
        without = {name: value for name, value in params.items() if name != "fields"}
        return await self._calls.get(path, without, about=about)

    def _one(self, body: bytes, batch_id: str) -> Snapshot:
        try:
            names = decode(body, dict[str, msgspec.Raw])
        except Undecodable:
            raise ProviderUnavailable("The provider's answer is not a JSON object.") from None
        if "name" not in names:
            raise self._calls.refusal(200, {}, body)
        snapshot = snapshot_in(body, Row, snapshot_of)
        if snapshot.id != batch_id:
            raise MalformedBatch(f"The provider answered with batch {snapshot.id[:80]!r} instead.")
        return snapshot


def _path(batch_id: str) -> str:
    return f"{VERSION}/{BATCHES}{quote_segment(batch_id.removeprefix(BATCHES))}"


def _file_path(name: str) -> str:
    return f"{VERSION}/{FILES}{quote_segment(name.removeprefix(FILES))}"


def _uploaded(body: bytes) -> str | None:
    """The name of a file in the answer to its upload."""
    try:
        return text_of(decode(body, dict[str, dict[str, Any]])["file"]["name"])
    except (Undecodable, KeyError):
        return None


def complaint_in(answer: Any) -> Complaint | None:
    """Google's error shape: `{"error": {"code", "message", "status", "details"}}`.

    Some errors stand in an array of one. A detail may say a reason, or how long to wait.
    """
    if isinstance(answer, list) and len(answer) == 1:
        answer = answer[0]
    error = answer.get("error") if isinstance(answer, dict) else None
    if not isinstance(error, dict) or "name" in answer:
        return None
    status, message = error.get("status"), error.get("message")
    if not isinstance(status, str) or not isinstance(message, str):
        return None
    details = [one for one in _list(error.get("details")) if isinstance(one, dict)]
    reasons = [one["reason"] for one in details if isinstance(one.get("reason"), str)]
    waits = (duration_seconds(text_of(one.get("retryDelay"))) for one in details)
    wait = next((seconds for seconds in waits if seconds is not None), None)
    return Complaint(message, (*reasons, status), wait)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


class _Place(msgspec.Struct, gc=False, rename="camel"):
    """Where requests or answers are. Answers that stand here themselves are passed over."""

    file_name: Any = None
    responses_file: Any = None


_Odd = str | list[Any] | None
"""What some write in place of an object that is not there."""


class _Metadata(msgspec.Struct, gc=False, rename="camel"):
    state: Any = None
    model: Any = None
    display_name: Any = None
    create_time: Any = None
    update_time: Any = None
    end_time: Any = None
    batch_stats: Any = None
    input_config: _Place | _Odd = None
    output: _Place | _Odd = None


class Row(msgspec.Struct, gc=False):
    """A batch as it came; nothing in it is to be trusted yet."""

    id: Any = msgspec.field(name="name", default=None)
    done: Any = None
    error: Any = None
    metadata: _Metadata | _Odd = None
    response: _Place | _Odd = None


def snapshot_of(row: Row) -> Snapshot:
    """The snapshot of one row. Raises MalformedBatch."""
    if not isinstance(row.id, str) or not 0 < len(row.id) <= ID_MAX_CHARACTERS:
        raise MalformedBatch("A batch has no name.")
    said = row.metadata if isinstance(row.metadata, _Metadata) else _Metadata()
    if not isinstance(said.state, str) or not said.state:
        raise MalformedBatch("The batch has no state.")
    status = STATES.get(said.state.lower().rpartition("_state_")[2])
    requests, answers = _file(said.input_config), _file(row.response) or _file(said.output)
    model = text_of(said.model)
    counts = _counts(said.batch_stats, status)
    return Snapshot(
        id=row.id,
        provider_status=said.state[:STATUS_MAX_CHARACTERS],
        status=status,
        counts=counts,
        model=model and model.removeprefix("models/"),
        input_file_id=requests,
        output_file_id=answers,
        results_ref=row.id if _holds_answers(status, counts, requests, answers) else None,
        timestamps=_timestamps(said, status),
        problems=_problems(row.error),
        metadata=_metadata(text_of(said.display_name)),
    )


def _metadata(display_name: str | None) -> dict[str, str] | None:
    if display_name is None:
        return None
    tagged = TAGGED.fullmatch(display_name)
    return {"display_name": display_name} if tagged is None else {tagged[1]: tagged[2]}


def _file(place: _Place | _Odd) -> str | None:
    if not isinstance(place, _Place):
        return None
    return text_of(place.responses_file) or text_of(place.file_name)


def _holds_answers(
    status: Status | None, counts: Counts | None, requests: str | None, answers: str | None
) -> bool:
    """Whether the operation itself holds the answers: its requests came with the call."""
    if requests is not None or answers is not None:
        return False
    cut_short = status is Status.CANCELLED and counts is not None and counts.completed > 0
    return status is Status.COMPLETED or cut_short


def _counts(stats: Any, status: Status | None) -> Counts | None:
    """Numbers come as text, and those that are 0 not at all.

    A batch that expired has no results, whatever it had counted before.
    """
    if not isinstance(stats, dict):
        return None
    names = ("requestCount", "successfulRequestCount", "failedRequestCount", "pendingRequestCount")
    total, good, bad, pending = (count_of(stats.get(name)) or 0 for name in names)
    known = max(total, good + bad + pending)
    if known == 0:
        return None
    if status is Status.EXPIRED:
        good = bad = 0
    return Counts(total=known, completed=good, failed=bad, whole=total == known)


def _timestamps(said: _Metadata, status: Status | None) -> dict[str, int]:
    named = {"created_at": said.create_time}
    if status is not None and status in END_STAMPS:
        named[END_STAMPS[status]] = said.end_time or said.update_time
    stamps = stamps_of(named)
    if "created_at" in stamps:
        stamps["expires_at"] = stamps["created_at"] + GIVES_UP_SECONDS
    return stamps


def _problems(error: Any) -> tuple[BatchProblem, ...]:
    """Why the batch failed as a whole."""
    if not error:
        return ()
    if not isinstance(error, dict):
        return (BatchProblem(code=None, message=shown_of(error)),)
    word, _ = _code_of(error)
    return (BatchProblem(code=word, message=shown_of(error.get("message"))),)


def _code_of(error: Any) -> tuple[str | None, int]:
    """The word and the HTTP status of an error, whose `code` is of either kind."""
    found = error if isinstance(error, dict) else {}
    word, number = text_of(found.get("status")), count_of(found.get("code"))
    if word is None and isinstance(found.get("code"), str):
        word = None if number is not None else text_of(found["code"])
    if number is not None and 400 <= number < 600:
        named = (name for name, status in WORDS.items() if status == number)
        return word or next(named, None), number
    if number is not None and number in CODES:
        return word or CODES[number][0], CODES[number][1]
    return word, WORDS.get((word or "").upper(), UNKNOWN_HTTP_STATUS)


class _Request(msgspec.Struct, gc=False):
    custom_id: msgspec.Raw
    body: msgspec.Raw


class _Line(msgspec.Struct, gc=False):
    key: msgspec.Raw = msgspec.Raw()
    metadata: Any = None
    request: msgspec.Raw = msgspec.Raw()
    response: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()

    def custom_id(self) -> msgspec.Raw | None:
        """The key, which stands in the metadata of what came with the call; None without one."""
        if self.key and bytes(self.key) != b"null":
            return self.key
        key = self.metadata.get("key") if isinstance(self.metadata, dict) else None
        return None if key is None else msgspec.Raw(msgspec.json.encode(key))


class KeyedLines:
    """As `Lines`: a line of results is `{"key", "response"}` or `{"key", "error"}`."""

    form = Form(
        identity="key",
        body="request",
        addressed=False,
        endpoint=GENERATE,
        endpoints=(GENERATE, EMBED),
        model=ModelPlace.APART,
    )

    def own(self, line: bytes) -> bytes:
        """As `Lines.own`: a line of an input file."""
        found = decode(line, _Request)
        return msgspec.json.encode({"key": found.custom_id, "request": found.body})

    def request(self, line: bytes) -> bytes:
        """As `Lines.request`: a line of an input file is `{"key", "request"}`."""
        try:
            found = decode(line, _Line)
        except Undecodable:
            return line
        if not found.request:
            return line
        named = {"custom_id": found.custom_id()}
        return msgspec.json.encode({**named, "body": found.request})

    def answer(self, line: bytes) -> bytes:
        """As `Lines.answer`. An error's HTTP status is that which goes with its code."""
        try:
            found = decode(line, _Line)
            error = bytes(found.error) not in EMPTY
            response = bytes(found.response) not in (EMPTY if error else NOTHING)
        except Undecodable:
            return line
        said: dict[str, Any]
        if response:
            said = {"status_code": 200, "request_id": None, "body": found.response}
        elif error:
            _, status = _code_of(decode(found.error, object))
            said = {"status_code": status, "request_id": None, "body": {"error": found.error}}
        else:
            return line
        both = found.error if response and error else None
        whole = {"id": None, "custom_id": found.custom_id(), "response": said, "error": both}
        return msgspec.json.encode(whole)


ANY_VERSION, ONE = "/v1(?:beta|alpha)?", "([^/:?#]+)"
CALLS: Sequence[tuple[str, re.Pattern[str], Verb]] = [
    (method, re.compile(path), verb)
    for method, path, verb in (
        ("POST", f"{ANY_VERSION}/models/{ONE}:(?:{'|'.join(VERBS.values())})", Verb.CREATE),
        # Whatever shows batches may hold their answers, and be as long as those are.
        ("GET", f"{ANY_VERSION}/batches", Verb.CONTENT),
        ("GET", f"{ANY_VERSION}/batches/{ONE}", Verb.CONTENT),
        ("POST", f"{ANY_VERSION}/batches/{ONE}:cancel", Verb.BATCH),
        ("DELETE", f"{ANY_VERSION}/batches/{ONE}", Verb.OTHER),
        ("POST", f"/upload{ANY_VERSION}/files", Verb.UPLOAD),
        ("GET", f"{ANY_VERSION}/files", Verb.OTHER),
        ("GET", f"{ANY_VERSION}/files/{ONE}", Verb.OTHER),
        ("DELETE", f"{ANY_VERSION}/files/{ONE}", Verb.OTHER),
        ("GET", f"(?:/download)?{ANY_VERSION}/files/{ONE}:download", Verb.CONTENT),
    )
]
"""The calls for batches and files, by method and path."""
ERROR_WORDS: Mapping[int, str] = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ABORTED",
    429: "RESOURCE_EXHAUSTED",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
}


class NativeCalls:
    """As `Native`: what Google's SDK calls for batches and files."""

    root = ""
    links = frozenset({"downloaduri", "x-goog-upload-url"})
    """`uri` is no address to call: requests name a file by it."""
    secrets = frozenset({"key"})

    def passage(self, method: str, path: str, query: str = "") -> Passage | None:
        """As `Native.passage`."""
        for known, pattern, verb in CALLS:
            found = pattern.fullmatch(path) if known == method else None
            if found is not None:
                named = [unquote(one) for one in found.groups()]
                if named and named[0] in (".", ".."):
                    return None
                is_batch = "/batches/" in path
                return Passage(verb, f"{BATCHES}{named[0]}" if is_batch else None)
        return None

    def location(self, batch_id: str) -> str:
        """As `Native.location`."""
        return _path(batch_id)

    def asked(self, path: str, body: Mapping[str, msgspec.Raw]) -> Asked:
        """As `Native.asked`: by its file, or the number of its requests, and its name."""
        try:
            batch = decode(body["batch"], _Asked)
        except (KeyError, Undecodable):
            return Asked()
        config = batch.config or batch.snake_config or _Config()
        return Asked(
            lines=config.count,
            input_file_id=text_of(config.file or config.snake_file),
            metadata=_metadata(text_of(batch.name or batch.snake_name)),
        )

    def tagged(self, body: Mapping[str, msgspec.Raw], tag: tuple[str, str]) -> bytes | None:
        """As `Native.tagged`: the name of a batch that was given none."""
        try:
            batch = decode(body["batch"], dict[str, msgspec.Raw])
        except (KeyError, Undecodable):
            return None
        names = (batch.get(name, b"null") for name in ("displayName", "display_name"))
        if any(bytes(name) not in NOTHING for name in names):
            return None
        return msgspec.json.encode({**body, "batch": {**batch, "displayName": "=".join(tag)}})

    def snapshot_in(self, body: bytes, profile: Profile) -> Snapshot | None:
        """As `Native.snapshot_in`."""
        try:
            return snapshot_in(without_nul(body), Row, snapshot_of)
        except MalformedBatch:
            return None

    def error(self, status: int, code: str, message: str) -> Mapping[str, Any]:
        """As `Native.error`."""
        word = ERROR_WORDS.get(status, "INVALID_ARGUMENT" if status < 500 else "INTERNAL")
        reason = {
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": code.upper(),
            "domain": "batchbell",
        }
        error = {"code": status, "message": message, "status": word, "details": [reason]}
        return {"error": error}


class _Inline(msgspec.Struct, gc=False):
    requests: list[msgspec.Raw] | None = None


class _Config(msgspec.Struct, gc=False):
    """Where the requests are: fields may be written either way."""

    file: Any = msgspec.field(name="fileName", default=None)
    snake_file: Any = msgspec.field(name="file_name", default=None)
    requests: _Inline | None = None

    @property
    def count(self) -> int | None:
        """How many came with the call."""
        rows = self.requests and self.requests.requests
        return len(rows) if rows else None


class _Asked(msgspec.Struct, gc=False):
    name: Any = msgspec.field(name="displayName", default=None)
    snake_name: Any = msgspec.field(name="display_name", default=None)
    config: _Config | None = msgspec.field(name="inputConfig", default=None)
    snake_config: _Config | None = msgspec.field(name="input_config", default=None)


Gemini.lines = KeyedLines()
DIALECT = Dialect(name="gemini", open=Gemini, lines=Gemini.lines, native=NativeCalls())
