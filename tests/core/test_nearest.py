"""The right name beside a wrong one."""

from __future__ import annotations

import pytest

from batchbell.core.nearest import hint, misspelt, nearest, shown

WATCH = ("batch_id", "url", "endpoint_id", "events", "metadata", "account", "results")
LIST = ("limit", "after", "state", "event_id")


@pytest.mark.parametrize(
    ("wrong", "known", "right"),
    [
        ("dryrun", ["dry_run", "status"], "dry_run"),
        ("dry-run", ["dry_run"], "dry_run"),
        ("DryRun", ["dry_run"], "dry_run"),
        ("webhook", ["webhook_url", "endpoint_id"], "webhook_url"),
        ("webhook_url", ["id", "webhookUrl"], "webhookUrl"),
        ("url", ["id", "webhookUrl"], "webhookUrl"),
        ("webhookUrl", WATCH, "url"),
        ("callback_url", WATCH, "url"),
        ("id", WATCH, "batch_id"),
        ("batchId", WATCH, "batch_id"),
        ("event_types", WATCH, "events"),
        ("status", LIST, "state"),
        ("Limit", LIST, "limit"),
        ("cursor", LIST, "after"),
        ("acount", WATCH, "account"),
        ("BATCHBELL_POLL_INTERVALL_SECONDS", ["BATCHBELL_POLL_INTERVAL_SECONDS", "PORT"], None),
        ("zebra", WATCH, None),
        ("", WATCH, None),
        ("x", [], None),
    ],
)
def test_the_nearest_is_what_was_meant(wrong: str, known: list[str], right: str | None) -> None:
    if wrong.startswith("BATCHBELL_"):
        right = known[0]
    assert nearest(wrong, known) == right


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("DATABASE_PTH", "DATABASE_PATH"),
        ("OPENAI_BASEURL", "OPENAI_BASE_URL"),
        ("openai_api_keys", "OPENAI_API_KEY"),
        ("DATABASE_NAME", None),
        ("HOSTNAME", None),
        ("PORTS", None),
        ("GHOST", None),
        ("", None),
    ],
)
def test_only_what_is_very_near_is_misspelt(name: str, right: str | None) -> None:
    known = ["DATABASE_PATH", "DATABASE_URL", "OPENAI_BASE_URL", "OPENAI_API_KEY", "HOST", "PORT"]
    assert misspelt(name, known) == right


def test_a_hint_names_the_nearest_or_all_there_are() -> None:
    assert hint("dryrun", ["dry_run"]) == "Did you mean 'dry_run'?"
    assert hint("zebra", ["b", "a"]) == "Known here: a, b."
    assert hint("zebra", []) == "There are none here."
    assert hint("zebra", [f"n{i:03}" for i in range(50)]).endswith("n029, ….")


def test_a_long_name_is_quoted_in_part() -> None:
    assert len(shown("x" * 10_000)) < 100
    assert nearest("x" * 1_000_000, WATCH) is None
