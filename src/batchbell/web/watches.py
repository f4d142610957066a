"""From a body to watches: what may be asked for, and writing together what comes together."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from starlette.responses import Response

from batchbell.api.fields import UNSTORABLE
from batchbell.core.attachment import ResultsMode
from batchbell.core.errors import AddressRefused, InvalidRequest
from batchbell.core.model import (
    DEFAULT_EVENTS,
    ID_PATTERN,
    MAX_ID_LENGTH,
    Account,
    Dialect,
    EventType,
)
from batchbell.group_commit import GroupCommit
from batchbell.net.guard import URL_MAX_CHARACTERS, AddressRules
from batchbell.storage import watches
from batchbell.storage.watches import OPTIONS, Registered, Registration, WatchDiffers
from batchbell.web import describing, shapes
from batchbell.web.bodies import BULK_MAX_BYTES, Check, Fields, read_json
from batchbell.web.call import Call, Caller, Context, answer, call_of, page_answer
from batchbell.web.errors import Code, InvalidBody, Problem
from batchbell.web.openapi import answers, json_content, takes
from batchbell.web.parameters import LIMIT_DEFAULT, After, Limit, strict_router

GATHER_MAX = 500
"""Registrations that one transaction carries at most."""
BULK_MAX = 1000
NAME_MAX = 100
METADATA_PAIRS_MAX = 16
METADATA_KEY_MAX = 64
METADATA_VALUE_MAX = 512
WATCHED_EVENTS = tuple(type_ for type_ in EventType if type_.of_batch)
ABOUT_NO_BATCH = "happens to no batch, so only endpoints of the whole project hear of it"

ID_SHAPE = (
    "must consist of letters, digits and . _ : @ = + ~ - /, such as batch_abc123 or"
    " batches/abc123; no part of it may be empty or begin with a dot."
)
NAME_SHAPE = "must be a plain token of letters, digits and . _ : @ = + -, such as nightly."


@dataclass(frozen=True, slots=True)
class _Asked:
    project_id: str
    registration: Registration


class Registrar:
    """Writes watches; those that are asked for at the same time share a transaction."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._gathering: GroupCommit[_Asked, Registered] = GroupCommit(self._write, most=GATHER_MAX)

    async def register(self, project_id: str, wanted: Registration) -> Registered:
        """Make one watch; when this returns, it is on disk."""
        if wanted.endpoint_id is not None:
            # It may be gone: those who share a transaction must not fail with it.
            return (await self.register_all(project_id, [wanted]))[0]
        try:
            registered = await self._gathering.add(_Asked(project_id, wanted))
        except InvalidRequest:
            # An account was removed meanwhile, maybe that of another in the same transaction.
            return (await self.register_all(project_id, [wanted]))[0]
        self._count([registered])
        return registered

    async def register_all(
        self, project_id: str, wanted: Sequence[Registration]
    ) -> list[Registered]:
        """Make watches in one transaction: all of them, or none."""
        registered = await self._store_all(project_id, wanted)
        self._count(registered)
        return registered

    async def _write(self, asked: list[_Asked]) -> Sequence[Registered]:
        answers: dict[int, Registered] = {}
        for project_id in sorted({one.project_id for one in asked}):
            places = [i for i, one in enumerate(asked) if one.project_id == project_id]
            wanted = [asked[i].registration for i in places]
            answers |= zip(places, await self._store_all(project_id, wanted), strict=True)
        return [answers[i] for i in range(len(asked))]

    async def _store_all(self, project_id: str, wanted: Sequence[Registration]) -> list[Registered]:
        return await self._context.store.write(
            watches.register,
            project_id,
            wanted,
            strict=True,
            mint=self._context.mint,
            now=self._context.clock(),
        )

    def _count(self, registered: Sequence[Registered]) -> None:
        counter = self._context.metrics.registrations
        for created in (True, False):
            number = sum(one.created is created for one in registered)
            if number:
                counter.labels(created=str(created).lower()).inc(number)


class WatchForm:
    """Reads what a body asks to be told of, under the rules and accounts of this moment."""

    def __init__(self, context: Context, accounts: Mapping[str, Account]) -> None:
        self._accounts = accounts
        self._rules = context.rules()

    def awaiter(self, body: Any) -> Registration:
        """`{"id", "webhookUrl", "account"?}`. Raises InvalidRequest."""
        fields = Fields(body, shapes.AwaiterRequest)
        read = self._registration(fields, id="id", url="webhookUrl", dialect=Dialect.AWAITER)
        fields.raise_problems()
        return read()

    def watch(self, body: Any) -> Registration:
        """`{"batch_id", "url" or "endpoint_id", "events"?, "metadata"?, "account"?}`.

        Raises InvalidRequest.
        """
        fields = Fields(body, shapes.WatchRequest)
        read = self._watch(fields)
        fields.raise_problems()
        return read()

    def watches(self, items: Sequence[Any], *, name: str) -> list[Registration]:
        """Up to BULK_MAX of them; raises InvalidBody with every problem of every item."""
        if not 1 <= len(items) <= BULK_MAX:
            message = f"One call takes 1 to {BULK_MAX:,} watches; these are {len(items):,}."
            raise InvalidRequest(message, param=name or None)
        forms = [
            Fields(item, shapes.WatchRequest, where=f"{name}[{index}].", index=index)
            for index, item in enumerate(items)
        ]
        reads = [self._watch(fields) for fields in forms]
        problems: list[Problem] = [problem for fields in forms for problem in fields.problems]
        if problems:
            raise InvalidBody(problems)
        return [read() for read in reads]

    def wish(self, fields: Fields) -> Callable[[str, str], Registration]:
        """`{"url" or "endpoint_id", …}` as for a watch, of a batch that is yet to be.

        Call the answer with its account's id and its own, once nothing was wrong.
        """
        rest = _telling(fields)
        target, endpoint_id = self._destination(fields, "url")
        return lambda account_id, batch_id: Registration(
            account_id=account_id, batch_id=batch_id, url=target, endpoint_id=endpoint_id, **rest
        )

    def _watch(self, fields: Fields) -> Callable[[], Registration]:
        return self._registration(fields, id="batch_id", url="url", **_telling(fields))

    def _registration(
        self, fields: Fields, *, id: str, url: str, **rest: Any
    ) -> Callable[[], Registration]:
        """Check what all registrations have; call the answer once nothing was wrong."""
        batch_id = fields.text(id, most=MAX_ID_LENGTH, pattern=ID_PATTERN, shape=ID_SHAPE)
        target, endpoint_id = self._destination(fields, url)
        account = chosen_account(fields, self._accounts)
        return lambda: Registration(
            account_id=account.id if account else "",
            batch_id=batch_id,
            url=target,
            endpoint_id=endpoint_id,
            **rest,
        )

    def _destination(self, fields: Fields, url: str) -> tuple[str, str | None]:
        """A URL, or an endpoint where `url` leaves the choice."""
        if url == "url" and fields.get("url") is None and fields.has("endpoint_id"):
            return "", fields.text("endpoint_id", most=MAX_ID_LENGTH)
        return webhook_url(fields, url, self._rules), None


def _telling(fields: Fields) -> dict[str, Any]:
    """What is to be told, and with which words."""
    return {
        "events": event_types(fields, "events", WATCHED_EVENTS),
        "metadata": metadata_pairs(fields),
        "results": results_mode(fields),
        "asked": frozenset(name for name in OPTIONS if fields.get(name) is not None),
    }


def watch_changes(body: Any) -> dict[str, Any]:
    """Those of the OPTIONS that the body names; null is the default. Raises InvalidBody."""
    fields = Fields(body, shapes.WatchChanges)
    read: Mapping[str, Callable[[], Any]] = {
        "events": lambda: event_types(fields, "events", WATCHED_EVENTS),
        "metadata": lambda: metadata_pairs(fields),
        "results": lambda: results_mode(fields),
    }
    changes = {name: read[name]() for name in OPTIONS if fields.has(name)}
    fields.raise_problems()
    return changes


class WatchesDiffer(InvalidBody):
    """409: each option of each watch that is there otherwise than was asked for."""

    def __init__(self, error: WatchDiffers, *, name: str | None) -> None:
        """`name` is that of a list of watches in the body; None where it is one watch."""
        super().__init__(
            [
                Problem(
                    message=f"Batch {one.watch.batch_id!r} is watched for this URL already, as"
                    f" {one.watch.id}, with {one.option} {_shown(one.there)}, not"
                    f" {_shown(one.asked)}. Change it with POST /v1/watches/{one.watch.id}, or"
                    f" leave {one.option} out.",
                    param=one.option if name is None else f"{name}[{one.position}].{one.option}",
                    code=Code.WATCH_DIFFERS,
                    index=None if name is None else one.position,
                )
                for one in error.differences
            ]
        )
        self.status = 409


def _shown(value: Any) -> str:
    return json.dumps(value)


def url_check(rules: AddressRules) -> Check:
    """Whether a URL may be called, as far as the URL alone can tell."""

    def check(url: str | None) -> None:
        if url is not None:
            rules.check_url(url)

    return check


def webhook_url(fields: Fields, name: str, rules: AddressRules) -> str:
    """A URL that may be called, as far as the URL alone can tell."""
    url = fields.text(name, most=URL_MAX_CHARACTERS)
    if not url:
        return url
    try:
        rules.check_url(url, param=fields.path(name) or name)
    except AddressRefused as error:
        fields.wrong(name, str(error), Code.ADDRESS_REFUSED)
    except InvalidRequest as error:
        fields.wrong(name, error.message, error.code)
    return url


def named_account(accounts: Mapping[str, Account], name: str | None, *, param: str) -> Account:
    """The account of this name, or the first one. Raises InvalidRequest."""
    if not accounts:
        raise InvalidRequest(
            "No account is set up to watch batches with: set OPENAI_API_KEY and start again, or add"
            " one: batchbell accounts add.",
            param=param,
            code=Code.NO_ACCOUNT,
        )
    if name is None:
        return next(iter(accounts.values()))
    if name not in accounts:
        known = ", ".join(accounts)
        message = f"There is no account {name[:NAME_MAX]!r}: {known}."
        raise InvalidRequest(message, param=param, code=Code.UNKNOWN_ACCOUNT)
    return accounts[name]


def chosen_account(fields: Fields, accounts: Mapping[str, Account]) -> Account | None:
    """The account that is named, or the first one."""
    name = fields.optional_text("account", most=NAME_MAX)
    if name == "":
        return None  # it is no name at all, and that was said
    try:
        return named_account(accounts, name, param="account")
    except InvalidRequest as error:
        fields.wrong("account", error.message, error.code)
        return None


def event_types(
    fields: Fields, field: str, allowed: Collection[EventType]
) -> tuple[EventType, ...]:
    """What somebody wants to hear of; OpenAI's four by default."""
    value = fields.get(field)
    if value is None:
        return DEFAULT_EVENTS
    if not isinstance(value, list) or not value:
        fields.wrong(field, f"{fields.path(field)} must be a list with one event or more.")
        return ()
    wrong = [i for i, word in enumerate(value) if word not in allowed]
    for i in wrong[:1]:
        name = f"{field}[{i}]"
        problem = ABOUT_NO_BATCH if value[i] in list(EventType) else "is no event type"
        fields.wrong(name, f"{fields.path(name)} {problem}: use {', '.join(allowed)}.")
    return () if wrong else tuple(dict.fromkeys(EventType(word) for word in value))


def results_mode(fields: Fields) -> ResultsMode:
    """How results are to travel; the link by default."""
    value = fields.get("results")
    known = list(ResultsMode)
    if value is not None and value not in known:
        fields.wrong("results", f"{fields.path('results')} must be one of {', '.join(known)}.")
        return ResultsMode.LINK
    return ResultsMode.LINK if value is None else ResultsMode(value)


def metadata_pairs(fields: Fields) -> dict[str, str]:
    """OpenAI's limits: 16 pairs of strings, keys of 64 and values of 512 characters."""
    value = fields.get("metadata")
    if value is None:
        return {}
    if not isinstance(value, dict) or len(value) > METADATA_PAIRS_MAX:
        limit = f"an object of up to {METADATA_PAIRS_MAX} pairs"
        fields.wrong("metadata", f"{fields.path('metadata')} must be {limit}.")
        return {}
    for key, word in value.items():
        if not _is_pair(key, word):
            fields.wrong(
                "metadata",
                f"{fields.path('metadata')}: {key[:METADATA_KEY_MAX]!r} is no pair that can be"
                f" kept: keys are strings of up to {METADATA_KEY_MAX} characters, values of up to"
                f" {METADATA_VALUE_MAX}, without NUL.",
            )
    return value


def _is_pair(key: str, word: Any) -> bool:
    return (
        isinstance(word, str)
        and len(key) <= METADATA_KEY_MAX
        and len(word) <= METADATA_VALUE_MAX
        and not UNSTORABLE.search(key)
        and not UNSTORABLE.search(word)
    )


router = strict_router("watches")

CREATE = answers(shapes.Watch, 409, 413, status=201, says="The watch, or the list of watches.")
for _status in (200, 201):
    CREATE["responses"][_status] = {
        "description": "Made." if _status == 201 else "All of it was there already.",
        "content": {
            "application/json": {
                "schema": {
                    "anyOf": [
                        json_content(kind)["application/json"]["schema"]
                        for kind in (shapes.Watch, shapes.WatchList)
                    ]
                }
            }
        },
    }


@router.post(
    "/v1/watches",
    summary="Watch one batch, or up to 1,000",
    openapi_extra=takes(shapes.WatchRequest, shapes.WatchesRequest, list[shapes.WatchRequest]),
    **CREATE,
)
async def create_watches(request: Request) -> Response:
    call = await call_of(request)
    body = await read_json(request, most=BULK_MAX_BYTES)
    if isinstance(body, list):
        return await _create_many(call, body, name="")
    if isinstance(body, dict) and isinstance(body.get("watches"), list):
        Fields(body, shapes.WatchesRequest).raise_problems()
        return await _create_many(call, body["watches"], name="watches")
    wanted = WatchForm(call.context, await call.accounts()).watch(body)
    try:
        registered = await call.surface.registrar.register(call.project_id, wanted)
    except WatchDiffers as error:
        raise WatchesDiffer(error, name=None) from error
    return answer(describing.watch(registered.watch), 201 if registered.created else 200)


async def _create_many(call: Call, items: list[Any], *, name: str) -> Response:
    wanted = WatchForm(call.context, await call.accounts()).watches(items, name=name)
    try:
        registered = await call.surface.registrar.register_all(call.project_id, wanted)
    except WatchDiffers as error:
        raise WatchesDiffer(error, name=name) from error
    created = sum(one.created for one in registered)
    made = [describing.watch(one.watch) for one in registered]
    return answer(shapes.WatchList(data=made, created=created), 201 if created else 200)


@router.get(
    "/v1/watches", summary="List watches, newest first", **answers(shapes.Page[shapes.Watch], 404)
)
async def list_watches(
    call: Caller, limit: Limit = LIMIT_DEFAULT, after: After = None, batch_id: str | None = None
) -> Response:
    page = await call.page(watches.list_watches, limit=limit, after=after, batch_id=batch_id)
    return page_answer(page, [describing.watch(w) for w in page.items], [w.id for w in page.items])


@router.get("/v1/watches/{watch_id}", summary="One watch", **answers(shapes.Watch, 404))
async def get_watch(call: Caller, watch_id: str) -> Response:
    found = await call.context.store.read(watches.get_watch, call.project_id, watch_id)
    return answer(describing.watch(found))


@router.post(
    "/v1/watches/{watch_id}",
    summary="Change what a watch is to hear from now on",
    openapi_extra=takes(shapes.WatchChanges),
    **answers(shapes.Watch, 404, 413),
)
async def change_watch(call: Caller, watch_id: str, request: Request) -> Response:
    changes = watch_changes(await read_json(request))
    changed = await call.context.store.write(
        watches.change_watch, call.project_id, watch_id, changes
    )
    return answer(describing.watch(changed))


@router.delete(
    "/v1/watches/{watch_id}",
    summary="Delete a watch and its pending deliveries",
    **answers(shapes.Deleted, 404),
)
async def delete_watch(call: Caller, watch_id: str) -> Response:
    await call.context.store.write(watches.delete_watch, call.project_id, watch_id)
    return answer(shapes.Deleted(id=watch_id, object="watch.deleted"))


NEW = "Batch registered: the webhook is called when it ends."
KNOWN = "Batch already registered for this webhook: it is called once, when the batch ends."


@router.post(
    "/batch-awaiter",
    summary="Call a URL when a batch ends",
    openapi_extra=takes(shapes.AwaiterRequest),
    **answers(shapes.AwaiterAnswer, 413, status=201, says="Registered, now or before."),
)
async def await_batch(request: Request) -> Response:
    call = await call_of(request)
    body = await read_json(request)
    wanted = WatchForm(call.context, await call.accounts()).awaiter(body)
    registered = await call.surface.registrar.register(call.project_id, wanted)
    message = NEW if registered.created else KNOWN
    return answer(shapes.AwaiterAnswer(message=message, batch_id=wanted.batch_id), 201)
