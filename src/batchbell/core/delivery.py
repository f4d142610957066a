"""Why a delivery waits: the first reason that keeps it, in a sentence."""

from __future__ import annotations

from batchbell.core.alarms import moment
from batchbell.core.attachment import ResultsMode
from batchbell.core.model import Delivery, DeliveryState, EndpointState

NOBODY_SECONDS = 60.0
"""What is due for longer does not wait for its turn: nobody takes it."""


def reason(delivery: Delivery, now: float) -> str | None:
    """None for what is delivered, given up, or being sent at this moment."""
    if delivery.lease_token is not None and (delivery.due_at or 0.0) > now:
        return None
    gate = delivery.gate
    match delivery.state:
        case DeliveryState.HELD:
            why = f" ({gate.reason})" if gate and gate.reason else ""
            return f"The endpoint is disabled{why}: enable it, or send the event again."
        case DeliveryState.PENDING:
            return _of_endpoint(delivery, now) or _of_time(delivery, now)
        case _:
            return None


def _of_endpoint(delivery: Delivery, now: float) -> str | None:
    gate = delivery.gate
    if gate is None:
        return None
    paused_until, probe_at, rate_at = gate.paused_until, gate.probe_at or 0.0, gate.rate_at or 0.0
    due = delivery.due_at is not None and delivery.due_at <= now
    if gate.state is EndpointState.DISABLED:
        why = "The endpoint is disabled: the delivery will be held."
    elif paused_until is not None and paused_until > now:
        why = f"The endpoint asked for a pause (429 or 503) until {moment(paused_until)}."
    elif gate.opened_at is not None:
        probe = f"at {moment(probe_at)}" if probe_at > now else "now"
        why = f"The breaker is open since {moment(gate.opened_at)}; the next probe is {probe}."
    elif gate.first_id not in (None, delivery.id):
        why = f"The endpoint is ordered: {gate.first_id} comes first, and is not done."
    elif due and rate_at > now:
        why = f"The endpoint takes {gate.rate_limit:g} calls a second, and has had them."
    else:
        return None
    return why


def _of_time(delivery: Delivery, now: float) -> str | None:
    due_at = delivery.due_at or now
    if due_at <= now:
        late = now - due_at
        nobody = f"It has been due for {late:.0f} s, and no worker takes it: is one running?"
        return nobody if late > NOBODY_SECONDS else None
    if delivery.attempts == 0 and delivery.results == ResultsMode.INLINE:
        return f"It waits for its results to be merged, until {moment(due_at)} at most."
    if delivery.attempts == 0:
        return None
    return f"Its last attempt failed; the next one is at {moment(due_at)}."
