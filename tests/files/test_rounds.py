"""Parts and rounds of a submission: what is tried again, and what is joined."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from batchbell.files.lines import answer
from batchbell.files.rounds import Rounds, gather_passing, join


def write(path: Path, lines: Sequence[dict[str, Any]]) -> Path:
    path.write_bytes(b"".join(json.dumps(line).encode() + b"\n" for line in lines))
    return path


def a_request(id: str) -> dict[str, Any]:
    return {"custom_id": id, "method": "POST", "url": "/v1/responses", "body": {"model": "m"}}


def answered(id: str, status: int = 200, text: str = "") -> dict[str, Any]:
    usage = {"input_tokens": 2, "output_tokens": 1}
    body = {"model": "m", "text": text, "usage": usage}
    return {"custom_id": id, "response": {"status_code": status, "body": body}, "error": None}


def missing(id: str, code: str) -> dict[str, Any]:
    return {"custom_id": id, "response": None, "error": {"code": code, "message": ""}}


@pytest.mark.parametrize(
    ("line", "passing"),
    [
        (answered("a"), False),
        (answered("a", 400), False),
        (answered("a", 404), False),
        (answered("a", 429), True),
        (answered("a", 500), True),
        (answered("a", 503), True),
        (missing("a", "batch_expired"), True),
        (missing("a", "batch_cancelled"), True),
        (missing("a", "not_run"), True),
        (missing("a", "server_error"), True),
        (missing("a", "request_timeout"), True),
        (missing("a", "invalid_request"), False),
        ({"custom_id": "a"}, True),
        (answered("a", 0), True),
        (answered("a", 408), True),
        (answered("a", 403), False),
        ({**answered("a"), "error": {"code": "server_error"}}, True),
        ({**answered("a"), "error": {"code": "content_filter"}}, False),
    ],
)
def test_which_answers_may_be_better_another_time(line: dict[str, Any], passing: bool) -> None:
    found = answer(json.dumps(line).encode())
    assert found is not None
    assert found.passing is passing


def test_only_what_passes_is_gathered(tmp_path: Path) -> None:
    requests = write(tmp_path / "in", [a_request(id) for id in "abcd"])
    answers = write(
        tmp_path / "out",
        [answered("a"), answered("b", 500), answered("c", 400), missing("d", "batch_expired")],
    )
    gathered = gather_passing(requests, answers, tmp_path / "again")
    lines = [json.loads(line) for line in (tmp_path / "again").read_bytes().splitlines()]
    assert [line["custom_id"] for line in lines] == ["b", "d"]
    assert (gathered.lines, gathered.size) == (2, (tmp_path / "again").stat().st_size)


def test_rounds_are_put_in_their_place_and_parts_one_after_the_other(tmp_path: Path) -> None:
    first = Rounds(
        requests=write(tmp_path / "1.in", [a_request(id) for id in "abc"]),
        answers=[
            write(tmp_path / "1.out", [answered("a"), answered("b", 500), answered("c", 500)]),
            write(tmp_path / "2.out", [answered("c", 500), answered("b", text="late")]),
        ],
        missing_code="not_run",
        missing_message="",
    )
    second = Rounds(
        requests=write(tmp_path / "2.in", [a_request(id) for id in "xy"]),
        answers=[],
        missing_code="batch_cancelled",
        missing_message="It was.",
    )
    target = io.BytesIO()
    tally = join([first, second], target)
    lines = [json.loads(line) for line in target.getvalue().splitlines()]
    assert [line["custom_id"] for line in lines] == list("abcxy")
    assert lines[1]["response"]["body"]["text"] == "late"
    assert lines[3]["error"] == {"code": "batch_cancelled", "message": "It was."}
    assert (tally.lines, tally.succeeded, tally.failed, tally.not_run) == (5, 2, 1, 2)
    assert (tally.size, tally.notes) == (len(target.getvalue()), ())
    assert tally.usage["m"].requests == 3
