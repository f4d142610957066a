"""What a route takes beside its path: whatever else it is sent is refused.

The rule holds for every route, and follows from what the route declares: the query parameters of
its handler, those of its `openapi_extra`, and whether it has a body. A parameter that is ignored in
silence would do something else than its writer thinks: `?status=failed` would list everything, and
`?dry_run=1` would start a replay. Fields of a body are held to the same rule by `bodies.read`.

What a route passes on to a provider is the provider's to judge, and probes and scrapes may ask as
they like.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi._compat import field_annotation_is_sequence
from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import request_params_to_args
from fastapi.routing import APIRoute

from batchbell.api.fields import (
    LAST_SECOND,
    PAIR_NAME_MAX,
    PAIR_VALUE_MAX,
    PAIRS_MAX,
)
from batchbell.core.nearest import SHOWN_MAX, hint, shown
from batchbell.web.bodies import BODY_MAX_BYTES, UNKNOWN_MAX, decode_json, read_body
from batchbell.web.call import operator_of
from batchbell.web.errors import Code, InvalidBody, Problem

PAIR = re.compile(r"(\w+)\[(.*)\]", re.DOTALL)

FREE = frozenset({"/healthz", "/readyz", "/metrics"})
"""Probes and scrapes send what their programs are made to send."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What a route takes."""

    names: frozenset[str]
    lists: frozenset[str]
    """Those of the names that may be given more than once."""
    maps: frozenset[str]
    """What is asked for by pairs, each as `name[key]=value`."""
    has_body: bool
    is_free: bool
    """It takes whatever comes."""
    for_operators: bool


def taken_by(route: APIRoute) -> Taken:
    """What this route takes."""
    known = _TAKEN.get(route.endpoint)
    if known is None:
        known = _TAKEN[route.endpoint] = _read(route)
    return known


_TAKEN: dict[Callable[..., object], Taken] = {}
"""By handler, of which each has one route: what a route declares never changes."""


def _read(route: APIRoute) -> Taken:
    dependants = list(_dependants(route.dependant))
    fields = [field for one in dependants for field in one.query_params]
    extra = route.openapi_extra or {}
    beside = [one for one in extra.get("parameters", ()) if one["in"] == "query"]
    maps = frozenset(one["name"] for one in beside if one.get("style") == "deepObject")
    more = [one["name"] for one in beside]
    return Taken(
        maps=maps,
        names=frozenset([*(field.alias for field in fields), *more]),
        lists=frozenset(
            field.alias
            for field in fields
            if field_annotation_is_sequence(field.field_info.annotation)
        ),
        has_body="requestBody" in extra,
        for_operators=any(one.call is operator_of for one in dependants),
        is_free=route.path in FREE or "default" in route.responses,
    )


def _dependants(dependant: Dependant) -> Iterator[Dependant]:
    yield dependant
    for one in dependant.dependencies:
        yield from _dependants(one)


def strict_router(tag: str, *, route_class: type[APIRoute] = APIRoute) -> APIRouter:
    """What every file of routes begins with: its routes refuse what they do not take."""
    return APIRouter(tags=[tag], route_class=route_class, dependencies=[Depends(check_parameters)])


async def check_parameters(request: Request) -> None:
    """A dependency of every route. Raises InvalidBody with all that is wrong with the query."""
    route = request.scope["route"]
    taken = taken_by(route)
    if taken.is_free:
        return
    if taken.for_operators:
        await operator_of(request)  # to all others the route is not there, whatever they send
    if request.scope["query_string"]:
        names = [name for name, _ in request.query_params.multi_items()]
        if wrong := list(_wrong_names(taken, names)):
            raise InvalidBody([*wrong, *_wrong_values(route, request)])
    if not taken.has_body and _has_body(request):
        await _refuse_body(request)


def _wrong_names(taken: Taken, names: list[str]) -> Iterator[Problem]:
    for name in list(dict.fromkeys(names))[:UNKNOWN_MAX]:
        pair = PAIR.fullmatch(name)
        if name in taken.maps or (pair and pair[1] in taken.maps and not pair[2]):
            bare = name.partition("[")[0]
            yield Problem(message=f"Write {bare}[key]=value, once for each pair.", param=bare)
        elif name not in taken.names and not (pair and pair[1] in taken.maps):
            yield Problem(
                message=f"Unknown query parameter {shown(name)}. {hint(name, taken.names)}",
                param=name[:SHOWN_MAX],
                code=Code.UNKNOWN_PARAMETER,
            )
        elif names.count(name) > 1 and name not in taken.lists:
            yield Problem(
                message=f"The query names {name!r} more than once. Send it once.",
                param=name,
                code=Code.DUPLICATE_PARAMETER,
            )


def _wrong_values(route: APIRoute, request: Request) -> Iterable[Problem]:
    fields = [field for one in _dependants(route.dependant) for field in one.query_params]
    return value_problems(request_params_to_args(fields, request.query_params)[1])


def value_problems(found: Iterable[dict[str, object]]) -> list[Problem]:
    """What FastAPI found wrong with the values of parameters."""
    rows = [(str(list(one["loc"])[-1]), one["msg"]) for one in found]  # type: ignore[call-overload]
    return [Problem(message=f"{name}: {says}.", param=name) for name, says in rows]


def _has_body(request: Request) -> bool:
    headers = request.headers
    return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers


async def _refuse_body(request: Request) -> None:
    """An empty body or object is what some programs send where there is none."""
    body = await read_body(request, most=BODY_MAX_BYTES)
    if not body.strip():
        return
    value = decode_json(body)
    if value == {} or value is None:
        return
    names = list(value)[:UNKNOWN_MAX] if isinstance(value, dict) else []
    says = "This call takes no body."
    problems = [
        Problem(
            message=f"Unknown field {shown(name)}. {says}",
            param=name[:SHOWN_MAX],
            code=Code.UNKNOWN_PARAMETER,
        )
        for name in names
    ]
    raise InvalidBody(problems or [Problem(message=says, param=None, code=Code.UNKNOWN_PARAMETER)])


LIMIT_MAX = 100
LIMIT_DEFAULT = 20

Limit = Annotated[int, Query(ge=1, le=LIMIT_MAX, description="How many, at most.")]
After = Annotated[str | None, Query(description="The `last_id` of the page before.")]


Since = Annotated[
    float | None, Query(ge=0, le=LAST_SECOND, description="From this second on, since the epoch.")
]
Until = Annotated[float | None, Query(ge=0, le=LAST_SECOND, description="Before this second.")]


def pairs(name: str, description: str) -> dict[str, Any]:
    """How a route declares, in its `openapi_extra`, that it takes `name[key]=value`."""
    values = {"type": "string", "maxLength": PAIR_VALUE_MAX}
    schema = {"type": "object", "additionalProperties": values, "maxProperties": PAIRS_MAX}
    shape = {"in": "query", "style": "deepObject", "explode": True, "schema": schema}
    return {"parameters": [{"name": name, "description": description, **shape}]}


def pairs_of(request: Request, name: str) -> dict[str, str]:
    """What a query asks for by `name[key]=value`. Raises InvalidBody."""
    found = {
        pair[2]: value
        for given, value in request.query_params.items()
        if (pair := PAIR.fullmatch(given)) and pair[1] == name
    }
    if len(found) > PAIRS_MAX:
        raise InvalidBody([Problem(message=f"At most {PAIRS_MAX} pairs are taken.", param=name)])
    wrong = [
        Problem(
            message=f"Of a pair, the key has at most {PAIR_NAME_MAX} characters and the value"
            f" {PAIR_VALUE_MAX} characters.",
            param=f"{name}[{key[:SHOWN_MAX]}]",
        )
        for key, value in found.items()
        if len(key) > PAIR_NAME_MAX or len(value) > PAIR_VALUE_MAX
    ]
    if wrong:
        raise InvalidBody(wrong)
    return found
