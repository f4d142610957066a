"""Making a batch at a provider once, whatever becomes of the answer.

The intent is written before the provider is asked. After an unclear answer the workers look for
the batch (`workers.seeker`), and an equal call, such as OpenAI's SDKs make by themselves, waits
for what they find in place of making another batch.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec
import structlog
from fastapi import Request
from starlette.responses import Response

from batchbell import failpoints
from batchbell.api.batches import MetadataWebhook
from batchbell.api.fields import respelt
from batchbell.api.watches import Webhook
from batchbell.core import backoff, twins
from batchbell.core.errors import InvalidRequest, ProviderUnavailable, StoreUnavailable
from batchbell.core.model import Account, Batch, Snapshot
from batchbell.core.twins import Doubt, Marks
from batchbell.providers.protocol import Asked
from batchbell.storage import batches, creations, endpoints, sweeps
from batchbell.storage.creations import Creation
from batchbell.storage.sweeps import Find
from batchbell.storage.watches import Registration
from batchbell.web.bodies import judge
from batchbell.web.call import Call, Context
from batchbell.web.errors import Code, InvalidBody, Problem, error_response
from batchbell.web.gateway.proxy import Whole
from batchbell.web.watches import registration, url_check

HOLD_SECONDS = 8.0
"""How long a caller is held while the batch is looked for."""
LOOK_SECONDS = 0.25
RETRY_SECONDS = 5
RETRY_HEADER = "x-should-retry"
"""Tells OpenAI's SDKs whether to make the call again."""
KEY_HEADER = "Idempotency-Key"
KEY_MAX = 512


Target = Callable[[str, str], Registration]
"""Whom to call: from an account's id and a batch's to a registration."""
Targets = Sequence[Target]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is known of a call after it was waited for."""

    batch: Batch | None = None
    """What it has made."""
    is_open: bool = False
    """Nobody can say yet."""
    unlisted: bool = False
    """Nobody will: the provider has no list."""


def intent(
    call: Call,
    request: Request,
    account: Account,
    asked: Asked,
    *,
    fingerprint: str,
    targets: Targets,
) -> Creation:
    """What is about to be asked for; its fingerprint tells it from all else."""
    key = request.headers.get(KEY_HEADER)
    return Creation(
        id=call.context.mint("mk"),
        project_id=call.project_id,
        account_id=account.id,
        fingerprint=fingerprint,
        marks=Marks(
            asked_at=call.context.clock(),
            input_file_id=asked.input_file_id,
            lines=asked.lines,
            endpoint=asked.endpoint,
            metadata=asked.metadata,
            tag=asked.tag,
        ),
        registrations=[target(account.id, "") for target in targets],
        idempotency_key=key[:KEY_MAX] if key else None,
    )


def asked_of(body: Mapping[str, Any]) -> tuple[Asked, str] | None:
    """What a call in OpenAI's shape asks for, and its fingerprint.

    None where it names no input file to recognize it by.
    """
    file_id, endpoint, metadata = (
        body.get(name) for name in ("input_file_id", "endpoint", "metadata")
    )
    if not isinstance(file_id, str) or not file_id:
        return None
    pairs = metadata if isinstance(metadata, dict) else {}
    asked = Asked(
        input_file_id=file_id,
        endpoint=endpoint if isinstance(endpoint, str) else None,
        metadata={k: v for k, v in pairs.items() if isinstance(v, str)},
    )
    named = msgspec.json.encode([file_id, endpoint, _one_spelling(pairs)], order="sorted")
    return asked, hashlib.sha256(named).hexdigest()


def _one_spelling(pairs: Mapping[str, Any]) -> Mapping[str, Any]:
    """The metadata of a call, the same for each spelling of the webhook."""
    named = MetadataWebhook.of(pairs)
    others = {name: value for name, value in pairs.items() if name not in named}
    return {**others, **respelt(named, "webhook_url")[0]}


async def _earlier(call: Call, made: Creation) -> Outcome:
    """What became of an equal call whose answer was lost."""
    store = call.context.store
    found = await store.read(creations.equal_call, made, now=call.context.clock())
    return Outcome() if found is None else await _outcome_of(call, found.id)


async def _outcome_of(call: Call, id: str) -> Outcome:
    """Wait until it is known what a call has made, for HOLD_SECONDS at most."""
    store, loop = call.context.store, asyncio.get_running_loop()
    until = loop.time() + HOLD_SECONDS
    while True:
        found = await store.read(creations.get, id)
        if found is None or found.state == "nothing":
            return Outcome(unlisted=found is not None and found.unlisted)
        if found.batch_id is not None:
            batch = await store.read(
                batches.get_batch, call.project_id, found.batch_id, account_id=found.account_id
            )
            return Outcome(batch=batch)
        if loop.time() >= until:
            return Outcome(is_open=True, unlisted=found.unlisted)
        await asyncio.sleep(LOOK_SECONDS)


async def _doubt(call: Call, made: Creation, found: Doubt) -> Outcome:
    """Have the batch looked for, and wait for what comes of it."""
    now = call.context.clock()
    again = now + twins.look_for_seconds(found)
    await call.context.store.write(creations.doubt, made.id, ask_again_at=again, now=now)
    return await _outcome_of(call, made.id)


@dataclass(frozen=True, slots=True)
class Made:
    """A batch was made, and this is the provider's answer."""

    reply: Whole
    kept: Batch | None
    """As it is kept; None where that could not be."""


async def create(
    call: Call,
    account: Account,
    made: Creation | None,
    targets: Targets,
    *,
    send: Callable[[], Awaitable[Whole]],
    seen_in: Callable[[Whole], Awaitable[Snapshot | None]],
) -> Made | Batch | Response:
    """Have a batch made once, and keep it.

    Returns the batch that an equal call has made before this one, or the answer that shows none.
    Without `made` nothing can be looked for. Raises StoreUnavailable before anything is sent.
    """
    if made is not None:
        outcome = await _earlier(call, made)
        if outcome.batch is not None:
            return outcome.batch
        if outcome.is_open:
            return _unclear("An equal call is not answered yet.", outcome)
        await call.context.store.write(creations.intend, made)
    reply: Whole | ProviderUnavailable
    try:
        reply = await send()
    except ProviderUnavailable as error:
        reply = error
    failpoints.reach(failpoints.AFTER_MADE)
    seen = await seen_in(reply) if isinstance(reply, Whole) and reply.is_good else None
    if isinstance(reply, Whole) and seen is not None:
        kept = await call.surface.adopter.adopt(call.project_id, account, seen, targets)
        if kept is not None:
            await _settle(call, made)
        return Made(reply, kept)
    return await _not_made(call, account, made, reply)


async def _settle(call: Call, made: Creation | None) -> None:
    """If this fails, the batch is looked for, and found to be known."""
    if made is not None:
        with contextlib.suppress(StoreUnavailable):
            await call.context.store.write(creations.settle, made.id)


async def _not_made(
    call: Call, account: Account, made: Creation | None, reply: Whole | ProviderUnavailable
) -> Batch | Response:
    """No batch came back: whether one was made is looked into, where that is in doubt."""
    whole = reply if isinstance(reply, Whole) else None
    reached = not isinstance(reply, ProviderUnavailable) or reply.code == twins.NOT_ANSWERED
    found = twins.doubt(None if whole is None else whole.status, reached=reached)
    if found is Doubt.NONE:
        await _settle(call, made)
        return _no_batch(reply)
    outcome = (
        Outcome(is_open=True, unlisted=True) if made is None else await _doubt(call, made, found)
    )
    if outcome.batch is not None:
        return outcome.batch
    if whole is not None and whole.is_good:
        log_lost(account, None, "The provider's answer shows no batch.")
    if whole is not None and (found is Doubt.SLIGHT or made is None):
        retry = "false" if made is None or outcome.unlisted else "true"
        return whole.response(more={RETRY_HEADER: retry})
    if not outcome.is_open and not outcome.unlisted:
        return _no_batch(reply)
    message = (
        reply.message
        if isinstance(reply, ProviderUnavailable)
        else f"The provider answered {reply.status}, without a batch."
    )
    return _unclear(message, outcome)


def _no_batch(reply: Whole | ProviderUnavailable) -> Response:
    if isinstance(reply, Whole):
        return reply.response()
    return error_response(502, reply.message, code=Code.PROVIDER_UNAVAILABLE)


def _unclear(message: str, outcome: Outcome) -> Response:
    """The answer while nobody can say what the call has made.

    To make the call again is safe as long as the batch can be looked for: an equal call is
    answered with what is found.
    """
    if outcome.unlisted:
        says = "The provider has no list to look for it. Ask the provider before you try again."
        headers = {RETRY_HEADER: "false"}
    else:
        says = (
            "Batchbell looks for it, and calls its webhooks if it is there. The same call again"
            " is answered with what was found."
        )
        headers = {RETRY_HEADER: "true", "Retry-After": str(RETRY_SECONDS)}
    text = f"{message} The batch may have been made. {says}"
    return error_response(502, text, code=Code.PROVIDER_UNAVAILABLE, headers=headers)


FIELD = "webhook"
"""The field of the body that is for us alone."""
FIRST_PAUSE_SECONDS = 1.0
LAST_PAUSE_SECONDS = 30.0

log = structlog.get_logger("batchbell.gateway")


async def read_targets(context: Context, body: Any, project_id: str) -> list[Target]:
    """Whom the call to create a batch wants called: its `webhook` and `metadata.webhook_url`.

    Raises InvalidRequest.
    """
    if not isinstance(body, dict):
        raise InvalidRequest("The body must be a JSON object.", code=Code.INVALID_VALUE)
    url = url_check(context.rules())
    own = pair = None
    problems: list[Problem] = []
    if body.get(FIELD) is not None:
        own, problems = judge(Webhook, body[FIELD], {"url": url}, where=f"{FIELD}.")
    metadata = body.get("metadata")
    named = MetadataWebhook.of(metadata) if isinstance(metadata, dict) else {}
    if named:
        pair, wrong = judge(MetadataWebhook, named, {"webhook_url": url}, where="metadata.")
        problems += wrong
    if problems:
        raise InvalidBody(problems)
    targets: list[Target] = [] if own is None else [partial(registration, own)]
    if pair is not None:
        targets.append(_calling(pair.webhook_url))
    await _check_endpoints(context, project_id, targets)
    return targets


async def _check_endpoints(context: Context, project_id: str, targets: list[Target]) -> None:
    named = {one.endpoint_id for target in targets if (one := target("", "")).endpoint_id}
    if not named:
        return
    try:
        await context.store.write(endpoints.named_urls, project_id, named)
    except InvalidRequest as error:
        raise InvalidRequest(error.message, param=f"{FIELD}.endpoint_id", code=error.code) from None


def _calling(url: str) -> Target:
    return lambda account_id, batch_id: Registration(
        account_id=account_id, batch_id=batch_id, url=url
    )


def for_provider(raw: bytes, body: Mapping[str, Any]) -> bytes:
    """The body without what is for us alone; untouched where there is no such thing."""
    if FIELD not in body:
        return raw
    return msgspec.json.encode({name: value for name, value in body.items() if name != FIELD})


class Adopter:
    """Writes down what providers say of batches as it passes through us."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._late: set[asyncio.Task[None]] = set()

    async def note(self, project_id: str, account: Account, seen: Snapshot) -> Batch:
        """Write down what was seen of a batch, and return it. Raises StoreUnavailable."""
        return await self._write(project_id, account, Find(snapshot=seen))

    async def adopt(
        self, project_id: str, account: Account, seen: Snapshot, targets: Targets
    ) -> Batch | None:
        """Keep a batch that was just made; returns it as it is kept.

        None where that could not be: the batch is there, and costs money, whatever becomes of our
        write. So nothing is raised, and while the database is away it is tried on and on.
        """
        wanted = tuple(target(account.id, seen.id) for target in targets)
        find = Find(snapshot=seen, registrations=wanted)
        try:
            return await self._write(project_id, account, find)
        except StoreUnavailable as error:
            log_lost(account, seen.id, str(error))
            task = asyncio.create_task(self._keep_trying(project_id, account, find))
            self._late.add(task)
            task.add_done_callback(self._late.discard)
        except Exception as error:
            log_lost(account, seen.id, repr(error))
        return None

    async def _write(self, project_id: str, account: Account, find: Find) -> Batch:
        context = self._context
        batch, adopted = await context.store.write(
            sweeps.adopt_one,
            project_id,
            account.id,
            find,
            mint=context.mint,
            now=context.clock(),
        )
        for one in adopted.watches:
            context.metrics.registrations.labels(created=str(one.created).lower()).inc()
        for change in adopted.changes:
            context.metrics.changes.labels(change.batch.status).inc()
        return batch

    async def _keep_trying(self, project_id: str, account: Account, find: Find) -> None:
        failures = 0
        while True:
            failures += 1
            await asyncio.sleep(
                backoff.exponential(
                    failures,
                    base_seconds=FIRST_PAUSE_SECONDS,
                    max_seconds=LAST_PAUSE_SECONDS,
                    rand=0.5,
                )
            )
            try:
                await self._write(project_id, account, find)
            except StoreUnavailable:
                continue
            except Exception as error:
                log_lost(account, find.snapshot.id, repr(error))
            else:
                log.info("a batch is kept after all", batch=find.snapshot.id)
            return


def log_lost(account: Account, batch_id: str | None, why: str) -> None:
    """Of a batch that is there, and that we do not watch."""
    log.error(
        "a batch was made, and could not be kept",
        batch=batch_id,
        account=account.label,
        error=why,
        advice="unless a line says that it is kept after all, watch it: batchbell watch",
    )
