"""The log: one line each, whatever is in it."""

from __future__ import annotations

import json
from typing import Any

import pytest
import structlog

from batchbell.core.model import Status
from batchbell.observability import configure_logging


class Odd:
    def __repr__(self) -> str:
        return "<odd>"


LOOP: list[Any] = []
LOOP.append(LOOP)


@pytest.fixture(autouse=True)
def _configured() -> Any:
    yield
    structlog.reset_defaults()


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ("plain", "plain"),
        (Status.IN_PROGRESS, "in_progress"),
        ("d\u00e9j\u00e0 \U0001f600", "d\u00e9j\u00e0 \U0001f600"),
        ("half \ud83d", "half \ud83d"),
        (2**100, 2**100),
        ({"a": [1, 2.5, None, True]}, {"a": [1, 2.5, None, True]}),
        (Odd(), "<odd>"),
        ({"\u00e9": Odd()}, {"\u00e9": "<odd>"}),
    ],
)
def test_each_line_is_json_in_ascii(
    said: Any, read: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging(level="info", format="json")
    structlog.get_logger("any").info("happened", what=said, batch="batch_1")
    line = capsys.readouterr().err
    assert line.isascii()
    assert line.count("\n") == 1
    found = json.loads(line)
    assert (found["event"], found["level"], found["what"]) == ("happened", "info", read)


@pytest.mark.parametrize("format", ["json", "text"])
def test_a_call_about_several_things_has_a_line_for_each(
    format: str, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging(level="info", format=format)
    facts = [{"batch": f"batch_{n}", "odd": Odd()} for n in range(3)]
    structlog.get_logger("any").info("batch moved", account="openai", each=facts)
    *lines, last = capsys.readouterr().err.split("\n")
    assert (len(lines), last) == (3, "")
    for n, line in enumerate(lines):
        assert all(word in line for word in ("batch moved", "openai", f"batch_{n}", "info"))
        assert "each" not in line
    if format == "json":
        assert [json.loads(line)["batch"] for line in lines] == [one["batch"] for one in facts]
