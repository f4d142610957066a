"""The tables. What must be true of a row is stated here, as a constraint.

Times are seconds since the epoch. A delivery has one time: a claim moves `due_at` to the end of the
lease, so that an expired lease is simply due again. On PostgreSQL most claims write that end to
`lease_until` instead, which is in no index, and `due_at` stays: see `leases`. A column with a `key`
has another name in the database than here: the name that it had before the first release.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ColumnElement,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    TextClause,
    UniqueConstraint,
    false,
    text,
)

from batchbell.storage.sealing import Sealed

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

BigKey = BigInteger().with_variant(Integer, "sqlite")


def partial(
    name: str, *columns: Column[Any], where: ColumnElement[bool] | TextClause, unique: bool = False
) -> None:
    """An index of some of the rows."""
    Index(name, *columns, unique=unique, sqlite_where=where, postgresql_where=where)


def one_of(column: str, *words: str) -> str:
    """That a column has one of these values.

    Spelled out: of three values in IN SQLite makes a table for each statement that writes a row.
    """
    each = (f"{column} = '{word}'" for word in words)
    return f"({' OR '.join(each)})"


projects = Table(
    "projects",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("webhook_secret", Sealed("projects.webhook_secret"), nullable=False),
    Column("created_at", Double, nullable=False),
    Index("uq_projects_name", "name", unique=True),
)

keys = Table(
    "keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project_id", ForeignKey("projects.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("hash", Text, nullable=False, unique=True),
    Column("hint", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("revoked_at", Double),
)

accounts = Table(
    "accounts",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project_id", ForeignKey("projects.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("provider", Text, nullable=False),
    Column("base_url", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("trouble", Text, key="reason"),
    Column("failures", Integer, nullable=False),
    Column("pages", Integer),
    Column("due_at", Double, nullable=False),
    Column("not_before", Double, nullable=False),
    Column("lease_until", Double),
    Column("lease_token", Text),
    Column("swept_at", Double),
    Column("created_at", Double, nullable=False),
    Column("credentials", Sealed("accounts.credentials")),
    Column("removed_at", Double),
    Column("discover_since", Double),
    Column("succeeded_at", Double),
    Column("list_error", Text),
    Column("retrieve_error", Text),
    Column("list_stale", Boolean, nullable=False, server_default=false()),
    Column("hook_secrets", Sealed("accounts.hook_secrets")),
    Column("hook_audience", Text),
    Column("hook_at", Double),
    Column("hooks_in_a_row", Integer, nullable=False, server_default="0"),
    Column("hook_missed_at", Double),
    UniqueConstraint("project_id", "name"),
    CheckConstraint("state IN ('active', 'failing', 'paused')", name="state"),
    CheckConstraint("(lease_token IS NULL) = (lease_until IS NULL)", name="lease"),
    CheckConstraint("(state = 'failing') = (trouble IS NOT NULL)", name="trouble"),
)

_over = ("completed", "failed", "expired", "cancelled", "lost")
batches = Table(
    "batches",
    metadata,
    Column("key", BigKey, primary_key=True, autoincrement=True),
    # That of the account. Here and below, where a project follows from another row that is checked,
    # it is not checked itself: on PostgreSQL that costs as much as five indexes.
    Column("project_id", Text, nullable=False),
    Column("account_id", ForeignKey("accounts.id"), nullable=False),
    Column("id", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("fingerprint", Text),
    Column("snapshot", Text),
    Column("generation", Integer, nullable=False),
    Column("registered_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
    Column("provider_created_at", Double),
    Column("ended_at", Double),
    Column("missing_since", Double),
    Column("check_at", Double, nullable=False),
    Column("trouble", Text, key="look_error"),
    Column("expunged_at", Double),
    Column("webhook_refused", Text),
    Column("kind", Text, nullable=False, server_default="single"),
    Column("input_file_id", Text),
    Column("output_file_id", Text),
    Column("error_file_id", Text),
    Column("expires_at", Double),
    Column("unknown_status", Text),
    Column("progress_at", Double, nullable=False, server_default="0"),
    Column("alarm_at", Double, nullable=False, server_default="0"),
    Column("alarms", Text, nullable=False, server_default=""),
    Column("doubts", Integer, nullable=False, server_default="0"),
    Column("outcome", Text, key="merged_outcome"),
    # What lists choose by: they follow from the fields of a batch, and are written with them.
    Column("yielded", Text, key="outcome"),
    Column("model", Text),
    Column("marks", Text, nullable=False, server_default=""),
    Column("history", Text, nullable=False, server_default="[]"),
    UniqueConstraint("account_id", "id").ddl_if(dialect="sqlite"),
    CheckConstraint(
        one_of("status", "validating", "in_progress", "finalizing", "cancelling", *_over),
        name="status",
    ),
    CheckConstraint(f"(ended_at IS NOT NULL) = {one_of('status', *_over)}", name="ended"),
    CheckConstraint("(fingerprint IS NULL) = (snapshot IS NULL)", name="snapshot"),
    sqlite_autoincrement=True,
)
_open = batches.c.ended_at.is_(None)
partial("ix_batches_open", batches.c.account_id, where=_open)
partial("ix_batches_alarm", batches.c.alarm_at, where=_open)
_lost = text("status = 'lost'")
partial("ix_batches_lost", batches.c.account_id, batches.c.ended_at, where=_lost)
# Lists of batches need no other index: it holds whatever a filter asks, so that rows are read for
# the page alone.
_asked = ("kind", "account_id", "outcome", "model", "ended_at", "marks", "id")
_in_order = ("project_id", "status", "registered_at", "key")
BATCHES_FOUND = (*_in_order, *_asked)
Index("ix_batches_found", *(batches.c[name] for name in BATCHES_FOUND))
# Submissions are few among many batches: their lists pass over no others. SQLite looks at the kind
# of each nevertheless.
_joined = text("kind = 'joined'")
partial("ix_batches_joined", *(batches.c[name] for name in BATCHES_FOUND), where=_joined)
# Byte by byte, whatever the locale of PostgreSQL: ids are found by how they begin, too.
_ids = Index(
    "uq_batches_id",
    batches.c.account_id,
    batches.c.id,
    unique=True,
    postgresql_ops={"id": "text_pattern_ops"},
)
_ids.ddl_if(dialect="postgresql")
_input = batches.c.input_file_id
partial("ix_batches_input", batches.c.account_id, _input, where=_input.isnot(None))
several_inputs = text("input_file_id LIKE '%,%'")
partial("ix_batches_inputs", batches.c.account_id, where=several_inputs)
_ended = batches.c.ended_at.isnot(None)
partial("ix_batches_ended", batches.c.ended_at, where=_ended)
for _file in (batches.c.output_file_id, batches.c.error_file_id):
    partial(f"ix_batches_{_file.name}", _file, where=_file.isnot(None))

files = Table(
    "files",
    metadata,
    Column("key", BigKey, primary_key=True, autoincrement=True),
    Column("project_id", ForeignKey("projects.id"), nullable=False),
    Column("id", Text, nullable=False),
    Column("account_id", ForeignKey("accounts.id"), nullable=False),
    Column("created_at", Double, nullable=False, index=True),
    UniqueConstraint("project_id", "id"),
)

endpoints = Table(
    "endpoints",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project_id", ForeignKey("projects.id"), nullable=False),
    Column("url", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text),
    Column("failures", Integer, nullable=False),
    Column("failing_since", Double),
    Column("paused_until", Double),
    Column("created_at", Double, nullable=False),
    Column("managed", Boolean, nullable=False, server_default=false()),
    Column("name", Text),
    Column("description", Text),
    Column("event_types", Text),
    Column("accounts", Text),
    Column("metadata", Text),
    Column("headers", Sealed("endpoints.headers")),
    Column("schedule", Text),
    Column("secrets", Sealed("endpoints.secrets")),
    Column("timeout_seconds", Double),
    Column("state_since", Double),
    Column("updated_at", Double),
    Column("deleted_at", Double),
    Column("opened_at", Double),
    Column("probe_at", Double),
    Column("flush_at", Double),
    Column("warnings", Integer, nullable=False, server_default="0"),
    Column("rate_limit", Double),
    Column("rate_at", Double),
    Column("ordered", Boolean, nullable=False, server_default=false()),
    Column("results", Text),
    CheckConstraint("state IN ('active', 'failing', 'disabled')", name="state"),
    CheckConstraint("(state = 'disabled') = (reason IS NOT NULL)", name="reason"),
    CheckConstraint("(failing_since IS NULL) = (failures = 0)", name="failing"),
    CheckConstraint("(opened_at IS NULL) = (probe_at IS NULL)", name="probe"),
    CheckConstraint("opened_at IS NULL OR state = 'failing'", name="breaker"),
    CheckConstraint(
        "NOT managed OR (name IS NOT NULL AND event_types IS NOT NULL)", name="managed"
    ),
)
_implied = text("NOT managed AND deleted_at IS NULL")
partial(
    "uq_endpoints_implied", endpoints.c.project_id, endpoints.c.url, unique=True, where=_implied
)
_managed = text("managed AND deleted_at IS NULL")
partial("ix_endpoints_managed", endpoints.c.project_id, endpoints.c.id, where=_managed)
_there = text("deleted_at IS NULL")
partial("ix_endpoints_listed", endpoints.c.project_id, endpoints.c.id, where=_there)
# Every watched URL is a row, and few of them are ever unwell, or need the janitor.
_unwell = text("state <> 'active' AND deleted_at IS NULL")
partial("ix_endpoints_unwell", endpoints.c.project_id, endpoints.c.state_since, where=_unwell)
partial("ix_endpoints_disabled", endpoints.c.id, where=text("state = 'disabled'"))
partial("ix_endpoints_open", endpoints.c.id, where=endpoints.c.opened_at.isnot(None))
partial("ix_endpoints_flushed", endpoints.c.id, where=endpoints.c.flush_at.isnot(None))

watches = Table(
    "watches",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project_id", Text, nullable=False),
    Column("batch_key", ForeignKey("batches.key", ondelete="CASCADE"), nullable=False),
    Column("endpoint_id", ForeignKey("endpoints.id"), nullable=False, index=True),
    Column("dialect", Text, nullable=False),
    Column("events", Text, nullable=False),
    Column("metadata", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("results", Text, nullable=False, server_default="link"),
    UniqueConstraint("batch_key", "endpoint_id"),
    CheckConstraint("dialect IN ('watch', 'awaiter')", name="dialect"),
    Index("ix_watches_listed", "project_id", "id"),
)

events = Table(
    "events",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project_id", Text, nullable=False),
    Column("batch_key", ForeignKey("batches.key", ondelete="CASCADE")),
    Column("batch_id", Text),
    Column("type", Text, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("recorded_at", Double, nullable=False),
    Column("body", Text, nullable=False),
    Column("results_id", Text),
    Column("occurrence", Integer, nullable=False, server_default="1"),
    UniqueConstraint("batch_key", "type", "generation", "occurrence"),
    CheckConstraint("(batch_key IS NULL) = (batch_id IS NULL)", name="batch"),
    Index("ix_events_listed", "project_id", "id"),
    Index("ix_events_by_type", "project_id", "type", "id"),
)
_of_no_batch = text("batch_key IS NULL")
partial("ix_events_of_no_batch", events.c.recorded_at, where=_of_no_batch)

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project_id", Text, nullable=False),
    Column("event_id", ForeignKey("events.id", ondelete="CASCADE"), nullable=False),
    Column("event_type", Text, nullable=False),
    Column("batch_id", Text),
    Column("endpoint_id", ForeignKey("endpoints.id"), nullable=False),
    Column("watch_id", Text),
    Column("dialect", Text, nullable=False),
    Column("watch_metadata", Text),
    Column("message_id", Text),
    Column("state", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("attempts_before", Integer, nullable=False),
    Column("due_at", Double),
    Column("lease_token", Text),
    # Of a lease that did not move `due_at`. It counts while there is a token.
    Column("lease_until", Double),
    Column("created_at", Double, nullable=False),
    Column("finished_at", Double),
    Column("last_status", Integer),
    Column("last_error", Text),
    Column("needs_you", Text),
    Column("resent_at", Double),
    Column("pulled", Integer, nullable=False, server_default="0"),
    Column("results", Text, nullable=False, server_default="link"),
    # Its watch was deleted while it was being sent: no further attempt is made.
    Column("ends", Boolean, nullable=False, server_default=false()),
    UniqueConstraint("event_id", "endpoint_id"),
    CheckConstraint(one_of("state", "pending", "delivered", "exhausted", "held"), name="state"),
    CheckConstraint("(state = 'pending') = (due_at IS NOT NULL)", name="due"),
    CheckConstraint(
        f"{one_of('state', 'delivered', 'exhausted')} = (finished_at IS NOT NULL)", name="end"
    ),
    CheckConstraint("lease_token IS NULL OR state = 'pending'", name="lease"),
    Index("ix_deliveries_listed", "project_id", "id"),
    # So that a claim finds room on the page of its row, and writes to no index.
    postgresql_with={"fillfactor": "50"},
)
_pending = text("state = 'pending'")
partial("ix_deliveries_due", deliveries.c.endpoint_id, deliveries.c.due_at, where=_pending)
# The ring of a project's endpoints, and for each the order in which its deliveries were made.
_ring = (deliveries.c.project_id, deliveries.c.endpoint_id, deliveries.c.id)
partial("ix_deliveries_ring", *_ring, where=_pending)
_held = text("state = 'held'")
partial("ix_deliveries_held", deliveries.c.endpoint_id, where=_held)
for _state in ("exhausted", "held"):
    _listed = (deliveries.c.project_id, deliveries.c.id)
    partial(f"ix_deliveries_{_state}_listed", *_listed, where=text(f"state = '{_state}'"))
_undelivered = text("state <> 'delivered'")
_of_events = (deliveries.c.project_id, deliveries.c.event_type, deliveries.c.event_id)
partial("ix_deliveries_missed", *_of_events, where=_undelivered)
# Lists. No index of finished rows holds the state: each delivery would be moved in it as it ends.
_stopped = text("state IN ('exhausted', 'held')")
for _of, _some in ((deliveries.c.project_id, _undelivered), (deliveries.c.endpoint_id, _stopped)):
    _whose = _of.name.removesuffix("_id")
    Index(f"ix_deliveries_of_{_whose}", _of, deliveries.c.event_type, deliveries.c.id)
    _by_state = (_of, deliveries.c.event_type, deliveries.c.state, deliveries.c.id)
    partial(f"ix_deliveries_by_state_of_{_whose}", *_by_state, where=_some)
Index("ix_deliveries_watch", deliveries.c.watch_id)

results_places = Table(
    "results_places",
    metadata,
    Column("marker", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("seen_at", Double, nullable=False),
)
"""Where processes keep results, by the marker in the place itself."""

attempts = Table(
    "attempts",
    metadata,
    Column("delivery_id", ForeignKey("deliveries.id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("started_at", Double, nullable=False),
    Column("duration_ms", Double, nullable=False),
    Column("status", Integer),
    Column("fault", Text),
    Column("detail", Text),
    Column("location", Text),
    Column("remote_address", Text),
    Column("response_headers", Text),
    Column("response_body", Text),
    Column("dns_ms", Double),
    Column("connect_ms", Double),
    Column("tls_ms", Double),
    Column("first_byte_ms", Double),
    Column("request_headers", Text),
)


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
    Column("trouble", Text, key="reason"),
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
_merged = text("ended_at IS NOT NULL")
partial("ix_results_ended", results.c.ended_at, where=_merged)

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
    Column("trouble", Text, key="reason"),
    Column("failures", Integer, nullable=False),
    Column("due_at", Double),
    Column("lease_until", Double),
    Column("lease_token", Text),
    Column("created_at", Double, nullable=False),
    Column("idempotency_key", Text),
    Column("fingerprint", Text),
    Column("retry_max_tokens", BigInteger),
    Column("account_id", Text, nullable=False, server_default=""),
    CheckConstraint("(lease_token IS NULL) = (lease_until IS NULL)", name="lease"),
    CheckConstraint("retry_missing >= 0", name="retry_missing"),
    Index("ix_submissions_listed", "project_id", "id"),
)
_keyed = text("idempotency_key IS NOT NULL")
_key = (submissions.c.project_id, submissions.c.idempotency_key)
partial("uq_submissions_idempotency_key", *_key, unique=True, where=_keyed)
_unfinished = text("due_at IS NOT NULL")
partial("ix_submissions_due", submissions.c.due_at, where=_unfinished)
partial("ix_submissions_account", submissions.c.account_id, submissions.c.due_at, where=_unfinished)
_taken_until = submissions.c.lease_until
partial("ix_submissions_leased", _taken_until, where=_taken_until.isnot(None))

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
    Column("trouble", Text, key="reason"),
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
    Column("told", Boolean, key="stated", nullable=False),
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
    Column("wishes", Text, key="registrations", nullable=False),
    Column("state", Text, nullable=False),
    Column("batch_id", Text),
    Column("asked_at", Double, nullable=False),
    Column("ask_again_at", Double, nullable=False),
    Column("due_at", Double, index=True),
    Column("looks", Integer, nullable=False),
    Column("unlisted", Boolean, nullable=False),
    Column("ended_at", Double, index=True),
    Column("lines", Integer),
    Column("tag", Text),
    CheckConstraint("state IN ('asked', 'doubtful', 'found', 'nothing')", name="state"),
    CheckConstraint("(state = 'found') = (batch_id IS NOT NULL)", name="found"),
    CheckConstraint("(state IN ('found', 'nothing')) = (ended_at IS NOT NULL)", name="end"),
    CheckConstraint("(ended_at IS NULL) = (due_at IS NOT NULL)", name="due"),
    Index("ix_creations_same", "account_id", "fingerprint"),
)

hints = Table(
    "hints",
    metadata,
    Column("key", BigKey, primary_key=True, autoincrement=True),
    Column("account_id", ForeignKey("accounts.id"), nullable=False),
    Column("id", Text, nullable=False),
    Column("batch_id", Text, nullable=False),
    Column("received_at", Double, nullable=False, index=True),
    Column("due_at", Double),
    Column("looks", Integer, nullable=False, server_default="0"),
    UniqueConstraint("account_id", "id"),
    Index("ix_hints_batch", "account_id", "batch_id"),
)
partial("ix_hints_due", hints.c.account_id, hints.c.due_at, where=hints.c.due_at.isnot(None))
