"""Headers of a call afterwards: every name, no secret, and only stored what nothing else tells."""

from __future__ import annotations

from batchbell.core import sent_headers
from batchbell.core.endpoint import Endpoint, request_headers

ENDPOINT = Endpoint(
    id="ep_1",
    project_id="prj_1",
    url="https://receiver.example/hook",
    secrets=("whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX",),
    headers={"X-Api-Key": "hunter2", "X-Plain": "also ours to keep"},
)


def called(*, timestamp: int = 1_000, attempt: int = 3) -> dict[str, str]:
    return request_headers(
        ENDPOINT,
        user_agent="Batchbell/1",
        message_id="evt_1",
        timestamp=timestamp,
        body=b"{}",
        attempt=attempt,
    )


def test_names_are_kept_and_what_may_be_secret_is_masked() -> None:
    assert sent_headers.shown(called()) == {
        "X-Api-Key": "***",
        "X-Plain": "***",
        "content-type": "application/json",
        "user-agent": "Batchbell/1",
        "webhook-id": "evt_1",
        "webhook-timestamp": "1000",
        "webhook-signature": "***",
        "webhook-attempt": "3",
    }


def test_only_what_nothing_else_tells_is_left_to_store() -> None:
    told = sent_headers.implied(message_id="evt_1", attempt=3, started_at=1_000.7)
    assert sent_headers.beyond(sent_headers.shown(called()), told) == {
        "X-Api-Key": "***",
        "X-Plain": "***",
        "user-agent": "Batchbell/1",
        "webhook-signature": "***",
    }


def test_a_second_that_passed_before_the_call_is_stored() -> None:
    told = sent_headers.implied(message_id="evt_1", attempt=3, started_at=1_001.0)
    assert sent_headers.beyond(called(), told)["webhook-timestamp"] == "1000"
