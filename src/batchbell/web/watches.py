"""Watches and `/batch-awaiter`: their routes, and registering together what comes together."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec
from fastapi import Request
from msgspec import Struct, field
from pydantic import ConfigDict, TypeAdapter, ValidationError
from starlette.responses import Response

from batchbell.api import watches as api
from batchbell.api.answers import each_of, made_of
from batchbell.api.fields import NAME_MAX, BatchId, WebhookUrl
from batchbell.api.lists import Page
from batchbell.api.watches import (
    BULK_MAX,
    AwaiterRequest,
    WatchChanges,
    WatchesRequest,
    WatchRequest,
    Webhook,
)
from batchbell.core.attachment import ResultsMode
from batchbell.core.errors import AddressRefused, InvalidRequest
from batchbell.core.model import (
    DEFAULT_EVENTS,
    Account,
    Dialect,
    Watch,
)
from batchbell.group_commit import GroupCommit
from batchbell.net.guard import AddressRules
from batchbell.providers.profiles import DEFAULT
from batchbell.providers.registry import claims, has_any_ids, may_have, resembles
from batchbell.storage import watches
from batchbell.storage.watches import OPTIONS, Registered, Registration, WatchDiffers
from batchbell.web.bodies import (
    BODY_MAX_BYTES,
    BULK_MAX_BYTES,
    Check,
    check_plain,
    decoded,
    judge,
    read,
    read_body,
    read_json,
    refuse_unknown,
)
from batchbell.web.call import Call, Caller, Context, answer, call_of, page_answer
from batchbell.web.errors import Code, InvalidBody, Problem
from batchbell.web.openapi import answers, takes
from batchbell.web.parameters import LIMIT_DEFAULT, After, Limit, strict_router

GATHER_MAX = 500
"""Registrations that one transaction carries at most."""
GATHER_ROUNDS = 5
"""Rounds of the event loop in which one waits for others that come at the same time."""
URLS_KEPT_MAX = 1000
"""URLs that were found good and are not looked at again, under the same rules."""


class _Asked(NamedTuple):
    project_id: str
    registration: Registration


class Registrar:
    """Writes watches; those that are asked for at the same time share a transaction."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._gathering: GroupCommit[_Asked, Registered] = GroupCommit(
            self._write, most=GATHER_MAX, rounds=GATHER_ROUNDS
        )

    async def register(self, project_id: str, wanted: Registration) -> Registered:
        """Make one watch; when this returns, it is on disk."""
        if wanted.endpoint_id is not None:
            # It may be gone: those who share a transaction must not fail with it.
            return await self.alone(project_id, wanted)
        try:
            return await self.put(project_id, wanted)
        except InvalidRequest:
            return await self.alone(project_id, wanted)

    def put(self, project_id: str, wanted: Registration) -> asyncio.Future[Registered]:
        """As `register`, for one that names no endpoint, in a transaction with others.

        Where it raises InvalidRequest an account was removed meanwhile, maybe that of another in
        the same transaction: register it alone.
        """
        return self._gathering.put(_Asked(project_id, wanted))

    async def alone(self, project_id: str, wanted: Registration) -> Registered:
        """As `register`, in a transaction of its own."""
        return (await self.register_all(project_id, [wanted]))[0]

    async def register_all(
        self, project_id: str, wanted: Sequence[Registration]
    ) -> list[Registered]:
        """Make watches in one transaction: all of them, or none."""
        registered = await self._context.store.write(
            watches.register,
            project_id,
            wanted,
            strict=True,
            mint=self._context.mint,
            now=self._context.clock(),
        )
        self._count(registered)
        return registered

    async def _write(self, asked: list[_Asked]) -> Sequence[Registered]:
        answers: dict[int, Registered] = {}
        for project_id in sorted({one.project_id for one in asked}):
            places = [i for i, one in enumerate(asked) if one.project_id == project_id]
            wanted = [asked[i].registration for i in places]
            answers |= zip(places, await self.register_all(project_id, wanted), strict=True)
        return [answers[i] for i in range(len(asked))]

    def _count(self, registered: Sequence[Registered]) -> None:
        counter = self._context.metrics.registrations
        for created in (True, False):
            number = sum(one.created is created for one in registered)
            if number:
                counter.labels(created=str(created).lower()).inc(number)


class _Plain(Struct, forbid_unknown_fields=True):
    """What nearly all bodies hold, or a list of it."""

    batch_id: str
    url: str


class _PlainAwaiter(Struct, forbid_unknown_fields=True):
    """The same, as `/batch-awaiter` calls it."""

    batch_id: str = field(name="id")
    url: str = field(name="webhookUrl")


PLAIN_AWAITER = msgspec.json.Decoder(_PlainAwaiter)
PLAIN_WATCH = msgspec.json.Decoder(_Plain)
PLAIN_WATCHES = msgspec.json.Decoder(list[_Plain])
PLAIN_MAX_BYTES = 256 * 2**10
NOT_PLAIN = (
    msgspec.DecodeError,
    UnicodeDecodeError,
    RecursionError,
    ValidationError,
    InvalidRequest,
    AddressRefused,
)
BATCH_IDS = TypeAdapter(list[BatchId], config=ConfigDict(strict=True, defer_build=True))
URLS = TypeAdapter(WebhookUrl, config=ConfigDict(strict=True, defer_build=True))


class WatchForm:
    """Reads what a body asks to hear of, under the rules and accounts of this moment.

    Nearly all bodies are plain: ids and URLs, and nothing is wrong with them. Those are read in a
    fraction of the time; whatever else a body holds is read again, by the others.
    """

    def __init__(self, rules: AddressRules, accounts: Mapping[str, Account]) -> None:
        self._rules = rules
        self._accounts = accounts
        url, account = url_check(rules), account_check(accounts)
        self._awaiter_checks = {"webhookUrl": url, "account": account}
        self._checks = {"url": url, "account": account}

    def plain(
        self,
        decoder: msgspec.json.Decoder[Any],
        body: bytes,
        *,
        dialect: Dialect = Dialect.WATCH,
    ) -> list[Registration] | None:
        """The watches of a body, or the only one; None where it is not plain.

        What it gives is what the others would give: they take every body that this one takes.
        """
        # Two names and two values, each in quotes: a name that came twice has left more of them.
        if len(body) > PLAIN_MAX_BYTES or b"\\" in body:
            return None
        try:
            read = decoder.decode(body)
            made: list[_Plain | _PlainAwaiter] = read if isinstance(read, list) else [read]
            if body.count(b'"') != 8 * len(made) or not 1 <= len(made) <= BULK_MAX:
                return None
            BATCH_IDS.validate_python([one.batch_id for one in made])
            for url in {one.url for one in made}:
                _check_plain(self._rules, url)
            return [
                Registration(
                    account_id=account_of_batch(self._accounts, None, one.batch_id).id,
                    batch_id=one.batch_id,
                    url=one.url,
                    dialect=dialect,
                )
                for one in made
            ]
        except NOT_PLAIN:
            return None

    def awaiter(self, body: Any) -> Registration:
        """The watch of `/batch-awaiter`. Raises InvalidBody."""
        made = read(AwaiterRequest, body, self._awaiter_checks)
        return Registration(
            account_id=account_of_batch(self._accounts, made.account, made.id).id,
            batch_id=made.id,
            url=made.url,
            dialect=Dialect.AWAITER,
        )

    def watch(self, body: Any) -> Registration:
        """One watch. Raises InvalidBody."""
        return self._registration(read(WatchRequest, body, self._checks))

    def watches(self, items: Sequence[Any], *, name: str) -> list[Registration]:
        """Up to BULK_MAX of them; raises InvalidBody with every problem of every item."""
        if not 1 <= len(items) <= BULK_MAX:
            message = f"One call takes 1 to {BULK_MAX:,} watches; these are {len(items):,}."
            raise InvalidRequest(message, param=name or None)
        wanted: list[Registration] = []
        problems: list[Problem] = []
        for index, item in enumerate(items):
            made, wrong = judge(
                WatchRequest, item, self._checks, where=f"{name}[{index}].", index=index
            )
            problems += wrong
            if made is not None:
                try:
                    wanted.append(self._registration(made))
                except InvalidRequest as error:
                    where = f"{name}[{index}].account"
                    problems.append(
                        Problem(
                            message=error.message,
                            param=where,
                            code=error.code or Code.INVALID_VALUE,
                            index=index,
                        )
                    )
        if problems:
            raise InvalidBody(problems)
        return wanted

    def _registration(self, made: WatchRequest) -> Registration:
        account = account_of_batch(self._accounts, made.account, made.batch_id)
        return registration(made, account.id, made.batch_id)


def registration(wanted: Webhook, account_id: str, batch_id: str) -> Registration:
    """The watch of a batch."""
    return Registration(
        account_id=account_id,
        batch_id=batch_id,
        url=wanted.url or "",
        endpoint_id=wanted.endpoint_id,
        **{name: of(getattr(wanted, name)) for name, of in READ.items()},
        asked=frozenset([name for name in OPTIONS if getattr(wanted, name) is not None]),
    )


READ: Mapping[str, Callable[[Any], Any]] = {
    "events": lambda events: tuple(dict.fromkeys(events)) if events else DEFAULT_EVENTS,
    "metadata": lambda pairs: pairs or {},
    "results": lambda mode: mode or ResultsMode.LINK,
}
"""By option: what null means, and that nothing is named twice."""


def watch_changes(body: Any) -> dict[str, Any]:
    """Those of the OPTIONS that the body names; null is the default. Raises InvalidBody."""
    return {name: READ[name](value) for name, value in read(WatchChanges, body).named().items()}


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
            _check_url(rules, url)

    return check


@lru_cache(URLS_KEPT_MAX)
def _check_plain(rules: AddressRules, url: str) -> None:
    """All that is asked of a URL. Raises ValidationError too."""
    URLS.validate_python(url)
    rules.check_url(url)


@lru_cache(URLS_KEPT_MAX)
def _check_url(rules: AddressRules, url: str) -> None:
    """Of many watches most have the same. Only what is good is kept: anything else raises."""
    rules.check_url(url)


def account_of_batch(accounts: Mapping[str, Account], name: str | None, batch_id: str) -> Account:
    """The account of this name, else the one that alone may have a batch of this id.

    Where no provider is known to have such ids it is the first account whose ids may look like
    anything. Raises InvalidRequest where several accounts may have the batch.
    """
    if name is not None or len(accounts) <= 1:
        return named_account(accounts, name, param="account")
    every = accounts.values()
    fitting = [one for one in every if claims(one, batch_id)]
    if not fitting and any(resembles(one, batch_id) for one in every):
        fitting = [one for one in every if may_have(one, batch_id)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        names = ", ".join(one.name for one in fitting)
        raise InvalidRequest(
            f"Batch {batch_id[:NAME_MAX]!r} may be in several accounts: {names}. Name one of them"
            " as account.",
            param="account",
            code=Code.AMBIGUOUS_ACCOUNT,
        )
    return named_account(accounts, None, param="account", fits=has_any_ids)


def named_account(
    accounts: Mapping[str, Account],
    name: str | None,
    *,
    param: str,
    fits: Callable[[Account], bool] = lambda _: True,
) -> Account:
    """The account of this name, else the first one that fits, else the first one.

    Raises InvalidRequest.
    """
    if not accounts:
        raise InvalidRequest(
            f"No account is set up to watch batches with: set {DEFAULT.key_variable} and start"
            " again, or add one: batchbell accounts add.",
            param=param,
            code=Code.NO_ACCOUNT,
        )
    if name is None:
        return next(filter(fits, accounts.values()), next(iter(accounts.values())))
    if name not in accounts:
        known = ", ".join(accounts)
        message = f"There is no account {name[:NAME_MAX]!r}: {known}."
        raise InvalidRequest(message, param=param, code=Code.UNKNOWN_ACCOUNT)
    return accounts[name]


def account_check(accounts: Mapping[str, Account]) -> Check:
    """Whether there is an account of this name, or any at all where none is named."""

    def check(name: str | None) -> None:
        named_account(accounts, name, param="account")

    return check


router = strict_router("watches")

MADE = api.Watch | api.WatchList


def shown(found: Watch) -> api.Watch:
    return made_of(api.Watch, found)


@router.post(
    "/v1/watches",
    summary="Watch one batch, or up to 1,000",
    openapi_extra=takes(WatchRequest, WatchesRequest, list[WatchRequest]),
    **answers(MADE, 409, 413, status=201, says="Made, or there already."),
)
async def create_watches(request: Request) -> Response:
    call = await call_of(request)
    check_plain(request.scope["headers"])
    sent = await read_body(request, most=BULK_MAX_BYTES)
    form = WatchForm(call.context.rules(), await call.accounts())
    if plain := form.plain(PLAIN_WATCH, sent):
        return await _create(call, plain[0])
    if plain := form.plain(PLAIN_WATCHES, sent):
        return await _create_all(call, plain, name="")
    body = await decoded(request, sent)
    if isinstance(body, list):
        return await _create_all(call, form.watches(body, name=""), name="")
    if isinstance(body, dict) and isinstance(body.get("watches"), list):
        refuse_unknown(WatchesRequest, body)
        several = form.watches(body["watches"], name="watches")
        return await _create_all(call, several, name="watches")
    return await _create(call, form.watch(body))


async def _create(call: Call, wanted: Registration) -> Response:
    try:
        registered = await call.surface.registrar.register(call.project_id, wanted)
    except WatchDiffers as error:
        raise WatchesDiffer(error, name=None) from error
    return answer(shown(registered.watch), 201)


async def _create_all(call: Call, wanted: list[Registration], *, name: str) -> Response:
    try:
        registered = await call.surface.registrar.register_all(call.project_id, wanted)
    except WatchDiffers as error:
        raise WatchesDiffer(error, name=name) from error
    created = sum(one.created for one in registered)
    made = each_of(api.Watch, [one.watch for one in registered])
    return answer(api.WatchList(data=made, created=created), 201)


@router.get("/v1/watches", summary="List watches, newest first", **answers(Page[api.Watch], 404))
async def list_watches(
    call: Caller, limit: Limit = LIMIT_DEFAULT, after: After = None, batch_id: str | None = None
) -> Response:
    page = await call.page(watches.list_watches, limit=limit, after=after, batch_id=batch_id)
    return page_answer(each_of(api.Watch, page.items), page)


@router.get("/v1/watches/{watch_id}", summary="One watch", **answers(api.Watch, 404))
async def get_watch(call: Caller, watch_id: str) -> Response:
    found = await call.context.store.read(watches.get_watch, call.project_id, watch_id)
    return answer(shown(found))


@router.post(
    "/v1/watches/{watch_id}",
    summary="Change what a watch is to hear from now on",
    openapi_extra=takes(WatchChanges),
    **answers(api.Watch, 404, 413),
)
async def change_watch(call: Caller, watch_id: str, request: Request) -> Response:
    changes = watch_changes(await read_json(request))
    changed = await call.context.store.write(
        watches.change_watch, call.project_id, watch_id, changes
    )
    return answer(shown(changed))


@router.delete(
    "/v1/watches/{watch_id}",
    summary="Delete a watch and its pending deliveries",
    **answers(api.WatchDeleted, 404),
)
async def delete_watch(call: Caller, watch_id: str) -> Response:
    await call.context.store.write(watches.delete_watch, call.project_id, watch_id)
    return answer(api.WatchDeleted(id=watch_id, deleted=True))


NEW = "Batch registered: the webhook is called when it ends."
KNOWN = "Batch already registered for this webhook: it is called once, when the batch ends."


@router.post(
    "/batch-awaiter",
    summary="Call a URL when a batch ends",
    openapi_extra=takes(AwaiterRequest),
    **answers(api.AwaiterAnswer, 413, status=201, says="Registered, now or before."),
)
async def await_batch(request: Request) -> Response:
    call = await call_of(request)
    check_plain(request.scope["headers"])
    body = await read_body(request, most=BODY_MAX_BYTES)
    form = WatchForm(call.context.rules(), await call.accounts())
    plain = form.plain(PLAIN_AWAITER, body, dialect=Dialect.AWAITER)
    wanted = plain[0] if plain else form.awaiter(await decoded(request, body))
    registered = await call.surface.registrar.register(call.project_id, wanted)
    return answer(_awaited(registered), 201)


def _awaited(registered: Registered) -> api.AwaiterAnswer:
    message = NEW if registered.created else KNOWN
    return api.AwaiterAnswer(message=message, batch_id=registered.watch.batch_id)


class PlainForm(NamedTuple):
    """How a route reads a plain body that asks for one watch, and answers it."""

    decoder: msgspec.json.Decoder[Any]
    dialect: Dialect
    shown: Callable[[Registered], Any]


SHORT: Mapping[Callable[..., object], PlainForm] = {
    create_watches: PlainForm(PLAIN_WATCH, Dialect.WATCH, lambda made: shown(made.watch)),
    await_batch: PlainForm(PLAIN_AWAITER, Dialect.AWAITER, _awaited),
}
"""Handlers that programs call again and again. Each takes the request, and has a path of its own
without ids in it."""
