"""Webhooks of providers themselves: each makes a check of its batch due, and nothing more.

Whoever sends one needs no API key: its signature is the proof. What it says of the batch is not
believed, and one that is lost costs time only, as the account is polled all the same.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import structlog
from fastapi import Request
from starlette.responses import Response

from batchbell.api import hooks as api
from batchbell.core.errors import AccessDenied, InvalidRequest, ProviderUnavailable
from batchbell.core.model import Account
from batchbell.group_commit import GroupCommit
from batchbell.net.api import ApiClient
from batchbell.net.proxy import provider_proxy
from batchbell.providers.hints import (
    HintRefused,
    Reason,
    read_hint,
    read_token_hint,
    token_in,
)
from batchbell.providers.profile import Hooks as ProviderHooks
from batchbell.providers.profiles import PROFILES
from batchbell.providers.tokens import BadToken, Keys, key_id, keys_in
from batchbell.storage import hints
from batchbell.storage.hints import Received, Taken
from batchbell.web.accounts import hook_path, hook_secrets_of
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
KEYS_KEPT_SECONDS = 3_600.0
KEYS_AGAIN_SECONDS = 60.0
KEYS_SECONDS = 5.0
"""How long the answer of a provider that is asked for its keys may take."""
KEYS_KEPT_MAX = 1_000
"""Base URLs whose keys are kept."""
HOOKS = {name: profile.hooks for name, profile in PROFILES.items() if profile.hooks is not None}
"""What providers send, by their names."""


class PublicKeys:
    """The keys of providers that sign by tokens, fetched when they are first needed.

    They are fetched again once they are old, and where a token names another; but not more often
    than KEYS_AGAIN_SECONDS, whoever sends what. Old ones count while no new ones are to be had.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._known: dict[str, _Known] = {}

    async def of(self, account: Account, hooks: ProviderHooks, token: str, *, now: float) -> Keys:
        """Those of the account's provider. Raises BadToken, and ProviderUnavailable."""
        wanted = key_id(token)
        if len(self._known) >= KEYS_KEPT_MAX:
            self._known.clear()
        known = self._known.setdefault(account.base_url, _Known())
        async with known.lock:
            if known.is_old(now, wanted):
                await self._fetch(account, hooks, known, now=now)
        if known.error is not None and not known.keys:
            raise ProviderUnavailable(known.error)
        return known.keys

    async def _fetch(
        self, account: Account, hooks: ProviderHooks, known: _Known, *, now: float
    ) -> None:
        assert hooks.keys_path is not None
        client = ApiClient(
            account.base_url,
            {},
            rules=None if account.from_environment else self._context.rules(),
            proxy=provider_proxy(self._context.settings),
            timeout_seconds=KEYS_SECONDS,
            body_max_bytes=BODY_MAX_BYTES,
        )
        known.at, known.error = now, None
        try:
            status, _, body = await client.get_json_bytes(hooks.keys_path)
            if status == 200:
                known.keys = keys_in(body)
            else:
                known.error = f"The provider's list of keys answered {status}."
        except (ProviderUnavailable, BadToken) as error:
            known.error = str(error)
        finally:
            await client.aclose()
        if known.error is not None:
            log.warning("hook.no_keys", account=account.label, error=known.error)


@dataclass(slots=True)
class _Known:
    """The keys at one base URL."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    at: float = -math.inf
    """When they were last asked for."""
    keys: Keys = field(default_factory=dict)
    error: str | None = None

    def is_old(self, now: float, wanted: str) -> bool:
        keep = KEYS_KEPT_SECONDS if wanted in self.keys else KEYS_AGAIN_SECONDS
        return not self.at <= now < self.at + keep


class Hooks:
    """Takes hints; those that come at the same time share a transaction."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._keys = PublicKeys(context)
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
        token = token_in(sends, request.headers)
        if not secrets and token is None:
            self._count(account, "no_secret")
            log.warning(
                "hook.refused",
                account=account.label,
                reason="no_secret",
                why="The account has no secret to verify webhooks with.",
            )
            raise _not_taken()
        body, now = await read_body(request, most=BODY_MAX_BYTES), self._context.clock()
        try:
            if token is None:
                hint = read_hint(
                    sends, secrets=secrets, headers=request.headers, body=body, now=now
                )
            else:
                hint = read_token_hint(
                    sends,
                    token,
                    await self._keys.of(account, sends, token, now=now),
                    is_audience=lambda word: self._is_for(account, word),
                    headers=request.headers,
                    body=body,
                    now=now,
                )
        except HintRefused as error:
            raise self._refusal(account, error) from error
        except BadToken as error:
            forged = HintRefused(Reason.FORGED, str(error))
            raise self._refusal(account, forged) from error
        taken = await self._gathering.add(Received(account.id, hint.id, hint.batch_ids))
        self._count(account, taken)
        log.info("hook", account=account.label, result=taken, batches=hint.batch_ids)
        return taken

    async def _write(self, received: list[Received]) -> Sequence[Taken]:
        return await self._context.store.write(hints.take, received, now=self._context.clock())

    def _is_for(self, account: Account, audience: str) -> bool:
        """Whether this account is meant: by its own word, else by the path of its hooks, as the
        address before it may be a tunnel's."""
        declared = self._context.declared.of(account)
        own = account.hook_audience if declared is None else declared.hook_audience
        if own is not None:
            return audience == own
        try:
            return urlsplit(audience).path.endswith(hook_path(account))
        except ValueError:
            return False

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
    **answers(api.Hook, 404, 413, 502),
)
async def take_hook(call: Caller, account_id: str, request: Request) -> Response:
    taken = await call.surface.hooks.take(account_id, request)
    return answer(api.Hook(result=taken))
