"""A whole Batchbell server: the process that users start."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from bench.provider import API_KEY
from bench.run import ROOT

START_SECONDS = 60.0
STOP_SECONDS = 25.0


@dataclass(frozen=True)
class Server:
    """A running one."""

    url: str
    pid: int


@contextlib.asynccontextmanager
async def serving(
    folder: Path, database_url: str, base_url: str, *, tree: Path = ROOT, **environment: str
) -> AsyncIterator[str]:
    """Run `batchbell serve` of this tree; yields its URL. Its log goes to a file, as JSON."""
    async with started(folder, database_url, base_url, tree=tree, **environment) as server:
        yield server.url


@contextlib.asynccontextmanager
async def started(
    folder: Path, database_url: str, base_url: str, *, tree: Path = ROOT, **environment: str
) -> AsyncIterator[Server]:
    """As `serving`, for who looks at the process too."""
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    settings = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(tree / "src"),
        "PORT": str(port),
        "DATABASE_URL": database_url,
        "BATCHBELL_RESULTS_URL": str(folder / "results"),
        "OPENAI_API_KEY": API_KEY,
        "OPENAI_BASE_URL": base_url,
        **environment,
    }
    said = folder / f"serve-{port}.log"
    with said.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "batchbell", "serve"), env=settings, stdout=log, stderr=log
        )
    try:
        await _ready(url, process, said)
        yield Server(url, process.pid)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        async with asyncio.timeout(STOP_SECONDS):
            await process.wait()


async def _ready(url: str, process: asyncio.subprocess.Process, said: Path) -> None:
    async with asyncio.timeout(START_SECONDS), aiohttp.ClientSession() as session:
        while True:
            if process.returncode is not None:
                raise RuntimeError(f"the server ended; see {said}")
            with contextlib.suppress(aiohttp.ClientConnectionError):
                async with session.get(f"{url}/readyz") as answer:
                    if answer.status == 200:
                        return
            await asyncio.sleep(0.02)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
