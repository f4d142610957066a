"""Watches: who wants to hear of a batch."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from batchbell.api.answers import Answer, EventWord, Metadata, Object, Second, about, one_of
from batchbell.api.fields import (
    BatchEvents,
    BatchId,
    Conflict,
    EndpointId,
    Pairs,
    Request,
    Results,
    Text,
    WebhookUrl,
    one_target,
)
from batchbell.core.attachment import ResultsMode
from batchbell.core.model import Dialect

BULK_MAX = 1000


class AwaiterRequest(Request):
    id: BatchId
    url: WebhookUrl = Field(alias="webhookUrl")
    account: Text | None = None


class WatchChanges(Request):
    """What is left out stays; what is null is as if it had never been set."""

    events: BatchEvents | None = None
    metadata: Pairs | None = None
    results: Results | None = None


class Webhook(WatchChanges):
    """Who is to be called: `url` or `endpoint_id`."""

    url: WebhookUrl | None = None
    endpoint_id: EndpointId | None = None

    @classmethod
    def conflicts(cls, sound: Mapping[str, Any], spoilt: Collection[str]) -> Iterator[Conflict]:
        if "url" in spoilt or "endpoint_id" in spoilt:
            return
        yield from one_target(sound)
        if sound.get("url") is None and sound.get("endpoint_id") is None:
            field = "endpoint_id" if "endpoint_id" in sound else "url"
            yield Conflict(field, "is required.", "missing_field")


class WatchRequest(Webhook):
    """Either `url` or `endpoint_id` must be there, and not both."""

    batch_id: BatchId
    account: Text | None = None


class WatchesRequest(Request):
    watches: Annotated[list[WatchRequest], Field(min_length=1, max_length=BULK_MAX)]


class Watch(Object, frozen=True, kw_only=True, tag="watch"):
    id: str
    batch_id: str
    url: str
    events: tuple[EventWord, ...]
    metadata: Metadata
    endpoint_id: str
    dialect: Annotated[str, one_of(Dialect), about("`awaiter`: made through `/batch-awaiter`.")]
    created_at: Second
    results: Annotated[str, one_of(ResultsMode)]


class WatchList(Object, frozen=True, kw_only=True, tag="list"):
    """The watches that answer a list, in its order."""

    data: tuple[Watch, ...]
    created: Annotated[int, about("How many of them are new.")]


class WatchDeleted(Object, frozen=True, kw_only=True, tag="watch.deleted"):
    id: str
    deleted: Literal[True]


class AwaiterAnswer(Answer, frozen=True, kw_only=True, rename={"batch_id": "batchId"}):
    message: str
    batch_id: str
