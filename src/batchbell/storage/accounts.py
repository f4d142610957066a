"""Accounts: added, changed and removed by their owners; and who is swept, when, and by whom."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Double,
    Row,
    Select,
    Update,
    and_,
    bindparam,
    case,
    exists,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.sql.dml import ReturningUpdate

from batchbell.core.account import Arrivals, Verbs
from batchbell.core.address import is_another
from batchbell.core.errors import InvalidRequest, LeaseLost, NotFound, SettingsError
from batchbell.core.model import Account, AccountState, Mint
from batchbell.storage.bulk import among_listed, insert_missing, listed
from batchbell.storage.engine import ACCOUNTS, ACCOUNTS_CHANGED, dialect_of, storable, wake
from batchbell.storage.schema import accounts, batches, hints

FAR_FUTURE_SECONDS = 10 * 365 * 86400.0
CLOCKS_APART_SECONDS = 60.0
"""How far the clocks of processes that share a database may be apart."""

SHOWN = (
    *(column for column in accounts.c if column.name not in ("credentials", "hook_secrets")),
    accounts.c.credentials.is_(None).label("from_environment"),
)
"""Credentials are read where they are used, and nowhere else."""


def ensure_account(
    connection: Connection,
    *,
    project_id: str,
    name: str,
    provider: str,
    base_url: str,
    discover: bool = False,
    rings: bool = False,
    mint: Mint,
    now: float,
) -> Account:
    """Make an account that is declared, or bring its base URL up to date; it is due at once.

    Not before the rest after its last sweep is over, unless it failed: a restart is no reason to
    look again sooner than the provider asks for. One that was paused stays so, one that discovers
    goes on where it was, and one that was removed comes back with its batches. `rings` says whether
    its provider's own webhooks can still be taken; else nothing is expected of them.

    Raises SettingsError where the name is that of an account that was added by API.
    """
    fresh: dict[str, Any] = {"state": AccountState.ACTIVE, "reason": None, "failures": 0}
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
        "discover_since": None,
        "created_at": now,
    }
    insert_missing(connection, accounts, [row])
    named = (accounts.c.project_id == project_id, accounts.c.name == name)
    found = connection.execute(select(*SHOWN).where(*named).with_for_update()).one()
    if not found.from_environment:
        raise SettingsError(
            f"There is an account {name!r} already, which was added by API. Declare this one under"
            f" another name, or remove that one: batchbell accounts remove {name}"
        )
    fresh["removed_at"] = None
    paused = accounts.c.state == AccountState.PAUSED
    fresh["state"] = case((paused, AccountState.PAUSED), else_=AccountState.ACTIVE)
    fresh["discover_since"] = func.coalesce(accounts.c.discover_since, now) if discover else None
    same = and_(
        accounts.c.provider == provider,
        accounts.c.base_url == base_url,
        accounts.c.failures == 0,
    )
    fresh["hooks_in_a_row"] = case((same, accounts.c.hooks_in_a_row), else_=0) if rings else 0
    rest = case((same, accounts.c.not_before), else_=0.0)
    connection.execute(
        update(accounts)
        .where(*named)
        .values(provider=provider, base_url=base_url, due_at=now, not_before=rest, **fresh)
    )
    return to_account(connection.execute(select(*SHOWN).where(*named)).one())


def list_accounts(connection: Connection, project_id: str | None = None) -> list[Account]:
    """A project's accounts, or all: that of the environment, the default, then the oldest."""
    query = select(*SHOWN).where(accounts.c.removed_at.is_(None))
    if project_id is not None:
        query = query.where(accounts.c.project_id == project_id)
    order = (accounts.c.credentials.isnot(None), accounts.c.created_at, accounts.c.id)
    return [to_account(row) for row in connection.execute(query.order_by(*order))]


def claim_due(
    connection: Connection,
    *,
    ids: Sequence[str],
    now: float,
    lease_seconds: float,
    token: str,
) -> Account | None:
    """Take one account of `ids` that is due and that nobody holds; None if there is none.

    It is due for a whole sweep, see `is_whole`, or where a hint is: then its `due_at` stays. A
    lease that ran out makes it due: whoever held it is dead, or will get LeaseLost. So does
    a time that lies further ahead than any that we write: the clock was set back since.
    """
    latest = now + CLOCKS_APART_SECONDS
    values = {
        "ids": ids,
        "now": now,
        "latest": latest,
        "latest_end": latest + lease_seconds,
        "far": now + FAR_FUTURE_SECONDS,
        "end": now + lease_seconds,
        "token": token,
    }
    row = connection.execute(_claim(), values).one_or_none()
    return to_account(row) if row else None


@cache
def _claim() -> ReturningUpdate[Any]:
    """Made once: to make it takes as long as to run it."""
    now = bindparam("now", type_=Double)
    set_back = func.coalesce(accounts.c.swept_at, accounts.c.created_at) > bindparam("latest")
    run_out = or_(accounts.c.lease_until <= now, accounts.c.lease_until > bindparam("latest_end"))
    hinted = exists().where(hints.c.account_id == accounts.c.id, hints.c.due_at <= now)
    due_now = and_(or_(accounts.c.due_at <= now, hinted), accounts.c.not_before <= now)
    free = and_(accounts.c.lease_until.is_(None), or_(due_now, set_back))
    ready = or_(free, and_(run_out, or_(accounts.c.not_before <= now, set_back)))
    due = (
        select(accounts.c.id)
        .where(accounts.c.id.in_(bindparam("ids", expanding=True)), _is_swept(), ready)
        .order_by(accounts.c.due_at)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    early = and_(accounts.c.lease_until.is_(None), accounts.c.due_at > now, ~set_back)
    taken = {
        "due_at": case((early, accounts.c.due_at), else_=bindparam("far", type_=Double)),
        "lease_until": bindparam("end"),
        "lease_token": bindparam("token"),
    }
    claim = update(accounts).where(accounts.c.id == due.scalar_subquery()).values(**taken)
    return claim.returning(*SHOWN)


def is_whole(claimed: Account, now: float) -> bool:
    """Whether an account that was claimed at this time is due for a sweep of all its batches."""
    return claimed.due_at > now + FAR_FUTURE_SECONDS / 2


def lock(connection: Connection, account_id: str) -> None:
    """Let nobody else write to the account, nor to its batches, until the transaction ends."""
    connection.execute(select(accounts.c.id).where(accounts.c.id == account_id).with_for_update())


def hold(
    connection: Connection, *, account_id: str, token: str, now: float, lease_seconds: float
) -> None:
    """Prove and lengthen the lease, inside the transaction that writes. Raises LeaseLost."""
    values = {"account": account_id, "token": token, "until": now + lease_seconds}
    if connection.execute(_lengthen(), values).rowcount != 1:
        raise LeaseLost(f"account {account_id}")


@cache
def _lengthen() -> Update:
    """Made once: every page of a sweep that has news runs it."""
    held = (accounts.c.id == bindparam("account"), accounts.c.lease_token == bindparam("token"))
    return update(accounts).where(*held).values(lease_until=bindparam("until"))


def finish(
    connection: Connection,
    *,
    account_id: str,
    token: str,
    next_at: float,
    not_before: float = 0.0,
    state: AccountState = AccountState.ACTIVE,
    reason: str | None = None,
    failures: int = 0,
    pages: int | None = None,
    discovered_to: float | None = None,
    verbs: Verbs | None = None,
    now: float,
) -> None:
    """End a sweep and give the account back. Raises LeaseLost.

    A watch that was made meanwhile has set `due_at`: the earlier time wins, but never before
    `not_before`. `discovered_to`: batches made before it are known, or not to be found.
    """
    earlier = func.min if dialect_of(connection) == "sqlite" else func.least
    seen = {} if verbs is None else _verb_values(verbs)
    free = (
        update(accounts)
        .where(accounts.c.id == account_id, accounts.c.lease_token == token)
        .values(
            due_at=earlier(accounts.c.due_at, next_at),
            not_before=not_before,
            lease_until=None,
            lease_token=None,
            state=state,
            reason=storable(reason) if reason is not None else None,
            failures=failures,
            pages=func.coalesce(pages, accounts.c.pages),
            discover_since=func.coalesce(discovered_to, accounts.c.discover_since),
            swept_at=now,
            **({} if reason is not None else {"succeeded_at": now}),
            **seen,
        )
    )
    if connection.execute(free).rowcount != 1:
        raise LeaseLost(f"account {account_id}")


def _verb_values(verbs: Verbs) -> dict[str, Any]:
    return {
        "list_error": None if verbs.list_error is None else storable(verbs.list_error),
        "retrieve_error": None if verbs.retrieve_error is None else storable(verbs.retrieve_error),
        "list_stale": verbs.list_stale,
    }


def arrivals_of(connection: Connection, account_id: str) -> Arrivals:
    """How webhooks of the account's provider arrive."""
    columns = (accounts.c.hook_at, accounts.c.hooks_in_a_row, accounts.c.hook_missed_at)
    query = select(*columns).where(accounts.c.id == account_id)
    return Arrivals(*connection.execute(query).one())


def make_due(connection: Connection, account_ids: Sequence[str], *, now: float) -> None:
    """Let the accounts be swept at once, or right after the sweep that is running."""
    asked = {"ids": listed(connection, account_ids), "now": now}
    if connection.execute(_sooner(dialect_of(connection)), asked).rowcount:
        wake(connection, ACCOUNTS)


@cache
def _sooner(dialect: str) -> Update:
    now = bindparam("now", type_=Double)
    named = among_listed(dialect, accounts.c.id, "ids")
    return update(accounts).where(named, accounts.c.due_at > now).values(due_at=now)


def next_due(connection: Connection, ids: Sequence[str]) -> float | None:
    """When the first of these accounts is due; one that is held, when its lease runs out.

    None where all of them are paused.
    """
    query = _next_due(is_sqlite=dialect_of(connection) == "sqlite")
    due: float | None = connection.execute(query, {"ids": ids}).scalar_one()
    return due


@cache
def _next_due(*, is_sqlite: bool) -> Select[Any]:
    later, earlier = (func.max, func.min) if is_sqlite else (func.greatest, func.least)
    hint = select(func.min(hints.c.due_at)).where(
        hints.c.account_id == accounts.c.id, hints.c.due_at.isnot(None)
    )
    hinted = func.coalesce(hint.scalar_subquery(), accounts.c.due_at)
    first = earlier(accounts.c.due_at, hinted)
    when = later(func.coalesce(accounts.c.lease_until, first), accounts.c.not_before)
    named = accounts.c.id.in_(bindparam("ids", expanding=True))
    return select(func.min(when)).where(named, _is_swept())


def _is_swept() -> ColumnElement[bool]:
    return and_(accounts.c.state != AccountState.PAUSED, accounts.c.removed_at.is_(None))


def to_account(row: Row[Any]) -> Account:
    """From a row of SHOWN."""
    return Account(
        id=row.id,
        project_id=row.project_id,
        name=row.name,
        provider=row.provider,
        base_url=row.base_url,
        state=AccountState(row.state),
        reason=row.reason,
        failures=row.failures,
        pages=row.pages,
        due_at=row.due_at,
        not_before=row.not_before,
        swept_at=row.swept_at,
        succeeded_at=row.succeeded_at,
        lease_until=row.lease_until,
        lease_token=row.lease_token,
        created_at=row.created_at,
        from_environment=row.from_environment,
        discover_since=row.discover_since,
        hook_audience=row.hook_audience,
        verbs=Verbs(row.list_error, row.retrieve_error, bool(row.list_stale)),
        arrivals=Arrivals(row.hook_at, row.hooks_in_a_row, row.hook_missed_at),
    )


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


def hook_secrets_of(connection: Connection, account_id: str) -> tuple[str, ...]:
    """The secrets that the account has here to verify webhooks of its provider with."""
    query = select(accounts.c.hook_secrets).where(accounts.c.id == account_id)
    return tuple((connection.execute(query).scalar_one_or_none() or "").split())


def _kept(hook_secrets: Sequence[str]) -> str | None:
    """In one column: no secret holds a space."""
    return " ".join(hook_secrets) or None


def add(
    connection: Connection,
    project_id: str,
    *,
    name: str,
    provider: str,
    base_url: str,
    credentials: str,
    discover: bool = False,
    hook_secrets: Sequence[str] = (),
    hook_audience: str | None = None,
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
    row["hook_secrets"], row["hook_audience"] = _kept(hook_secrets), hook_audience
    id = mint("acc")
    insert_missing(connection, accounts, [{**row, "id": id, "created_at": now}])
    query = select(accounts.c.id, accounts.c.removed_at).where(*named)
    found = connection.execute(query.with_for_update()).one()
    if found.id != id:
        if found.removed_at is None:
            message = f"There is an account {name!r} already."
            raise InvalidRequest(message, param="name", code="name_taken", status=409)
        _update(connection, found.id, {**row, "removed_at": None})
    _wake(connection)
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
    hook_secrets: Sequence[str] | None = None,
    hook_audience: str | None = None,
    now: float,
) -> Account:
    """Change what is not None; the account is due at once, unless it is paused.

    Raises NotFound, and InvalidRequest for more than a pause of the environment's account, and for
    another address without credentials: those that are kept are never sent to a new one.
    """
    found = _locked(connection, project_id, word)
    given = {"base_url": base_url, "credentials": credentials, "hook_audience": hook_audience}
    values: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if discover is not None and discover is not found.discovers:
        values["discover_since"] = now if discover else None
    if hook_secrets is not None:
        values["hook_secrets"] = _kept(hook_secrets)
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
        _wake(connection)
    return find(connection, project_id, found.id)


def remove(
    connection: Connection,
    project_id: str,
    word: str,
    *,
    force: bool,
    declared: bool = True,
    now: float,
) -> int:
    """Remove an account and forget its credentials; how many open batches nobody watches now.

    Raises NotFound, and InvalidRequest where there are some and `force` is False, and for an
    account of the environment that is still `declared`.
    """
    found = _locked(connection, project_id, word)
    if declared:
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
    gone = {"credentials": None, "hook_secrets": None, "removed_at": now}
    _update(connection, found.id, {**_anew(AccountState.ACTIVE, now), **gone})
    _wake(connection)
    return number


def refuse_removed(connection: Connection, account_ids: list[str]) -> None:
    """Raise InvalidRequest if one of the accounts was removed by now.

    Ask after the batches were written: from then on a removal waits for this transaction.
    """
    removed = _first_removed(dialect_of(connection))
    name = connection.execute(
        removed, {"ids": listed(connection, account_ids)}
    ).scalar_one_or_none()
    if name is not None:
        raise InvalidRequest(
            f"There is no account {name!r}.", param="account", code="unknown_account"
        )


@cache
def _first_removed(dialect: str) -> Select[Any]:
    named = among_listed(dialect, accounts.c.id, "ids")
    return select(accounts.c.name).where(named, accounts.c.removed_at.isnot(None)).limit(1)


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
            f"Account {account.name!r} is declared in the environment or the settings file of the"
            " server: change or remove it there, and start again. It can only be paused and resumed"
            " here.",
            code="account_from_environment",
            status=409,
        )


def _anew(state: AccountState, now: float) -> dict[str, Any]:
    return {
        "state": state,
        "reason": None,
        "failures": 0,
        "pages": None,
        "due_at": now,
        "not_before": 0.0,
        "lease_until": None,
        "lease_token": None,
        "hooks_in_a_row": 0,
    }


def _update(connection: Connection, account_id: str, values: dict[str, Any]) -> None:
    connection.execute(update(accounts).where(accounts.c.id == account_id).values(values))


def _wake(connection: Connection) -> None:
    wake(connection, ACCOUNTS_CHANGED)
    wake(connection, ACCOUNTS)
