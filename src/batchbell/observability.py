"""What operators see: one wide log line for each step, and metrics for Prometheus."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

import msgspec
import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server
from structlog.processors import add_log_level, format_exc_info
from structlog.typing import EventDict

from batchbell.core.errors import SettingsError
from batchbell.core.health import Change

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 30)
LAG_SECONDS = (1, 2.5, 5, 10, 15, 20, 30, 60, 120, 300, 900, 3600, 4 * 3600, 24 * 3600)


def configure_logging(*, level: str, format: str) -> None:
    """Log to standard error: JSON for machines, text on a terminal, unless `format` decides.

    A call with `each`, a list of further facts, writes a line for each of them, all at once.
    """
    people = format == "text" or (format == "auto" and sys.stderr.isatty())
    lines = structlog.WriteLogger(sys.stderr)
    structlog.configure(
        processors=_for_people() if people else [_for_machines],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=lambda *_: lines,
        cache_logger_on_first_use=False,
    )


def _for_people() -> list[Any]:
    renderer = structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
    )
    stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)

    def lines(logger: Any, name: str, said: EventDict) -> str:
        return "\n".join(renderer(logger, name, one) for one in _each(said))

    return [add_log_level, stamp, format_exc_info, lines]


def _for_machines(logger: Any, name: str, said: EventDict) -> str:
    """The same in one step: every request has its line."""
    add_log_level(logger, name, said)
    said["timestamp"] = f"{datetime.now(UTC).replace(tzinfo=None).isoformat()}Z"
    said = format_exc_info(logger, name, said) if "exc_info" in said else said
    return "\n".join(map(_line, _each(said)))


def _each(said: EventDict) -> list[EventDict]:
    """What one call says: a line, or many."""
    each = said.pop("each", None)
    return [said] if each is None else [{**said, **one} for one in each]


_encode = msgspec.json.Encoder(enc_hook=repr).encode
_in_ascii = json.JSONEncoder(default=repr, separators=(",", ":")).encode


def _line(said: Any) -> str:
    """One line of the log, in ASCII whatever is in it."""
    try:
        line = _encode(said)
    except (ValueError, TypeError, OverflowError, RecursionError):
        return _in_ascii(said)
    return line.decode() if line.isascii() else _in_ascii(said)


class Metrics:
    """Every metric. Listed in docs/reference/metrics.md, which a test keeps complete."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._add_deliveries(self.registry)
        self._add_watching(self.registry)
        self._add_backlog(self.registry)
        self._add_process(self.registry)

    def serve(self, host: str, port: int) -> None:
        """Answer scrapes in a thread. Raises SettingsError when the port is taken."""
        try:
            self._server, self._thread = start_http_server(port, host, self.registry)
        except OSError as error:
            raise SettingsError(
                f"Cannot serve metrics on {host}:{port}: {error.strerror or error}."
                " Set BATCHBELL_METRICS_PORT to another."
            ) from error

    def stop_serving(self) -> None:
        """End what `serve` began."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _add_deliveries(self, registry: CollectorRegistry) -> None:
        self.delivery_lag = Histogram(
            "batchbell_delivery_lag_seconds",
            "From the batch's end at the provider to the receiver's 2xx.",
            buckets=LAG_SECONDS,
            registry=registry,
        )
        self.attempts = Counter(
            "batchbell_attempts",
            "Webhook calls made, by result: delivered, retry, exhausted, held or lease_lost.",
            ["result"],
            registry=registry,
        )
        self.attempt_duration = Histogram(
            "batchbell_attempt_duration_seconds",
            "How long webhook calls took.",
            buckets=SECONDS,
            registry=registry,
        )
        self.in_flight = Gauge(
            "batchbell_deliveries_in_flight",
            "Webhook calls under way in this process.",
            registry=registry,
        )
        self.replayed = Counter(
            "batchbell_replayed_deliveries",
            "Deliveries that replays have begun again.",
            registry=registry,
        )
        self.oldest_past_due = Gauge(
            "batchbell_oldest_past_due_seconds",
            "Age of the oldest delivery that is past due. Alert on this one.",
            registry=registry,
        )
        self.deliveries = Gauge(
            "batchbell_deliveries",
            "Deliveries that are not finished, by state: pending or held.",
            ["state"],
            registry=registry,
        )
        self.deliveries_parked = Gauge(
            "batchbell_deliveries_parked",
            "Deliveries that are due and wait for the breaker of their endpoint to close.",
            registry=registry,
        )
        self.endpoints = Gauge(
            "batchbell_endpoints",
            "Endpoints, by state: active, failing, open (failing, and probed only) or disabled.",
            ["state"],
            registry=registry,
        )

    def _add_watching(self, registry: CollectorRegistry) -> None:
        self.open_batches = Gauge(
            "batchbell_open_batches",
            "Batches that have not ended, by status.",
            ["status"],
            registry=registry,
        )
        self.sweeps = Counter(
            "batchbell_sweeps",
            "Sweeps of an account, by result: ok, or the class of the error.",
            ["account", "result"],
            registry=registry,
        )
        self.provider_calls = Counter(
            "batchbell_provider_calls",
            "Calls to providers, by kind: list or retrieve.",
            ["account", "kind"],
            registry=registry,
        )
        self.sweep_duration = Histogram(
            "batchbell_sweep_duration_seconds",
            "How long sweeps took.",
            buckets=(*SECONDS, 60, 120),
            registry=registry,
        )
        self.account_failing = Gauge(
            "batchbell_account_failing",
            "1 while sweeps of the account fail.",
            ["account"],
            registry=registry,
        )
        self.changes = Counter(
            "batchbell_batch_changes",
            "Batches that moved to a new status.",
            ["status"],
            registry=registry,
        )

    def _add_backlog(self, registry: CollectorRegistry) -> None:
        self.results_past_due = Gauge(
            "batchbell_results_past_due_seconds",
            "For how long the results that wait for longest have been due to be merged.",
            registry=registry,
        )
        self.submissions_past_due = Gauge(
            "batchbell_submissions_past_due_seconds",
            "For how long the submission that waits for longest has been due for its next step.",
            registry=registry,
        )
        self.results_places = Gauge(
            "batchbell_results_places",
            "Places in which processes have kept results in the last 5 minutes. More than one is a"
            " mistake: links fail on some of them.",
            registry=registry,
        )
        self.sweep_age = Gauge(
            "batchbell_sweep_age_seconds",
            "Seconds since a sweep of the account last ended well. Paused accounts have none.",
            ["account"],
            registry=registry,
        )
        self.stalled_batches = Gauge(
            "batchbell_stalled_batches",
            "Open batches that stall, by cause: unknown_status, overdue or no_progress.",
            ["cause"],
            registry=registry,
        )
        self.alarms = Counter(
            "batchbell_batch_alarms",
            "Alarms of batches that have rung: unknown_status, overdue, no_progress or"
            " expiring_soon.",
            ["cause"],
            registry=registry,
        )

        self.hooks = Counter(
            "batchbell_hooks",
            "Webhooks of providers themselves, by result: accepted, replayed, late, ignored, or why"
            " they were refused: forged, stale, malformed, no_secret.",
            ["account", "result"],
            registry=registry,
        )
        self.unknown_statuses = Counter(
            "batchbell_unknown_statuses",
            "Batches whose provider used a status word that we do not know, once for each word.",
            ["account"],
            registry=registry,
        )

    def _add_process(self, registry: CollectorRegistry) -> None:
        self.registrations = Counter(
            "batchbell_registrations",
            "Watches asked for, by whether they were new.",
            ["created"],
            registry=registry,
        )
        self.discovered = Counter(
            "batchbell_batches_discovered",
            "Batches found in the list of an account, though nobody had named them.",
            registry=registry,
        )
        self.deletions = Counter(
            "batchbell_file_deletions",
            "Batches whose files at the provider were to be deleted, by result: deleted, kept,"
            " retry or failed.",
            ["result"],
            registry=registry,
        )
        self.worker_failures = Counter(
            "batchbell_worker_failures",
            "Times that a worker's step failed and was started again.",
            ["worker"],
            registry=registry,
        )
        self.worker_silent = Gauge(
            "batchbell_worker_silent_seconds",
            "How long ago a worker of this process last ended a step, or got on with a long one.",
            ["worker"],
            registry=registry,
        )


log = structlog.get_logger("batchbell.endpoints")


def log_health(change: Change) -> None:
    """Log what an operator should know of a change: most changes are nothing of the kind."""
    endpoint = change.after
    if change.warned_seconds is not None:
        log.warning(
            "endpoint.failing",
            endpoint_id=endpoint.id,
            hours=round(change.warned_seconds / 3600),
            failing_since=endpoint.failing_since,
            failures=endpoint.failures,
            probe_at=endpoint.probe_at,
        )
    if change.disabled:
        log.warning("endpoint.disabled", endpoint_id=endpoint.id, reason=endpoint.reason)
    if change.recovered:
        log.warning(
            "endpoint.recovered",
            endpoint_id=endpoint.id,
            failing_since=change.before.failing_since,
            failures=change.before.failures,
        )
    if change.opened:
        log.info("endpoint.parked", endpoint_id=endpoint.id, probe_at=endpoint.probe_at)
