"""The tables of jobs, which workers take under a lease of their own.

Replays, results, what is to be deleted of them at the provider, and submissions with their parts
and what was learnt of room for them.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from batchbell.storage.schema import metadata, partial

replays = Table(
    "replays",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project_id", ForeignKey("projects.id"), nullable=False),
    Column("status", Text, nullable=False),
    Column("endpoint_id", Text),
    Column("event_id", Text),
    Column("since", Double),
    Column("until", Double),
    Column("types", Text, nullable=False),
    Column("as_new", Boolean, nullable=False),
    Column("pace", Double, nullable=False),
    Column("state", Text, nullable=False),
    Column("total", Integer, nullable=False),
    Column("done", Integer, nullable=False),
    Column("skipped", Integer, nullable=False),
    Column("cursor", Text, nullable=False),
    Column("due_at", Double, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
    Column("finished_at", Double),
    Column("lease_until", Double),
    Column("lease_token", Text),
    CheckConstraint("status IN ('failed', 'held', 'missing', 'all')", name="status"),
    CheckConstraint("state IN ('running', 'done', 'cancelled')", name="state"),
    CheckConstraint("(state = 'running') = (finished_at IS NULL)", name="end"),
    CheckConstraint("(lease_token IS NULL) = (lease_until IS NULL)", name="lease"),
    CheckConstraint("lease_token IS NULL OR state = 'running'", name="leased"),
    CheckConstraint("pace > 0", name="pace"),
    Index("ix_replays_listed", "project_id", "id"),
)
_running = text("state = 'running'")
partial("ix_replays_running", replays.c.due_at, where=_running)

results = Table(
    "results",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project_id", ForeignKey("projects.id"), nullable=False),
    Column("batch_key", ForeignKey("batches.key"), nullable=False),
    Column("generation", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("secret", Text, nullable=False),
    Column("due_at", Double),
    Column("lease_until", Double),
    Column("lease_token", Text),
    Column("tries", Integer, nullable=False),
    Column("trouble", Text),
    Column("lines", Integer),
    Column("size", BigInteger),
    Column("tally", Text),
    Column("inline", Text),
    Column("created_at", Double, nullable=False),
    Column("ended_at", Double),
    Column("asked_at", Double),
    Column("account_id", Text, nullable=False, server_default=""),
    UniqueConstraint("batch_key", "generation"),
    CheckConstraint("state IN ('waiting', 'ready', 'failed')", name="state"),
    CheckConstraint("(state = 'waiting') = (due_at IS NOT NULL)", name="due"),
    CheckConstraint("(state = 'waiting') = (ended_at IS NULL)", name="end"),
    CheckConstraint("(state = 'ready') = (size IS NOT NULL)", name="written"),
    CheckConstraint("(lease_token IS NULL) = (lease_until IS NULL)", name="lease"),
)
_waiting = text("state = 'waiting'")
partial("ix_results_due", results.c.account_id, results.c.due_at, where=_waiting)
partial("ix_results_next", results.c.due_at, where=_waiting)
_leased = text("lease_until IS NOT NULL")
partial("ix_results_leased", results.c.lease_until, where=_leased)
_over = text("ended_at IS NOT NULL")
partial("ix_results_ended", results.c.ended_at, where=_over)

deletions = Table(
    "deletions",
    metadata,
    Column("results_id", ForeignKey("results.id", ondelete="CASCADE"), primary_key=True),
    Column("account_id", ForeignKey("accounts.id"), nullable=False),
    Column("state", Text, nullable=False),
    Column("files", Text, nullable=False),
    Column("reason", Text),
    Column("tries", Integer, nullable=False),
    Column("due_at", Double),
    Column("lease_until", Double),
    Column("lease_token", Text),
    Column("ended_at", Double),
    CheckConstraint("state IN ('due', 'deleted', 'kept', 'failed')", name="state"),
    CheckConstraint("(state = 'due') = (due_at IS NOT NULL)", name="due"),
    CheckConstraint("(state = 'due') = (ended_at IS NULL)", name="end"),
    CheckConstraint("state NOT IN ('kept', 'failed') OR reason IS NOT NULL", name="reason"),
    CheckConstraint("(lease_token IS NULL) = (lease_until IS NULL)", name="lease"),
    CheckConstraint("lease_token IS NULL OR state = 'due'", name="leased"),
)
_undeleted = text("state = 'due'")
partial("ix_deletions_due", deletions.c.due_at, where=_undeleted)

submissions = Table(
    "submissions",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project_id", ForeignKey("projects.id"), nullable=False),
    Column("batch_key", ForeignKey("batches.key", ondelete="CASCADE"), nullable=False, unique=True),
    Column("model", Text, nullable=False),
    Column("retry_missing", Integer, nullable=False),
    Column("cancelled_at", Double),
    Column("trouble", Text),
    Column("failures", Integer, nullable=False),
    Column("due_at", Double),
    Column("lease_until", Double),
    Column("lease_token", Text),
    Column("created_at", Double, nullable=False),
    Column("idempotency_key", Text),
    Column("fingerprint", Text),
    Column("retry_max_tokens", BigInteger),
    CheckConstraint("(lease_token IS NULL) = (lease_until IS NULL)", name="lease"),
    CheckConstraint("retry_missing >= 0", name="retry_missing"),
    Index("ix_submissions_listed", "project_id", "id"),
)
_keyed = text("idempotency_key IS NOT NULL")
_key = (submissions.c.project_id, submissions.c.idempotency_key)
partial("uq_submissions_idempotency_key", *_key, unique=True, where=_keyed)
_unfinished = text("due_at IS NOT NULL")
partial("ix_submissions_due", submissions.c.due_at, where=_unfinished)

parts = Table(
    "parts",
    metadata,
    Column("id", Text, primary_key=True),
    Column("submission_id", ForeignKey("submissions.id", ondelete="CASCADE"), nullable=False),
    Column("position", Integer, nullable=False),
    Column("round", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("lines", Integer, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("tokens", BigInteger, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("due_at", Double, nullable=False),
    Column("intent_at", Double),
    Column("file_id", Text),
    Column("uploaded_at", Double),
    Column("batch_key", ForeignKey("batches.key", ondelete="SET NULL"), index=True),
    Column("looked_through", Boolean, nullable=False),
    Column("trouble", Text),
    Column("asked_at", Double),
    Column("ask_again_at", Double, nullable=False, server_default="0"),
    Column("looks", Integer, nullable=False, server_default="0"),
    Column("note", Text),
    Column("runs", Text, nullable=False, server_default="[]"),
    CheckConstraint("state IN ('waiting', 'submitting', 'running', 'ended')", name="state"),
    CheckConstraint("state <> 'submitting' OR intent_at IS NOT NULL", name="intent"),
    Index("ix_parts_ordered", "submission_id", "position", "round"),
)

capacities = Table(
    "capacities",
    metadata,
    Column("account_id", ForeignKey("accounts.id"), primary_key=True),
    Column("model", Text, primary_key=True),
    Column("bytes", Double, nullable=False),
    Column("tokens", Double, nullable=False),
    Column("cap", BigInteger),
    Column("cap_at", Double, nullable=False),
    Column("told", Boolean, nullable=False),
)

creations = Table(
    "creations",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project_id", ForeignKey("projects.id"), nullable=False),
    Column("account_id", ForeignKey("accounts.id"), nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("idempotency_key", Text),
    Column("input_file_id", Text, nullable=False),
    Column("endpoint", Text),
    Column("metadata", Text, nullable=False),
    Column("wishes", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("batch_id", Text),
    Column("asked_at", Double, nullable=False),
    Column("ask_again_at", Double, nullable=False),
    Column("due_at", Double, index=True),
    Column("looks", Integer, nullable=False),
    Column("unlisted", Boolean, nullable=False),
    Column("ended_at", Double, index=True),
    CheckConstraint("state IN ('asked', 'doubtful', 'found', 'nothing')", name="state"),
    CheckConstraint("(state = 'found') = (batch_id IS NOT NULL)", name="found"),
    CheckConstraint("(state IN ('found', 'nothing')) = (ended_at IS NOT NULL)", name="end"),
    CheckConstraint("(ended_at IS NULL) = (due_at IS NOT NULL)", name="due"),
    Index("ix_creations_same", "account_id", "fingerprint"),
)
