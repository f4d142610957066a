"""What happens to no batch, and an operator wants to hear: of endpoints, accounts and deliveries.

Notices are opt-in events. Whoever they are about never gets them: it could not hear, or would hear
of its own hearing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from batchbell.core.endpoint import Endpoint
from batchbell.core.errors import ProviderAuthError, ProviderBillingError, ProviderError
from batchbell.core.health import Change
from batchbell.core.model import Account, EventType

UNREACHABLE_FAILURES = 3
"""So many failed sweeps in a row make an account unreachable; one that no waiting mends does."""


class Notice(Struct, frozen=True, kw_only=True):
    """Something that is to be announced. `data` is JSON, and names whom it is about."""

    type: EventType
    project_id: str
    at: float
    data: Mapping[str, Any]

    @property
    def endpoint_id(self) -> str | None:
        """The endpoint that it is about."""
        of_endpoint = self.type.startswith("endpoint.")
        return self.data.get("id" if of_endpoint else "endpoint_id")

    @property
    def account(self) -> str | None:
        """The name of the account that it is about."""
        return self.data.get("account")


def of_change(change: Change) -> list[Notice]:
    """What is to be announced of a change in an endpoint's health: of most changes nothing."""
    notices = []
    if change.opened or change.warned_seconds is not None:
        notices.append(_of_endpoint(EventType.ENDPOINT_FAILING, change.after, change.at))
    if change.disabled:
        notices.append(_of_endpoint(EventType.ENDPOINT_DISABLED, change.after, change.at))
    if change.recovered:
        outage = replace(change.before, state=change.after.state, opened_at=None, probe_at=None)
        notices.append(_of_endpoint(EventType.ENDPOINT_RECOVERED, outage, change.at))
    return notices


def _of_endpoint(type_: EventType, endpoint: Endpoint, now: float) -> Notice:
    since = endpoint.failing_since
    data = {
        "id": endpoint.id,
        "name": endpoint.name,
        "url": endpoint.url,
        "state": endpoint.state.value,
        "reason": endpoint.reason,
        "failures": endpoint.failures,
        "failing_since": _second(since),
        "failing_seconds": 0 if since is None else max(0, int(now - since)),
        "opened_at": _second(endpoint.opened_at),
        "next_probe_at": _second(endpoint.probe_at),
    }
    return Notice(type=type_, project_id=endpoint.project_id, at=now, data=data)


def failures_after(account: Account, error: ProviderError) -> int:
    """Failed sweeps in a row, this one included.

    One that no waiting mends counts for as many as make the account unreachable.
    """
    failures = account.failures + 1
    if isinstance(error, ProviderAuthError | ProviderBillingError):
        return max(failures, UNREACHABLE_FAILURES)
    return failures


def of_account(
    account: Account, *, failures: int, reason: str, since: float, now: float
) -> Notice | None:
    """That an account cannot be reached, once: when `failures` in a row become enough."""
    if not account.failures < UNREACHABLE_FAILURES <= failures:
        return None
    data = {
        "id": account.id,
        "account": account.name,
        "provider": account.provider,
        "reason": reason,
        "since": _second(since),
    }
    return Notice(
        type=EventType.ACCOUNT_UNREACHABLE, project_id=account.project_id, at=now, data=data
    )


def _second(time: float | None) -> int | None:
    return None if time is None else int(time)
