"""The schema of the first release.

What was never tagged is one migration. It keeps the number of the last one, so that a database of
those days opens as it is.
"""

import sqlalchemy as sa
from alembic import op

revision = "0027"
down_revision = None

BIG_KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "projects",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("webhook_secret", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_projects")),
    )
    op.create_index("uq_projects_name", "projects", ["name"], unique=True)
    op.create_table(
        "results_places",
        sa.Column("marker", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("seen_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("marker", name=op.f("pk_results_places")),
    )
    op.create_table(
        "accounts",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("base_url", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("trouble", sa.Text()),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("pages", sa.Integer()),
        sa.Column("due_at", sa.Double(), nullable=False),
        sa.Column("not_before", sa.Double(), nullable=False),
        sa.Column("lease_until", sa.Double()),
        sa.Column("lease_token", sa.Text()),
        sa.Column("swept_at", sa.Double()),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("credentials", sa.Text()),
        sa.Column("removed_at", sa.Double()),
        sa.Column("discover_since", sa.Double()),
        sa.Column("succeeded_at", sa.Double()),
        sa.Column("list_error", sa.Text()),
        sa.Column("retrieve_error", sa.Text()),
        sa.Column("list_stale", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.CheckConstraint(
            "(state = 'failing') = (trouble IS NOT NULL)", name=op.f("ck_accounts_trouble")
        ),
        sa.CheckConstraint(
            "state IN ('active', 'failing', 'paused')", name=op.f("ck_accounts_state")
        ),
        sa.CheckConstraint(
            "(lease_token IS NULL) = (lease_until IS NULL)", name=op.f("ck_accounts_lease")
        ),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_accounts_project_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_accounts")),
        sa.UniqueConstraint("project_id", "name", name=op.f("uq_accounts_project_id_name")),
    )
    op.create_table(
        "endpoints",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text()),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("failing_since", sa.Double()),
        sa.Column("paused_until", sa.Double()),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("managed", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("name", sa.Text()),
        sa.Column("description", sa.Text()),
        sa.Column("event_types", sa.Text()),
        sa.Column("accounts", sa.Text()),
        sa.Column("metadata", sa.Text()),
        sa.Column("headers", sa.Text()),
        sa.Column("schedule", sa.Text()),
        sa.Column("secrets", sa.Text()),
        sa.Column("timeout_seconds", sa.Double()),
        sa.Column("state_since", sa.Double()),
        sa.Column("updated_at", sa.Double()),
        sa.Column("deleted_at", sa.Double()),
        sa.Column("opened_at", sa.Double()),
        sa.Column("probe_at", sa.Double()),
        sa.Column("flush_at", sa.Double()),
        sa.Column("warnings", sa.Integer(), server_default="0", nullable=False),
        sa.Column("rate_limit", sa.Double()),
        sa.Column("rate_at", sa.Double()),
        sa.Column("ordered", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("results", sa.Text()),
        sa.CheckConstraint(
            "(state = 'disabled') = (reason IS NOT NULL)", name=op.f("ck_endpoints_reason")
        ),
        sa.CheckConstraint(
            "opened_at IS NULL OR state = 'failing'", name=op.f("ck_endpoints_breaker")
        ),
        sa.CheckConstraint(
            "state IN ('active', 'failing', 'disabled')", name=op.f("ck_endpoints_state")
        ),
        sa.CheckConstraint(
            "(failing_since IS NULL) = (failures = 0)", name=op.f("ck_endpoints_failing")
        ),
        sa.CheckConstraint(
            "(opened_at IS NULL) = (probe_at IS NULL)", name=op.f("ck_endpoints_probe")
        ),
        sa.CheckConstraint(
            "NOT managed OR (name IS NOT NULL AND event_types IS NOT NULL)",
            name=op.f("ck_endpoints_managed"),
        ),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_endpoints_project_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_endpoints")),
    )
    op.create_index(
        "ix_endpoints_disabled",
        "endpoints",
        ["id"],
        sqlite_where=sa.text("state = 'disabled'"),
        postgresql_where=sa.text("state = 'disabled'"),
    )
    op.create_index(
        "ix_endpoints_flushed",
        "endpoints",
        ["id"],
        sqlite_where=sa.text("flush_at IS NOT NULL"),
        postgresql_where=sa.text("flush_at IS NOT NULL"),
    )
    op.create_index(
        "ix_endpoints_managed",
        "endpoints",
        ["project_id", "id"],
        sqlite_where=sa.text("managed AND deleted_at IS NULL"),
        postgresql_where=sa.text("managed AND deleted_at IS NULL"),
    )
    op.create_index(
        "ix_endpoints_open",
        "endpoints",
        ["id"],
        sqlite_where=sa.text("opened_at IS NOT NULL"),
        postgresql_where=sa.text("opened_at IS NOT NULL"),
    )
    op.create_index(
        "uq_endpoints_implied",
        "endpoints",
        ["project_id", "url"],
        unique=True,
        sqlite_where=sa.text("NOT managed AND deleted_at IS NULL"),
        postgresql_where=sa.text("NOT managed AND deleted_at IS NULL"),
    )
    op.create_table(
        "keys",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("hint", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("revoked_at", sa.Double()),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_keys_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_keys")),
        sa.UniqueConstraint("hash", name=op.f("uq_keys_hash")),
    )
    op.create_table(
        "replays",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("endpoint_id", sa.Text()),
        sa.Column("event_id", sa.Text()),
        sa.Column("since", sa.Double()),
        sa.Column("until", sa.Double()),
        sa.Column("types", sa.Text(), nullable=False),
        sa.Column("as_new", sa.Boolean(), nullable=False),
        sa.Column("pace", sa.Double(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("total", sa.Integer(), nullable=False),
        sa.Column("done", sa.Integer(), nullable=False),
        sa.Column("skipped", sa.Integer(), nullable=False),
        sa.Column("cursor", sa.Text(), nullable=False),
        sa.Column("due_at", sa.Double(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.Column("finished_at", sa.Double()),
        sa.Column("lease_until", sa.Double()),
        sa.Column("lease_token", sa.Text()),
        sa.CheckConstraint(
            "(state = 'running') = (finished_at IS NULL)", name=op.f("ck_replays_end")
        ),
        sa.CheckConstraint(
            "lease_token IS NULL OR state = 'running'", name=op.f("ck_replays_leased")
        ),
        sa.CheckConstraint(
            "state IN ('running', 'done', 'cancelled')", name=op.f("ck_replays_state")
        ),
        sa.CheckConstraint(
            "status IN ('failed', 'held', 'missing', 'all')", name=op.f("ck_replays_status")
        ),
        sa.CheckConstraint(
            "(lease_token IS NULL) = (lease_until IS NULL)", name=op.f("ck_replays_lease")
        ),
        sa.CheckConstraint("pace > 0", name=op.f("ck_replays_pace")),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_replays_project_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_replays")),
    )
    op.create_index("ix_replays_listed", "replays", ["project_id", "id"])
    op.create_index(
        "ix_replays_running",
        "replays",
        ["due_at"],
        sqlite_where=sa.text("state = 'running'"),
        postgresql_where=sa.text("state = 'running'"),
    )
    op.create_table(
        "batches",
        sa.Column(
            "key",
            BIG_KEY,
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text()),
        sa.Column("snapshot", sa.Text()),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("registered_at", sa.Double(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.Column("provider_created_at", sa.Double()),
        sa.Column("ended_at", sa.Double()),
        sa.Column("missing_since", sa.Double()),
        sa.Column("check_at", sa.Double(), nullable=False),
        sa.Column("trouble", sa.Text()),
        sa.Column("expunged_at", sa.Double()),
        sa.Column("webhook_refused", sa.Text()),
        sa.Column("kind", sa.Text(), server_default="single", nullable=False),
        sa.Column("input_file_id", sa.Text()),
        sa.Column("output_file_id", sa.Text()),
        sa.Column("error_file_id", sa.Text()),
        sa.Column("expires_at", sa.Double()),
        sa.Column("unknown_status", sa.Text()),
        sa.Column("progress_at", sa.Double(), server_default="0", nullable=False),
        sa.Column("alarm_at", sa.Double(), server_default="0", nullable=False),
        sa.Column("alarms", sa.Text(), server_default="", nullable=False),
        sa.Column("doubts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("outcome", sa.Text()),
        sa.CheckConstraint(
            "(ended_at IS NOT NULL) = (status IN ('completed', 'failed', 'expired', 'cancelled', 'lost'))",
            name=op.f("ck_batches_ended"),
        ),
        sa.CheckConstraint(
            "status IN ('validating', 'in_progress', 'finalizing', 'cancelling', 'completed', 'failed', 'expired', 'cancelled', 'lost')",
            name=op.f("ck_batches_status"),
        ),
        sa.CheckConstraint(
            "(fingerprint IS NULL) = (snapshot IS NULL)", name=op.f("ck_batches_snapshot")
        ),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_batches_account_id")
        ),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_batches_project_id")
        ),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_batches")),
        sa.UniqueConstraint("account_id", "id", name=op.f("uq_batches_account_id_id")),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_batches_alarm",
        "batches",
        ["alarm_at"],
        sqlite_where=sa.text("ended_at IS NULL"),
        postgresql_where=sa.text("ended_at IS NULL"),
    )
    op.create_index("ix_batches_by_status", "batches", ["project_id", "status", "key"])
    op.create_index(
        "ix_batches_ended",
        "batches",
        ["ended_at"],
        sqlite_where=sa.text("ended_at IS NOT NULL"),
        postgresql_where=sa.text("ended_at IS NOT NULL"),
    )
    op.create_index(
        "ix_batches_error_file_id",
        "batches",
        ["error_file_id"],
        sqlite_where=sa.text("error_file_id IS NOT NULL"),
        postgresql_where=sa.text("error_file_id IS NOT NULL"),
    )
    op.create_index("ix_batches_id", "batches", ["id"])
    op.create_index("ix_batches_input", "batches", ["account_id", "input_file_id"])
    op.create_index("ix_batches_listed", "batches", ["project_id", "key"])
    op.create_index(
        "ix_batches_lost",
        "batches",
        ["account_id", "ended_at"],
        sqlite_where=sa.text("status = 'lost'"),
        postgresql_where=sa.text("status = 'lost'"),
    )
    op.create_index(
        "ix_batches_open",
        "batches",
        ["account_id", "id"],
        sqlite_where=sa.text("ended_at IS NULL"),
        postgresql_where=sa.text("ended_at IS NULL"),
    )
    op.create_index(
        "ix_batches_output_file_id",
        "batches",
        ["output_file_id"],
        sqlite_where=sa.text("output_file_id IS NOT NULL"),
        postgresql_where=sa.text("output_file_id IS NOT NULL"),
    )
    op.create_table(
        "capacities",
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("bytes", sa.Double(), nullable=False),
        sa.Column("tokens", sa.Double(), nullable=False),
        sa.Column("cap", sa.BigInteger()),
        sa.Column("cap_at", sa.Double(), nullable=False),
        sa.Column("told", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_capacities_account_id")
        ),
        sa.PrimaryKeyConstraint("account_id", "model", name=op.f("pk_capacities")),
    )
    op.create_table(
        "creations",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("idempotency_key", sa.Text()),
        sa.Column("input_file_id", sa.Text(), nullable=False),
        sa.Column("endpoint", sa.Text()),
        sa.Column("metadata", sa.Text(), nullable=False),
        sa.Column("wishes", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("batch_id", sa.Text()),
        sa.Column("asked_at", sa.Double(), nullable=False),
        sa.Column("ask_again_at", sa.Double(), nullable=False),
        sa.Column("due_at", sa.Double()),
        sa.Column("looks", sa.Integer(), nullable=False),
        sa.Column("unlisted", sa.Boolean(), nullable=False),
        sa.Column("ended_at", sa.Double()),
        sa.CheckConstraint(
            "(state = 'found') = (batch_id IS NOT NULL)", name=op.f("ck_creations_found")
        ),
        sa.CheckConstraint(
            "(state IN ('found', 'nothing')) = (ended_at IS NOT NULL)",
            name=op.f("ck_creations_end"),
        ),
        sa.CheckConstraint(
            "state IN ('asked', 'doubtful', 'found', 'nothing')", name=op.f("ck_creations_state")
        ),
        sa.CheckConstraint(
            "(ended_at IS NULL) = (due_at IS NOT NULL)", name=op.f("ck_creations_due")
        ),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_creations_account_id")
        ),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_creations_project_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_creations")),
    )
    op.create_index(op.f("ix_creations_due_at"), "creations", ["due_at"])
    op.create_index(op.f("ix_creations_ended_at"), "creations", ["ended_at"])
    op.create_index("ix_creations_same", "creations", ["account_id", "fingerprint"])
    op.create_table(
        "files",
        sa.Column(
            "key",
            BIG_KEY,
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_files_account_id")),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_files_project_id")),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_files")),
        sa.UniqueConstraint("project_id", "id", name=op.f("uq_files_project_id_id")),
    )
    op.create_index(op.f("ix_files_created_at"), "files", ["created_at"])
    op.create_table(
        "events",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("batch_key", BIG_KEY),
        sa.Column("batch_id", sa.Text()),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("recorded_at", sa.Double(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("results_id", sa.Text()),
        sa.Column("occurrence", sa.Integer(), server_default="1", nullable=False),
        sa.CheckConstraint(
            "(batch_key IS NULL) = (batch_id IS NULL)", name=op.f("ck_events_batch")
        ),
        sa.ForeignKeyConstraint(
            ["batch_key"], ["batches.key"], name=op.f("fk_events_batch_key"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_events_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
        sa.UniqueConstraint(
            "batch_key",
            "type",
            "generation",
            "occurrence",
            name=op.f("uq_events_batch_key_type_generation_occurrence"),
        ),
    )
    op.create_index("ix_events_listed", "events", ["project_id", "id"])
    op.create_index(
        "ix_events_of_no_batch",
        "events",
        ["recorded_at"],
        sqlite_where=sa.text("batch_key IS NULL"),
        postgresql_where=sa.text("batch_key IS NULL"),
    )
    op.create_table(
        "results",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("batch_key", BIG_KEY, nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("secret", sa.Text(), nullable=False),
        sa.Column("due_at", sa.Double()),
        sa.Column("lease_until", sa.Double()),
        sa.Column("lease_token", sa.Text()),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("trouble", sa.Text()),
        sa.Column("lines", sa.Integer()),
        sa.Column("size", sa.BigInteger()),
        sa.Column("tally", sa.Text()),
        sa.Column("inline", sa.Text()),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("ended_at", sa.Double()),
        sa.Column("asked_at", sa.Double()),
        sa.Column("account_id", sa.Text(), server_default="", nullable=False),
        sa.CheckConstraint(
            "(state = 'ready') = (size IS NOT NULL)", name=op.f("ck_results_written")
        ),
        sa.CheckConstraint(
            "(state = 'waiting') = (due_at IS NOT NULL)", name=op.f("ck_results_due")
        ),
        sa.CheckConstraint("(state = 'waiting') = (ended_at IS NULL)", name=op.f("ck_results_end")),
        sa.CheckConstraint(
            "state IN ('waiting', 'ready', 'failed')", name=op.f("ck_results_state")
        ),
        sa.CheckConstraint(
            "(lease_token IS NULL) = (lease_until IS NULL)", name=op.f("ck_results_lease")
        ),
        sa.ForeignKeyConstraint(["batch_key"], ["batches.key"], name=op.f("fk_results_batch_key")),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_results_project_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_results")),
        sa.UniqueConstraint(
            "batch_key", "generation", name=op.f("uq_results_batch_key_generation")
        ),
    )
    op.create_index(
        "ix_results_due",
        "results",
        ["account_id", "due_at"],
        sqlite_where=sa.text("state = 'waiting'"),
        postgresql_where=sa.text("state = 'waiting'"),
    )
    op.create_index(
        "ix_results_ended",
        "results",
        ["ended_at"],
        sqlite_where=sa.text("ended_at IS NOT NULL"),
        postgresql_where=sa.text("ended_at IS NOT NULL"),
    )
    op.create_index(
        "ix_results_leased",
        "results",
        ["lease_until"],
        sqlite_where=sa.text("lease_until IS NOT NULL"),
        postgresql_where=sa.text("lease_until IS NOT NULL"),
    )
    op.create_index(
        "ix_results_next",
        "results",
        ["due_at"],
        sqlite_where=sa.text("state = 'waiting'"),
        postgresql_where=sa.text("state = 'waiting'"),
    )
    op.create_table(
        "submissions",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("batch_key", BIG_KEY, nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("retry_missing", sa.Integer(), nullable=False),
        sa.Column("cancelled_at", sa.Double()),
        sa.Column("trouble", sa.Text()),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("due_at", sa.Double()),
        sa.Column("lease_until", sa.Double()),
        sa.Column("lease_token", sa.Text()),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("idempotency_key", sa.Text()),
        sa.Column("fingerprint", sa.Text()),
        sa.Column("retry_max_tokens", sa.BigInteger()),
        sa.Column("account_id", sa.Text(), server_default="", nullable=False),
        sa.CheckConstraint(
            "(lease_token IS NULL) = (lease_until IS NULL)", name=op.f("ck_submissions_lease")
        ),
        sa.CheckConstraint("retry_missing >= 0", name=op.f("ck_submissions_retry_missing")),
        sa.ForeignKeyConstraint(
            ["batch_key"],
            ["batches.key"],
            name=op.f("fk_submissions_batch_key"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_submissions_project_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_submissions")),
        sa.UniqueConstraint("batch_key", name=op.f("uq_submissions_batch_key")),
    )
    op.create_index(
        "ix_submissions_account",
        "submissions",
        ["account_id", "due_at"],
        sqlite_where=sa.text("due_at IS NOT NULL"),
        postgresql_where=sa.text("due_at IS NOT NULL"),
    )
    op.create_index(
        "ix_submissions_due",
        "submissions",
        ["due_at"],
        sqlite_where=sa.text("due_at IS NOT NULL"),
        postgresql_where=sa.text("due_at IS NOT NULL"),
    )
    op.create_index(
        "ix_submissions_leased",
        "submissions",
        ["lease_until"],
        sqlite_where=sa.text("lease_until IS NOT NULL"),
        postgresql_where=sa.text("lease_until IS NOT NULL"),
    )
    op.create_index("ix_submissions_listed", "submissions", ["project_id", "id"])
    op.create_index(
        "uq_submissions_idempotency_key",
        "submissions",
        ["project_id", "idempotency_key"],
        unique=True,
        sqlite_where=sa.text("idempotency_key IS NOT NULL"),
        postgresql_where=sa.text("idempotency_key IS NOT NULL"),
    )
    op.create_table(
        "watches",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("batch_key", BIG_KEY, nullable=False),
        sa.Column("endpoint_id", sa.Text(), nullable=False),
        sa.Column("dialect", sa.Text(), nullable=False),
        sa.Column("events", sa.Text(), nullable=False),
        sa.Column("metadata", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("results", sa.Text(), server_default="link", nullable=False),
        sa.CheckConstraint("dialect IN ('watch', 'awaiter')", name=op.f("ck_watches_dialect")),
        sa.ForeignKeyConstraint(
            ["batch_key"], ["batches.key"], name=op.f("fk_watches_batch_key"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["endpoint_id"], ["endpoints.id"], name=op.f("fk_watches_endpoint_id")
        ),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_watches_project_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_watches")),
        sa.UniqueConstraint(
            "batch_key", "endpoint_id", name=op.f("uq_watches_batch_key_endpoint_id")
        ),
    )
    op.create_index(op.f("ix_watches_endpoint_id"), "watches", ["endpoint_id"])
    op.create_index("ix_watches_listed", "watches", ["project_id", "id"])
    op.create_table(
        "deletions",
        sa.Column("results_id", sa.Text(), nullable=False),
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("files", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text()),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("due_at", sa.Double()),
        sa.Column("lease_until", sa.Double()),
        sa.Column("lease_token", sa.Text()),
        sa.Column("ended_at", sa.Double()),
        sa.CheckConstraint("(state = 'due') = (due_at IS NOT NULL)", name=op.f("ck_deletions_due")),
        sa.CheckConstraint("(state = 'due') = (ended_at IS NULL)", name=op.f("ck_deletions_end")),
        sa.CheckConstraint(
            "lease_token IS NULL OR state = 'due'", name=op.f("ck_deletions_leased")
        ),
        sa.CheckConstraint(
            "state IN ('due', 'deleted', 'kept', 'failed')", name=op.f("ck_deletions_state")
        ),
        sa.CheckConstraint(
            "state NOT IN ('kept', 'failed') OR reason IS NOT NULL",
            name=op.f("ck_deletions_reason"),
        ),
        sa.CheckConstraint(
            "(lease_token IS NULL) = (lease_until IS NULL)", name=op.f("ck_deletions_lease")
        ),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_deletions_account_id")
        ),
        sa.ForeignKeyConstraint(
            ["results_id"], ["results.id"], name=op.f("fk_deletions_results_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("results_id", name=op.f("pk_deletions")),
    )
    op.create_index(
        "ix_deletions_due",
        "deletions",
        ["due_at"],
        sqlite_where=sa.text("state = 'due'"),
        postgresql_where=sa.text("state = 'due'"),
    )
    op.create_table(
        "deliveries",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("event_type", sa.Text(), nullable=False),
        sa.Column("batch_id", sa.Text()),
        sa.Column("endpoint_id", sa.Text(), nullable=False),
        sa.Column("watch_id", sa.Text()),
        sa.Column("dialect", sa.Text(), nullable=False),
        sa.Column("watch_metadata", sa.Text()),
        sa.Column("message_id", sa.Text()),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("attempts_before", sa.Integer(), nullable=False),
        sa.Column("due_at", sa.Double()),
        sa.Column("lease_token", sa.Text()),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("finished_at", sa.Double()),
        sa.Column("last_status", sa.Integer()),
        sa.Column("last_error", sa.Text()),
        sa.Column("needs_you", sa.Text()),
        sa.Column("resent_at", sa.Double()),
        sa.Column("pulled", sa.Integer(), server_default="0", nullable=False),
        sa.Column("results", sa.Text(), server_default="link", nullable=False),
        sa.Column("ends", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.CheckConstraint(
            "(state = 'pending') = (due_at IS NOT NULL)", name=op.f("ck_deliveries_due")
        ),
        sa.CheckConstraint(
            "(state IN ('delivered', 'exhausted')) = (finished_at IS NOT NULL)",
            name=op.f("ck_deliveries_end"),
        ),
        sa.CheckConstraint(
            "lease_token IS NULL OR state = 'pending'", name=op.f("ck_deliveries_lease")
        ),
        sa.CheckConstraint(
            "state IN ('pending', 'delivered', 'exhausted', 'held')",
            name=op.f("ck_deliveries_state"),
        ),
        sa.ForeignKeyConstraint(
            ["endpoint_id"], ["endpoints.id"], name=op.f("fk_deliveries_endpoint_id")
        ),
        sa.ForeignKeyConstraint(
            ["event_id"], ["events.id"], name=op.f("fk_deliveries_event_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_deliveries_project_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deliveries")),
        sa.UniqueConstraint(
            "event_id", "endpoint_id", name=op.f("uq_deliveries_event_id_endpoint_id")
        ),
        postgresql_with={"fillfactor": "70"},
    )
    op.create_index(
        "ix_deliveries_due",
        "deliveries",
        ["endpoint_id", "due_at"],
        sqlite_where=sa.text("state = 'pending'"),
        postgresql_where=sa.text("state = 'pending'"),
    )
    op.create_index(
        "ix_deliveries_exhausted_listed",
        "deliveries",
        ["project_id", "id"],
        sqlite_where=sa.text("state = 'exhausted'"),
        postgresql_where=sa.text("state = 'exhausted'"),
    )
    op.create_index(
        "ix_deliveries_held",
        "deliveries",
        ["endpoint_id"],
        sqlite_where=sa.text("state = 'held'"),
        postgresql_where=sa.text("state = 'held'"),
    )
    op.create_index(
        "ix_deliveries_held_listed",
        "deliveries",
        ["project_id", "id"],
        sqlite_where=sa.text("state = 'held'"),
        postgresql_where=sa.text("state = 'held'"),
    )
    op.create_index("ix_deliveries_listed", "deliveries", ["project_id", "id"])
    op.create_index(
        "ix_deliveries_order",
        "deliveries",
        ["endpoint_id", "id"],
        sqlite_where=sa.text("state = 'pending'"),
        postgresql_where=sa.text("state = 'pending'"),
    )
    op.create_index(
        "ix_deliveries_pending_listed",
        "deliveries",
        ["project_id", "id"],
        sqlite_where=sa.text("state = 'pending'"),
        postgresql_where=sa.text("state = 'pending'"),
    )
    op.create_index(
        "ix_deliveries_ring",
        "deliveries",
        ["project_id", "endpoint_id"],
        sqlite_where=sa.text("state = 'pending'"),
        postgresql_where=sa.text("state = 'pending'"),
    )
    op.create_index(
        "ix_deliveries_undelivered",
        "deliveries",
        ["project_id", "event_id"],
        sqlite_where=sa.text("state <> 'delivered'"),
        postgresql_where=sa.text("state <> 'delivered'"),
    )
    op.create_index("ix_deliveries_watch", "deliveries", ["watch_id"])
    op.create_table(
        "parts",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("submission_id", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("lines", sa.Integer(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("tokens", sa.BigInteger(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("due_at", sa.Double(), nullable=False),
        sa.Column("intent_at", sa.Double()),
        sa.Column("file_id", sa.Text()),
        sa.Column("uploaded_at", sa.Double()),
        sa.Column("batch_key", BIG_KEY),
        sa.Column("looked_through", sa.Boolean(), nullable=False),
        sa.Column("trouble", sa.Text()),
        sa.Column("asked_at", sa.Double()),
        sa.Column("ask_again_at", sa.Double(), server_default="0", nullable=False),
        sa.Column("looks", sa.Integer(), server_default="0", nullable=False),
        sa.Column("note", sa.Text()),
        sa.Column("runs", sa.Text(), server_default="[]", nullable=False),
        sa.CheckConstraint(
            "state <> 'submitting' OR intent_at IS NOT NULL", name=op.f("ck_parts_intent")
        ),
        sa.CheckConstraint(
            "state IN ('waiting', 'submitting', 'running', 'ended')", name=op.f("ck_parts_state")
        ),
        sa.ForeignKeyConstraint(
            ["batch_key"], ["batches.key"], name=op.f("fk_parts_batch_key"), ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(
            ["submission_id"],
            ["submissions.id"],
            name=op.f("fk_parts_submission_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_parts")),
    )
    op.create_index(op.f("ix_parts_batch_key"), "parts", ["batch_key"])
    op.create_index("ix_parts_ordered", "parts", ["submission_id", "position", "round"])
    op.create_table(
        "attempts",
        sa.Column("delivery_id", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=False),
        sa.Column("duration_ms", sa.Double(), nullable=False),
        sa.Column("status", sa.Integer()),
        sa.Column("fault", sa.Text()),
        sa.Column("detail", sa.Text()),
        sa.Column("location", sa.Text()),
        sa.Column("remote_address", sa.Text()),
        sa.Column("response_headers", sa.Text()),
        sa.Column("response_body", sa.Text()),
        sa.Column("dns_ms", sa.Double()),
        sa.Column("connect_ms", sa.Double()),
        sa.Column("tls_ms", sa.Double()),
        sa.Column("first_byte_ms", sa.Double()),
        sa.Column("request_headers", sa.Text()),
        sa.ForeignKeyConstraint(
            ["delivery_id"],
            ["deliveries.id"],
            name=op.f("fk_attempts_delivery_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("delivery_id", "number", name=op.f("pk_attempts")),
    )
