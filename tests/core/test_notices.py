"""What is told of endpoints, accounts and deliveries, and the bytes of it."""

from __future__ import annotations

import json

import pytest
from msgspec.structs import replace

from batchbell.core.errors import ProviderAuthError, ProviderError, ProviderUnavailable
from batchbell.core.health import Change, endpoint_after
from batchbell.core.model import DEFAULT_EVENTS, Account, Endpoint, EventType, Outcome
from batchbell.core.notices import (
    UNREACHABLE_FAILURES,
    Notice,
    failures_after,
    of_account,
    of_change,
)
from batchbell.core.payload import BODY_MAX_BYTES, notice_body
from batchbell.core.samples import sample_body

from .making import NOW, an_endpoint

OK = Outcome(status=200)
DOWN = Outcome(status=500)
GONE = Outcome(status=410)
HOUR = 3600.0
ACCOUNT = Account(
    id="acc_1", project_id="default", name="openai", provider="openai", base_url="https://x/"
)


def heard(endpoint: Endpoint, outcome: Outcome, now: float) -> tuple[Endpoint, list[Notice]]:
    """What an outcome makes of an endpoint, and what is told of it."""
    after = endpoint_after(endpoint, [(outcome, 5.0)], now)
    return after, of_change(Change(endpoint, after, now))


def told_after(*steps: tuple[float, Outcome]) -> list[tuple[float, str]]:
    """When which notice was told, with these outcomes so long after each other's start."""
    endpoint, told = an_endpoint(), []
    for seconds, outcome in steps:
        endpoint, notices = heard(endpoint, outcome, NOW + seconds)
        told += [(seconds, notice.type.value) for notice in notices]
    return told


def test_an_outage_is_told_from_its_beginning_to_its_end() -> None:
    moments = [0, 10, 20, 30, 60, 90, HOUR, 2 * HOUR, 24 * HOUR, 48 * HOUR, 72 * HOUR]
    steps = [(float(at), DOWN) for at in moments]
    assert told_after(*steps, (80 * HOUR, OK), (81 * HOUR, OK)) == [
        (60, "endpoint.failing"),
        (HOUR, "endpoint.failing"),
        (24 * HOUR, "endpoint.failing"),
        (72 * HOUR, "endpoint.failing"),
        (80 * HOUR, "endpoint.recovered"),
    ]


def test_a_short_trouble_is_not_told() -> None:
    assert told_after((0, DOWN), (5, DOWN), (20, OK)) == []


def test_an_endpoint_that_is_gone_is_told_once() -> None:
    assert told_after((0, GONE), (5, GONE)) == [(0, "endpoint.disabled")]


def test_an_end_of_an_outage_says_how_long_it_was() -> None:
    endpoint = replace(an_endpoint(), name="nightly")
    for seconds in (0, 20, 40, 50, 60):
        endpoint, _ = heard(endpoint, DOWN, NOW + seconds)
    _, [notice] = heard(endpoint, OK, NOW + 90)
    assert notice.endpoint_id == endpoint.id
    assert dict(notice.data) == {
        "id": endpoint.id,
        "name": "nightly",
        "url": endpoint.url,
        "state": "active",
        "reason": None,
        "failures": 5,
        "failing_since": int(NOW),
        "failing_seconds": 90,
        "opened_at": None,
        "next_probe_at": None,
    }


def spell(*errors: ProviderError) -> list[int]:
    """After which of these failed sweeps it is told that the account cannot be reached."""
    account, told = ACCOUNT, []
    for number, error in enumerate(errors, start=1):
        failures = failures_after(account, error)
        if of_account(account, failures=failures, reason="no", since=NOW, now=NOW):
            told.append(number)
        account = replace(account, failures=failures)
    return told


@pytest.mark.parametrize(
    ("errors", "told"),
    [
        ([ProviderUnavailable("no")] * (UNREACHABLE_FAILURES - 1), []),
        ([ProviderUnavailable("no")] * 9, [UNREACHABLE_FAILURES]),
        ([ProviderAuthError("no")] * 9, [1]),
        ([ProviderUnavailable("no"), ProviderAuthError("no"), ProviderUnavailable("no")], [2]),
    ],
)
def test_an_account_that_cannot_be_reached_is_told_once(
    errors: list[ProviderError], told: list[int]
) -> None:
    assert spell(*errors) == told


def test_words_of_others_are_cut_in_a_notice() -> None:
    notice = of_account(ACCOUNT, failures=3, reason="\U0001f514" * 9999, since=NOW, now=NOW)
    assert notice is not None
    body = notice_body("evt_1", notice)
    assert len(body) < BODY_MAX_BYTES / 10
    assert json.loads(body)["data"]["reason"].endswith("…")


@pytest.mark.parametrize("type_", EventType)
def test_there_is_a_test_event_of_every_type(type_: EventType) -> None:
    body = json.loads(sample_body("evt_1", type_, project_id="default", now=NOW))
    assert (body["id"], body["object"], body["type"]) == ("evt_1", "event", type_)
    assert body["created_at"] == int(NOW)
    said = body["data"].get("metadata") or body["data"]
    assert said["test"] in (True, "true")


def test_a_test_event_has_the_fields_of_a_real_one() -> None:
    _, [gone] = heard(an_endpoint(), GONE, NOW)
    unreachable = of_account(ACCOUNT, failures=3, reason="no", since=NOW, now=NOW)
    assert unreachable is not None
    for notice in (gone, unreachable):
        sample = json.loads(sample_body("evt_1", notice.type, project_id="default", now=NOW))
        assert list(sample["data"]) == [*notice.data, "test"]


def test_the_defaults_are_of_batches() -> None:
    assert all(type_.of_batch for type_ in DEFAULT_EVENTS)
    assert not EventType.PING.of_batch
