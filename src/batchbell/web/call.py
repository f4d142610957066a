"""What the HTTP surface is given to work with, what a handler is given, and how it answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import msgspec
from fastapi import Depends, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from batchbell.api.lists import Page
from batchbell.core.declared import Declarations
from batchbell.core.errors import InvalidRequest, NotFound
from batchbell.core.model import DEFAULT_PROJECT, Account, Mint
from batchbell.files.results_store import ResultsStore
from batchbell.net.client import Sender
from batchbell.net.guard import AddressRules
from batchbell.net.relay import Relay
from batchbell.observability import Metrics
from batchbell.settings import Settings
from batchbell.storage import paging, projects
from batchbell.storage.engine import Store
from batchbell.web.auth import Keyring
from batchbell.web.errors import Code

if TYPE_CHECKING:  # they are given a `Context`, and import it from here
    from batchbell.web.accounts import Directory
    from batchbell.web.dashboard.live import Looks
    from batchbell.web.dashboard.overview import Glance
    from batchbell.web.dashboard.preview import Previews
    from batchbell.web.downloads import Tables
    from batchbell.web.gateway.creations import Adopter
    from batchbell.web.health import Condition
    from batchbell.web.hooks import Hooks
    from batchbell.web.stream import Streams
    from batchbell.web.watches import Registrar


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """One server's parts."""

    store: Store
    settings: Settings
    declared: Declarations
    """Accounts whose keys are in the environment."""
    metrics: Metrics
    clock: Callable[[], float]
    mint: Mint
    rules: Callable[[], AddressRules]
    """The address rules that are in force now."""
    keys_changed: Callable[[], None]
    """Call after a key was made or revoked: local mode may have begun or ended."""
    results_store: ResultsStore
    """Where merged results are, and requests until they are handed in."""
    sender: Sender
    """Sends test events, under the same address rules as every webhook."""
    relay: Relay
    """Passes calls on to providers."""
    workers_alive: Callable[[], Mapping[str, bool]]
    """Whether each worker of this process has shown life lately; empty without workers."""


Item = TypeVar("Item", bound=paging.Named)

ENCODER = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class Surface:
    """What one application keeps for all its requests."""

    context: Context
    keyring: Keyring
    registrar: Registrar
    directory: Directory
    adopter: Adopter
    condition: Condition
    streams: Streams
    tables: Tables
    screens: Streams
    """Of those who look at pages."""
    looks: Looks
    """The pages that they look at."""
    glance: Glance
    previews: Previews
    hooks: Hooks


@dataclass(frozen=True, slots=True)
class Call:
    """One request that was let in: the parts to work with, and the caller's project."""

    context: Context
    surface: Surface
    project_id: str

    @property
    def is_operator(self) -> bool:
        """Whether the caller belongs to the project that looks after the others."""
        return self.project_id == DEFAULT_PROJECT

    async def accounts(self) -> Mapping[str, Account]:
        """The accounts of the caller's project that can be watched; the first is the default."""
        return await self.surface.directory.of(self.project_id)

    async def page(
        self, query: Callable[..., paging.Page[Item]], *, after: str | None, **more: Any
    ) -> paging.Page[Item]:
        """A page of a list of the caller's project.

        Raises InvalidRequest for an `after` that is not known.
        """
        try:
            return await self.context.store.read(query, self.project_id, after=after, **more)
        except NotFound as error:
            if after is None:
                raise
            raise InvalidRequest(
                f"There is no {after[:100]!r} in this list to go on after. Take the `last_id` of"
                " the page before, or begin again without `after`.",
                param="after",
                code=Code.NOT_FOUND,
                status=404,
            ) from error

    async def named_project(self, word: str | None) -> str:
        """The id of the project that is named, by default the caller's own.

        Raises NotFound: only `default` may name another, and to all else there is none.
        """
        if word is None:
            return self.project_id
        found = await self.context.store.read(projects.find_project, word)
        if not self.is_operator and found.id != self.project_id:
            raise NotFound("project", word)
        return found.id


async def call_of(request: Request) -> Call:
    surface: Surface = request.app.state.surface
    return Call(surface.context, surface, request.scope["state"]["project_id"])


async def operator_of(request: Request) -> Call:
    """A call of project `default`; for the others the route is not there."""
    call = await call_of(request)
    if not call.is_operator:
        raise HTTPException(404)
    return call


Caller = Annotated[Call, Depends(call_of)]
Operator = Annotated[Call, Depends(operator_of)]


def encoded(value: Any) -> bytes:
    """A value as compact JSON."""
    return ENCODER.encode(value)


def answer(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A value as compact JSON."""
    body = encoded(value)
    if headers is None:
        return _Plain(body, status)
    return Response(body, status, headers, media_type="application/json")


class _Plain(Response):
    """A JSON answer without headers of its own: what Starlette makes of one takes much longer."""

    def __init__(self, body: bytes, status: int) -> None:
        self.status_code = status
        self.body = body
        self.background = None
        self.raw_headers = [
            (b"content-length", str(len(body)).encode()),
            (b"content-type", b"application/json"),
        ]


def page_answer(data: Sequence[Any], page: paging.Page[Any] | None = None) -> Response:
    """A list in OpenAI's shape: a page of one, or without it the whole. `after` takes `last_id`."""
    page = page or paging.page_of(data, len(data))
    first_id = data[0].id if data else None
    listed = Page(data=tuple(data), first_id=first_id, last_id=page.last_id, has_more=page.has_more)
    return answer(listed)
