"""Projects: the tenants, each with the secret that signs its webhooks."""

from __future__ import annotations

from sqlalchemy import Connection, select, update

from batchbell.storage.bulk import insert_missing
from batchbell.storage.schema import projects


def ensure_project(connection: Connection, *, id: str, secret: str, now: float) -> None:
    """Make the project with this secret unless it is there; a secret that is there stays."""
    row = {"id": id, "name": id, "webhook_secret": secret, "created_at": now}
    insert_missing(connection, projects, [row])


def webhook_secret(connection: Connection, project_id: str) -> str | None:
    """The project's secret; None for a project that is not there."""
    query = select(projects.c.webhook_secret).where(projects.c.id == project_id)
    return connection.execute(query).scalar_one_or_none()


def set_webhook_secret(connection: Connection, project_id: str, secret: str) -> None:
    """Sign with this secret from now on."""
    connection.execute(
        update(projects).where(projects.c.id == project_id).values(webhook_secret=secret)
    )
