"""Every page of the dashboard."""

from __future__ import annotations

from batchbell.web.dashboard import batches, overview, sign_in

ROUTERS = tuple(module.router for module in (sign_in, overview, batches))
