"""Projects: the tenants, each with the secret that signs its webhooks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, or_, select, update

from batchbell.core.errors import InvalidRequest, NotFound
from batchbell.core.model import Mint
from batchbell.storage.bulk import insert_missing
from batchbell.storage.schema import accounts, batches, projects


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A tenant. What belongs to one is not there for another."""

    id: str
    name: str
    created_at: float


def has_batch(project_id: str) -> ColumnElement[bool]:
    """That a batch is the project's, for finding it by its id.

    Ids have an index for each account, and a project has few accounts: each of them is asked.
    """
    theirs = select(accounts.c.id).where(accounts.c.project_id == project_id)
    return batches.c.account_id.in_(theirs)


def ensure_project(connection: Connection, *, id: str, secret: str, now: float) -> None:
    """Make the project with this secret unless it is there; a secret that is there stays."""
    row = {"id": id, "name": id, "webhook_secret": secret, "created_at": now}
    insert_missing(connection, projects, [row])


def create_project(
    connection: Connection, *, name: str, secret: str, mint: Mint, now: float
) -> Project:
    """Make a project with a webhook secret of its own. Raises InvalidRequest for a taken name."""
    id = mint("prj")
    row = {"id": id, "name": name, "webhook_secret": secret, "created_at": now}
    insert_missing(connection, projects, [row])
    made = find_project(connection, name)
    if made.id != id:
        raise InvalidRequest(
            f"There is a project {name!r} already.", param="name", code="name_taken", status=409
        )
    return made


def find_project(connection: Connection, word: str) -> Project:
    """The project of this id, else of this name. Raises NotFound."""
    named = _shown().where(or_(projects.c.id == word, projects.c.name == word))
    row = connection.execute(named.order_by(projects.c.id != word).limit(1)).one_or_none()
    if row is None:
        raise NotFound("project", word)
    return Project(**row._mapping)


def list_projects(connection: Connection) -> list[Project]:
    """All of them, the oldest first."""
    query = _shown().order_by(projects.c.created_at, projects.c.id)
    return [Project(**row._mapping) for row in connection.execute(query)]


def webhook_secret(connection: Connection, project_id: str) -> str | None:
    """The project's secret; None for a project that is not there."""
    query = select(projects.c.webhook_secret).where(projects.c.id == project_id)
    return connection.execute(query).scalar_one_or_none()


def set_webhook_secret(connection: Connection, project_id: str, secret: str) -> None:
    """Sign with this secret from now on."""
    connection.execute(
        update(projects).where(projects.c.id == project_id).values(webhook_secret=secret)
    )


def _shown() -> Select[Any]:
    return select(projects.c.id, projects.c.name, projects.c.created_at)
