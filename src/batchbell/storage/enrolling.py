"""Accounts as their owners have them: added, changed, paused, removed, with their credentials.

Whoever changes an account takes its lease away: what a sweep that is under way still finds is
discarded, and so cannot write over the change.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Connection, func, or_, select, update

from batchbell.core.address import is_another
from batchbell.core.errors import InvalidRequest, NotFound
from batchbell.core.model import Account, AccountState, Mint
from batchbell.storage.accounts import SHOWN, list_accounts, to_account
from batchbell.storage.bulk import insert_missing
from batchbell.storage.engine import ACCOUNTS, ROSTER, wake
from batchbell.storage.schema import accounts, batches


def find(connection: Connection, project_id: str, word: str) -> Account:
    """The project's account of this id, else of this name. Raises NotFound."""
    query = select(*SHOWN).where(
        accounts.c.project_id == project_id,
        accounts.c.removed_at.is_(None),
        or_(accounts.c.id == word, accounts.c.name == word),
    )
    row = connection.execute(query.order_by(accounts.c.id != word).limit(1)).one_or_none()
    if row is None:
        raise NotFound("account", word)
    return to_account(row)


def credentials(connection: Connection) -> dict[str, str]:
    """The credentials of every account that has its own here, by account id."""
    query = select(accounts.c.id, accounts.c.credentials)
    kept = query.where(accounts.c.credentials.isnot(None), accounts.c.removed_at.is_(None))
    return {row.id: row.credentials for row in connection.execute(kept)}


def credentials_of(connection: Connection, account_id: str) -> str | None:
    """The credentials that the account has here."""
    query = select(accounts.c.credentials).where(accounts.c.id == account_id)
    return connection.execute(query).scalar_one_or_none()


def add(
    connection: Connection,
    project_id: str,
    *,
    name: str,
    provider: str,
    base_url: str,
    credentials: str,
    discover: bool = False,
    mint: Mint,
    now: float,
) -> Account:
    """Add an account, due at once. One that was removed comes back, with its batches.

    Raises InvalidRequest for a name that is taken.
    """
    wanted = {"provider": provider, "base_url": base_url, "credentials": credentials}
    named = (accounts.c.project_id == project_id, accounts.c.name == name)
    row: dict[str, Any] = {
        **_anew(AccountState.ACTIVE, now),
        **wanted,
        "name": name,
        "project_id": project_id,
    }
    row["discover_since"] = now if discover else None
    id = mint("acc")
    insert_missing(connection, accounts, [{**row, "id": id, "created_at": now}])
    query = select(accounts.c.id, accounts.c.removed_at).where(*named)
    found = connection.execute(query.with_for_update()).one()
    if found.id != id:
        if found.removed_at is None:
            message = f"There is an account {name!r} already."
            raise InvalidRequest(message, param="name", code="name_taken", status=409)
        _update(connection, found.id, {**row, "removed_at": None})
    _tell(connection)
    return find(connection, project_id, found.id)


def change(
    connection: Connection,
    project_id: str,
    word: str,
    *,
    base_url: str | None = None,
    credentials: str | None = None,
    paused: bool | None = None,
    discover: bool | None = None,
    now: float,
) -> Account:
    """Change what is not None; the account is due at once, unless it is paused.

    Raises NotFound, and InvalidRequest for more than a pause of the environment's account, and for
    another address without credentials: those that are kept are never sent to a new one.
    """
    found = _locked(connection, project_id, word)
    given = {"base_url": base_url, "credentials": credentials}
    values: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if discover is not None and discover is not found.discovers:
        values["discover_since"] = now if discover else None
    if values:
        _refuse_environment(found)
    if base_url is not None and credentials is None and is_another(found.base_url, base_url):
        raise InvalidRequest(
            f"The API key of account {found.name!r} is not sent to another address unless it is"
            " given again: send api_key together with base_url.",
            param="api_key",
            code="credentials_required",
        )
    was_paused = found.state is AccountState.PAUSED
    pause = was_paused if paused is None else paused
    if values or pause != was_paused:
        state = AccountState.PAUSED if pause else AccountState.ACTIVE
        _update(connection, found.id, {**values, **_anew(state, now)})
        _tell(connection)
    return find(connection, project_id, found.id)


def remove(connection: Connection, project_id: str, word: str, *, force: bool, now: float) -> int:
    """Remove an account and forget its credentials; how many open batches nobody watches now.

    Raises NotFound, and InvalidRequest where there are some and `force` is False, and for the
    environment's account.
    """
    found = _locked(connection, project_id, word)
    _refuse_environment(found)
    still_open = (batches.c.account_id == found.id, batches.c.ended_at.is_(None))
    count = connection.execute(select(func.count()).select_from(batches).where(*still_open))
    number: int = count.scalar_one()
    if number and not force:
        raise InvalidRequest(
            f"{number:,} batches of account {found.name!r} have not ended: with force=true it is"
            " removed, and they are watched no more.",
            code="account_in_use",
            status=409,
        )
    gone = {"credentials": None, "removed_at": now}
    _update(connection, found.id, {**_anew(AccountState.ACTIVE, now), **gone})
    _tell(connection)
    return number


def refuse_removed(connection: Connection, account_ids: list[str]) -> None:
    """Raise InvalidRequest if one of the accounts was removed by now.

    Ask after the batches were written: from then on a removal waits for this transaction.
    """
    gone: ColumnElement[bool] = accounts.c.removed_at.isnot(None)
    named = select(accounts.c.name).where(accounts.c.id.in_(account_ids), gone)
    name = connection.execute(named.limit(1)).scalar_one_or_none()
    if name is not None:
        raise InvalidRequest(
            f"There is no account {name!r}.", param="account", code="unknown_account"
        )


def every_account(connection: Connection) -> list[tuple[Account, str | None]]:
    """All accounts of all projects, with the credentials that they have here."""
    kept = credentials(connection)
    return [(account, kept.get(account.id)) for account in list_accounts(connection)]


def _locked(connection: Connection, project_id: str, word: str) -> Account:
    found = find(connection, project_id, word)
    lock = select(accounts.c.id).where(accounts.c.id == found.id).with_for_update()
    connection.execute(lock)
    return find(connection, project_id, found.id)


def _refuse_environment(account: Account) -> None:
    if account.from_environment:
        raise InvalidRequest(
            f"Account {account.name!r} comes from OPENAI_API_KEY: change or remove it in the"
            " environment, and start again. It can only be paused and resumed here.",
            code="account_from_environment",
            status=409,
        )


def _anew(state: AccountState, now: float) -> dict[str, Any]:
    return {
        "state": state,
        "trouble": None,
        "failures": 0,
        "pages": None,
        "due_at": now,
        "not_before": 0.0,
        "lease_until": None,
        "lease_token": None,
    }


def _update(connection: Connection, account_id: str, values: dict[str, Any]) -> None:
    connection.execute(update(accounts).where(accounts.c.id == account_id).values(values))


def _tell(connection: Connection) -> None:
    wake(connection, ROSTER)
    wake(connection, ACCOUNTS)
