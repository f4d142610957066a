"""Takes the state out of the indexes of all deliveries, so that none is moved in them as it ends."""

import sqlalchemy as sa
from alembic import op

revision = "0035"
down_revision = "0034"


def upgrade() -> None:
    some = {"project": "state <> 'delivered'", "endpoint": "state IN ('exhausted', 'held')"}
    for of, which in some.items():
        owner, name, where = f"{of}_id", f"ix_deliveries_of_{of}", sa.text(which)
        op.drop_index(name, "deliveries")
        op.create_index(name, "deliveries", [owner, "event_type", "id"])
        op.create_index(
            f"ix_deliveries_by_state_of_{of}",
            "deliveries",
            [owner, "event_type", "state", "id"],
            sqlite_where=where,
            postgresql_where=where,
        )
