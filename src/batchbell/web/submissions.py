"""Submissions: their routes, and the way from a file of requests to parts that are stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from fastapi import Header, Request
from msgspec.structs import replace
from starlette.responses import Response

from batchbell import failpoints
from batchbell.api import submissions as api
from batchbell.api.answers import made_of
from batchbell.api.fields import SPELLINGS
from batchbell.api.lists import Page
from batchbell.api.submissions import SubmissionOptions, SubmissionRequest
from batchbell.core.errors import InvalidRequest, ResultsError
from batchbell.core.form import Form
from batchbell.core.governor import Learnt
from batchbell.core.limits import Limits
from batchbell.core.model import Account
from batchbell.core.submission import Part, Submission, new_name, standing
from batchbell.files.lines import open_lines
from batchbell.files.preflight import Prepared, first_model, prepare_file
from batchbell.files.results_store import scratch_of
from batchbell.files.scratch import scratch_folder
from batchbell.providers.registry import form_of, profile_of, takes_submissions
from batchbell.storage import parts, submissions
from batchbell.storage.engine import storable
from batchbell.storage.submissions import Asked, Key, NewPart
from batchbell.storage.watches import Registration
from batchbell.threads import apart, heavy
from batchbell.web.batches import METADATA, Filter, counts_of
from batchbell.web.bodies import read
from batchbell.web.call import Call, Caller, answer, call_of, page_answer
from batchbell.web.errors import Code, InvalidBody, Problem
from batchbell.web.idempotency import HEADER, REPLAYED, WORD_MAX, key_of, key_word
from batchbell.web.openapi import answers, file_answers, takes
from batchbell.web.parameters import LIMIT_DEFAULT, After, Limit, strict_router
from batchbell.web.results import ResultsQuery, results_of
from batchbell.web.uploads import receive
from batchbell.web.watches import READ, account_check, named_account, url_check


@dataclass(frozen=True, slots=True)
class SubmissionSpec:
    """What is asked for beside the requests."""

    account: Account | None
    """Where it is named."""
    endpoint: str | None
    model: str | None
    retry_missing: int
    retry_max_tokens: int | None
    metadata: Mapping[str, str]
    watch: Mapping[str, Any] | None
    """What a Registration takes; None where nobody in particular is to hear of it."""


class InvalidRequests(InvalidBody):
    """Requests cannot be handed in as they are: 422, with every problem and its line."""

    def __init__(self, found: Prepared) -> None:
        listed = [
            Problem(message=one.message, param=None, code=one.code, line=one.line)
            for one in found.problems
        ]
        super().__init__(listed)
        self.status = 422
        self.code = Code.INVALID_REQUESTS
        self.message = _summary(found)


def _summary(found: Prepared) -> str:
    first, total = found.problems[0], found.problems_in_all
    where = "" if first.line is None else f"Line {first.line}: "
    if total == 1:
        return f"{where}{first.message}"
    listed = "all" if total == len(found.problems) else f"the first {len(found.problems)}"
    return f"{total:,} problems, {listed} in `problems`. {where}{first.message}"


def read_spec(call: Call, body: Any, accounts: Mapping[str, Account]) -> SubmissionSpec:
    """Raises InvalidBody with all that is wrong."""
    checks = {
        "url": url_check(call.context.rules()),
        "account": account_check(accounts),
    }
    made = read(SubmissionOptions, body, checks)
    return SubmissionSpec(
        account=None if made.account is None else accounts[made.account],
        endpoint=made.endpoint,
        model=made.model,
        retry_missing=made.retry_missing or 0,
        retry_max_tokens=made.retry_max_tokens,
        metadata=made.metadata or {},
        watch=_asked_watch(made),
    )


def _asked_watch(made: SubmissionOptions) -> dict[str, Any] | None:
    if made.url is not None:
        target = {"url": made.url}
    elif made.endpoint_id is not None:
        target = {"endpoint_id": made.endpoint_id}
    else:
        return None
    return {
        "events": READ["events"](made.events),
        "results": READ["results"](made.results),
        **target,
    }


@dataclass(frozen=True, slots=True)
class Taken:
    """A submission that is there, and whether an earlier call has made it."""

    submission: Submission
    replayed: bool


async def submit(
    call: Call, spec: SubmissionSpec, file: Path, accounts: Mapping[str, Account], key: Key | None
) -> Taken:
    """Take the requests in, unless that was done before under the same key.

    Raises InvalidRequests, and InvalidRequest for an endpoint of ours, or a key that was used for
    something else.
    """
    store = call.context.store
    first = None if key is None else await store.read(submissions.of_key, call.project_id, key)
    if first is not None:
        return Taken(first, replayed=True)
    asked = await _prepared(call, spec, file, accounts, key)
    try:
        made = await store.write(
            submissions.create,
            call.project_id,
            asked,
            mint=call.context.mint,
            now=call.context.clock(),
        )
    except InvalidRequest:
        await _discard_parts(call, asked.parts)
        raise
    failpoints.reach(failpoints.BEFORE_ANSWER)
    if made.id != asked.id:
        await _discard_parts(call, asked.parts)
    return Taken(made, replayed=made.id != asked.id)


async def _prepared(
    call: Call, spec: SubmissionSpec, file: Path, accounts: Mapping[str, Account], key: Key | None
) -> Asked:
    context = call.context
    account = spec.account or _default_account(accounts)
    if not takes_submissions(account):
        raise InvalidRequest(
            f"Account {account.name!r} is at {profile_of(account).title}, where Batchbell hands in"
            " no requests yet. Make the batch with the provider's SDK and watch it, or name another"
            " account.",
            param="account",
            code=Code.NO_SUBMISSIONS,
        )
    form = form_of(account)
    if spec.endpoint is not None and form.endpoints and spec.endpoint not in form.endpoints:
        raise InvalidRequest(
            f"{profile_of(account).title} takes {' or '.join(form.endpoints)} in batches.",
            param="endpoint",
        )
    named = spec.model or await heavy(call.project_id, _first_model, file, form)
    model = storable(named or "")
    known = await context.store.read(parts.learnt, account.id, model)
    most = context.settings.submission_line_max_bytes
    declared = context.declared.of(account)
    own = profile_of(account).limits if declared is None else declared.limits
    limits = _limits(own, known, line_bytes=most, now=context.clock())
    found = await apart(
        call.project_id,
        [file],
        prepare_file,
        file,
        limits=limits,
        form=form,
        url=spec.endpoint,
        model=spec.model,
        bytes_per_token=known.bytes_per_token,
    )
    if found.problems_in_all:
        raise InvalidRequests(found)
    new_parts = await _store_parts(call, found)
    id = context.mint("sub")
    return Asked(
        id=id,
        account_id=account.id,
        endpoint=found.url or "",
        model=found.model and storable(found.model),
        parts=new_parts,
        retry_missing=spec.retry_missing,
        retry_max_tokens=spec.retry_max_tokens,
        metadata=spec.metadata,
        watch=_watch(spec, account, id),
        key=key,
    )


def _default_account(accounts: Mapping[str, Account]) -> Account:
    return named_account(accounts, None, param="account", fits=takes_submissions)


def _first_model(file: Path, form: Form) -> str | None:
    with open_lines(file) as source:
        return first_model(source, form)


def _limits(own: Limits, known: Learnt, *, line_bytes: int, now: float) -> Limits:
    return replace(
        own,
        line_bytes=min(own.line_bytes, line_bytes),
        tokens=min(filter(None, (known.cap_in_force(now), own.tokens)), default=None),
    )


async def _store_parts(call: Call, found: Prepared) -> list[NewPart]:
    """Whoever dies before they are written down leaves files behind, and a caller without answer.

    Raises ResultsUnavailable, and leaves none of them behind then.
    """
    parts = []
    try:
        for part in found.parts:
            new = NewPart(
                call.context.mint("prt"),
                part.lines,
                part.size,
                part.tokens,
                part.numbering.runs,
            )
            await call.context.results_store.put(new_name(call.project_id, new.id), part.path)
            parts.append(new)
    except ResultsError:
        await _discard_parts(call, parts)
        raise
    return parts


async def _discard_parts(call: Call, parts: Sequence[NewPart]) -> None:
    """It was not made, so nobody needs its files. The janitor deletes what cannot be now."""
    with suppress(ResultsError):
        for part in parts:
            await call.context.results_store.delete(new_name(call.project_id, part.id))


def _watch(spec: SubmissionSpec, account: Account, id: str) -> Registration | None:
    if spec.watch is None:
        return None
    return Registration(account_id=account.id, batch_id=id, **spec.watch)


def shown(found: Submission) -> api.Submission:
    batch = standing(found)
    seen = batch.snapshot or found.snapshot
    return made_of(
        api.Submission,
        found,
        batch,
        seen,
        request_counts=counts_of(seen),
        metadata=seen.metadata or {},
        parts=tuple(map(_shown_part, found.parts)),
    )


def _shown_part(found: Part) -> api.Part:
    return made_of(
        api.Part,
        found,
        bytes=found.size,
        batch_id=found.batch and found.batch.id,
        batch_status=found.batch and found.batch.status,
    )


router = strict_router("submissions")

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias=HEADER,
        description=f"1 to {WORD_MAX} visible ASCII characters. The same call again, with the same"
        " key, makes nothing, and is answered with the submission that is there.",
    ),
]
"""For the description; `key_word` reads it."""


def _bodies() -> dict[str, Any]:
    """JSON lines and forms beside JSON, and what else is wished for in the query."""
    extra, text = takes(SubmissionRequest), {"type": "string"}
    options = dict.fromkeys((*SubmissionOptions.model_fields, *SPELLINGS), text)
    extra["parameters"] = [
        {"name": name, "in": "query", "required": False, "schema": text} for name in options
    ]
    fields = {"file": {**text, "format": "binary"}, **options}
    form = {"type": "object", "properties": fields, "required": ["file"]}
    content = extra["requestBody"]["content"]
    content["application/jsonl"] = {"schema": text}
    content["multipart/form-data"] = {"schema": form}
    return extra


@router.post(
    "/v1/submissions",
    summary="Submit requests, and receive one webhook when all are answered",
    openapi_extra=_bodies(),
    **answers(api.Submission, 404, 409, 413, 422, status=201, says="It is on its way."),
)
async def create_submission(request: Request, idempotency_key: IdempotencyKey = None) -> Response:
    call = await call_of(request)
    word = key_word(request)
    context = call.context
    accounts = await call.accounts()
    async with scratch_folder(scratch_of(context.results_store)) as folder:
        file = folder / "requests"
        most = context.settings.submission_max_bytes
        body = await receive(request, file, most=most)
        spec = read_spec(call, body, accounts)
        key = None if word is None else await heavy(call.project_id, key_of, word, body, file)
        taken = await submit(call, spec, file, accounts, key)
    return answer(shown(taken.submission), 201, REPLAYED if taken.replayed else None)


@router.get(
    "/v1/submissions",
    summary="List submissions, newest first",
    openapi_extra=METADATA,
    **answers(Page[api.Submission], 404),
)
async def list_submissions(
    call: Caller, asked: Filter, limit: Limit = LIMIT_DEFAULT, after: After = None
) -> Response:
    page = await call.page(submissions.list_submissions, limit=limit, after=after, filter=asked)
    return page_answer([shown(s) for s in page.items], page)


@router.get(
    "/v1/submissions/{submission_id}",
    summary="One submission, with its parts",
    **answers(api.Submission, 404),
)
async def get_submission(call: Caller, submission_id: str) -> Response:
    found = await call.context.store.read(
        submissions.get_submission, call.project_id, submission_id
    )
    return answer(shown(found))


@router.post(
    "/v1/submissions/{submission_id}/cancel",
    summary="Cancel what runs, and hand nothing more in",
    **answers(api.Submission, 404),
)
async def cancel_submission(call: Caller, submission_id: str) -> Response:
    context = call.context
    found = await context.store.write(
        submissions.cancel, call.project_id, submission_id, now=context.clock()
    )
    return answer(shown(found))


@router.get(
    "/v1/submissions/{submission_id}/results",
    summary="The results of all parts, in the order of the requests",
    **file_answers(404, 409, 502),
)
async def get_results(
    call: Caller, request: Request, submission_id: str, spec: ResultsQuery
) -> Response:
    found = await call.context.store.read(
        submissions.get_submission, call.project_id, submission_id
    )
    return await results_of(call, request, found.id, spec)
