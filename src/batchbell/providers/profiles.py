"""The hosts that are known. One that speaks a known dialect is added here, and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping

from batchbell.core.limits import Limits
from batchbell.providers.profile import Auth, ExpiryRange, Profile

DAY_SECONDS = 86_400

OPENAI = Profile(
    name="openai",
    title="OpenAI",
    dialect="openai",
    base_url="https://api.openai.com/v1",
    key_variables=("OPENAI_API_KEY",),
    base_url_variable="OPENAI_BASE_URL",
    limits=Limits(lines=50_000, bytes=200 * 10**6),
    expiry=ExpiryRange(floor_seconds=3_600, ceiling_seconds=30 * DAY_SECONDS),
    retention_seconds=30 * DAY_SECONDS,
)
"""https://platform.openai.com/docs/guides/batch and the OpenAPI document, November 2026."""

ANTHROPIC = Profile(
    name="anthropic",
    title="Anthropic",
    dialect="anthropic",
    base_url="https://api.anthropic.com",
    key_variables=("ANTHROPIC_API_KEY",),
    base_url_variable="ANTHROPIC_BASE_URL",
    auth=Auth("x-api-key", ""),
    headers={"anthropic-version": "2023-06-01"},
    limits=Limits(
        lines=100_000,
        bytes=256 * 10**6,
        custom_id_characters=64,
        custom_id=r"[a-zA-Z0-9_-]{1,64}",
    ),
    retention_seconds=29 * DAY_SECONDS,
    retained_from_creation=True,
    page_size=1_000,
    batch_ids=r"msgbatch_[A-Za-z0-9]+",
)
"""https://docs.claude.com/en/docs/build-with-claude/batch-processing, November 2026. Results are
kept for 29 days after the batch was made, not after its end."""

GEMINI = Profile(
    name="gemini",
    title="Gemini API",
    dialect="gemini",
    base_url="https://generativelanguage.googleapis.com",
    key_variables=("GOOGLE_API_KEY", "GEMINI_API_KEY"),
    base_url_variable="GOOGLE_GEMINI_BASE_URL",
    auth=Auth("x-goog-api-key", ""),
    limits=Limits(bytes=2 * 10**9),
    retention_seconds=2 * DAY_SECONDS,
    answers_in_order=True,
    submissions=False,
    batch_ids=r"batches/[A-Za-z0-9_-]+",
)
"""https://ai.google.dev/gemini-api/docs/batch-api and the SDK `google-genai` 3.6, November 2026. No
most requests are named. Files are kept for 48 hours; nothing longer is said of results."""

PROFILES: Mapping[str, Profile] = {profile.name: profile for profile in (OPENAI, ANTHROPIC, GEMINI)}

DEFAULT = OPENAI
"""What an account that names no provider is of, and what messages take as their example."""
