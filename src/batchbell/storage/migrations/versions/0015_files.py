"""Which account has a file."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"

BIG_KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    _name_files_of_batches()
    op.create_table(
        "files",
        sa.Column("key", BIG_KEY, autoincrement=True, nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_files_project_id")),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_files_account_id")),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_files")),
        sa.UniqueConstraint("project_id", "id", name=op.f("uq_files_project_id_id")),
    )
    op.create_index("ix_files_created_at", "files", ["created_at"])


def _name_files_of_batches() -> None:
    """Those of batches that have ended already are in their snapshots only, and stay there."""
    for name in ("output_file_id", "error_file_id"):
        op.add_column("batches", sa.Column(name, sa.Text(), nullable=True))
        op.create_index(
            f"ix_batches_{name}",
            "batches",
            [name],
            sqlite_where=sa.text(f"{name} IS NOT NULL"),
            postgresql_where=sa.text(f"{name} IS NOT NULL"),
        )
