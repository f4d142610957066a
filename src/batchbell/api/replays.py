"""Replays: many deliveries sent again."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from batchbell.api.fields import AnyEvents, Identity, Moment, Request
from batchbell.core.replay import PACE_MAX, ReplayStatus


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
