"""How the server is, and what it is."""

from __future__ import annotations

from typing import Annotated, Literal

from batchbell.api.answers import Answer, about, one_of


class Health(Answer, frozen=True, kw_only=True):
    status: Literal["ok"]


class Readiness(Answer, frozen=True, kw_only=True):
    status: Annotated[str, one_of(("ready", "not_ready"))]
    reasons: Annotated[tuple[str, ...], about("Why requests should go elsewhere.")]
    warnings: Annotated[
        tuple[str, ...],
        about(
            "What does not get on, though the server can be asked: for people and alerts, and no"
            " reason to send requests elsewhere."
        ),
    ]

    @property
    def ready(self) -> bool:
        """Whether the server can work."""
        return self.status == "ready"


class Index(Answer, frozen=True, kw_only=True):
    name: Literal["batchbell"]
    version: str
    docs: str
    openapi: str
