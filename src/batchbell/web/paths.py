"""Routes whose ids may hold slashes, as `batches/abc123` does.

A slash that is percent-encoded always belongs to the id. A plain one does too, unless the path ends
in the name of a sub-resource: `/v1/batches/batches/abc123/cancel` cancels `batches/abc123`.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, unquote

from fastapi.routing import APIRoute
from starlette.convertors import Convertor, register_url_convertor
from starlette.routing import Match
from starlette.types import Scope

SUB_RESOURCES = ("cancel", "content", "expunge", "results", "timeline")


class IdConvertor(Convertor[str]):
    """`{batch_id:id}` in a path. Only an IdRoute has it decoded once."""

    regex = rf"[^/]+(?:/(?!(?:{'|'.join(SUB_RESOURCES)})$)[^/]+)*"

    def convert(self, value: str) -> str:
        return unquote(value, "utf-8", "replace")

    def to_string(self, value: str) -> str:
        return quote(value, safe="")


def path_sent(scope: Scope) -> str:
    """The path as it was sent: where it is decoded, an id may look like another path."""
    raw: bytes | None = scope.get("raw_path")
    return quote(scope["path"]) if raw is None else raw.partition(b"?")[0].decode("latin-1")


class IdRoute(APIRoute):
    """Matches the path as it was sent: decoded, `%2F` could not be distinguished from `/`."""

    def matches(self, scope: Scope) -> tuple[Match, dict[str, Any]]:
        match, child = super().matches({**scope, "path": path_sent(scope)})
        return match, dict(child)


register_url_convertor("id", IdConvertor())
