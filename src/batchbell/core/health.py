"""How an endpoint is doing: its states, its breaker, and what is said aloud about it.

`ENDPOINT_MOVES` is the law; the diagram in the docs is drawn from it. While the breaker is open,
deliveries wait without spending attempts, but for one probe at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec import Struct
from msgspec.structs import replace

from batchbell.core.endpoint import Endpoint, EndpointState
from batchbell.core.lifecycle import pause_seconds
from batchbell.core.outcome import Outcome

ENDPOINT_MOVES: Mapping[EndpointState, frozenset[EndpointState]] = {
    EndpointState.ACTIVE: frozenset({EndpointState.FAILING, EndpointState.DISABLED}),
    EndpointState.FAILING: frozenset({EndpointState.ACTIVE, EndpointState.DISABLED}),
    EndpointState.DISABLED: frozenset({EndpointState.ACTIVE}),
}
"""Out of `disabled` leads only what somebody asked for: no answer that comes late."""

MINUTE = 60.0
HOUR = 3600.0

BREAKER_FAILURES = 5
OUTAGE_SECONDS = 60.0
"""Failing for less is no outage: the schedule's first waits are as short."""
PROBE_FIRST_SECONDS = 30.0
PROBE_MOST_SECONDS = 15 * MINUTE
PROBE_FURTHEST_SECONDS = 2 * PROBE_MOST_SECONDS
"""No probe lies further ahead, unless the clock has been put back."""
DISABLE_SECONDS = 5 * 24 * HOUR
DISABLE_FAILURES = 20
WARN_SECONDS = (1 * HOUR, 24 * HOUR, 72 * HOUR)

GONE = "answered 410 Gone"
SILENT = "no success in 5 days"
ON_REQUEST = "disabled on request"


class Change(Struct, frozen=True):
    """An endpoint before and after something was heard of it, and when that was."""

    before: Endpoint
    after: Endpoint
    at: float

    @property
    def disabled(self) -> bool:
        return _entered(self, EndpointState.DISABLED)

    @property
    def opened(self) -> bool:
        """Whether the breaker has opened."""
        return self.before.opened_at is None and self.after.opened_at is not None

    @property
    def recovered(self) -> bool:
        """Whether an outage has ended: a short failure is none."""
        return _entered(self, EndpointState.ACTIVE) and in_outage(self.before, self.at)

    @property
    def warned_seconds(self) -> float | None:
        """For how long the endpoint has failed, where that is to be said aloud now."""
        if self.after.warnings <= self.before.warnings:
            return None
        return WARN_SECONDS[self.after.warnings - 1]


def _entered(change: Change, state: EndpointState) -> bool:
    return change.after.state is state and change.before.state is not state


def in_outage(endpoint: Endpoint, now: float) -> bool:
    """Whether all calls have failed for so long that what waits is pulled forward afterwards."""
    since = endpoint.failing_since
    return endpoint.opened_at is not None or (since is not None and now - since >= OUTAGE_SECONDS)


def parked_seconds(endpoint: Endpoint, *, first_due_at: float, now: float) -> float:
    """For how long a delivery has waited at an endpoint that failed all the while.

    0 while the breaker is closed: a delivery that waited for us is not the endpoint's fault.
    """
    if endpoint.opened_at is None or endpoint.failing_since is None:
        return 0.0
    return max(0.0, now - max(first_due_at, endpoint.failing_since))


def endpoint_after(
    endpoint: Endpoint, heard: Iterable[tuple[Outcome, float]], now: float
) -> Endpoint:
    """Fold what was just heard of an endpoint into its state, in the order it was heard.

    With each outcome comes how many seconds the schedule waits after it.
    """
    before = endpoint.state
    for outcome, scheduled_seconds in heard:
        if outcome.success:
            endpoint = _succeeded(endpoint, now)
        elif outcome.status == 410:
            endpoint = _disabled(endpoint, GONE)
        else:
            pause = pause_seconds(outcome, scheduled_seconds=scheduled_seconds)
            endpoint = _failed(endpoint, pause, now)
    return endpoint if endpoint.state is before else replace(endpoint, state_since=now)


def _failed(endpoint: Endpoint, pause: float | None, now: float) -> Endpoint:
    since = now if endpoint.failing_since is None else endpoint.failing_since
    longest = max(now + pause, endpoint.paused_until or 0.0) if pause else endpoint.paused_until
    failed = replace(
        endpoint, failures=endpoint.failures + 1, failing_since=since, paused_until=longest
    )
    if endpoint.state is EndpointState.DISABLED:
        return failed
    if failed.failures >= DISABLE_FAILURES and now - since >= DISABLE_SECONDS:
        return _disabled(failed, SILENT)
    warnings = sum(now - since >= seconds for seconds in WARN_SECONDS)
    failing = replace(
        failed, state=EndpointState.FAILING, warnings=max(warnings, endpoint.warnings)
    )
    return _with_breaker(failing, now)


def _with_breaker(endpoint: Endpoint, now: float) -> Endpoint:
    """Open it when it is time; where it is open, put off the next probe.

    Each wait is as long as the breaker was open and 30 s: they double, and nothing but the moment
    of opening needs to be remembered.
    """
    if endpoint.opened_at is None:
        if endpoint.failures < BREAKER_FAILURES or not in_outage(endpoint, now):
            return endpoint
        return replace(endpoint, opened_at=now, probe_at=now + PROBE_FIRST_SECONDS)
    wait = PROBE_FIRST_SECONDS + max(0.0, now - endpoint.opened_at)
    return replace(endpoint, probe_at=now + min(wait, PROBE_MOST_SECONDS))


def disabled_on_request(endpoint: Endpoint, now: float) -> Endpoint:
    """The endpoint when its owner wants no call to it; one that is disabled stays as it is."""
    if endpoint.state is EndpointState.DISABLED:
        return endpoint
    return replace(_disabled(endpoint, ON_REQUEST), state_since=now)


def _disabled(endpoint: Endpoint, reason: str) -> Endpoint:
    return replace(
        endpoint,
        state=EndpointState.DISABLED,
        reason=reason,
        paused_until=None,
        opened_at=None,
        probe_at=None,
    )


def _succeeded(endpoint: Endpoint, now: float) -> Endpoint:
    """A pause that still runs stays: such a success was under way when the pause was asked for."""
    if endpoint.state is EndpointState.DISABLED or endpoint.failures == 0:
        return endpoint
    paused = endpoint.paused_until
    return replace(
        endpoint,
        state=EndpointState.ACTIVE,
        failures=0,
        failing_since=None,
        paused_until=paused if paused is not None and paused > now else None,
        opened_at=None,
        probe_at=None,
        warnings=0,
    )
