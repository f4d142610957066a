"""Real processes over real databases, killed where they stand; provider and receiver live on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests import starting
from tests.conftest import SECRET, beside_the_loop, execute, fetch_rows
from tests.ports import free_port

from batchbell.sandbox import OPEN, Received, Receiver, Sandbox

START_SECONDS = 30.0
WATCHES_A_CALL = 1000
SERVE = "runtime.serve(load_settings())"
SERVE_ONLY = "runtime.serve(load_settings(), workers=False)"
WORK = "runtime.work(load_settings())"
PROGRAM = """
import asyncio
from batchbell import runtime
from batchbell.observability import configure_logging
from batchbell.settings import load_settings
configure_logging(level="info", format="json")
{first}
asyncio.run({main})
"""


@dataclass
class Process:
    """One Batchbell process."""

    process: starting.Forked
    log: Path

    async def killed(self) -> None:
        """Wait until a failpoint has killed it."""
        async with asyncio.timeout(START_SECONDS):
            code = await self.process.wait()
        assert code == -signal.SIGKILL, self.log.read_text()

    async def kill(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()

    async def terminate(self) -> int:
        self.process.terminate()
        async with asyncio.timeout(25):
            return await self.process.wait()


@dataclass
class Town:
    """A provider, a receiver, a database, and as many Batchbell processes as a test starts."""

    sandbox: Sandbox
    receiver: Receiver
    database_url: str
    folder: Path
    port: int
    poll_interval_seconds: float = 0.2
    settings: dict[str, str] = field(default_factory=dict)
    """More of the environment."""
    first: str = ""
    """What processes run before they begin."""
    running: list[Process] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self, main: str = SERVE, *, failpoint: str = "") -> Process:
        """Start a process, and wait until it answers if it serves."""
        log = self.folder / f"process-{len(self.running)}.log"
        environment = {
            **starting.inherited(),
            "OPENAI_API_KEY": "sk-sandbox",
            "OPENAI_BASE_URL": self.sandbox.base_url,
            "DATABASE_URL": self.database_url,
            "BATCHBELL_RESULTS_URL": str(self.folder / "results"),
            "PORT": str(self.port),
            "BATCHBELL_WEBHOOK_SECRET": SECRET,
            "BATCHBELL_POLL_INTERVAL_SECONDS": str(self.poll_interval_seconds),
            "BATCHBELL_FAILPOINT": failpoint,
            **self.settings,
        }
        process = await starting.start(
            PROGRAM.format(first=self.first, main=main), environment=environment, log=log
        )
        started = Process(process, log)
        self.running.append(started)
        if main is not WORK:
            await self.answers(started)
        return started

    async def answers(self, process: Process) -> None:
        """Poll until the server answers, or has died of what the test wanted."""
        async with asyncio.timeout(START_SECONDS), httpx2.AsyncClient(verify=False) as client:
            while process.process.returncode is None:
                with contextlib.suppress(httpx2.TransportError):
                    await client.get(f"{self.url}/healthz")
                    return
                await asyncio.sleep(0.02)

    async def ask(self, method: str, path: str, **body: Any) -> dict[str, Any]:
        async with httpx2.AsyncClient(base_url=self.url, timeout=30, verify=False) as client:
            answer = await client.request(method, path, json=body or None)
        assert answer.is_success, answer.text
        told: dict[str, Any] = answer.json()
        return told

    async def register(self, ids: list[str], *, paths: int = 4) -> None:
        """Watch the batches, spread over paths of the receiver."""
        wanted = [
            {"batch_id": id, "url": self.receiver.url(f"/hook/{number % paths}")}
            for number, id in enumerate(ids)
        ]
        for start in range(0, len(wanted), WATCHES_A_CALL):
            await self.ask("POST", "/v1/watches", watches=wanted[start : start + WATCHES_A_CALL])

    def let_leases_run_out(self) -> None:
        """What waiting would do on PostgreSQL, where nobody may say that a holder is dead."""
        if not self.on_sqlite:
            self.write(
                "UPDATE endpoints SET probe_at = 0 WHERE probe_at IS NOT NULL",
                "UPDATE accounts SET lease_until = 0, due_at = 0 WHERE lease_token IS NOT NULL",
                "UPDATE deliveries SET due_at = 0, lease_until = 0 WHERE lease_token IS NOT NULL",
                "UPDATE replays SET lease_until = 0 WHERE lease_token IS NOT NULL",
                "UPDATE results SET lease_until = 0 WHERE lease_token IS NOT NULL",
                "UPDATE deletions SET lease_until = 0 WHERE lease_token IS NOT NULL",
                "UPDATE submissions SET lease_until = 0 WHERE lease_token IS NOT NULL",
                "UPDATE creations SET due_at = 0 WHERE state = 'asked'",
            )

    @property
    def on_sqlite(self) -> bool:
        return self.database_url.startswith("sqlite")

    def write(self, *statements: str) -> None:
        """Change the database behind the back of the processes; on SQLite none may live."""
        if not self.on_sqlite:
            beside_the_loop(lambda: execute(self.database_url, *statements))
            return
        with contextlib.closing(sqlite3.connect(self.database_url[10:])) as connection:
            for statement in statements:
                connection.execute(statement)
            connection.commit()

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        if not self.on_sqlite:
            return beside_the_loop(lambda: fetch_rows(self.database_url, query))
        with contextlib.closing(sqlite3.connect(self.database_url[10:])) as connection:
            return connection.execute(query).fetchall()

    def count(self, where: str) -> int:
        """How many deliveries there are of which this is true."""
        return int(self.rows(f"SELECT count(*) FROM deliveries WHERE {where}")[0][0])

    def recorded(self) -> int:
        """How many deliveries the database knows to be delivered."""
        return self.count("state = 'delivered'")

    async def until(self, true: Callable[[], bool], *, timeout: float = 60.0) -> None:
        """Wait for what other processes do."""
        async with asyncio.timeout(timeout):
            while not true():  # noqa: ASYNC110 - another process changes it
                await asyncio.sleep(0.05)

    async def all_arrived(self, ids: list[str], *, timeout: float = 60.0) -> Counter[str]:
        """Wait until each batch was told of; how often each was."""
        async with asyncio.timeout(timeout):
            while set(ids) - set(self.told()):
                await self.receiver.wait_for(len(self.receiver.received) + 1, timeout=timeout)
        return self.told()

    def told(self) -> Counter[str]:
        return Counter(told_of(hook) for hook in self.receiver.received)

    def webhook_ids(self) -> dict[str, set[str]]:
        ids: dict[str, set[str]] = {}
        for hook in self.receiver.received:
            ids.setdefault(told_of(hook), set()).add(hook.headers["webhook-id"])
        return ids


def told_of(hook: Received) -> str:
    return str(json.loads(hook.body)["data"]["id"])


@pytest.fixture
async def town(database_url: str, tmp_path: Path) -> AsyncIterator[Town]:
    async with make_town(database_url, tmp_path) as town:
        yield town


@contextlib.asynccontextmanager
async def make_town(database_url: str, folder: Path) -> AsyncIterator[Town]:
    async with (
        Sandbox(api_key="sk-sandbox", schedule=OPEN) as sandbox,
        Receiver(secret=SECRET) as receiver,
    ):
        town = Town(sandbox, receiver, database_url, folder, free_port())
        try:
            yield town
        finally:
            for process in town.running:
                await process.kill()
