"""Make the blocking client from the one that is awaited. `make format` does so.

With `--check`, write nothing, and fail where the file is stale. `make lint` does so.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import unasync

CLIENT = Path(__file__).parents[1] / "src" / "batchbell" / "client"
SOURCE = CLIENT / "async_client.py"
TARGET = CLIENT / "client.py"

HEADER = (
    '"""The client that blocks. GENERATED from `async_client.py` by `make format`: edit that."""'
)
NAMES = {
    "AsyncBatchbell": "Batchbell",
    "AsyncClient": "Client",
    "aclose": "close",
    "aread": "read",
    "aiter_bytes": "iter_bytes",
    "aiter_lines": "iter_lines",
    "aiter_raw": "iter_raw",
    "asyncio": "time",
    "chunks_async": "chunks",
}
PROSE = {"an `async with`": "a `with`", "`aclose()`": "`close()`"}


def blocking(source: str) -> str:
    """The blocking client, formatted as ruff has it."""
    _, quotes, rest = source.removeprefix('"""').partition('"""')
    if not quotes:
        raise ValueError("The source does not begin with a docstring.")
    for awaited, plain in PROSE.items():
        rest = rest.replace(awaited, plain)
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "sync" / TARGET.name
        written = Path(folder) / "async" / TARGET.name
        written.parent.mkdir()
        written.write_text(HEADER + rest, encoding="utf-8")
        rule = unasync.Rule("/async/", "/sync/", additional_replacements=NAMES)
        unasync.unasync_files([str(written)], [rule])
        text = made.read_text(encoding="utf-8")
    # Imports that have become twice the same are joined.
    return _ruff(_ruff(text, "check", "--quiet", "--select", "I", "--fix-only"), "format")


def _ruff(text: str, *command: str) -> str:
    call = [sys.executable, "-m", "ruff", *command, "--stdin-filename", str(TARGET), "-"]
    done = subprocess.run(call, input=text, capture_output=True, text=True, check=True)  # noqa: S603
    return done.stdout


def main(arguments: list[str]) -> int:
    """The exit code."""
    wanted = blocking(SOURCE.read_text(encoding="utf-8"))
    if TARGET.exists() and TARGET.read_text(encoding="utf-8") == wanted:
        return 0
    if "--check" in arguments:
        print(f"{TARGET.name} is stale: run `make format`.", file=sys.stderr)  # noqa: T201
        return 1
    TARGET.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
