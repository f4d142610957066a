"""What is sent to make a batch, and how an error is answered that may be the provider's."""

from __future__ import annotations

from msgspec import Struct

from batchbell.core.attachment import ResultsMode
from batchbell.web.shapes import Events, Pairs, WebhookUrl


class Wish(Struct, frozen=True, kw_only=True):
    """Who is to be told of a batch: `url` or `endpoint_id` must be there."""

    url: WebhookUrl | None = None
    endpoint_id: str | None = None
    events: Events | None = None
    metadata: Pairs | None = None
    results: ResultsMode | None = None


class BatchRequest(Struct, frozen=True, kw_only=True):
    """What the provider takes, and `webhook`, which is kept here.

    `metadata.webhook_url` is a wish, too, and goes on to the provider with the rest.
    """

    input_file_id: str
    endpoint: str
    completion_window: str
    metadata: dict[str, str] | None = None
    webhook: Wish | None = None


class PassedError(Struct, frozen=True, kw_only=True):
    message: str | None = None
    type: str | None = None
    param: str | None = None
    code: str | int | None = None


class PassedErrorBody(Struct, frozen=True, kw_only=True):
    """An error of ours, or one that the provider answered."""

    error: PassedError | str
