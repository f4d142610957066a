"""Batches that are made through the gateway."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from batchbell.api.fields import Request, WebhookUrl
from batchbell.api.watches import Webhook


class BatchRequest(BaseModel):
    """What the provider takes, and `webhook`, which is kept here.

    `metadata.webhook_url` does the same, and goes on to the provider with the rest.
    """

    model_config = ConfigDict(extra="allow")

    input_file_id: str
    endpoint: str
    completion_window: str
    metadata: dict[str, str] | None = None
    webhook: Webhook | None = None


class MetadataWebhook(Request):
    """The pair of a batch's metadata that names a webhook."""

    webhook_url: WebhookUrl
