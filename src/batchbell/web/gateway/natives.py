"""The paths of ours below which calls of providers' own SDKs are passed on, and who calls there."""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import parse_qsl

import msgspec
from starlette.types import Scope

from batchbell.core import links
from batchbell.providers.registry import DIALECTS

NATIVES = {name: one.native for name, one in DIALECTS.items() if one.native is not None}
PROOF = re.compile(
    r"(?P<query>.*)&bb-proof=(?P<project>[\w-]+)\.(?P<expires>\d+)\.(?P<signature>[0-9a-f]+)"
)
"""A query that ends in a proof."""
PROOF_SECONDS = 86_400
"""How long an address with a proof may be called."""


def dialect_at(path: str) -> str | None:
    """The dialect whose calls are passed on below this path of ours."""
    name = path.split("/", 2)[1] if path.startswith("/") else ""
    return name if name in NATIVES else None


def error_at(path: str) -> Callable[[int, str, str], bytes] | None:
    """How errors of ours are written in answers to calls of this path; None for our own way."""
    dialect = dialect_at(path)
    if dialect is None:
        return None
    write = NATIVES[dialect].error
    return lambda status, code, message: msgspec.json.encode(write(status, code, message))


def key_in_query(scope: Scope) -> str:
    """The key in the query of a provider's SDK that puts it there; empty where there is none."""
    dialect = dialect_at(scope["path"])
    names = NATIVES[dialect].secrets if dialect else ()
    pairs = parse_qsl(scope["query_string"].decode("latin-1")) if names else []
    return next((value.strip() for name, value in pairs if name in names), "")


def proven(address: str, *, project_id: str, secret: str, now: float) -> str:
    """A path of ours and its query, with the proof that the project may send a file there.

    SDKs send files to an address that they were given, and no key.
    """
    expires = str(int(now) + PROOF_SECONDS)
    return f"{address}&bb-proof={project_id}.{expires}.{links.sign(address, expires, secret)}"


def proof_in(scope: Scope) -> re.Match[str] | None:
    """The proof that a call carries, which `is_proven` judges."""
    if scope["method"] != "POST" or dialect_at(scope["path"]) is None:
        return None
    return PROOF.fullmatch(scope["query_string"].decode("latin-1"))


def is_proven(scope: Scope, proof: re.Match[str], *, secret: str, now: float) -> bool:
    """Whether we gave out this very address, and not too long ago."""
    genuine = links.is_genuine(
        f"{scope['path']}?{proof['query']}",
        expires=proof["expires"],
        signature=proof["signature"],
        secret=secret,
    )
    return genuine and now <= int(proof["expires"])
