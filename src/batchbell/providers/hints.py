"""A webhook of a provider's own: whether it is genuine, and which batch it says has ended.

What a hint says is not believed: it only makes somebody look. Sources: the page on webhooks of
each provider's documents, and https://www.standardwebhooks.com, by which all of them sign.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import msgspec

from batchbell.core import signing
from batchbell.providers import tokens
from batchbell.providers.profile import Hooks
from batchbell.providers.tokens import Keys
from batchbell.providers.values import ID_MAX_CHARACTERS, Undecodable, decode

SIGNATURE_MAX = 2_048
"""Many more signatures than a provider has secrets: each of them takes time to compare."""
LEEWAY_SECONDS = 60
"""Clocks may be so far apart when a token ends."""


class Reason(StrEnum):
    """Why a hint is refused."""

    MALFORMED = "malformed"
    STALE = "stale"
    FORGED = "forged"


class HintRefused(Exception):
    """It is not what the provider sent, or not what it sent now."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


@dataclass(frozen=True, slots=True)
class Hint:
    """What a genuine one says."""

    id: str
    """The provider's name of the message: one that is sent again has the same."""
    batch_ids: tuple[str, ...] = ()
    """How the batch may be called that has ended; none where it is about something else."""


class _Body(msgspec.Struct):
    type: Any = None
    data: Any = None


def read_hint(
    hooks: Hooks,
    *,
    secrets: Sequence[str],
    headers: Mapping[str, str],
    body: bytes,
    now: float,
) -> Hint:
    """The hint in a request. Raises HintRefused unless one of the secrets signed it just now.

    Names of headers are in lower case. Nothing of the body is read before it is known to be theirs.
    """
    id = _checked(headers, now)
    if len(headers["webhook-signature"]) > SIGNATURE_MAX:
        raise HintRefused(Reason.MALFORMED, "webhook-signature is longer than any.")
    if not signing.verify(secrets, headers=headers, body=body, now=now):
        raise HintRefused(
            Reason.FORGED, "The signature is not that of a secret that this account has."
        )
    return Hint(id, _batch_ids(hooks, body))


def token_in(hooks: Hooks, headers: Mapping[str, str]) -> str | None:
    """The token that is in place of a signature, where the provider signs so."""
    signature = headers.get("webhook-signature", "")
    return signature if hooks.keys_path is not None and tokens.is_token(signature) else None


def read_token_hint(
    hooks: Hooks,
    token: str,
    keys: Keys,
    *,
    is_audience: Callable[[str], bool],
    headers: Mapping[str, str],
    body: bytes,
    now: float,
) -> Hint:
    """The hint in a request that a token signs.

    Raises BadToken unless one of the keys has signed it, and HintRefused unless it is for us and
    still holds.

    The token holds the event, and what is beside it proves nothing: it says what the batch is, and
    a token that comes again is a message that comes again. One that holds no event leaves that to
    the body.
    """
    _checked(headers, now)
    claims = tokens.claims_in(token, keys)
    audience = claims.get("aud")
    named = audience if isinstance(audience, list) else [audience]
    if not any(isinstance(one, str) and is_audience(one) for one in named):
        raise HintRefused(
            Reason.FORGED,
            f"The token is for {str(audience)[:200]!r}, and not for this account. If that is what"
            " the provider calls it, set it as the account's hook_audience.",
        )
    _check_times(claims, now)
    event = msgspec.json.encode(claims) if "data" in claims else body
    return Hint(f"jwt_{hashlib.sha256(token.encode()).hexdigest()}", _batch_ids(hooks, event))


def _check_times(claims: Mapping[str, Any], now: float) -> None:
    issued, ends = (claims.get(name) for name in ("iat", "exp"))
    if not isinstance(ends, int | float):
        raise HintRefused(Reason.MALFORMED, "The token does not say until when it holds.")
    early = isinstance(issued, int | float) and issued > now + signing.TOLERANCE_SECONDS
    if ends < now - LEEWAY_SECONDS or early:
        raise HintRefused(Reason.STALE, "The token holds no more, or not yet.")


def _checked(headers: Mapping[str, str], now: float) -> str:
    """The message's id, where the headers are as they should be."""
    missing = [name for name in signing.HEADERS if not headers.get(name)]
    if missing:
        says = "A webhook has the headers webhook-id, webhook-timestamp and webhook-signature."
        raise HintRefused(Reason.MALFORMED, f"{says} Missing: {', '.join(missing)}.")
    id, timestamp = headers["webhook-id"], headers["webhook-timestamp"]
    if len(id) > ID_MAX_CHARACTERS or not (id.isascii() and id.isprintable()):
        raise HintRefused(
            Reason.MALFORMED, f"webhook-id is longer than {ID_MAX_CHARACTERS}, or not plain ASCII."
        )
    if not signing.TIMESTAMP.fullmatch(timestamp):
        raise HintRefused(Reason.MALFORMED, "webhook-timestamp is no whole number of seconds.")
    away = now - int(timestamp)
    if abs(away) > signing.TOLERANCE_SECONDS:
        raise HintRefused(
            Reason.STALE,
            f"webhook-timestamp is {abs(away):.0f} s {'old' if away > 0 else 'ahead'};"
            f" {signing.TOLERANCE_SECONDS} s are allowed. Is the clock of this server right?",
        )
    return id


def _batch_ids(hooks: Hooks, body: bytes) -> tuple[str, ...]:
    try:
        said = decode(body, _Body)
    except Undecodable:
        raise HintRefused(Reason.MALFORMED, "The body is no JSON object.") from None
    if not isinstance(said.type, str) or said.type not in hooks.events:
        return ()
    id = said.data.get(hooks.batch_id) if isinstance(said.data, dict) else None
    if not isinstance(id, str) or not 0 < len(id) <= ID_MAX_CHARACTERS or not id.isprintable():
        raise HintRefused(Reason.MALFORMED, f"data.{hooks.batch_id} names no batch.")
    bare = hooks.before_id and not id.startswith(hooks.before_id)
    return (id, hooks.before_id + id) if bare else (id,)
