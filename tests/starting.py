"""Processes that the nursery forks for us, seen as `asyncio.subprocess.Process` shows others."""

from __future__ import annotations

import asyncio
import atexit
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

INHERITED = ("PATH", "PYTHONPATH", "SSL_CERT_FILE")
"""What processes have of our own environment."""
NURSERY = Path(__file__).with_name("nursery.py")


class Forked:
    """A process of ours, until its exit code was told."""

    def __init__(
        self, pid: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._writer = writer
        self._ended = asyncio.create_task(self._listen(reader))

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        self.returncode = int(await reader.readline())
        self._writer.close()
        await self._writer.wait_closed()

    async def wait(self) -> int:
        await asyncio.shield(self._ended)
        assert self.returncode is not None
        return self.returncode

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            self._writer.write(b"%d\n" % number)


async def start(
    program: str,
    *,
    environment: Mapping[str, str],
    log: Path,
    arguments: Sequence[str] = (),
    folder: Path | None = None,
    read: Path | None = None,
    errors: Path | None = None,
) -> Forked:
    """Run `python -c program` as it goes on after its imports; what it says is in the log.

    It reads from `read`, and complains in `errors` where that is another file than the log.
    """
    reader, writer = await asyncio.open_unix_connection(nursery())
    order = {
        "program": program,
        "arguments": arguments,
        "environment": dict(environment),
        "folder": str(folder or Path.cwd()),
        "streams": [str(read or os.devnull), str(log), str(errors or log)],
    }
    writer.write(json.dumps(order).encode() + b"\n")
    # Not before it is there: what is said before that is taken for a part of the order.
    return Forked(int(await reader.readline()), reader, writer)


def inherited() -> dict[str, str]:
    return {name: os.environ[name] for name in INHERITED if name in os.environ}


@cache
def nursery() -> str:
    """Where the nursery of this process listens, which ends with it."""
    folder = tempfile.mkdtemp(prefix="batchbell-")
    path = f"{folder}/nursery"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(128)
        number = listener.fileno()
        process = subprocess.Popen(
            [sys.executable, "-P", str(NURSERY), str(number)],
            pass_fds=[number],
            stdin=subprocess.PIPE,
            env=inherited(),
        )

    def end() -> None:
        with process:
            pass  # its standard input ends
        shutil.rmtree(folder)

    atexit.register(end)
    return path
