"""The timeline of a batch: all that became of it, in the order of time."""

from __future__ import annotations

from typing import Annotated

from batchbell.api.answers import Answer, Object, about, one_of
from batchbell.api.deliveries import Timings
from batchbell.core.timeline import Kind


class TimelineEntry(Answer, frozen=True, kw_only=True):
    """Something that happened. What it is not about is left out."""

    at: Annotated[float, about("Exact: seconds since the epoch, with a fraction.")]
    after_seconds: Annotated[
        float, about("Counted from the registration; negative for what was before it.")
    ]
    kind: Annotated[str, one_of(Kind)]
    says: Annotated[str, about("What happened, in a sentence.")]
    status: Annotated[
        str | None, about("Of the batch, the delivery, the attempt or the results.")
    ] = None
    provider_status: Annotated[str | None, about("The provider's own word.")] = None
    watch_id: str | None = None
    endpoint_id: str | None = None
    url: str | None = None
    event_id: str | None = None
    event_type: str | None = None
    delivery_id: str | None = None
    attempt: Annotated[int | None, about("Its number, from 1.")] = None
    http_status: Annotated[int | None, about("What the receiver answered.")] = None
    error: str | None = None
    duration_ms: float | None = None
    timings: Timings | None = None


class Timeline(Object, frozen=True, kw_only=True, tag="timeline"):
    batch_id: str
    account: str
    data: Annotated[tuple[TimelineEntry, ...], about("The oldest first.")]
    left_out: Annotated[
        tuple[str, ...],
        about(
            "What there is more of than the newest that are here: `watches`, `events`,"
            " `deliveries` or `attempts`. Their own lists have all."
        ),
    ]
