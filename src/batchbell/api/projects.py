"""Projects."""

from __future__ import annotations

from batchbell.api.answers import Object, Second
from batchbell.api.fields import Name, Request


class ProjectRequest(Request):
    name: Name


class Project(Object, frozen=True, kw_only=True, tag="project"):
    id: str
    name: str
    created_at: Second
