"""Replays: sending many deliveries again. Which ones, how fast, and what has been done so far."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from batchbell.core.model import EventType

PACE = 50.0
"""Deliveries a second that a replay makes due, unless it says otherwise."""
PACE_MAX = 1000.0
STEP_SECONDS = 2.0
"""How far ahead one step makes deliveries due: what a cancel comes too late for."""
STEP_MOST = 100


class ReplayState(StrEnum):
    RUNNING = "running"
    DONE = "done"
    CANCELLED = "cancelled"


class ReplayStatus(StrEnum):
    """Which deliveries a replay takes. None takes one that is being sent at this moment."""

    FAILED = "failed"
    """Those that were given up, and those that have failed and wait for their next try."""
    HELD = "held"
    MISSING = "missing"
    """Those that are not there: somebody wants the event, and no delivery of it was made."""
    ALL = "all"
    """Failed, held and delivered."""


class ReplayFilter(Struct, frozen=True, kw_only=True):
    """Which deliveries. What is None or empty leaves nothing out.

    `since` and `until` bound the time of the event, `created_at`: from the one, and before the
    other.
    """

    status: ReplayStatus = ReplayStatus.FAILED
    endpoint_id: str | None = None
    event_id: str | None = None
    since: float | None = None
    until: float | None = None
    types: tuple[EventType, ...] = ()


class Replay(Struct, frozen=True, kw_only=True):
    """A replay that somebody asked for. While a worker steps it, `lease_token` is set."""

    id: str
    project_id: str
    filter: ReplayFilter
    as_new: bool
    """Whether receivers are to take what is sent for something new: another `webhook-id`."""
    pace: float
    """Deliveries a second."""
    state: ReplayState
    total: int
    """Those that were counted when it was made; meanwhile some may have been delivered."""
    done: int
    skipped: int
    """Those that stay as they are, because their endpoint is disabled."""
    cursor: str
    """The id up to which everything has been walked."""
    due_at: float
    """When it goes on."""
    created_at: float
    updated_at: float
    finished_at: float | None
    lease_token: str | None


def step_size(pace: float) -> int:
    """How many deliveries one step starts at most."""
    return max(1, min(STEP_MOST, int(pace * STEP_SECONDS)))


def due_times(count: int, *, pace: float, now: float) -> list[float]:
    """When each of `count` deliveries becomes due, the first one now."""
    return [now + number / pace for number in range(count)]
