"""What a sweep writes: everything that one answer of the provider told, in one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection

from batchbell import failpoints
from batchbell.core.model import Mint, Sighting
from batchbell.storage import accounts, batches
from batchbell.storage.batches import Change


def write_found(
    connection: Connection,
    *,
    account_id: str,
    token: str,
    lease_seconds: float,
    sightings: Sequence[Sighting],
    reasons: Mapping[str, str],
    mint: Mint,
    now: float,
) -> list[Change]:
    """Write the sightings, with their events and deliveries, and the rows that made no sense.

    Raises LeaseLost, and writes nothing, when another worker sweeps the account now.
    """
    accounts.hold(
        connection, account_id=account_id, token=token, now=now, lease_seconds=lease_seconds
    )
    batches.poison(connection, account_id=account_id, reasons=reasons, now=now)
    changes = batches.observe(
        connection, account_id=account_id, sightings=sightings, mint=mint, now=now
    )
    failpoints.reach(failpoints.INSIDE_WRITE)
    return changes
