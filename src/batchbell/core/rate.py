"""How many calls an endpoint may get at this moment, where its owner limits them.

All that is remembered is one time: from when on the next call may go. Each call moves it on by the
pace of the limit, and it never falls further behind than a second's worth of calls: so over any
time no more go than the limit allows, and that second's worth at once after a rest.
"""

from __future__ import annotations

import math

RATE_PER_SECOND = (0.01, 1000.0)
"""The least and the most that an endpoint may ask for."""
MARGIN_SECONDS = 60.0
"""A next call that lies further ahead than the pace and this was written before the clock went
back: it counts as come."""
ROUNDING = 1e-3
"""Of a call: seconds since 1970 have no finer fractions at the highest limit."""


def tokens(rate: float, rate_at: float | None, now: float) -> int:
    """How many calls may go now. `rate` is in calls a second; `rate_at` is None before the first.

    0 while the next call lies ahead, unless the clock went back.
    """
    since = _since(rate, rate_at, now)
    return math.floor((now - since) * rate + ROUNDING) + 1 if since <= now else 0


def after(rate: float, rate_at: float | None, now: float, *, taken: int) -> float:
    """When the next call may go, once `taken` of the tokens have been taken."""
    return _since(rate, rate_at, now) + taken / rate


def _since(rate: float, rate_at: float | None, now: float) -> float:
    earliest = now - max(0.0, rate - 1) / rate
    if rate_at is None:
        return earliest
    if rate_at > now + 1 / rate + MARGIN_SECONDS:
        return now
    return max(rate_at, earliest)
