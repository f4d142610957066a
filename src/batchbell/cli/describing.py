"""What the tables show of each thing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from batchbell.cli.printing import moment

if TYPE_CHECKING:
    from batchbell.client import Batch, Delivery, Endpoint, Event, Watch

Look = tuple[Sequence[str], Callable[[Any], Sequence[object]]]
"""Column heads, and what makes a row of an item."""


def _batch_row(batch: Batch) -> Sequence[object]:
    extras = batch.batchbell
    return (
        batch.id,
        extras.status,
        extras.outcome,
        counted(batch),
        extras.account,
        moment(extras.registered_at),
        moment(extras.ended_at),
        extras.reason or extras.trouble,
    )


def _watch_row(watch: Watch) -> Sequence[object]:
    events = " ".join(event.removeprefix("batch.") for event in watch.events)
    return watch.id, watch.batch_id, watch.url, events, moment(watch.created_at)


def _event_row(event: Event) -> Sequence[object]:
    return event.id, event.type, event.data.get("id"), moment(event.created_at)


def _delivery_row(delivery: Delivery) -> Sequence[object]:
    return (
        delivery.id,
        delivery.state,
        delivery.event_type,
        delivery.batch_id,
        delivery.attempt_count,
        delivery.last_status,
        moment(delivery.next_attempt_at),
        delivery.event_id,
        delivery.needs_you or delivery.reason or delivery.last_error,
    )


def _endpoint_row(endpoint: Endpoint) -> Sequence[object]:
    events = " ".join(event.removeprefix("batch.") for event in endpoint.event_types)
    return (
        endpoint.id,
        "(watched)" if endpoint.implied else endpoint.name,
        endpoint.url,
        events,
        endpoint.state,
        moment(endpoint.state_since),
        endpoint.reason,
    )


TABLES: dict[str, Look] = {
    "batches": (
        ["batch", "status", "outcome", "requests", "account", "registered", "ended", "because"],
        _batch_row,
    ),
    "watches": (["watch", "batch", "url", "events", "made"], _watch_row),
    "events": (["event", "type", "about", "happened"], _event_row),
    "deliveries": (
        ["delivery", "state", "event", "batch", "tries", "HTTP", "next", "event id", "because"],
        _delivery_row,
    ),
}
ENDPOINTS: Look = (
    ["endpoint", "name", "url", "events", "state", "since", "because"],
    _endpoint_row,
)


def counted(batch: Batch) -> str | None:
    """Done of total, and how many of these failed."""
    counts = batch.request_counts
    if counts is None:
        return None
    done = f"{counts.completed + counts.failed:,}/{counts.total:,}"
    return f"{done}, {counts.failed:,} failed" if counts.failed else done


def facts(thing: Any) -> Iterator[tuple[str, object]]:
    """Every field of an answer that says something, one by one; what is nested as `a.b`."""
    for name in thing.__struct_fields__:
        value = getattr(thing, name)
        if name == "attempts":
            continue
        if hasattr(value, "__struct_fields__"):
            yield from ((f"{name}.{inner}", told) for inner, told in facts(value))
        else:
            yield name, _fact(name, value)


def _fact(name: str, value: object) -> object:
    if isinstance(value, bool) or value in (None, "", (), {}):
        return value if isinstance(value, bool) else None
    if isinstance(value, int | float) and name.endswith("_at"):
        return moment(value)
    if isinstance(value, list | tuple) and all(isinstance(one, str) for one in value):
        return ", ".join(value)
    if isinstance(value, dict | list | tuple):
        return _as_json(value)
    return value


def _as_json(value: object) -> str:
    import msgspec

    return msgspec.json.encode(value).decode()
