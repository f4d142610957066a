"""Making a batch at a provider once, whatever becomes of the answer.

The intent is written before the provider is asked. After an unclear answer the workers look for
the batch (`workers.seeker`), and an equal call, such as OpenAI's SDKs make by themselves, waits
for what they find in place of making another batch.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from fastapi import Request
from starlette.responses import Response

from batchbell.core import twins
from batchbell.core.model import Account, Batch
from batchbell.core.twins import Doubt, Marks
from batchbell.storage import batches, creations
from batchbell.storage.creations import Creation
from batchbell.storage.watches import Registration
from batchbell.web import describing
from batchbell.web.calling import Call, answer
from batchbell.web.faults import Code, error_response

HOLD_SECONDS = 8.0
"""How long a caller is held while the batch is looked for."""
LOOK_SECONDS = 0.25
RETRY_SECONDS = 5
RETRY_HEADER = "x-should-retry"
"""Tells OpenAI's SDKs whether to make the call again."""
KEY_HEADER = "Idempotency-Key"
KEY_MAX = 512


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
    call: Call, request: Request, account: Account, body: Mapping[str, Any], wishes: Sequence[Any]
) -> Creation | None:
    """What is about to be asked for; None where it names no input file to recognize it by."""
    file_id, endpoint, metadata = (
        body.get(name) for name in ("input_file_id", "endpoint", "metadata")
    )
    if not isinstance(file_id, str) or not file_id:
        return None
    pairs = metadata if isinstance(metadata, dict) else {}
    told: list[Registration] = [wish(account.id, "") for wish in wishes]
    asked = msgspec.json.encode([file_id, endpoint, pairs], order="sorted")
    key = request.headers.get(KEY_HEADER)
    return Creation(
        id=call.context.mint("mk"),
        project_id=call.project_id,
        account_id=account.id,
        fingerprint=hashlib.sha256(asked).hexdigest(),
        marks=Marks(
            asked_at=call.context.clock(),
            input_file_id=file_id,
            endpoint=endpoint if isinstance(endpoint, str) else None,
            metadata={k: v for k, v in pairs.items() if isinstance(v, str)},
        ),
        wishes=told,
        idempotency_key=key[:KEY_MAX] if key else None,
    )


async def earlier(call: Call, made: Creation) -> Outcome:
    """What became of an equal call whose answer was lost."""
    store = call.context.store
    found = await store.read(creations.equal_call, made, now=call.context.clock())
    return Outcome() if found is None else await outcome_of(call, found.id)


async def outcome_of(call: Call, id: str) -> Outcome:
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


async def doubt(call: Call, made: Creation, found: Doubt) -> Outcome:
    """Have the batch looked for, and wait for what comes of it."""
    now = call.context.clock()
    again = now + twins.look_for_seconds(found)
    await call.context.store.write(creations.doubt, made.id, ask_again_at=again, now=now)
    return await outcome_of(call, made.id)


def found_again(batch: Batch, *, now: float) -> Response:
    """The answer to a call whose batch was found."""
    return answer(describing.batch(batch, now=now), headers={"Idempotent-Replayed": "true"})


def unclear(message: str, outcome: Outcome) -> Response:
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
