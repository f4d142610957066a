"""What is said aloud of endpoints: once when it begins, and once when it is over."""

from __future__ import annotations

import structlog

from batchbell.core.health import Change

log = structlog.get_logger("batchbell.endpoints")


def tell(change: Change) -> None:
    """Log what an operator should know of a change: most changes are nothing of the kind."""
    endpoint = change.after
    if change.warned_seconds is not None:
        log.warning(
            "endpoint.failing",
            endpoint_id=endpoint.id,
            hours=round(change.warned_seconds / 3600),
            failing_since=endpoint.failing_since,
            failures=endpoint.failures,
            probe_at=endpoint.probe_at,
        )
    if change.disabled:
        log.warning("endpoint.disabled", endpoint_id=endpoint.id, reason=endpoint.reason)
    if change.recovered:
        log.warning(
            "endpoint.recovered",
            endpoint_id=endpoint.id,
            failing_since=change.before.failing_since,
            failures=change.before.failures,
        )
    if change.opened:
        log.info("endpoint.parked", endpoint_id=endpoint.id, probe_at=endpoint.probe_at)
