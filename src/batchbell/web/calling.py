"""What a handler is given, and how it answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import msgspec
from fastapi import Depends, Request
from starlette.responses import Response

from batchbell.storage.paging import Page
from batchbell.web import shapes
from batchbell.web.auth import Keyring
from batchbell.web.condition import Condition
from batchbell.web.context import Context
from batchbell.web.registering import Registrar

Item = TypeVar("Item")

ENCODER = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class Surface:
    """What one application keeps for all its requests."""

    context: Context
    keyring: Keyring
    registrar: Registrar
    condition: Condition


@dataclass(frozen=True, slots=True)
class Call:
    """One request that was let in: the parts to work with, and the caller's project."""

    context: Context
    surface: Surface
    project_id: str


async def call_of(request: Request) -> Call:
    surface: Surface = request.app.state.surface
    return Call(surface.context, surface, request.scope["state"]["project_id"])


Caller = Annotated[Call, Depends(call_of)]


def answer(value: Any, status: int = 200) -> Response:
    """A value as compact JSON."""
    return Response(ENCODER.encode(value), status, media_type="application/json")


def page_answer(page: Page[Any], data: list[Item], ids: list[str]) -> Response:
    """A page in OpenAI's shape. `ids` are what `after` takes."""
    return answer(
        shapes.Page(
            data=data,
            first_id=ids[0] if ids else None,
            last_id=ids[-1] if ids else None,
            has_more=page.has_more,
        )
    )
