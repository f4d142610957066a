"""What a provider means that refuses a file or a batch."""

from __future__ import annotations

import pytest

from batchbell.core import governor, refusals


@pytest.mark.parametrize(
    ("code", "message", "about"),
    [
        (None, "Invalid file id", True),
        ("invalid_file", "x", True),
        (None, "Cannot find file file-abc.", True),
        ("invalidPayload", "The input file is not in the processed state.", True),
        (None, "The File abc is not in an ACTIVE state and usage is not allowed.", True),
        (None, "No such File object: file-1", True),
        (None, "File file-1 is still processing", True),
        (None, "The file has expired.", True),
        (None, "File is not ready yet", True),
        (None, "Invalid value for 'endpoint'.", False),
        (None, "Unsupported completion_window.", False),
    ],
)
def test_refusals_about_the_file(code: str | None, message: str, about: bool) -> None:
    assert refusals.is_about_file(code, message) is about


@pytest.mark.parametrize(
    ("asked", "message", "seconds"),
    [
        (3600, "expires_after.seconds must be between 259200 and 2592000", 259_200),
        (9_999_999, "expires_after.seconds must be between 259,200 and 2,592,000.", 2_592_000),
        (3600, "expires_after must be at least 86400 seconds", 86_400),
        (3600, "expires_after is not supported", None),
        (3600, "expires_after.seconds is 3600", None),
        (None, "between 259200 and 2592000", None),
    ],
)
def test_the_nearest_time_that_a_host_allows(
    asked: int | None, message: str, seconds: int | None
) -> None:
    assert refusals.allowed_seconds(asked, message) == seconds


@pytest.mark.parametrize(
    ("code", "message", "no_room"),
    [
        ("token_limit_exceeded", "x", True),
        (None, "Enqueued token limit reached for gpt-5-mini.", True),
        (None, "You exceeded the maximum number of concurrent batches", True),
        ("tooManyBatches", "Too many active batches: limit 100", True),
        ("quota_exceeded", "The quota is used up.", True),
        (None, "Invalid model", False),
        (None, None, False),
    ],
)
def test_no_room_in_the_words_of_many_hosts(
    code: str | None, message: str | None, no_room: bool
) -> None:
    assert governor.says_no_room(code, message) is no_room
