"""How the results of a batch travel with a webhook: as a link, or the lines themselves."""

from __future__ import annotations

import json
from enum import StrEnum

from msgspec import Struct

from batchbell.core import links


class ResultsMode(StrEnum):
    """What somebody wants of the results."""

    LINK = "link"
    INLINE = "inline"
    """The lines themselves, where they are few enough; else the link."""
    NONE = "none"


class ResultsState(StrEnum):
    WAITING = "waiting"
    READY = "ready"
    FAILED = "failed"


class Attachment(Struct, frozen=True, kw_only=True):
    """What is known of the results when a webhook goes out."""

    id: str
    secret: str
    state: ResultsState
    lines: int | None
    size: int | None
    """In bytes."""
    has_lines: bool = False
    """Whether its lines are kept, to travel in a webhook."""
    inline: str | None = None
    """All lines as a JSON array, in ASCII; None until they are read, for they may be many."""
    outcome: str | None = None
    """What the files hold, once they are merged."""
    counts: tuple[int, int, int] | None = None
    """Of requests by the files: all, completed, failed."""


_encoded = json.JSONEncoder(separators=(",", ":")).encode


def wrapped(
    attachment: Attachment | None, mode: ResultsMode, *, base_url: str, now: float
) -> str | None:
    """What a webhook says of the results, as JSON; None where it is to say nothing.

    The link's time counts from `now`: when it was first to be sent, so that every retry says the
    same. The schedule is over before the link is.
    """
    if attachment is None or mode is ResultsMode.NONE:
        return None
    shown = {
        "url": links.link(base_url, attachment.id, secret=attachment.secret, now=now),
        "expires_at": int(now) + links.LINK_SECONDS,
        "lines": attachment.lines,
        "bytes": attachment.size,
    }
    inline = attachment.inline if mode is ResultsMode.INLINE else None
    if mode is ResultsMode.INLINE and inline is None:
        shown["inline_omitted"] = _why_omitted(attachment)
    text = _encoded(shown)
    return text if inline is None else f'{text[:-1]},"inline":{inline}}}'


def _why_omitted(attachment: Attachment) -> str:
    if attachment.state is ResultsState.WAITING:
        return "not_ready"
    return "too_large" if attachment.state is ResultsState.READY else "failed"
