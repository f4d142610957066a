"""The master key of tests, for processes that need nothing else of `conftest`."""

from __future__ import annotations

MASTER_KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
"""Seals the secrets of tests on PostgreSQL; on SQLite there is a key file."""


def master_key(database_url: str) -> str | None:
    """What BATCHBELL_MASTER_KEY is for this database in tests."""
    return None if database_url.startswith("sqlite") else MASTER_KEY
