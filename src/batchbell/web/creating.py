"""Batches that are made through us: their wishes are judged before, and kept after."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import structlog

from batchbell.core import backoff
from batchbell.core.errors import InvalidRequest, StoreUnavailable
from batchbell.core.model import Account, Batch, Snapshot
from batchbell.storage import adopting, endpoints
from batchbell.storage.adopting import Find
from batchbell.storage.watches import Registration
from batchbell.web import gateway_shapes
from batchbell.web.bodies import Fields
from batchbell.web.context import Context
from batchbell.web.faults import InvalidBody
from batchbell.web.registering import WatchForm, webhook_url

WISH = "webhook"
"""The field of the body that is for us alone."""
METADATA_WISH = "webhook_url"
"""The pair of the batch's metadata that means the same, and that the provider keeps as well."""
FIRST_PAUSE_SECONDS = 1.0
LAST_PAUSE_SECONDS = 30.0

Wish = Callable[[str, str], Registration]
"""From an account's id and a batch's to a registration."""

log = structlog.get_logger("batchbell.gateway")


class BatchForm:
    """Reads who is to be told of a batch that is yet to be made."""

    def __init__(self, context: Context, body: Any) -> None:
        """Raises InvalidRequest for what is no object."""
        self._context = context
        self._body = Fields(body, None)
        self._body.raise_problems()

    async def wishes(self, project_id: str) -> list[Wish]:
        """As `webhook` and `metadata.webhook_url` say. Raises InvalidRequest."""
        own = Fields(self._body.get(WISH) or {}, gateway_shapes.Wish, where=f"{WISH}.")
        metadata = self._body.get("metadata")
        pairs = Fields(metadata if isinstance(metadata, dict) else {}, None, where="metadata.")
        wishes: list[Wish] = []
        if self._body.get(WISH) is not None:
            wishes.append(WatchForm(self._context, {}).wish(own))
        if pairs.has(METADATA_WISH):
            wishes.append(_calling(webhook_url(pairs, METADATA_WISH, self._context.rules())))
        if problems := [*own.problems, *pairs.problems]:
            raise InvalidBody(problems)
        await self._check_endpoints(project_id, wishes)
        return wishes

    async def _check_endpoints(self, project_id: str, wishes: list[Wish]) -> None:
        named = {one.endpoint_id for wish in wishes if (one := wish("", "")).endpoint_id}
        if not named:
            return
        try:
            await self._context.store.write(endpoints.named_urls, project_id, named)
        except InvalidRequest as error:
            raise InvalidRequest(
                error.message, param=f"{WISH}.endpoint_id", code=error.code
            ) from None


def _calling(url: str) -> Wish:
    return lambda account_id, batch_id: Registration(
        account_id=account_id, batch_id=batch_id, url=url
    )


def for_provider(raw: bytes, body: Mapping[str, Any]) -> bytes:
    """The body without what is for us alone; untouched where there is no such thing."""
    if WISH not in body:
        return raw
    return msgspec.json.encode({name: value for name, value in body.items() if name != WISH})


class Adopter:
    """Writes down what providers say of batches as it passes through us."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._late: set[asyncio.Task[None]] = set()

    async def note(self, project_id: str, account: Account, seen: Snapshot) -> Batch:
        """Write down what was seen of a batch, and return it. Raises StoreUnavailable."""
        return await self._write(project_id, account, Find(snapshot=seen))

    async def adopt(
        self, project_id: str, account: Account, seen: Snapshot, wishes: list[Wish]
    ) -> Batch | None:
        """Keep a batch that was just made; returns it as it is kept.

        None where that could not be: the batch is there, and costs money, whatever becomes of our
        write. So nothing is raised, and while the database is away it is tried on and on.
        """
        wanted = tuple(wish(account.id, seen.id) for wish in wishes)
        find = Find(snapshot=seen, wishes=wanted)
        try:
            return await self._write(project_id, account, find)
        except StoreUnavailable as error:
            tell_lost(account, seen.id, str(error))
            task = asyncio.create_task(self._keep_trying(project_id, account, find))
            self._late.add(task)
            task.add_done_callback(self._late.discard)
        except Exception as error:
            tell_lost(account, seen.id, repr(error))
        return None

    async def _write(self, project_id: str, account: Account, find: Find) -> Batch:
        context = self._context
        batch, adopted = await context.store.write(
            adopting.adopt_one,
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
                tell_lost(account, find.snapshot.id, repr(error))
            else:
                log.info("a batch is kept after all", batch=find.snapshot.id)
            return


def tell_lost(account: Account, batch_id: str | None, why: str) -> None:
    """Of a batch that is there, and that we do not watch."""
    log.error(
        "a batch was made, and could not be kept",
        batch=batch_id,
        account=account.label,
        error=why,
        advice="unless a line says that it is kept after all, watch it: batchbell watch",
    )
