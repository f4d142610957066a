"""Replays as they are asked for and answered: shapes, and the reading of a request."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Literal, TypeVar

from msgspec import Meta, Struct

from batchbell.core import replay as core
from batchbell.core.model import EventType
from batchbell.core.replay import PACE, PACE_MAX, ReplayFilter, ReplayState, ReplayStatus
from batchbell.storage.replays import Counted
from batchbell.web.bodies import Fields

ID_MAX = 64
LAST_SECOND = 253_402_300_799
"""The end of the year 9999."""

Word = TypeVar("Word", bound=StrEnum)
Moment = Annotated[float, Meta(ge=0, le=LAST_SECOND)]
Identity = Annotated[str, Meta(min_length=1, max_length=ID_MAX)]


class ReplayRequest(Struct, frozen=True, kw_only=True):
    """`since` and `until` are seconds since the epoch; a fraction is allowed."""

    status: ReplayStatus | None = None
    endpoint_id: Identity | None = None
    event_id: Identity | None = None
    since: Moment | None = None
    until: Moment | None = None
    types: Annotated[list[EventType], Meta(min_length=1)] | None = None
    as_new: bool | None = None
    enable: bool | None = None
    pace: Annotated[float, Meta(gt=0, le=PACE_MAX)] | None = None
    dry_run: bool | None = None


class Replay(Struct, frozen=True, kw_only=True):
    """A job that sends many deliveries again; `total` was counted when it was made."""

    id: str
    object: Literal["replay"] = "replay"
    state: ReplayState
    status: ReplayStatus
    endpoint_id: str | None
    event_id: str | None
    since: float | None
    until: float | None
    types: list[EventType]
    as_new: bool
    pace: float
    total: int
    done: int
    skipped: int
    created_at: int
    updated_at: int
    finished_at: int | None


class ReplayCounts(Struct, frozen=True, kw_only=True):
    """What a replay would do. `skipped` are those of disabled endpoints."""

    object: Literal["replay.dry_run"] = "replay.dry_run"
    total: int
    skipped: int


@dataclass(frozen=True, slots=True)
class Wanted:
    """A request that was read."""

    filter: ReplayFilter
    as_new: bool
    enable: bool
    pace: float
    dry_run: bool


def wanted(body: Any) -> Wanted:
    """Raises InvalidBody with all that is wrong."""
    fields = Fields(body, ReplayRequest)
    filter = ReplayFilter(
        status=_word(fields, "status", ReplayStatus) or ReplayStatus.FAILED,
        endpoint_id=fields.optional_text("endpoint_id", most=ID_MAX),
        event_id=fields.optional_text("event_id", most=ID_MAX),
        since=_number(fields, "since", most=LAST_SECOND),
        until=_number(fields, "until", most=LAST_SECOND),
        types=_types(fields),
    )
    pace = _number(fields, "pace", most=PACE_MAX)
    if pace == 0:
        fields.wrong("pace", "pace must be more than 0.")
    switches = [_switch(fields, name) for name in ("as_new", "enable", "dry_run")]
    fields.raise_problems()
    as_new, enable, dry_run = switches
    return Wanted(filter, as_new, enable, PACE if pace is None else pace, dry_run)


def _word(fields: Fields, name: str, words: type[Word]) -> Word | None:
    value = fields.get(name)
    if value is None:
        return None
    if isinstance(value, str) and value in set(words):
        return words(value)
    fields.wrong(name, f"{name} must be one of {', '.join(words)}.")
    return None


def _number(fields: Fields, name: str, *, most: float) -> float | None:
    value = fields.get(name)
    if value is None:
        return None
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and 0 <= value <= most:
        return float(value)
    fields.wrong(name, f"{name} must be a number from 0 to {most:,.0f}.")
    return None


def _switch(fields: Fields, name: str) -> bool:
    value = fields.get(name)
    if value is None or isinstance(value, bool):
        return bool(value)
    fields.wrong(name, f"{name} must be true or false.")
    return False


def _types(fields: Fields) -> tuple[EventType, ...]:
    value = fields.get("types")
    if value is None:
        return ()
    known = set(EventType)
    if isinstance(value, list) and value and all(isinstance(v, str) and v in known for v in value):
        return tuple(EventType(word) for word in dict.fromkeys(value))
    fields.wrong("types", f"types must be a list of some of {', '.join(EventType)}.")
    return ()


def describe(found: core.Replay) -> Replay:
    filter = found.filter
    return Replay(
        id=found.id,
        state=found.state,
        status=filter.status,
        endpoint_id=filter.endpoint_id,
        event_id=filter.event_id,
        since=filter.since,
        until=filter.until,
        types=list(filter.types),
        as_new=found.as_new,
        pace=found.pace,
        total=found.total,
        done=found.done,
        skipped=found.skipped,
        created_at=int(found.created_at),
        updated_at=int(found.updated_at),
        finished_at=None if found.finished_at is None else int(found.finished_at),
    )


def describe_counts(counted: Counted) -> ReplayCounts:
    return ReplayCounts(total=counted.total, skipped=counted.skipped)
