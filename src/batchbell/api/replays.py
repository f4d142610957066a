"""Replays: many deliveries sent again."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from batchbell.api.answers import EventWord, Object, Second, about, one_of
from batchbell.api.fields import AnyEvents, Identity, Moment, Request
from batchbell.core.replay import PACE_MAX, ReplayState, ReplayStatus


class ReplayRequest(Request):
    """`since` and `until` are seconds since the epoch; a fraction is allowed."""

    status: Annotated[ReplayStatus, Field(strict=False)] | None = None
    endpoint_id: Identity | None = None
    event_id: Identity | None = None
    since: Moment | None = None
    until: Moment | None = None
    types: AnyEvents | None = None
    as_new: bool | None = None
    enable: bool | None = None
    pace: Annotated[float, Field(gt=0, le=PACE_MAX, examples=[50.0])] | None = None
    dry_run: bool | None = None


class Replay(Object, frozen=True, kw_only=True, tag="replay"):
    """A job that sends many deliveries again."""

    id: str
    state: Annotated[str, one_of(ReplayState)]
    status: Annotated[str, one_of(ReplayStatus), about("Which deliveries it takes.")]
    endpoint_id: str | None
    event_id: str | None
    since: float | None
    until: float | None
    types: tuple[EventWord, ...]
    as_new: bool
    pace: Annotated[float, about("Deliveries a second.")]
    total: Annotated[int, about("Counted when it was made.")]
    done: Annotated[int, about("How many were sent again so far.")]
    skipped: Annotated[int, about("Those of disabled endpoints.")]
    created_at: Second
    updated_at: Second
    finished_at: Second | None


class ReplayCounts(Object, frozen=True, kw_only=True, tag="replay.dry_run"):
    """What a replay would do."""

    total: int
    skipped: Annotated[int, about("Those of disabled endpoints.")]
