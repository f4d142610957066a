"""When to try again: the delivery schedule, `Retry-After`, and backoff for provider calls."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
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
EPOCH_LEAST = 1e9
"""No wait is so many seconds: the number is a time. As milliseconds it is a thousand times that."""
NUMBER = re.compile(r"\d+\.?\d*|\.\d+", re.ASCII)
DURATION = re.compile(r"(\d{1,12}(?:\.\d{1,12})?)\s*(ms|h|m|s)", re.ASCII | re.IGNORECASE)
UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


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
    """Read a `Retry-After` header of a provider or a receiver, as seconds from now.

    Read are seconds, an HTTP or ISO date, epoch seconds or milliseconds, and durations such as
    `6m0s` and `1500ms`. None when it is missing or makes no sense; never negative, never more
    than `RETRY_AFTER_MAX_SECONDS`.
    """
    text = (value or "").strip()[:64]
    seconds = _number(text, now)
    if seconds is None:
        seconds = duration_seconds(text)
    if seconds is None:
        seconds = _date_seconds(text, now)
    return None if seconds is None else min(max(0.0, seconds), RETRY_AFTER_MAX_SECONDS)


def _number(text: str, now: float) -> float | None:
    if not NUMBER.fullmatch(text):
        return None
    number = float(text)
    if number >= EPOCH_LEAST * 1000:
        return number / 1000 - now
    return number - now if number >= EPOCH_LEAST else number


def duration_seconds(text: str | None) -> float | None:
    """A duration such as `1s`, `6m0s`, `20ms`, `1h2m3.5s`; bare digits are seconds."""
    text = (text or "").strip()[:64]
    if NUMBER.fullmatch(text):
        return min(float(text), RETRY_AFTER_MAX_SECONDS)
    if not text or DURATION.sub("", text).strip():
        return None
    seconds = sum(float(n) * UNIT_SECONDS[unit.lower()] for n, unit in DURATION.findall(text))
    return min(seconds, RETRY_AFTER_MAX_SECONDS)


def _date_seconds(text: str, now: float) -> float | None:
    for read in (parsedate_to_datetime, datetime.fromisoformat):
        try:
            date = read(text)
            # A date without a zone is GMT, as all HTTP dates are, wherever this machine stands.
            return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now
        except (ValueError, TypeError, OverflowError):
            continue
    return None


def exponential(failures: int, *, base_seconds: float, max_seconds: float, rand: float) -> float:
    """Doubling from `base_seconds` at the first failure up to `max_seconds`, jittered."""
    doublings = min(max(failures - 1, 0), 32)
    return jittered(min(base_seconds * 2**doublings, max_seconds), rand)
