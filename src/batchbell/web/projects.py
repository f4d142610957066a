"""Projects: what the operator makes for others. To other projects these routes are not there."""

from __future__ import annotations

import secrets
from typing import Any

from fastapi import Request
from starlette.responses import Response

from batchbell.api import projects as api
from batchbell.api.answers import made_of
from batchbell.api.lists import Page
from batchbell.api.projects import ProjectRequest
from batchbell.core import signing
from batchbell.storage import projects
from batchbell.web.bodies import read, read_json
from batchbell.web.call import Call, Operator, answer, page_answer
from batchbell.web.openapi import answers, takes
from batchbell.web.parameters import strict_router

router = strict_router("access")


@router.post(
    "/v1/projects",
    summary="Make a project: keys, accounts, endpoints and batches of its own",
    openapi_extra=takes(ProjectRequest),
    **answers(api.Project, 404, 409, 413, status=201, says="The project."),
)
async def create_project(call: Operator, request: Request) -> Response:
    made = await create(call, await read_json(request))
    return answer(made_of(api.Project, made), 201)


async def create(call: Call, body: Any) -> projects.Project:
    """Make a project. Raises InvalidRequest."""
    wanted = read(ProjectRequest, body)
    context = call.context
    return await context.store.write(
        projects.create_project,
        name=wanted.name,
        secret=signing.make_secret(secrets.token_bytes(signing.SECRET_BYTES)),
        mint=context.mint,
        now=context.clock(),
    )


@router.get(
    "/v1/projects",
    summary="List projects, the oldest first",
    **answers(Page[api.Project], 404),
)
async def list_projects(call: Operator) -> Response:
    found = await call.context.store.read(projects.list_projects)
    data = [made_of(api.Project, one) for one in found]
    return page_answer(data)
