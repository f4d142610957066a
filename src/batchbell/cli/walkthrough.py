"""The demo: the main job end to end, with real HTTP between real parts, in one process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx2

from batchbell import runtime
from batchbell.access import bind
from batchbell.cli.batches import See, showing
from batchbell.cli.output import console, plain
from batchbell.client import AsyncBatchbell
from batchbell.core import signing
from batchbell.core.errors import BatchbellError
from batchbell.declared import read_declared
from batchbell.observability import configure_logging
from batchbell.providers.profiles import ANTHROPIC, GEMINI, OPENAI
from batchbell.sandbox import Received, Receiver, Sandbox, Schedule
from batchbell.settings import load_settings

REQUESTS = 300
REQUESTS_ELSEWHERE = 100
BATCH_SECONDS = 6.0
FAIL_FRACTION = 0.02
POLL_SECONDS = 1.0
LOOK_SECONDS = 0.2
WEBHOOK_TIMEOUT_SECONDS = 25.0
MODEL = "gpt-4o-mini"

NEXT = (
    "Next, with your own key: export OPENAI_API_KEY=sk-… DATABASE_PATH=batchbell.db &&"
    " batchbell serve, then: curl http://127.0.0.1:3000/batch-awaiter"
    """ -d '{"id": "batch_…", "webhookUrl": "https://example.com/hook"}'"""
)


class Failed(Exception):
    """The demo could not be shown to its end; the message says why."""


@dataclass(frozen=True, slots=True)
class Stage:
    """What runs while the demo does."""

    sandbox: Sandbox
    receiver: Receiver
    batchbell_url: str
    api_key: str
    secret: str
    folder: Path


async def run(*, keep: bool = False) -> None:
    """Show it. Raises Failed."""
    _end_on_sigterm()
    configure_logging(level="error", format="text")
    openai = _sdk()
    began = time.monotonic()
    try:
        with _folder(keep) as folder:
            async with set_up(folder) as stage, sdk_of(openai, stage) as customer:
                await play(stage, customer)
                took = time.monotonic() - began
                await look_around(stage.batchbell_url)
    except (BatchbellError, openai.OpenAIError, httpx2.HTTPError, OSError, TimeoutError) as error:
        raise Failed(f"{type(error).__name__}: {error}") from error
    _say(f"\nDone in {took:.0f} s. {NEXT}")


async def look_around(server_url: str) -> None:
    """Leave the dashboard open for whoever sits at a terminal, until they press Enter."""
    if not sys.stdin.isatty():
        return
    entered, loop = asyncio.Event(), asyncio.get_running_loop()
    with contextlib.suppress(NotImplementedError):  # not on Windows
        loop.add_reader(sys.stdin, entered.set)
        url = f"{server_url}/dashboard"
        _say(f"\nLook at it in your browser: {url}\nIt stays open until you press Enter.")
        try:
            await entered.wait()
            sys.stdin.readline()
        finally:
            loop.remove_reader(sys.stdin)


def _sdk() -> Any:
    try:
        import openai
    except ImportError as error:
        raise Failed("it needs the openai SDK: pip install 'batchbell[demo]'") from error
    return openai


def _end_on_sigterm() -> None:
    """So that nothing is left behind then, either."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)


@contextlib.contextmanager
def _folder(keep: bool) -> Iterator[Path]:
    if not keep:
        with tempfile.TemporaryDirectory(prefix="batchbell-demo-") as name:
            yield Path(name)
        return
    folder = Path(tempfile.mkdtemp(prefix="batchbell-demo-"))
    try:
        yield folder
    finally:
        files = ", ".join(sorted(file.name for file in folder.iterdir()))
        _say(f"\nKept in {folder}: {files}")


@contextlib.asynccontextmanager
async def set_up(folder: Path) -> AsyncIterator[Stage]:
    """Start the three parts, each on a free port; end them all."""
    api_key = f"sk-demo-{secrets.token_hex(8)}"
    secret = signing.make_secret(secrets.token_bytes(signing.SECRET_BYTES))
    schedule = replace(Schedule.lasting(BATCH_SECONDS), fail_fraction=FAIL_FRACTION)
    async with contextlib.AsyncExitStack() as stack:
        sandbox = await stack.enter_async_context(Sandbox(api_key=api_key, schedule=schedule))
        receiver = await stack.enter_async_context(Receiver(secret=secret))
        settings = load_settings(
            database_url=f"sqlite:///{folder / 'batchbell.db'}",
            host="127.0.0.1",
            port=0,
            webhook_secret=secret,
            poll_interval_seconds=POLL_SECONDS,
        )
        listener = stack.enter_context(bind(settings, local=True))
        # The port is a free one, which links to results must name.
        settings = settings.model_copy(update={"public_url": runtime.url_of(listener)})
        variables: dict[str, str] = {}
        for profile, address in (
            (OPENAI, sandbox.base_url),
            (ANTHROPIC, sandbox.url),
            (GEMINI, sandbox.gemini_url),
        ):
            assert profile.base_url_variable is not None
            variables |= {profile.key_variable: api_key, profile.base_url_variable: address}
        declared = read_declared(settings, variables)
        running = await stack.enter_async_context(runtime.open_runtime(settings, declared))
        await stack.enter_async_context(runtime.running_workers(running))
        await stack.enter_async_context(runtime.serving(running, listener))
        stage = Stage(sandbox, receiver, runtime.url_of(listener), api_key, secret, folder)
        _say(f"providers  {sandbox.url} (fakes of OpenAI's, Anthropic's and Gemini's APIs)")
        _say(f"Batchbell  {stage.batchbell_url}")
        _say(f"dashboard  {stage.batchbell_url}/dashboard")
        _say(f"receiver   {receiver.url('/hook')}\n")
        yield stage


@contextlib.asynccontextmanager
async def sdk_of(openai: Any, stage: Stage) -> AsyncIterator[Any]:
    """The official SDK, as any program would use it; a proxy of the environment is not for us."""
    http = openai.DefaultAsyncHttpxClient(trust_env=False)
    async with openai.AsyncOpenAI(
        api_key=stage.api_key,
        base_url=stage.sandbox.base_url,
        webhook_secret=stage.secret,
        http_client=http,
    ) as customer:
        yield customer


async def play(stage: Stage, customer: Any) -> None:
    """The whole of it, from three batches to three webhooks."""
    openai = await _create_batch(customer, stage.folder)
    await _register(stage, openai)
    others = [await _create_message_batch(stage), await _create_content_batch(stage)]
    received = await _follow(stage, [openai, *others])
    _compare(received)
    its = about(received, openai)
    _unwrap(customer, its)
    _show(its)


async def _create_batch(customer: Any, folder: Path) -> str:
    """Upload the input and create the batch, by the SDK."""
    path = folder / "requests.jsonl"
    path.write_text("".join(f"{json.dumps(_request(number))}\n" for number in range(REQUESTS)))
    with path.open("rb") as file:
        uploaded = await customer.files.create(file=file, purpose="batch")
    _say(f"1. uploaded {REQUESTS} chat requests with the openai SDK: {uploaded.id}")
    batch = await customer.batches.create(
        input_file_id=uploaded.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    _say(f"2. created the batch: {batch.id}")
    return str(batch.id)


def _request(number: int) -> dict[str, object]:
    question = f"What is {number} times {number}?"
    body = {"model": MODEL, "messages": [{"role": "user", "content": question}]}
    return {
        "custom_id": f"request-{number:04}",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": body,
    }


async def _register(stage: Stage, batch_id: str) -> None:
    """The one call that a user of Batchbell makes."""
    asked = {"id": batch_id, "webhookUrl": stage.receiver.url("/hook")}
    async with httpx2.AsyncClient(trust_env=False) as http:
        answer = await http.post(f"{stage.batchbell_url}/batch-awaiter", json=asked)
    if answer.status_code != 201:
        raise Failed(f"POST /batch-awaiter answered {answer.status_code}: {answer.text}")
    _say(f"3. POST /batch-awaiter {json.dumps(asked)}\n   {answer.status_code} {answer.text}")


async def _create_message_batch(stage: Stage) -> str:
    """As Anthropic's SDK does it, with Batchbell's address in place of Anthropic's."""
    requests = [
        {
            "custom_id": f"request-{number:04}",
            "params": {
                "model": "claude-sonnet-5",
                "max_tokens": 100,
                "messages": [{"role": "user", "content": f"What is {number} plus {number}?"}],
            },
        }
        for number in range(REQUESTS_ELSEWHERE)
    ]
    url = f"{stage.batchbell_url}/anthropic/v1/messages/batches"
    hook = stage.receiver.url("/hook")
    headers = {"anthropic-version": "2023-06-01", "bb-webhook-url": hook}
    made = await _post(url, {"requests": requests}, headers)
    _say(f"4. the same for Anthropic, through Batchbell: {made['id']}")
    return str(made["id"])


async def _create_content_batch(stage: Stage) -> str:
    """Made at the provider itself, as anybody may, and registered by its id alone."""
    requests = [
        {
            "request": {"contents": [{"parts": [{"text": f"What is {number} minus 1?"}]}]},
            "metadata": {"key": f"request-{number:04}"},
        }
        for number in range(REQUESTS_ELSEWHERE)
    ]
    body = {"batch": {"displayName": "demo", "inputConfig": {"requests": {"requests": requests}}}}
    url = f"{stage.sandbox.gemini_url}/v1beta/models/gemini-3-flash:batchGenerateContent"
    made = await _post(url, body, {"x-goog-api-key": stage.api_key})
    hook = {"id": made["name"], "webhookUrl": stage.receiver.url("/hook")}
    await _post(f"{stage.batchbell_url}/batch-awaiter", hook, {})
    _say(f"5. and for Gemini, registered by its id: {made['name']}\n")
    return str(made["name"])


async def _post(url: str, body: Any, headers: dict[str, str]) -> Any:
    async with httpx2.AsyncClient(trust_env=False) as http:
        answer = await http.post(url, json=body, headers=headers)
    if not answer.is_success:
        raise Failed(f"POST {url} answered {answer.status_code}: {answer.text}")
    return answer.json()


async def _follow(stage: Stage, ids: list[str]) -> list[Received]:
    """Show what Batchbell sees, until the webhooks are there."""
    waiting = stage.receiver.wait_for(len(ids), timeout=WEBHOOK_TIMEOUT_SECONDS)
    arriving = asyncio.create_task(waiting)
    async with AsyncBatchbell(stage.batchbell_url) as bell:
        with showing(*ids) as see:
            while not arriving.done():
                await _look(bell, ids, see)
                await asyncio.wait([arriving], timeout=LOOK_SECONDS)
            await _look(bell, ids, see)
    return list(await arriving)


async def _look(bell: AsyncBatchbell, ids: list[str], see: See) -> None:
    for id in ids:
        see(await bell.batch(id))


def _compare(received: list[Received]) -> None:
    """What came from which provider: the same for all."""
    _say("\n6. three webhooks, of one shape:\n")
    for one in received:
        data = json.loads(one.body)["data"]
        counts = data["request_counts"]
        said = f"{counts['completed']} of {counts['total']} answered"
        _say(f"   {data['provider']:<10} {data['status']:<10} {said:<20} {data['id']}")


def about(received: list[Received], batch_id: str) -> Received:
    """The webhook about this batch, whichever came first."""
    return next(one for one in received if json.loads(one.body)["data"]["id"] == batch_id)


def _unwrap(customer: Any, received: Received) -> None:
    """Verify as a receiver would, with the SDK. Raises Failed for a signature that is not ours."""
    try:
        event = customer.webhooks.unwrap(received.body, received.headers)
    except ValueError as error:
        raise Failed(f"the SDK does not accept the webhook: {error}") from error
    _say(f"\n7. the one about the first batch, verified by client.webhooks.unwrap: {event.type}\n")


def _show(received: Received) -> None:
    _say(f"{received.method} {received.path}")
    for name, value in received.headers.items():
        if name.startswith("webhook-") or name in ("content-type", "user-agent"):
            _say(f"{name}: {value}")
    _say("")
    text = json.dumps(json.loads(received.body), indent=2)
    target = console()
    if target.is_terminal:
        target.print_json(text)
    else:
        print(text)


def _say(line: str) -> None:
    print(plain(line), flush=True)
