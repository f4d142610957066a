"""Calls of a provider's own SDK, passed on as they come: `/anthropic/v1/messages/batches`.

What follows `/{dialect}` is the provider's path. Which paths are passed on, what they are about and
how an error is written, the dialect says (`providers.protocol.Native`). A batch that is made so is
watched; the header `bb-webhook-url` says whom to call.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote, unquote_plus

import msgspec
from fastapi import Header, Request
from starlette.responses import Response

from batchbell.api.watches import Webhook
from batchbell.core.errors import InvalidRequest, NotFound
from batchbell.core.model import Account, Batch, Snapshot
from batchbell.files.results_store import scratch_of
from batchbell.files.scratch import scratch_folder
from batchbell.net.form import FileBody
from batchbell.providers.protocol import Native, Verb
from batchbell.providers.registry import dialect_of, profile_of, speaks
from batchbell.storage import accounts, batches, keys
from batchbell.threads import apart, disk
from batchbell.web.auth import api_key_in
from batchbell.web.bodies import judge
from batchbell.web.call import Call, call_of
from batchbell.web.errors import Code, InvalidBody
from batchbell.web.gateway import creations
from batchbell.web.gateway.bodies import read_creation
from batchbell.web.gateway.creations import Targets
from batchbell.web.gateway.natives import NATIVES, proven
from batchbell.web.gateway.proxy import (
    ACCOUNT_HEADER,
    Whole,
    account_of,
    ask,
    pass_on,
    read,
    send_up,
)
from batchbell.web.idempotency import REPLAYED
from batchbell.web.openapi import AccountName, passes
from batchbell.web.parameters import strict_router
from batchbell.web.uploads import keep
from batchbell.web.watches import registration, url_check

WEBHOOK_HEADER = "bb-webhook-url"
WebhookUrl = Annotated[str | None, Header(description="Whom to call about the batch that is made.")]
"""For the description; `_header_targets` reads it."""
METHODS = ("GET", "POST", "DELETE")
LINK = rb'("(?i:%s)"\s*:\s*)("(?:[^"\\]|\\.)*")'
"""A field of JSON, and its text."""
ORIGIN = re.compile(r"https?://[^/]+", re.IGNORECASE)

CALL_TAG = "batchbell_call"
"""The name of the tag of a batch that was made by a call that we passed on."""

router = strict_router("native")


async def pass_native(
    request: Request,
    path: str,
    bb_account: AccountName = None,
    bb_webhook_url: WebhookUrl = None,
) -> Response:
    """Below the name of a dialect stands the provider's API, as far as it is about batches."""
    dialect = request.scope["route"].name
    native, call = NATIVES[dialect], await call_of(request)
    called = _path(request, dialect)
    path = called.removeprefix(native.root)
    query = request.scope["query_string"].decode("latin-1")
    below = called.startswith(native.root)
    passage = native.passage(request.method, path, query) if below else None
    if passage is None:
        raise InvalidRequest(
            f"Batchbell passes on what is about batches and their files, and not {request.method}"
            f" {called[:200]}. Send other calls to the provider itself.",
            code=Code.UNKNOWN_URL,
            status=404,
        )
    account, known = await _account(call, request, dialect, passage.batch_id)
    request.scope["query_string"] = _without_ours(request.scope["query_string"], native)
    match passage.verb:
        case Verb.CREATE:
            return await _create(call, request, path, account)
        case Verb.CONTENT:
            return await pass_on(call, request, path, account=account, packed=True)
        case Verb.UPLOAD:
            reply = await send_up(call, request, path, account=account)
            return _answer(request, account, reply, prove=await _prover(call, request, account))
    reply = await ask(call, request, path, account=account, body=await _small(request))
    if passage.verb is Verb.BATCH and known is not None:
        await _note(call, account, known, reply)
        if request.method == "POST":
            now = call.context.clock()
            await call.context.store.write(accounts.make_due, [account.id], now=now)
    return _answer(request, account, reply)


for _name, _method in itertools.product(NATIVES, METHODS):
    router.add_api_route(
        f"/{_name}/{{path:path}}",
        pass_native,
        name=_name,
        methods=[_method],
        summary="A call of the provider's own SDK",
        **passes(404, native=True),
    )


def _path(request: Request, dialect: str) -> str:
    """The provider's path as it was sent: what is encoded belongs to an id."""
    raw: bytes = request.scope.get("raw_path") or request.scope["path"].encode()
    return raw.partition(b"?")[0].decode("latin-1").removeprefix(f"/{dialect}")


def _without_ours(query: bytes, native: Native) -> bytes:
    """The query without a key, and without what we added to it: they are no provider's."""
    pairs = [pair for pair in query.split(b"&") if pair]
    names = [unquote_plus(pair.partition(b"=")[0].decode("latin-1")) for pair in pairs]
    ours = [name in native.secrets or name.startswith("bb-") for name in names]
    return b"&".join(pair for pair, is_ours in zip(pairs, ours, strict=True) if not is_ours)


async def _small(request: Request) -> bytes | None:
    return await request.body() or None


async def _account(
    call: Call, request: Request, dialect: str, batch_id: str | None
) -> tuple[Account, Batch | None]:
    """The account that the request names, or that has the batch, or the first of the dialect; and
    the batch, where it is known. Raises InvalidRequest."""
    fitting = {
        name: account
        for name, account in (await call.accounts()).items()
        if speaks(account, dialect)
    }
    wanted = request.headers.get(ACCOUNT_HEADER) or request.query_params.get(ACCOUNT_HEADER)
    if wanted is not None and wanted not in fitting:
        message = f"No account {wanted[:64]!r} takes these calls."
        message += f" These do: {', '.join(fitting)}." if fitting else ""
        raise InvalidRequest(message, param=ACCOUNT_HEADER, code=Code.UNKNOWN_ACCOUNT)
    if not fitting:
        message = f"No account takes these calls. Add one: batchbell accounts add {dialect}."
        raise InvalidRequest(message, code=Code.NO_ACCOUNT)
    account = None if wanted is None else fitting[wanted]
    known = None
    if batch_id is not None:
        try:
            known = await call.context.store.read(
                batches.get_batch,
                call.project_id,
                batch_id,
                account_id=account.id if account else None,
            )
        except (NotFound, InvalidRequest):
            known = None  # the provider may know it
    if account is None and known is not None:
        owner = await account_of(call, known)
        account = owner if owner is not None and owner.name in fitting else None
    return account or next(iter(fitting.values())), known


async def _create(call: Call, request: Request, path: str, account: Account) -> Response:
    """Make a batch once, and keep it. Its body may be large, and goes by the disk."""
    native = _native(account)
    context = call.context
    own = _header_targets(call, request)
    async with scratch_folder(scratch_of(context.results_store)) as folder:
        file = folder / "body"
        await keep(request, file, most=context.settings.submission_max_bytes)
        tag = (CALL_TAG, context.mint("call"))
        asked, fingerprint, file = await apart(
            call.project_id, [file], read_creation, native, path, file, tag
        )
        more = await creations.read_targets(
            context, {"metadata": dict(asked.metadata or {})}, call.project_id
        )
        targets = [*own, *more]
        made = creations.intent(
            call, request, account, asked, fingerprint=fingerprint, targets=targets
        )
        found = await creations.create(
            call,
            account,
            made,
            targets,
            send=lambda: _send(call, request, path, account, file),
            seen_in=lambda reply: _seen(call, account, reply),
        )
    if isinstance(found, Batch):
        location = native.location(found.id)
        reply = await ask(call, request, location, account=account, method="GET")
        return _answer(request, account, reply, more=REPLAYED)
    if isinstance(found, Response):
        return found
    return _answer(request, account, found.reply)


def _header_targets(call: Call, request: Request) -> Targets:
    url = request.headers.get(WEBHOOK_HEADER)
    if url is None:
        return []
    checks = {"url": url_check(call.context.rules())}
    webhook, problems = judge(Webhook, {"url": url}, checks, where="")
    if webhook is None or problems:
        raise InvalidBody([replace(one, param=WEBHOOK_HEADER) for one in problems])
    return [partial(registration, webhook)]


async def _send(call: Call, request: Request, path: str, account: Account, file: Path) -> Whole:
    with await disk(file.open, "rb") as content:
        body = FileBody(content, content_type="application/json").pieces()
        size = (await disk(file.stat)).st_size
        return await ask(call, request, path, account=account, body=body, length=size)


def _native(account: Account) -> Native:
    native = dialect_of(account).native
    assert native is not None, "only such accounts are chosen"
    return native


async def _seen(call: Call, account: Account, reply: Whole) -> Snapshot | None:
    native, profile = _native(account), profile_of(account)
    return await read(call, lambda body: native.snapshot_in(body, profile), reply.body)


async def _note(call: Call, account: Account, known: Batch, reply: Whole) -> None:
    """Write down a new status that was seen here."""
    seen = await _seen(call, account, reply) if reply.is_good else None
    if seen is not None and seen.id == known.id and seen.status not in (None, known.status):
        await call.surface.adopter.note(call.project_id, account, seen)


async def _prover(call: Call, request: Request, account: Account) -> Callable[[str], str]:
    """Makes of an address of ours one that this caller may send files to without a key.

    It names the account too: no header is sent there either.
    """
    token, store, now = api_key_in(request.scope), call.context.store, call.context.clock()
    key = await call.surface.keyring.find(token) if token else None
    signer = None if key is None else await store.read(keys.find_signer, key.id)

    def prove(address: str) -> str:
        named = f"{address}{'&' if '?' in address else '?'}{ACCOUNT_HEADER}={quote(account.name)}"
        if signer is None:  # local mode: no key is asked for
            return named
        return proven(named, signer[0].id, secret=signer[1], now=now)

    return prove


def _answer(
    request: Request,
    account: Account,
    reply: Whole,
    *,
    prove: Callable[[str], str] = str,
    **how: Any,
) -> Response:
    """The provider's answer, whose addresses of the API lead through us.

    What `prove` makes of those in its headers is called without a key.
    """
    native = _native(account)
    if not native.links:
        return reply.response(**how)
    host, below = str(request.base_url).rstrip("/"), f"/{profile_of(account).dialect}{native.root}"
    prefix = ORIGIN.sub("", account.base_url.rstrip("/"))

    def through_us(url: str, prove: Callable[[str], str] = str) -> str:
        path = ORIGIN.sub("", url).removeprefix(prefix)
        bare = path.partition("?")[0]
        known = any(native.passage(method, bare) is not None for method in METHODS)
        return f"{host}{prove(below + path)}" if known else url

    def replaced(found: re.Match[bytes]) -> bytes:
        url = msgspec.json.decode(found[2], type=str)
        return found[1] + msgspec.json.encode(through_us(url))

    names = b"|".join(re.escape(name).encode() for name in sorted(native.links))
    headers = [
        (name, through_us(value.decode("latin-1"), prove).encode("latin-1"))
        if name.decode("latin-1") in native.links
        else (name, value)
        for name, value in reply.headers
    ]
    body = re.sub(LINK % names, replaced, reply.body)
    return replace(reply, headers=headers, body=body).response(**how)
