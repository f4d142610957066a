"""A webhook of a provider's own: whether it is genuine, and which batch it says has ended.

What a hint says is not believed: it only makes somebody look. Sources: the page on webhooks of
each provider's documents, and https://www.standardwebhooks.com, by which all of them sign.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import msgspec

from batchbell.core import signing
from batchbell.providers.profile import Hooks
from batchbell.providers.values import ID_MAX_CHARACTERS, Undecodable, decode


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
    if not signing.verify(secrets, headers=headers, body=body, now=now):
        raise HintRefused(
            Reason.FORGED, "The signature is not that of a secret that this account has."
        )
    return Hint(id, _batch_ids(hooks, body))


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
