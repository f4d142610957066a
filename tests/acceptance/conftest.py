"""Batchbell as its users run it: real processes, an environment of their own, free ports.

The nursery forks most of them, since importing Batchbell takes longer than most commands. What a
test says about the start itself runs `python -m batchbell`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import httpx2
import pytest

from batchbell.sandbox import OPEN, Receiver, Sandbox
from tests import starting
from tests.ports import free_port

COMMAND = (sys.executable, "-m", "batchbell")
PROGRAM = "from batchbell.cli import main; main()"
COMMAND_SECONDS = 60.0
START_SECONDS = 30.0
STOP_SECONDS = 20.0
API_KEY = "sk-sandbox"


@dataclass(frozen=True)
class Ended:
    """A command that has run."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def json_lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


@dataclass
class Process:
    """A command that runs on; what it says goes to files."""

    process: starting.Forked
    out: Path
    err: Path

    @property
    def said(self) -> str:
        return self.out.read_text() + self.err.read_text()

    async def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the exit code."""
        self.process.send_signal(number)
        async with asyncio.timeout(STOP_SECONDS):
            return await self.process.wait()

    async def says(self, text: str) -> None:
        """Wait until it has said so."""
        async with asyncio.timeout(START_SECONDS):
            while text not in self.said:
                assert self.process.returncode is None, self.said
                await asyncio.sleep(0.02)


@dataclass
class Shell:
    """Runs commands in a folder of its own, with no setting but those that a test gives."""

    folder: Path
    environment: dict[str, str]
    first: str = ""
    """What a process does before it is Batchbell, such as to shorten its waits."""
    running: list[Process] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=count)

    async def run(self, *words: str, input: str = "", **environment: str) -> Ended:
        """Run `batchbell` with these words to its end."""
        command = await self._fork(words, environment, input=input)
        async with asyncio.timeout(COMMAND_SECONDS):
            code = await command.process.wait()
        return _ended(code, command.out.read_bytes(), command.err.read_bytes())

    async def run_anew(self, *words: str, **environment: str) -> Ended:
        """The same, started as a user starts it."""
        process = await asyncio.create_subprocess_exec(
            *COMMAND,
            *words,
            cwd=self.folder,
            env=self.environment | environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(COMMAND_SECONDS):
            out, err = await process.communicate()
        assert process.returncode is not None
        return _ended(process.returncode, out, err)

    async def start(self, *words: str, **environment: str) -> Process:
        """Run `batchbell` with these words on."""
        started = await self._fork(words, environment)
        self.running.append(started)
        return started

    async def _fork(
        self, words: tuple[str, ...], environment: dict[str, str], *, input: str = ""
    ) -> Process:
        streams = self.folder / "streams" / str(next(self._numbers))
        streams.mkdir(parents=True)
        read, out, err = (streams / name for name in ("in", "out", "err"))
        read.write_text(input)
        for written in (out, err):
            written.touch()  # a test may look before the process is there
        process = await starting.start(
            self.first + PROGRAM,
            arguments=words,
            environment=self.environment | environment,
            folder=self.folder,
            read=read,
            log=out,
            errors=err,
        )
        return Process(process, out, err)

    async def start_piped(self, *words: str) -> asyncio.subprocess.Process:
        """Run `batchbell` with these words, its output in the test's hands."""
        return await asyncio.create_subprocess_exec(
            *COMMAND,
            *words,
            cwd=self.folder,
            env=self.environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.environment['PORT']}"

    async def serve(self, *words: str, **environment: str) -> Process:
        """Run `batchbell serve` until it says that it is ready."""
        serving = await self.start("serve", *words, **environment)
        async with asyncio.timeout(START_SECONDS), httpx2.AsyncClient() as client:
            while True:
                assert serving.process.returncode is None, serving.said
                with contextlib.suppress(httpx2.TransportError):
                    if (await client.get(f"{self.url}/readyz")).status_code == 200:
                        return serving
                await asyncio.sleep(0.02)

    async def post(self, path: str, body: object) -> httpx2.Response:
        async with httpx2.AsyncClient() as client:
            return await client.post(f"{self.url}{path}", json=body)


def _ended(code: int, out: bytes, err: bytes) -> Ended:
    assert b"Traceback" not in err, err.decode()
    return Ended(code, out.decode(), err.decode())


@pytest.fixture(autouse=True, scope="session")
def heeds_ctrl_c() -> None:
    """A shell lets its background jobs ignore Ctrl-C, and their children inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    """A provider whose batches end when a test says so."""
    async with Sandbox(api_key=API_KEY, schedule=OPEN) as sandbox:
        yield sandbox


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as receiver:
        yield receiver


@pytest.fixture
async def shell(tmp_path: Path, sandbox: Sandbox) -> AsyncIterator[Shell]:
    """A shell with the settings that a first user has, and fast polls."""
    (tmp_path / "tmp").mkdir()
    shell = Shell(
        tmp_path,
        {
            **starting.inherited(),
            "TMPDIR": str(tmp_path / "tmp"),
            "OPENAI_API_KEY": API_KEY,
            "OPENAI_BASE_URL": sandbox.base_url,
            "DATABASE_PATH": str(tmp_path / "batchbell.db"),
            "PORT": str(free_port()),
            "BATCHBELL_POLL_INTERVAL_SECONDS": "0.2",
        },
    )
    yield shell
    for running in shell.running:
        if running.process.returncode is None:
            running.process.kill()
        await running.process.wait()
