"""Projects."""

from __future__ import annotations

from batchbell.api.fields import Name, Request


class ProjectRequest(Request):
    name: Name
