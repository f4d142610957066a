"""What a sweep writes: everything that one answer of the provider told, in one transaction."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection

from batchbell import failpoints
from batchbell.core.model import Account, AccountState, Mint, Sighting
from batchbell.core.notices import Notice
from batchbell.storage import accounts, adopting, batches
from batchbell.storage.adopting import Find
from batchbell.storage.batches import Change
from batchbell.storage.events import announce


def write_found(
    connection: Connection,
    *,
    project_id: str,
    account_id: str,
    token: str,
    lease_seconds: float,
    sightings: Sequence[Sighting],
    finds: Sequence[Find] = (),
    mint: Mint,
    now: float,
) -> list[Change]:
    """Write the sightings and finds, with their events and deliveries.

    Raises LeaseLost, and writes nothing, when another worker sweeps the account now.
    """
    accounts.hold(
        connection, account_id=account_id, token=token, now=now, lease_seconds=lease_seconds
    )
    changes = batches.observe(
        connection, account_id=account_id, sightings=sightings, mint=mint, now=now
    )
    if finds:
        adopted = adopting.adopt(connection, project_id, account_id, finds, mint=mint, now=now)
        changes += adopted.changes
    failpoints.reach(failpoints.INSIDE_WRITE)
    return changes


def fail(
    connection: Connection,
    *,
    account: Account,
    token: str,
    next_at: float,
    trouble: str,
    failures: int,
    notice: Notice | None,
    mint: Mint,
    now: float,
) -> None:
    """End a sweep that trouble has ended, and tell of it where that is due. Raises LeaseLost."""
    accounts.finish(
        connection,
        account_id=account.id,
        token=token,
        next_at=next_at,
        not_before=next_at,
        state=AccountState.FAILING,
        trouble=trouble,
        failures=failures,
        now=now,
    )
    announce(connection, [notice] if notice else [], mint=mint, now=now)
