"""The input file of a batch, of requests as the dialect writes them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from batchbell import threads
from batchbell.providers.protocol import Lines

WRITTEN_BYTES = 2**20
"""Written to the disk at once."""


@asynccontextmanager
async def written(requests: Path, lines: Lines) -> AsyncIterator[Path]:
    """The file, beside that with the requests in OpenAI's shape, for as long as it is needed."""
    own = requests.with_suffix(".own")
    try:
        await threads.disk(_write, requests, own, lines)
        yield own
    finally:
        await threads.disk(partial(own.unlink, missing_ok=True))


def _write(requests: Path, target: Path, lines: Lines) -> None:
    with requests.open("rb") as source, target.open("wb", WRITTEN_BYTES) as file:
        for line in source:
            file.write(lines.own(line) + b"\n")
