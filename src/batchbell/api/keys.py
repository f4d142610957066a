"""API keys, and the secret that signs webhooks."""

from __future__ import annotations

from typing import Literal

from batchbell.api.answers import Object, Second
from batchbell.api.fields import ProjectId, Request, Text


class KeyRequest(Request):
    """`project_id` is the id or the name of another project; only `default` may name one."""

    name: Text
    project_id: ProjectId | None = None


class Key(Object, frozen=True, kw_only=True, tag="key"):
    """`key` is there once, in the answer that made it."""

    id: str
    project_id: str
    name: str
    hint: str
    created_at: Second
    revoked_at: Second | None
    key: str | None = None

    def __repr__(self) -> str:
        return f"Key(id={self.id!r}, name={self.name!r}, hint={self.hint!r})"


class KeyDeleted(Object, frozen=True, kw_only=True, tag="key.deleted"):
    id: str
    deleted: Literal[True]


class WebhookSecret(Object, frozen=True, kw_only=True, tag="webhook_secret"):
    secret: str
