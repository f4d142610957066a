"""A whole Batchbell beside the browser: provider, workers, server and receivers, in a thread."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import httpx2

from batchbell import runtime
from batchbell.core.model import (
    DEFAULT_PROJECT,
    BatchProblem,
    Counts,
    Sighting,
    Snapshot,
    Status,
)
from batchbell.declared import read_declared
from batchbell.parts import Runtime
from batchbell.sandbox import Receiver, Sandbox, Schedule
from batchbell.sandbox.behaviours import Respond
from batchbell.settings import load_settings
from batchbell.storage import accounts, batches

T = TypeVar("T")

POISON = "<script>window.poisoned=1</script>\"'><img src=x onerror=window.poisoned=1>{{7*7}}"
"""What a provider, a receiver or whoever made a batch may write."""
SECONDS = 20.0
API_KEY = "sk-sandbox"


class Stage:
    """Use it from any thread; `call` runs a coroutine where everything runs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._parts = AsyncExitStack()
        self._server = AsyncExitStack()
        self._port = 0
        self.url = ""
        self.key = ""
        self.sandbox: Sandbox
        self.receiver: Receiver
        self.running: Runtime

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)

    def open(self) -> None:
        self._thread.start()
        self.call(self._open())

    def close(self) -> None:
        self.call(self._server.aclose())
        self.call(self._parts.aclose())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    async def _open(self) -> None:
        schedule = replace(Schedule.lasting(0.4), fail_fraction=0.2)
        self.sandbox = await self._parts.enter_async_context(
            Sandbox(api_key=API_KEY, schedule=schedule)
        )
        self.receiver = await self._parts.enter_async_context(Receiver())
        poisoned = Respond(500, {"x-note": POISON}, POISON.encode())
        self.receiver.behave("/poison", poisoned)
        await self.start()

    async def start(self) -> None:
        """Start Batchbell, on the port that it had before."""
        settings = load_settings(
            database_url=f"sqlite:///{self._folder / 'batchbell.db'}",
            port=self._port,
            allow_http=True,
            allow_cidrs="127.0.0.1/32",
            poll_interval_seconds=0.5,
        )
        self._server = AsyncExitStack()
        listener = socket.create_server(("127.0.0.1", self._port), reuse_port=False)
        self._server.enter_context(listener)
        self._port = listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        variables = {"OPENAI_API_KEY": API_KEY, "OPENAI_BASE_URL": self.sandbox.base_url}
        declared = read_declared(settings, variables)
        self.running = await self._server.enter_async_context(
            runtime.open_runtime(settings, declared)
        )
        await self._server.enter_async_context(runtime.running_workers(self.running))
        await self._server.enter_async_context(runtime.serving(self.running, listener))

    async def stop(self) -> None:
        """Stop Batchbell; provider and receiver go on."""
        await self._server.aclose()

    def ask(self, method: str, path: str, **how: Any) -> Any:
        """The API's answer, as the program of a user would get it."""
        headers = {"authorization": f"Bearer {self.key}"} if self.key else {}
        with httpx2.Client(base_url=self.url, trust_env=False, timeout=30) as http:
            answer = http.request(method, path, headers=headers, **how)
        assert answer.status_code < 400, answer.text
        return answer.json()

    def batch(self, number: int, url: str, metadata: dict[str, str] | None = None) -> str:
        """A batch at the provider, watched for `url`."""
        rows = [
            {
                "custom_id": f"request-{one}{POISON if one == 1 else ''}",
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]},
            }
            for one in range(number)
        ]
        lines = "".join(f"{json.dumps(row)}\n" for row in rows).encode()
        headers = {"authorization": f"Bearer {API_KEY}"}
        base = f"{self.sandbox.base_url}/"
        with httpx2.Client(base_url=base, headers=headers, trust_env=False) as http:
            file = http.post("files", files={"file": ("r.jsonl", lines)}, data={"purpose": "batch"})
            asked = {
                "input_file_id": file.json()["id"],
                "endpoint": "/v1/chat/completions",
                "completion_window": "24h",
                "metadata": metadata or {},
            }
            made = http.post("batches", json=asked)
        assert made.status_code == 200, made.text
        id = str(made.json()["id"])
        wanted = {"batch_id": id, "url": url, "results": "link", "metadata": {"note": POISON}}
        self.ask("POST", "/v1/watches", json=wanted)
        return id

    def watch(self, batch_id: str, url: str = "") -> None:
        """Watch a batch that no provider has."""
        wanted = {"batch_id": batch_id, "url": url or self.receiver.url("/hook")}
        self.ask("POST", "/v1/watches", json=wanted)

    def see(self, sighting: Sighting) -> None:
        """As if a sweep had brought this."""
        self.call(self._see(sighting))

    async def _see(self, sighting: Sighting) -> None:
        store = self.running.store
        [account] = await store.read(accounts.list_accounts, DEFAULT_PROJECT)
        await store.write(
            batches.observe,
            account_id=account.id,
            sightings=[sighting],
            mint=runtime.mint,
            now=time.time(),
        )

    def until(self, path: str, is_so: Any) -> Any:
        """What the API answers, once it is as it should be."""
        return self.call(self._until(path, is_so))

    async def _until(self, path: str, is_so: Any) -> Any:
        headers = {"authorization": f"Bearer {self.key}"} if self.key else {}
        async with (
            asyncio.timeout(SECONDS),
            httpx2.AsyncClient(base_url=self.url, headers=headers, trust_env=False) as http,
        ):
            while True:
                answer = (await http.get(path)).json()
                if is_so(answer):
                    return answer
                await asyncio.sleep(0.1)


def a_snapshot(id: str, status: Status, done: int, failed: int = 0) -> Snapshot:
    """Of 100 requests."""
    return Snapshot(
        id=id,
        provider_status=status.value,
        status=status,
        counts=Counts(total=100, completed=done, failed=failed),
        endpoint="/v1/chat/completions",
        model=POISON,
        completion_window="24h",
        input_file_id="file-in",
        output_file_id=None,
        error_file_id=None,
        timestamps={"created_at": int(time.time()) - 60, f"{status.value}_at": int(time.time())},
        metadata={"team": POISON, POISON: "x"},
        problems=(BatchProblem(code=POISON, message=POISON, param=POISON, line=7),)
        if status is Status.FAILED
        else (),
        usage=None,
    )
