"""From the words of the house to the shapes of the API."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, cast
from urllib.parse import urlsplit, urlunsplit

import msgspec
from msgspec import UNSET

from batchbell.core import alarms, payload, polling
from batchbell.core.deletion import Deletion, DeletionState
from batchbell.core.delivery import reason as waiting_reason
from batchbell.core.model import (
    Account,
    Attempt,
    Batch,
    Delivery,
    DeliveryState,
    Event,
    Outcome,
    Snapshot,
    Status,
    Watch,
)
from batchbell.core.results import Results
from batchbell.storage.keys import Key
from batchbell.storage.projects import Project
from batchbell.web import account_shapes, result_shapes, shapes

UNKNOWN_OUTCOME = (
    "The process was stopped while this call was under way: whether the receiver got it is not"
    " known. It was sent again with the same webhook-id."
)
HINT_CHARACTERS = 4
STAMPS = (
    "in_progress_at",
    "expires_at",
    "finalizing_at",
    "completed_at",
    "failed_at",
    "expired_at",
    "cancelling_at",
    "cancelled_at",
)


def _second(time: float | None) -> int | None:
    return None if time is None else int(time)


def watch(found: Watch) -> shapes.Watch:
    return shapes.Watch(
        id=found.id,
        batch_id=found.batch_id,
        url=found.url,
        events=list(found.events),
        metadata=dict(found.metadata),
        endpoint_id=found.endpoint_id,
        dialect=found.dialect,
        created_at=int(found.created_at),
        results=found.results,
    )


def batch(
    found: Batch,
    merged: Results | None = None,
    deletion: Deletion | None = None,
    *,
    now: float,
) -> shapes.Batch:
    """OpenAI's Batch object. `lost` is not a word of theirs: there it has `failed`."""
    seen = found.snapshot or Snapshot(id=found.id, provider_status="", status=None)
    lost = found.status is Status.LOST
    stamps: dict[str, Any] = {name: seen.timestamps.get(name) for name in STAMPS}
    if lost:
        stamps["failed_at"] = _second(found.ended_at)
    return shapes.Batch(
        id=found.id,
        endpoint=seen.endpoint or "",
        model=seen.model,
        errors=_errors(seen, lost=lost),
        input_file_id=seen.input_file_id or "",
        completion_window=seen.completion_window or "",
        status=cast("shapes.OpenAIStatus", "failed" if lost else found.status.value),
        output_file_id=seen.output_file_id,
        error_file_id=seen.error_file_id,
        created_at=seen.created_at or int(found.registered_at),
        request_counts=counts_of(seen),
        usage=dict(seen.usage) if seen.usage is not None else None,
        metadata=dict(seen.metadata) if seen.metadata is not None else None,
        batchbell=extras(found, merged, deletion, now=now),
        **stamps,
    )


def counts_of(seen: Snapshot) -> shapes.RequestCounts | None:
    """None while nothing is known."""
    counts = seen.counts
    if counts is None:
        return None
    return shapes.RequestCounts(
        total=counts.total, completed=counts.completed, failed=counts.failed
    )


def _errors(seen: Snapshot, *, lost: bool) -> shapes.BatchErrors | None:
    told = [
        shapes.BatchError(code=p.code, message=p.message, param=p.param, line=p.line)
        for p in seen.problems
    ]
    if lost:
        told.append(shapes.BatchError(**payload.NOT_FOUND, param=None, line=None))
    return shapes.BatchErrors(data=told) if told else None


def results(found: Results, deletion: Deletion | None) -> result_shapes.Results:
    files = provider_files(deletion)
    tally = found.tally
    if tally is None:
        return result_shapes.Results(state=found.state, trouble=found.trouble, provider_files=files)
    return result_shapes.Results(
        state=found.state,
        lines=tally.lines,
        bytes=tally.size,
        succeeded=tally.succeeded,
        failed=tally.failed,
        not_run=tally.not_run,
        in_input_order=tally.in_input_order,
        usage={model: result_shapes.Tokens(**asdict(used)) for model, used in tally.usage.items()},
        notes=list(tally.notes),
        provider_files=files,
    )


def provider_files(found: Deletion | None) -> result_shapes.ProviderFiles:
    if found is None:
        return result_shapes.ProviderFiles(state=DeletionState.KEPT)
    gone = found.state is DeletionState.DELETED
    return result_shapes.ProviderFiles(
        state=found.state,
        due_at=_second(found.due_at),
        deleted_at=_second(found.ended_at) if gone else None,
        reason=found.reason,
    )


def extras(
    found: Batch,
    merged: Results | None = None,
    deletion: Deletion | None = None,
    *,
    now: float,
) -> shapes.BatchExtras:
    return shapes.BatchExtras(
        status=found.status,
        provider_status=found.snapshot.provider_status if found.snapshot else None,
        provider=found.provider,
        account=found.account,
        outcome=found.outcome,
        lost=found.status is Status.LOST,
        overdue=alarms.is_overdue(found, now),
        stalled=[cast("shapes.StallCause", alarm.value) for alarm in alarms.holding(found, now)],
        reason=reason(found, now),
        last_progress_at=int(found.progress_at or found.registered_at),
        trouble=found.reason or found.webhook_refused,
        registered_at=int(found.registered_at),
        updated_at=int(found.updated_at),
        ended_at=_second(found.ended_at),
        generation=found.generation,
        expunged_at=_second(found.expunged_at),
        results=UNSET if merged is None else results(merged, deletion),
    )


def reason(found: Batch, now: float) -> str | None:
    """Why the batch has not ended well, or does not get on; None where nothing is known of it."""
    if found.status is Status.LOST:
        return payload.NOT_FOUND["message"]
    if found.status is Status.FAILED:
        problems = found.snapshot.problems if found.snapshot else ()
        return next((p.message for p in problems if p.message), None)
    if found.status.ended:
        return None
    told = [found.reason] if found.reason else []
    return " ".join([*told, *alarms.reasons(found, now)]) or None


def event(found: Event, deliveries: Sequence[Delivery] | None = None) -> dict[str, Any]:
    """The canonical body as it is sent, and our own fields after it."""
    body: dict[str, Any] = msgspec.json.decode(found.body)
    body["recorded_at"] = int(found.recorded_at)
    if deliveries is not None:
        counts = Counter(delivery.state for delivery in deliveries)
        body["deliveries"] = {state.value: counts[state] for state in DeliveryState}
    return body


def delivery(
    found: Delivery, attempts: Sequence[Attempt] | None = None, *, now: float
) -> shapes.Delivery:
    in_flight = found.lease_token is not None
    return shapes.Delivery(
        id=found.id,
        event_id=found.event_id,
        event_type=found.event_type,
        batch_id=found.batch_id,
        endpoint_id=found.endpoint_id,
        watch_id=found.watch_id,
        webhook_id=found.message_id or found.event_id,
        url=found.url,
        state=found.state,
        in_flight=in_flight,
        attempt_count=found.attempts,
        next_attempt_at=None if in_flight else _second(found.due_at),
        created_at=int(found.created_at),
        finished_at=_second(found.finished_at),
        last_status=found.last_status,
        last_error=found.last_error,
        needs_you=found.needs_you,
        reason=waiting_reason(found, now),
        attempts=msgspec.UNSET if attempts is None else [attempt(one) for one in attempts],
        attempts_deleted=(
            msgspec.UNSET if attempts is None else found.attempts - in_flight - len(attempts)
        ),
    )


def attempt(found: Attempt) -> shapes.Attempt:
    """One try; where a crash hid what came of it, `result` is `unknown`."""
    outcome = found.outcome
    if outcome is None:
        return shapes.Attempt(
            number=found.number,
            result="unknown",
            explanation=UNKNOWN_OUTCOME,
            **dict.fromkeys(OUTCOME_FIELDS),
            request_headers={},
            response_headers={},
            timings=None,
        )
    delivered = outcome.status is not None and 200 <= outcome.status < 300
    return shapes.Attempt(
        number=found.number,
        result="delivered" if delivered else "failed",
        explanation=None,
        request_headers=dict(outcome.request_headers),
        response_headers=dict(outcome.response_headers),
        timings=shapes.Timings(**{n: getattr(outcome.timings, n) for n in TIMING_FIELDS}),
        **_outcome(outcome),
    )


TIMING_FIELDS = shapes.Timings.__struct_fields__
OUTCOME_FIELDS = (
    "status",
    "fault",
    "detail",
    "location",
    "remote_address",
    "response_body",
    "started_at",
    "duration_ms",
)


def _outcome(outcome: Outcome) -> Mapping[str, Any]:
    return {name: getattr(outcome, name) for name in OUTCOME_FIELDS}


def account(found: Account, credentials: str | None, *, now: float) -> account_shapes.Account:
    return account_shapes.Account(
        id=found.id,
        name=found.name,
        provider=found.provider,
        base_url=without_credentials(found.base_url),
        source="environment" if found.from_environment else "api",
        api_key_hint=None if credentials is None else hint(credentials),
        state=found.state,
        trouble=found.trouble,
        list_error=found.verbs.list_error,
        retrieve_error=found.verbs.retrieve_error,
        list_stale=found.verbs.list_stale,
        discover=found.discovers,
        swept_at=_second(found.swept_at),
        succeeded_at=_second(found.succeeded_at),
        unswept=polling.unswept(found, now),
        created_at=int(found.created_at),
    )


def hint(secret: str) -> str:
    """Enough to tell two keys apart; of a short one nothing."""
    return f"…{secret[-HINT_CHARACTERS:]}" if len(secret) >= 4 * HINT_CHARACTERS else "…"


def without_credentials(url: str) -> str:
    """The URL without what may be secret in it: user info and the query."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def key(found: Key, *, shown: str | None = None) -> shapes.Key:
    return shapes.Key(
        id=found.id,
        project_id=found.project_id,
        name=found.name,
        hint=found.hint,
        created_at=int(found.created_at),
        revoked_at=_second(found.revoked_at),
        key=msgspec.UNSET if shown is None else shown,
    )


def project(found: Project) -> shapes.Project:
    return shapes.Project(id=found.id, name=found.name, created_at=int(found.created_at))
