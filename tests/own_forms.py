"""What submissions to each provider are made of, for tests that run over all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from batchbell.sandbox import Sandbox, SandboxProvider

KEY = "sk-sandbox"


@dataclass(frozen=True)
class OwnForm:
    """A provider, its account, and its lines."""

    variables: Callable[[Sandbox], dict[str, str]]
    """The environment that makes the account of the provider's name."""
    played: Callable[[Sandbox], SandboxProvider]
    """Who plays the provider."""
    line: Callable[[int], dict[str, Any]]
    """A request, whose custom_id is `r{n}`."""
    id_field: str = "id"
    """What the provider calls the id of a batch."""
    options: Mapping[str, str] = field(default_factory=dict)
    """What is said beside the requests."""


def _anthropic(number: int) -> dict[str, Any]:
    messages = [{"role": "user", "content": f"question {number}"}]
    params = {"model": "claude-sonnet-5", "max_tokens": 100, "messages": messages}
    return {"custom_id": f"r{number}", "params": params}


def _mistral(number: int) -> dict[str, Any]:
    messages = [{"role": "user", "content": f"question {number}"}]
    return {"custom_id": f"r{number}", "body": {"max_tokens": 100, "messages": messages}}


def _gemini(number: int) -> dict[str, Any]:
    contents = [{"role": "user", "parts": [{"text": f"question {number}"}]}]
    return {"key": f"r{number}", "request": {"contents": contents}}


OWN_FORMS: Mapping[str, OwnForm] = {
    "anthropic": OwnForm(
        lambda sandbox: {"ANTHROPIC_API_KEY": KEY, "ANTHROPIC_BASE_URL": sandbox.url},
        lambda sandbox: sandbox.anthropic,
        _anthropic,
    ),
    "gemini": OwnForm(
        lambda sandbox: {"GEMINI_API_KEY": KEY, "GOOGLE_GEMINI_BASE_URL": sandbox.gemini_url},
        lambda sandbox: sandbox.gemini,
        _gemini,
        id_field="name",
        options={"model": "gemini-3.5-flash"},
    ),
    "mistral": OwnForm(
        lambda sandbox: {"MISTRAL_API_KEY": KEY, "MISTRAL_BASE_URL": sandbox.mistral_url},
        lambda sandbox: sandbox.mistral,
        _mistral,
        options={"model": "mistral-small-latest"},
    ),
}
