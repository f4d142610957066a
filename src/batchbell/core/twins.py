"""Whether a batch was made by a call whose answer was lost, and when the call may be made again.

A call that creates is made once: every twin runs, and is paid. So the intent is written first.
After an unclear answer the list of batches is looked through for what may have been made, by every
mark that we have, several times over a bounded time. Only then is the call made again.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum

from msgspec import Struct

from batchbell.core.model import Snapshot

CREATE_SECONDS = 600.0
"""How long a call that creates may take: as the SDKs wait."""
LOOKS_LEAST = 3
"""Whole looks that find nothing, before the call is made again."""
FAILED_LOOK_FOR_SECONDS = 15.0
"""How long to look after the API has said that it failed: its work on the call is over."""
LOST_LOOK_FOR_SECONDS = 120.0
"""How long to look where the call may still be worked on: lost, timed out, cut off by a proxy."""
CLOCKS_APART_SECONDS = 600.0
"""By how much a provider's clock may be behind ours."""
ALIKE_SECONDS = 60.0
"""The same, where the time and the number of requests are all there is to recognize a batch by."""
ENDED_STATUSES = frozenset({500, 501, 503, 505, 529})
"""The server itself has ended the call. Other 5xx come from proxies that gave up waiting."""
UNCLEAR_STATUSES = frozenset({408, 409, 499})
WITHOUT_LIST = frozenset({404, 405, 501})
"""What a host answers that has no list of batches."""
UNLISTED_SECONDS = 3600.0
"""How long a host may show no list before it is taken for one that has none."""
NOT_REACHED = "not_reached"
"""The code of a ProviderUnavailable where the provider has seen nothing of the call."""
NOT_ANSWERED = "not_answered"
"""The code where it may have seen all of it."""


class Doubt(StrEnum):
    """What an answer, or its absence, says about a batch that was to be made."""

    NONE = "none"
    """It was not made."""
    SLIGHT = "slight"
    """The server failed: usually nothing was made."""
    GRAVE = "grave"
    """It may have been made, or may still be."""


def doubt(status: int | None, *, reached: bool = True) -> Doubt:
    """What a failed call to make a batch leaves open. `status` is None where no answer came.

    `reached` is False where the provider has seen nothing of the call.
    """
    if not reached:
        return Doubt.NONE
    if status in ENDED_STATUSES:
        return Doubt.SLIGHT
    if status is not None and 300 <= status < 500 and status not in UNCLEAR_STATUSES:
        return Doubt.NONE
    return Doubt.GRAVE


def look_for_seconds(found: Doubt) -> float:
    """How long to look before the call may be made again."""
    match found:
        case Doubt.NONE:
            return 0.0
        case Doubt.SLIGHT:
            return FAILED_LOOK_FOR_SECONDS
        case Doubt.GRAVE:
            return LOST_LOOK_FOR_SECONDS


class Marks(Struct, frozen=True, kw_only=True):
    """By what a batch is recognized that one call may have made."""

    asked_at: float
    """When the call was made."""
    input_file_id: str | None = None
    """None where the requests went with the call."""
    lines: int | None = None
    """How many requests there were, where that is known."""
    own_input: bool = False
    """Whether the provider may make a file of requests that went with the call, and show it."""
    endpoint: str | None = None
    tag: tuple[str, str] | None = None
    """A pair of its metadata that no other call has; None where there is none."""
    metadata: Mapping[str, str] | None = None
    """All of its metadata, for calls without a tag."""

    @property
    def since(self) -> float:
        """No older batch was made by the call."""
        return self.asked_at - CLOCKS_APART_SECONDS


def twins(marks: Marks, batches: Collection[Snapshot]) -> list[Snapshot]:
    """Those that the call may have made, the likeliest first.

    A host may drop the metadata, or the id of the input. What it does show must agree. Where it
    keeps neither of any batch, the number of requests and the time must do.
    """
    fitting = [batch for batch in batches if _fits(marks, batch)]
    return sorted(fitting, key=lambda batch: _unlikeliness(marks, batch))


def _unlikeliness(marks: Marks, batch: Snapshot) -> tuple[bool, float]:
    if marks.input_file_id is not None or batch.created_at is None:
        return not _is_tagged(marks, batch), 0.0
    return not _is_tagged(marks, batch), abs(batch.created_at - marks.asked_at)


def _fits(marks: Marks, batch: Snapshot) -> bool:
    if _is_tagged(marks, batch):
        return True
    hidden = marks.own_input and marks.input_file_id is None
    same = hidden or batch.input_file_id == marks.input_file_id
    if not same or not _agrees(marks, batch):
        return False
    if marks.input_file_id is None:
        return _is_alike(marks, batch)
    return batch.created_at is None or batch.created_at >= marks.since


def _agrees(marks: Marks, batch: Snapshot) -> bool:
    """Whether nothing that the batch shows is another call's."""
    if batch.endpoint and marks.endpoint and batch.endpoint != marks.endpoint:
        return False
    shown = batch.metadata or {}
    if marks.tag is not None and marks.tag[0] in shown:
        return False
    return not (marks.metadata and shown) or dict(shown) == dict(marks.metadata)


def _is_alike(marks: Marks, batch: Snapshot) -> bool:
    """Whether a batch without an input file has as many requests, and is no older than the call."""
    if marks.lines is None or batch.counts is None or batch.created_at is None:
        return False
    in_time = batch.created_at >= marks.asked_at - ALIKE_SECONDS
    return in_time and batch.counts.total == marks.lines


def _is_tagged(marks: Marks, batch: Snapshot) -> bool:
    return marks.tag is not None and (batch.metadata or {}).get(marks.tag[0]) == marks.tag[1]


def is_past(marks: Marks, page: Sequence[Snapshot]) -> bool:
    """Whether a list, page by page, shows only batches that are too old from here on.

    Only a page that goes from new to old proves that: some lists begin with the oldest.
    """
    made = [batch.created_at for batch in page if batch.created_at is not None]
    falling = all(newer >= older for newer, older in itertools.pairwise(made))
    return len(made) > 1 and made[0] > made[-1] and falling and made[0] < marks.since


def may_ask_unseen(*, asked_at: float, not_before: float, now: float) -> bool | None:
    """Whether to ask again a host that has no list to look at; None while it is too early to say.

    After a slight doubt, yes. After a grave one, no: a twin would be paid.
    """
    if now < not_before:
        return None
    if not_before < asked_at + LOST_LOOK_FOR_SECONDS:
        return True
    return None if now < asked_at + UNLISTED_SECONDS else False


def may_ask_again(*, looks: int, not_before: float, now: float) -> bool:
    """Whether nothing was made, as far as can be known. `looks` are those that saw the list."""
    return looks >= LOOKS_LEAST and now >= not_before
