"""API keys."""

from __future__ import annotations

from batchbell.api.fields import ProjectId, Request, Text


class KeyRequest(Request):
    """`project_id` is the id or the name of another project; only `default` may name one."""

    name: Text
    project_id: ProjectId | None = None
