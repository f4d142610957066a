"""The hosts that are known. One that speaks a known dialect is added here, and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping

from batchbell.core.limits import Limits
from batchbell.providers.profile import ExpiryRange, Profile

DAY_SECONDS = 86_400

OPENAI = Profile(
    name="openai",
    title="OpenAI",
    dialect="openai",
    base_url="https://api.openai.com/v1",
    key_variable="OPENAI_API_KEY",
    base_url_variable="OPENAI_BASE_URL",
    limits=Limits(lines=50_000, bytes=200 * 10**6),
    expiry=ExpiryRange(floor_seconds=3_600, ceiling_seconds=30 * DAY_SECONDS),
    retention_seconds=30 * DAY_SECONDS,
)
"""https://platform.openai.com/docs/guides/batch and the OpenAPI document, November 2026."""

PROFILES: Mapping[str, Profile] = {profile.name: profile for profile in (OPENAI,)}

DEFAULT = OPENAI
"""What an account that names no provider is of, and what messages take as their example."""
