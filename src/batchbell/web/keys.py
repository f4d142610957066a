"""API keys and the webhook secret: what an operator sets up."""

from __future__ import annotations

import secrets
from typing import Annotated

from fastapi import Query, Request
from starlette.responses import Response

from batchbell.api import keys as api
from batchbell.api.answers import made_of
from batchbell.api.keys import KeyRequest
from batchbell.api.lists import Page
from batchbell.core.errors import NotFound
from batchbell.storage import keys, projects
from batchbell.web.bodies import read, read_json
from batchbell.web.call import Call, Caller, answer, page_answer
from batchbell.web.openapi import answers, takes
from batchbell.web.parameters import strict_router

router = strict_router("access")

KEY_BYTES = 24
ProjectId = Annotated[
    str | None,
    Query(description="The id or the name of another project; only `default` may name one."),
]


def shown(found: keys.Key, *, key: str | None = None) -> api.Key:
    return made_of(api.Key, found, key=key)


@router.post(
    "/v1/keys",
    summary="Make an API key: from then on every caller needs one",
    openapi_extra=takes(KeyRequest),
    **answers(api.Key, 404, 413, status=201, says="The key. `key` is shown this once."),
)
async def create_key(call: Caller, request: Request) -> Response:
    wanted = read(KeyRequest, await read_json(request))
    made, key = await create(call, await call.named_project(wanted.project_id), wanted.name)
    return answer(shown(made, key=key), 201)


async def create(call: Call, project_id: str, name: str) -> tuple[keys.Key, str]:
    """Make a key of a project; returns its record, and the key itself, which is not kept."""
    key = keys.PREFIX + secrets.token_hex(KEY_BYTES)
    context = call.context
    made = await context.store.write(
        keys.create_key,
        project_id,
        name=name,
        key=key,
        mint=context.mint,
        now=context.clock(),
    )
    _keys_changed(call)
    return made, key


@router.get("/v1/keys", summary="List API keys", **answers(Page[api.Key], 404))
async def list_keys(call: Caller, project_id: ProjectId = None) -> Response:
    found = await call.context.store.read(keys.list_keys, await call.named_project(project_id))
    data = [shown(one) for one in found]
    return page_answer(data)


@router.delete("/v1/keys/{key_id}", summary="Revoke a key", **answers(api.KeyDeleted, 404))
async def revoke_key(call: Caller, key_id: str, project_id: ProjectId = None) -> Response:
    await revoke(call, await call.named_project(project_id), key_id)
    return answer(api.KeyDeleted(id=key_id, deleted=True))


async def revoke(call: Call, project_id: str, key_id: str) -> None:
    """Revoke a key of a project. Raises NotFound."""
    context = call.context
    await context.store.write(keys.revoke_key, project_id, key_id, now=context.clock())
    _keys_changed(call)


def _keys_changed(call: Call) -> None:
    call.surface.keyring.forget()
    call.context.keys_changed()


@router.get(
    "/v1/secret",
    summary="The secret that signs a project's webhooks",
    **answers(api.WebhookSecret, 404),
)
async def get_secret(call: Caller, project_id: ProjectId = None) -> Response:
    project = await call.named_project(project_id)
    secret = await call.context.store.read(projects.webhook_secret, project)
    if secret is None:
        raise NotFound("project", project)
    return answer(api.WebhookSecret(secret=secret))
