"""Accounts: who is swept, when, and by whom just now."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, and_, func, or_, select, update

from batchbell.core.errors import LeaseLost
from batchbell.core.model import Account, AccountState, Mint
from batchbell.storage.bulk import insert_missing
from batchbell.storage.engine import ACCOUNTS, dialect_of, wake
from batchbell.storage.schema import accounts
from batchbell.storage.texts import storable

FAR_FUTURE_SECONDS = 10 * 365 * 86400.0


def ensure_account(
    connection: Connection,
    *,
    project_id: str,
    name: str,
    provider: str,
    base_url: str,
    mint: Mint,
    now: float,
) -> Account:
    """Make the account, or bring its base URL up to date; either way it is due at once."""
    fresh = {"state": AccountState.ACTIVE, "trouble": None, "failures": 0}
    row = {
        **fresh,
        "id": mint("acc"),
        "project_id": project_id,
        "name": name,
        "provider": provider,
        "base_url": base_url,
        "pages": None,
        "due_at": now,
        "not_before": 0.0,
        "created_at": now,
    }
    insert_missing(connection, accounts, [row])
    named = (accounts.c.project_id == project_id, accounts.c.name == name)
    connection.execute(
        update(accounts)
        .where(*named)
        .values(provider=provider, base_url=base_url, due_at=now, not_before=0.0, **fresh)
    )
    return _account(connection.execute(select(accounts).where(*named)).one())


def list_accounts(connection: Connection, project_id: str) -> list[Account]:
    """The project's accounts, by name."""
    query = select(accounts).where(accounts.c.project_id == project_id).order_by(accounts.c.name)
    return [_account(row) for row in connection.execute(query)]


def get_account(connection: Connection, account_id: str) -> Account:
    """The account as it is now."""
    return _account(connection.execute(select(accounts).where(accounts.c.id == account_id)).one())


def claim_due(
    connection: Connection,
    *,
    ids: Sequence[str],
    now: float,
    lease_seconds: float,
    token: str,
) -> Account | None:
    """Take one account of `ids` that is due and that nobody holds; None if there is none.

    A lease that ran out makes it due: whoever held it is dead, or will be told LeaseLost.
    """
    free = and_(accounts.c.lease_until.is_(None), accounts.c.due_at <= now)
    ready = or_(free, accounts.c.lease_until <= now)
    due = (
        select(accounts.c.id)
        .where(accounts.c.id.in_(ids), accounts.c.not_before <= now, ready)
        .order_by(accounts.c.due_at)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    taken = {
        "due_at": now + FAR_FUTURE_SECONDS,
        "lease_until": now + lease_seconds,
        "lease_token": token,
    }
    claim = update(accounts).where(accounts.c.id == due.scalar_subquery()).values(**taken)
    row = connection.execute(claim.returning(*accounts.c)).one_or_none()
    return _account(row) if row else None


def hold(
    connection: Connection, *, account_id: str, token: str, now: float, lease_seconds: float
) -> None:
    """Prove and lengthen the lease, inside the transaction that writes. Raises LeaseLost."""
    lengthen = (
        update(accounts)
        .where(accounts.c.id == account_id, accounts.c.lease_token == token)
        .values(lease_until=now + lease_seconds)
    )
    if connection.execute(lengthen).rowcount != 1:
        raise LeaseLost(f"account {account_id}")


def finish(
    connection: Connection,
    *,
    account_id: str,
    token: str,
    next_at: float,
    not_before: float = 0.0,
    state: AccountState = AccountState.ACTIVE,
    trouble: str | None = None,
    failures: int = 0,
    pages: int | None = None,
    now: float,
) -> None:
    """End a sweep and give the account back. Raises LeaseLost.

    A watch that was made meanwhile has set `due_at`: the earlier time wins, but never before
    `not_before`.
    """
    earlier = func.min if dialect_of(connection) == "sqlite" else func.least
    free = (
        update(accounts)
        .where(accounts.c.id == account_id, accounts.c.lease_token == token)
        .values(
            due_at=earlier(accounts.c.due_at, next_at),
            not_before=not_before,
            lease_until=None,
            lease_token=None,
            state=state,
            trouble=storable(trouble) if trouble is not None else None,
            failures=failures,
            pages=func.coalesce(pages, accounts.c.pages),
            swept_at=now,
        )
    )
    if connection.execute(free).rowcount != 1:
        raise LeaseLost(f"account {account_id}")


def make_due(connection: Connection, account_ids: Sequence[str], *, now: float) -> None:
    """Let the accounts be swept at once, or right after the sweep that is running."""
    sooner = update(accounts).where(accounts.c.id.in_(account_ids), accounts.c.due_at > now)
    if connection.execute(sooner.values(due_at=now)).rowcount:
        wake(connection, ACCOUNTS)


def next_due(connection: Connection, ids: Sequence[str]) -> float | None:
    """When the first of these accounts is due; one that is held, when its lease runs out."""
    later = func.max if dialect_of(connection) == "sqlite" else func.greatest
    when = later(func.coalesce(accounts.c.lease_until, accounts.c.due_at), accounts.c.not_before)
    soonest = select(func.min(when))
    due: float | None = connection.execute(soonest.where(accounts.c.id.in_(ids))).scalar_one()
    return due


def _account(row: Row[Any]) -> Account:
    return Account(
        id=row.id,
        project_id=row.project_id,
        name=row.name,
        provider=row.provider,
        base_url=row.base_url,
        state=AccountState(row.state),
        trouble=row.trouble,
        failures=row.failures,
        pages=row.pages,
        due_at=row.due_at,
        swept_at=row.swept_at,
        lease_token=row.lease_token,
    )
