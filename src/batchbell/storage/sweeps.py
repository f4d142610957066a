"""What a sweep writes in one transaction: what became of batches, and batches found in a list."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection

from batchbell import failpoints
from batchbell.core.account import Verbs
from batchbell.core.model import Account, AccountState, Batch, Mint, Sighting, Snapshot, Status
from batchbell.core.notices import Notice
from batchbell.storage import accounts, batches, hints, watches
from batchbell.storage.batches import Change
from batchbell.storage.bulk import insert_missing
from batchbell.storage.engine import storable
from batchbell.storage.hints import Due
from batchbell.storage.outbox import announce
from batchbell.storage.schema import batches as table
from batchbell.storage.watches import Registered, Registration


def write_found(
    connection: Connection,
    *,
    project_id: str,
    account_id: str,
    token: str,
    lease_seconds: float,
    sightings: Sequence[Sighting],
    finds: Sequence[Find] = (),
    announces: Collection[Status] = (),
    mint: Mint,
    now: float,
) -> list[Change]:
    """Write the sightings and finds, with their events and deliveries.

    `announces` are the ends of which the provider sends webhooks itself.

    Raises LeaseLost, and writes nothing, when another worker sweeps the account now.
    """
    accounts.hold(
        connection, account_id=account_id, token=token, now=now, lease_seconds=lease_seconds
    )
    changes = batches.observe(
        connection, account_id=account_id, sightings=sightings, mint=mint, now=now
    )
    if finds:
        adopted = adopt(connection, project_id, account_id, finds, mint=mint, now=now)
        changes += adopted.changes
    if announces:
        ended = [change.batch for change in changes]
        hints.note_ends(connection, account_id, ended, announces=announces, now=now)
    failpoints.reach(failpoints.INSIDE_WRITE)
    return changes


def fail(
    connection: Connection,
    *,
    account: Account,
    token: str,
    next_at: float,
    reason: str,
    failures: int,
    notice: Notice | None,
    mint: Mint,
    now: float,
) -> None:
    """End a sweep that failed, and announce it where that is due. Raises LeaseLost."""
    accounts.finish(
        connection,
        account_id=account.id,
        token=token,
        next_at=next_at,
        not_before=next_at,
        state=AccountState.FAILING,
        reason=reason,
        failures=failures,
        now=now,
    )
    announce(connection, [notice] if notice else [], mint=mint, now=now)


def end_hinted(
    connection: Connection,
    *,
    account: Account,
    token: str,
    looked_at: Sequence[Due],
    not_before: float,
    verbs: Verbs,
    now: float,
) -> None:
    """End a look at batches that hints are about; the next sweep stays due. Raises LeaseLost."""
    accounts.finish(
        connection,
        account_id=account.id,
        token=token,
        next_at=account.due_at,
        not_before=not_before,
        verbs=verbs,
        now=now,
    )
    hints.looked(connection, account.id, looked_at, now=now)


@dataclass(frozen=True, slots=True, kw_only=True)
class Find:
    """A batch as it was seen, and who asked to hear of it."""

    snapshot: Snapshot
    registrations: Sequence[Registration] = ()
    refused: str | None = None
    """Why the webhook that it names itself is not called."""


@dataclass(frozen=True, slots=True)
class Adopted:
    """The watches, in the order of the registrations, and the batches that moved."""

    watches: list[Registered]
    changes: list[Change]


def adopt(
    connection: Connection,
    project_id: str,
    account_id: str,
    finds: Sequence[Find],
    *,
    mint: Mint,
    now: float,
) -> Adopted:
    """Know these batches from now on, with what was seen of them, and register their watches.

    Whoever hears of the whole project hears of them as well. A batch that is known already stays,
    and only gains. Raises InvalidRequest for an endpoint that the project has not, and for an
    account that was removed.
    """
    accounts.lock(connection, account_id)  # first, as a sweep's write does
    rows = sorted((_row(project_id, account_id, f, now=now) for f in finds), key=itemgetter("id"))
    insert_missing(connection, table, rows)
    wanted = [one for find in finds for one in find.registrations]
    made = watches.register(connection, project_id, wanted, mint=mint, now=now) if wanted else []
    sightings = [find.snapshot for find in finds]
    changes = batches.observe(
        connection, account_id=account_id, sightings=sightings, mint=mint, now=now
    )
    accounts.refuse_removed(connection, [account_id])
    return Adopted(made, changes)


def adopt_one(
    connection: Connection,
    project_id: str,
    account_id: str,
    find: Find,
    *,
    mint: Mint,
    now: float,
) -> tuple[Batch, Adopted]:
    """Adopt one batch, and return it as it is now."""
    adopted = adopt(connection, project_id, account_id, [find], mint=mint, now=now)
    batch = batches.get_batch(connection, project_id, find.snapshot.id, account_id=account_id)
    return batch, adopted


def _row(project_id: str, account_id: str, find: Find, *, now: float) -> dict[str, Any]:
    return {
        **watches.new_batch(project_id, account_id, find.snapshot.id, now=now),
        "webhook_refused": None if find.refused is None else storable(find.refused),
    }
