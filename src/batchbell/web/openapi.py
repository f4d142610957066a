"""The OpenAPI document: every route with every answer, errors included."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import UnionType
from typing import Annotated, Any, get_args, get_origin

import msgspec
from fastapi import FastAPI, Header, Query
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema
from starlette.responses import Response

from batchbell.api.errors import ErrorBody, PassedErrorBody
from batchbell.api.fields import LEFT_OUT
from batchbell.api.health import Health
from batchbell.files.tables import Format


class _Schemas(GenerateJsonSchema):
    """Without titles, which would say the names of fields again, and defaults that are none."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def default_schema(self, schema: Any) -> dict[str, Any]:
        if schema.get("default") == LEFT_OUT:
            return self.generate_inner(schema["schema"])
        return super().default_schema(schema)


COMPONENTS: dict[str, dict[str, Any]] = {}
"""The schemas of all types that routes have named, by name."""


@cache
def schema_of(kind: Any) -> dict[str, Any]:
    """The schema of a request, an answer, a `list` of one, or one of several."""
    if get_origin(kind) is list:
        return {"type": "array", "items": schema_of(*get_args(kind))}
    if isinstance(kind, UnionType):
        return {"anyOf": [schema_of(one) for one in get_args(kind)]}
    schema, components = _request(kind) if _is_request(kind) else _answer(kind)
    for name, component in components.items():
        if COMPONENTS.setdefault(name, component) != component:
            raise TypeError(f"Two types are called {name}.")
    return schema


def _is_request(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _request(kind: type[BaseModel]) -> tuple[dict[str, Any], dict[str, Any]]:
    made, whole = models_json_schema(
        [(kind, "validation")],
        ref_template="#/components/schemas/{model}",
        schema_generator=_Schemas,
    )
    return made[(kind, "validation")], whole["$defs"]


def _answer(kind: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    [schema], components = msgspec.json.schema_components(
        [kind], ref_template="#/components/schemas/{name}"
    )
    return schema, components


MEANINGS = {
    400: "Something in the request is wrong; `param` names it.",
    401: "No API key, or one that is not in force.",
    403: "No API key was made yet, and the call does not come from this machine.",
    404: "Nothing of that id in this project.",
    409: "It clashes with what is there; `code` says how.",
    408: "The body stood still for too long.",
    410: "It was there, and is gone.",
    413: "The body is too large.",
    415: "The body is compressed, or text in another charset than UTF-8.",
    416: "The file has nothing of this range.",
    422: "Requests in it are wrong; `problems` names their lines.",
    429: "Too many wrong API keys came from this address.",
    500: "A bug of ours; the log says more.",
    502: "The provider did not answer, or its files cannot be had.",
    503: "Not just now; `code` says why. Try again after `Retry-After` seconds.",
    507: "The disk of this server is full.",
}
TAGS = {
    "watches": "Which batches to watch, and whom to call when they end.",
    "submissions": "Requests of any number, sent as the batches that they need, with one webhook.",
    "batches": "Batches, in OpenAI's shape: its SDK makes and reads them here.",
    "results": "What the provider answered, a line for each request.",
    "files": "The provider's files, passed on under an account's credentials.",
    "native": "Calls of the own SDK of a provider, passed on as they come.",
    "endpoints": "Webhook endpoints, in OpenAI's shape.",
    "events": "What happened, and a stream of it.",
    "deliveries": "What was sent to whom, and what came of each attempt.",
    "replays": "Many deliveries sent again.",
    "hooks": "Webhooks that providers themselves send when a batch has ended.",
    "access": "Accounts, projects and API keys.",
    "operation": "Health and metrics.",
}
"""The groups of routes, in the order in which `/docs` shows them."""
GUARDED = (400, 401, 403, 429, 500, 503, 507)
"""What any request that passes the gate may be answered."""


def json_content(shape: Any) -> dict[str, Any]:
    return {"application/json": {"schema": schema_of(shape)}}


def answers(
    shape: Any,
    *also: int,
    status: int = 200,
    says: str = "OK",
    more: Mapping[int, tuple[Any, str]] | None = None,
) -> dict[str, Any]:
    """Arguments of a route that answers `shape`, and the errors of GUARDED and `also`.

    `more` has the other answers that are no errors, by status: their shapes, and what they say.
    """
    taking = {413, 415} if 413 in also else set()
    failing = {code: (ErrorBody, MEANINGS[code]) for code in sorted({*GUARDED, *also, *taking})}
    every = {status: (shape, says), **(more or {}), **failing}
    responses = {
        code: {"description": text, "content": json_content(kind)}
        for code, (kind, text) in every.items()
    }
    return {"status_code": status, "responses": responses, "response_class": Response}


def open_answers(shape: Any, also: Mapping[int, Any] | None = None) -> dict[str, Any]:
    """Arguments of a route that needs no key and no database."""
    bad = {"description": MEANINGS[400], "content": json_content(ErrorBody)}
    responses = {200: {"description": "OK", "content": json_content(shape)}, 400: bad}
    return {"responses": responses | dict(also or {}), "response_class": Response}


def text_answers(media_type: str, *also: int) -> dict[str, Any]:
    """Arguments of a route that answers text, and the errors of GUARDED and `also`."""
    made = answers(Health, *also)
    made["responses"][200]["content"] = {media_type: {"schema": {"type": "string"}}}
    return made


def passes(
    *also: int, shape: Any = None, media_type: str = "application/json", native: bool = False
) -> dict[str, Any]:
    """Arguments of a route that passes a provider's answer on, whatever that is.

    Errors of a `native` one are in the provider's own shape, ours too.
    """
    theirs = {"type": "object"} if media_type == "application/json" else {"type": "string"}
    schema = theirs if shape is None else {"anyOf": [schema_of(shape), theirs]}
    error = json_content(PassedErrorBody)
    if native:
        error = {"application/json": {"schema": {"type": "object"}}}
    failing: dict[int | str, Any] = {
        code: {"description": MEANINGS[code], "content": error}
        for code in sorted({*GUARDED, 408, 502, *also})
    }
    responses: dict[int | str, Any] = {
        200: {"description": "OK", "content": {media_type: {"schema": schema}}},
        **failing,
        "default": {"description": "Whatever the provider answers.", "content": error},
    }
    return {"responses": responses, "response_class": Response}


AccountQuery = Annotated[
    str | None, Query(description="Whose batch is meant, where several accounts have one.")
]
AccountName = Annotated[
    str | None,
    Header(
        description="The account that the call is passed on to; by default the one that has the"
        " file or batch, as far as that is known, else the first one."
    ),
]
"""A handler's `bb_account`."""


def takes_file() -> dict[str, Any]:
    """A route's `openapi_extra` for an upload as OpenAI takes it."""
    fields = {
        "file": {"type": "string", "format": "binary"},
        "purpose": {"type": "string", "description": "`batch` for the input of a batch."},
    }
    schema = {"type": "object", "properties": fields, "required": list(fields)}
    return {
        "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}
    }


def file_answers(*also: int) -> dict[str, Any]:
    """Arguments of a route that answers results, as lines or as a table, whole or in part."""
    made = answers(Health, 416, *also)
    for status, says in ((200, "The results."), (206, "Some of the bytes."), (304, "Unchanged.")):
        made["responses"][status] = {"description": says}
    content = {format.media_type: {"schema": {"type": "string"}} for format in Format}
    made["responses"][200]["content"] = made["responses"][206]["content"] = content
    return made


def takes(*kinds: Any, required: bool = True) -> dict[str, Any]:
    """A route's `openapi_extra` for a JSON body of one of these shapes."""
    schemas = [schema_of(kind) for kind in kinds]
    schema = schemas[0] if len(schemas) == 1 else {"anyOf": schemas}
    return {
        "requestBody": {"required": required, "content": {"application/json": {"schema": schema}}}
    }


def document(app: FastAPI) -> dict[str, Any]:
    """The whole document, made once."""
    if app.openapi_schema is None:
        made = get_openapi(
            title=app.title,
            version=app.version,
            description=app.description,
            routes=app.routes,
            tags=[{"name": name, "description": says} for name, says in TAGS.items()],
        )
        app.openapi_schema = _complete(made)
    return app.openapi_schema


def _complete(made: dict[str, Any]) -> dict[str, Any]:
    """With our own schemas; FastAPI's own 422 is answered as 400 here."""
    for path in made["paths"].values():
        for operation in path.values():
            responses = operation["responses"].get("422")
            if responses is not None and responses["description"] != MEANINGS[422]:
                del operation["responses"]["422"]
    made["components"] = {
        "schemas": COMPONENTS,
        "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
    }
    made["security"] = [{"key": []}, {}]
    return made
