"""Webhooks of providers themselves: each makes a check of its batch due, and nothing more.

Whoever sends one needs no API key: its signature is the proof. What it says of the batch is not
believed, and one that is lost costs time only, as the account is polled all the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import structlog
from fastapi import Request
from starlette.responses import Response

from batchbell.api import hooks as api
from batchbell.core.errors import AccessDenied, InvalidRequest
from batchbell.core.model import Account
from batchbell.group_commit import GroupCommit
from batchbell.providers.hints import HintRefused, Reason, read_hint
from batchbell.providers.profiles import PROFILES
from batchbell.storage import hints
from batchbell.storage.hints import Received, Taken
from batchbell.web.accounts import hook_secrets_of
from batchbell.web.bodies import read_body
from batchbell.web.call import Caller, Context, answer
from batchbell.web.errors import Code
from batchbell.web.openapi import answers
from batchbell.web.parameters import strict_router

log = structlog.get_logger("batchbell.hooks")

BODY_MAX_BYTES = 64 * 2**10
"""Those of providers are far below: ids, counts and a word or two."""
GATHER_MAX = 500
"""Hints that one transaction carries at most."""
HOOKS = {name: profile.hooks for name, profile in PROFILES.items() if profile.hooks is not None}
"""What providers send, by their names."""


class Hooks:
    """Takes hints; those that come at the same time share a transaction."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._gathering: GroupCommit[Received, Taken] = GroupCommit(self._write, most=GATHER_MAX)

    async def take(self, account_id: str, request: Request) -> Taken:
        """What became of a webhook that is genuine.

        Raises AccessDenied and InvalidRequest.
        """
        found = await self._context.store.read(hints.receiver, account_id)
        account, kept = found if found is not None else (None, ())
        sends = None if account is None else HOOKS.get(account.provider)
        if account is None or sends is None:
            raise _not_taken()
        secrets = hook_secrets_of(self._context.declared, account, kept)
        if not secrets:
            self._count(account, "no_secret")
            log.warning(
                "hook.refused",
                account=account.label,
                reason="no_secret",
                why="The account has no secret to verify webhooks with.",
            )
            raise _not_taken()
        body = await read_body(request, most=BODY_MAX_BYTES)
        try:
            hint = read_hint(
                sends,
                secrets=secrets,
                headers=request.headers,
                body=body,
                now=self._context.clock(),
            )
        except HintRefused as error:
            raise self._refusal(account, error) from error
        taken = await self._gathering.add(Received(account.id, hint.id, hint.batch_ids))
        self._count(account, taken)
        log.info("hook", account=account.label, result=taken, batches=hint.batch_ids)
        return taken

    async def _write(self, received: list[Received]) -> Sequence[Taken]:
        return await self._context.store.write(hints.take, received, now=self._context.clock())

    def _refusal(self, account: Account, error: HintRefused) -> Exception:
        self._count(account, error.reason)
        log.warning("hook.refused", account=account.label, reason=error.reason, why=error.message)
        if error.reason is Reason.MALFORMED:
            return InvalidRequest(error.message, code=Code.INVALID_VALUE)
        return AccessDenied(error.message, code=Code.HOOK_REFUSED)

    def _count(self, account: Account, result: str) -> None:
        self._context.metrics.hooks.labels(account.label, result).inc()


def _not_taken() -> InvalidRequest:
    """Whoever reads it may be anybody: whether there is such an account is not said."""
    return InvalidRequest(
        "No account of this id takes webhooks. It needs the secret that its provider signs them"
        " with: set that in the environment of the server if the account is declared there, else"
        " run batchbell accounts update NAME --new-hook-secret.",
        code=Code.NO_HOOKS,
        status=404,
    )


router = strict_router("hooks")


@router.post(
    "/hooks/{account_id}",
    summary="Take a webhook of an account's provider",
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"type": "object"}}},
        }
    },
    **answers(api.Hook, 404, 413),
)
async def take_hook(call: Caller, account_id: str, request: Request) -> Response:
    taken = await call.surface.hooks.take(account_id, request)
    return answer(api.Hook(result=taken))
