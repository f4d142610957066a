"""The paths of ours below which calls of providers' own SDKs are passed on, and who calls there."""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import parse_qsl

import msgspec
from starlette.types import Scope

from batchbell.core import session
from batchbell.core.session import Session
from batchbell.providers.registry import DIALECTS

NATIVES = {name: one.native for name, one in DIALECTS.items() if one.native is not None}
PROOF = re.compile(r"(.*)&bb-proof=([\w.]+)")
"""A query that ends in a proof."""


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


def proven(address: str, key_id: str, *, secret: str, now: float) -> str:
    """A path of ours and its query, with the proof that this key may send a file there.

    SDKs send files to an address that they were given, and no key.
    """
    return f"{address}&bb-proof={session.proof(key_id, address, secret=secret, now=now)}"


def proof_in(scope: Scope) -> tuple[Session, str] | None:
    """The proof that a call carries, and the address that it is about. Nobody has judged it yet."""
    if scope["method"] != "POST" or dialect_at(scope["path"]) is None:
        return None
    query = PROOF.fullmatch(scope["query_string"].decode("latin-1"))
    found = query and session.read(query[2])
    return (found, f"{scope['path']}?{query[1]}") if query and found else None
