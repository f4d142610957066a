"""When to try again: the delivery schedule, `Retry-After`, and backoff for provider calls."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime

MINUTE = 60.0
HOUR = 3600.0

SCHEDULE_SECONDS = (
    0.0,
    5.0,
    30.0,
    2 * MINUTE,
    10 * MINUTE,
    30 * MINUTE,
    2 * HOUR,
    5 * HOUR,
    10 * HOUR,
    14 * HOUR,
    20 * HOUR,
    24 * HOUR,
)
"""The wait before each attempt: 12 attempts over 75.7 hours."""

JITTER_MAX_SECONDS = 15 * MINUTE
RETRY_AFTER_MAX_SECONDS = 24 * HOUR


def jittered(seconds: float, rand: float) -> float:
    """Later by up to a tenth (15 minutes at most), never earlier. `rand` is in [0, 1)."""
    return seconds + min(seconds * 0.1, JITTER_MAX_SECONDS) * rand


def delay_after(
    attempt: int, *, rand: float, schedule: Sequence[float] | None = None
) -> float | None:
    """Seconds to wait after the `attempt`th failure; None when the schedule has run out."""
    waits = SCHEDULE_SECONDS if schedule is None else schedule
    if attempt >= len(waits):
        return None
    return jittered(waits[attempt], rand)


def retry_after(value: str | None, *, now: float) -> float | None:
    """Read a `Retry-After` header, seconds or an HTTP date, as seconds from now.

    None when it is missing or makes no sense; never negative, never more than
    `RETRY_AFTER_MAX_SECONDS`.
    """
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.replace(".", "", 1).isdigit():
        return min(float(text), RETRY_AFTER_MAX_SECONDS)
    try:
        date = parsedate_to_datetime(text)
        # A date without a zone is GMT, as all HTTP dates are, wherever this machine stands.
        seconds = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(0.0, seconds), RETRY_AFTER_MAX_SECONDS)


def exponential(failures: int, *, base_seconds: float, max_seconds: float, rand: float) -> float:
    """Doubling from `base_seconds` at the first failure up to `max_seconds`, jittered."""
    doublings = min(max(failures - 1, 0), 32)
    return jittered(min(base_seconds * 2**doublings, max_seconds), rand)
