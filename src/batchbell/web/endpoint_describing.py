"""From an endpoint to its shape in the API: never its secret, but where it was just made."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import UNSET

from batchbell.core.model import DeliveryState
from batchbell.core.signing import SECRET_PREFIX
from batchbell.storage.managed import Known
from batchbell.web import endpoint_shapes

HINT_CHARACTERS = 4
MASK = "***"


def endpoint(
    found: Known,
    *,
    secret: str | None = None,
    counts: Mapping[DeliveryState, int] | None = None,
) -> endpoint_shapes.Endpoint:
    """`secret` and the `counts` of its deliveries are shown where they are given."""
    wishes, health = found.wishes, found.endpoint
    return endpoint_shapes.Endpoint(
        id=found.id,
        name=wishes.name,
        url=wishes.url,
        event_types=list(wishes.event_types),
        signing_secret_hint=hint(next(iter(health.secrets), "")),
        created_at=int(found.created_at),
        updated_at=int(found.updated_at),
        description=wishes.description,
        accounts=None if wishes.accounts is None else list(wishes.accounts),
        metadata=dict(wishes.metadata or {}),
        headers=dict.fromkeys(wishes.headers or (), MASK),
        timeout_seconds=wishes.timeout_seconds,
        schedule=None if wishes.schedule is None else list(wishes.schedule),
        rate_limit=wishes.rate_limit,
        ordered=wishes.ordered,
        results=wishes.results,
        active_secrets=len(health.secrets),
        implied=not found.managed,
        state=health.state,
        state_since=int(found.state_since),
        reason=health.reason or health.trouble,
        failures=health.failures,
        failing_since=_second(health.failing_since),
        paused_until=_second(health.paused_until),
        breaker=endpoint_shapes.Breaker(
            open=health.opened_at is not None,
            opened_at=_second(health.opened_at),
            next_probe_at=_second(health.probe_at),
        ),
        waiting=UNSET if counts is None else counts[DeliveryState.PENDING],
        held=UNSET if counts is None else counts[DeliveryState.HELD],
        signing_secret=UNSET if secret is None else secret,
    )


def hint(secret: str) -> str:
    """Enough to tell secrets apart."""
    return f"{SECRET_PREFIX}{MASK}{secret[-HINT_CHARACTERS:]}"


def _second(time: float | None) -> int | None:
    return None if time is None else int(time)
