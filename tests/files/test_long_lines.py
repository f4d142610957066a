"""How much memory one thread needs for long lines; `batchbell.threads` says how many there are."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from batchbell.core.limits import Limits
from batchbell.files.merge import merge
from batchbell.files.preflight import prepare

LINE_BYTES = 8 * 2**20
TIMES_MAX = 4.0
"""What docs/explanation/performance.md says."""
TEXTS = {"plain": "x" * LINE_BYTES, "wide": "\U0001f600" + "x" * LINE_BYTES}


def requests(text: str) -> bytes:
    body = {"model": "m", "input": text}
    lines = [{"custom_id": f"r{n}", "method": "POST", "url": "/v1/responses", "body": body}
             for n in range(2)]  # fmt: skip
    return b"".join(json.dumps(one, ensure_ascii=False).encode() + b"\n" for one in lines)


def answers(text: str) -> bytes:
    body = {"model": "m", "output": text, "usage": {"input_tokens": 1, "output_tokens": 1}}
    lines = [{"custom_id": f"r{n}", "response": {"status_code": 200, "body": body}, "error": None}
             for n in (1, 0)]  # fmt: skip
    return b"".join(json.dumps(one, ensure_ascii=False).encode() + b"\n" for one in lines)


def checked(folder: Path, text: str) -> Callable[[], int]:
    file = folder / "requests"
    file.write_bytes(requests(text))

    def work() -> int:
        with file.open("rb") as source:
            return prepare(source, folder, limits=Limits()).lines

    return work


def merged(folder: Path, text: str) -> Callable[[], int]:
    input, output = folder / "input", folder / "output"
    input.write_bytes(requests(text))
    output.write_bytes(answers(text))

    def work() -> int:
        with (folder / "merged").open("wb") as target:
            tally = merge(input, [output], target, missing_code="x", missing_message="x")
        return tally.succeeded

    return work


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("kind", [checked, merged])
def test_a_long_line_takes_a_few_times_its_own_size(
    kind: Callable[[Path, str], Callable[[], int]], text: str, tmp_path: Path
) -> None:
    work = kind(tmp_path, text)
    tracemalloc.start()
    try:
        assert work() == 2
        times = tracemalloc.get_traced_memory()[1] / LINE_BYTES
    finally:
        tracemalloc.stop()
    assert times <= TIMES_MAX
