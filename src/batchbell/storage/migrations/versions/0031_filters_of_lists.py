"""Lets lists choose by what a batch yielded, its model and metadata, and by types of events."""

import hashlib
import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0031"
down_revision = "0030"

STEP = 1000
FOUND = (
    *("project_id", "status", "registered_at", "key"),
    *("kind", "account_id", "yielded", "model", "ended_at", "marks", "id"),
)
NEVER_SEEN = (
    "UPDATE batches SET yielded = 'none' WHERE snapshot IS NULL AND status IN ('failed', 'lost')"
)
READ = sa.text(
    "SELECT key, status, kind, outcome, snapshot FROM batches"
    " WHERE key > :after AND snapshot IS NOT NULL ORDER BY key LIMIT :step"
)
WRITE = sa.text(
    "UPDATE batches SET yielded = :yielded, model = :model, marks = :marks WHERE key = :key"
)


def upgrade() -> None:
    op.add_column("batches", sa.Column("yielded", sa.Text()))
    op.add_column("batches", sa.Column("model", sa.Text()))
    op.add_column("batches", sa.Column("marks", sa.Text(), nullable=False, server_default=""))
    _fill()
    op.drop_index("ix_batches_listed", "batches")
    op.drop_index("ix_batches_by_status", "batches")
    op.create_index("ix_batches_found", "batches", FOUND)
    op.create_index("ix_events_by_type", "events", ["project_id", "type", "id"])
    op.drop_index("ix_deliveries_pending_listed", "deliveries")
    op.drop_index("ix_deliveries_undelivered", "deliveries")
    undelivered = sa.text("state <> 'delivered'")
    op.create_index(
        "ix_deliveries_missed",
        "deliveries",
        ["project_id", "event_type", "event_id"],
        sqlite_where=undelivered,
        postgresql_where=undelivered,
    )
    for of in ("project", "endpoint"):
        columns = [f"{of}_id", "event_type", "state", "id"]
        op.create_index(f"ix_deliveries_of_{of}", "deliveries", columns)


def _fill() -> None:
    """What the columns say of the batches that are there, by their snapshots."""
    connection, after = op.get_bind(), 0
    connection.execute(sa.text(NEVER_SEEN))
    while rows := connection.execute(READ, {"after": after, "step": STEP}).all():
        connection.execute(WRITE, [_values(row) for row in rows])
        after = rows[-1].key


def _values(row: Any) -> dict[str, Any]:
    seen = json.loads(row.snapshot)
    pairs = [(name, value) for name, value in (seen.get("metadata") or {}).items()]
    return {
        "key": row.key,
        "yielded": row.outcome or _yielded(seen.get("counts"), row.status, row.kind),
        "model": (seen.get("model") or "")[:100] or None,
        "marks": " ".join(sorted({_mark(*pair) for pair in pairs[:32]})),
    }


def _yielded(counts: dict[str, Any] | None, status: str, kind: str) -> str | None:
    if status not in ("completed", "failed", "expired", "cancelled", "lost"):
        return None
    nothing = "none" if status in ("failed", "lost") else None
    if counts is None or not counts.get("whole", True) or counts["total"] == 0:
        return nothing
    total, completed = counts["total"], counts["completed"]
    done = completed + counts["failed"]
    if done > total or (status == "completed" and kind != "joined" and done < total):
        return nothing
    if completed == 0:
        return "none"
    return "succeeded" if completed >= total else "partial"


def _mark(name: str, value: str) -> str:
    pair = json.dumps([name, value]).encode()
    return hashlib.blake2b(pair, digest_size=6).hexdigest()
