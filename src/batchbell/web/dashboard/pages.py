"""Every page of the dashboard."""

from __future__ import annotations

from batchbell.web.dashboard import (
    accounts,
    batches,
    deliveries,
    endpoints,
    events,
    keys,
    overview,
    projects,
    replays,
    sign_in,
    submissions,
    system,
)

ROUTERS = tuple(
    module.router
    for module in (
        sign_in,
        overview,
        batches,
        submissions,
        endpoints,
        events,
        deliveries,
        replays,
        accounts,
        keys,
        projects,
        system,
    )
)
