"""The clients hand in again what a broken connection has swallowed; nothing is made twice."""

from __future__ import annotations

import asyncio
import io
import json
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest

from batchbell.client import (
    ApiError,
    AsyncBatchbell,
    Batchbell,
    ServerUnavailable,
    ServerUnreachable,
    Submission,
    submissions,
)
from batchbell.client.submissions import FIRST_PAUSE_SECONDS, TRIES, Tries

from .making import Served
from .test_submissions import jsonl, line

pytestmark = pytest.mark.databases("sqlite")

ENDPOINT = "/v1/responses"


@dataclass
class Wire:
    """Carries bytes to a server and back; cuts so many connections when the answer comes."""

    to: str
    cuts: int
    url: str = ""
    carried: int = 0
    carrying: set[asyncio.Task[None]] = field(default_factory=set)

    def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.carried += 1
        self.carrying.add(asyncio.create_task(self._carry(reader, writer)))

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = urlsplit(self.to)
        back, onward = await asyncio.open_connection(there.hostname, there.port)
        going = asyncio.create_task(self._copy(reader, onward))
        try:
            if self.cuts:
                self.cuts -= 1
                await back.read(1)
            else:
                await self._copy(back, writer)
        finally:
            going.cancel()
            await asyncio.gather(going, return_exceptions=True)
            await asyncio.gather(*map(closed, (writer, onward)))

    async def _copy(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while chunk := await source.read(2**16):
                target.write(chunk)
                await target.drain()


async def closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


@pytest.fixture
async def wire(served: Served, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Wire]:
    monkeypatch.setattr(submissions, "FIRST_PAUSE_SECONDS", 0.0)
    wire = Wire(served.url, cuts=2)
    listener = await asyncio.start_server(wire.take, "127.0.0.1", 0)
    host, port = listener.sockets[0].getsockname()
    wire.url = f"http://{host}:{port}"
    yield wire
    listener.close()
    for task in wire.carrying:
        task.cancel()
    await asyncio.gather(*wire.carrying, return_exceptions=True)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "prompts.jsonl"
    file.write_bytes(jsonl(line(1), line(2)))
    return file


async def made(served: Served) -> list[str]:
    return [one["id"] for one in (await served.http.get("/v1/submissions")).json()["data"]]


async def test_a_file_is_handed_in_again_when_the_connection_breaks(
    served: Served, wire: Wire, file: Path
) -> None:
    async with AsyncBatchbell(wire.url) as bell:
        submission = await bell.submit(file)
    assert wire.carried == 3
    assert await made(served) == [submission.id]


async def test_so_does_the_client_that_blocks_with_a_list(served: Served, wire: Wire) -> None:
    def hand_in() -> Submission:
        with Batchbell(wire.url) as bell:
            return bell.submit([line(1), line(2)])

    submission = await asyncio.to_thread(hand_in)
    assert wire.carried == 3
    assert await made(served) == [submission.id]


async def test_what_can_be_read_once_only_is_not_handed_in_again(
    served: Served, wire: Wire, file: Path
) -> None:
    async with AsyncBatchbell(wire.url) as bell:
        with pytest.raises(ServerUnreachable, match="may have been made") as caught:
            await bell.submit(iter([line(1)]))
        assert wire.carried == 1
        key = str(caught.value).split("idempotency key ")[1].split(",")[0]
        wire.cuts = 0
        submission = await bell.submit([line(1)], idempotency_key=key)
    assert await made(served) == [submission.id]


async def test_it_is_given_up_after_some_tries(served: Served, wire: Wire, file: Path) -> None:
    wire.cuts = 100
    async with AsyncBatchbell(wire.url) as bell:
        with pytest.raises(ServerUnreachable, match="not made twice"):
            await bell.submit(file)
    assert wire.carried == TRIES
    assert len(await made(served)) == 1


async def test_a_key_of_ones_own_makes_two_calls_one(served: Served, file: Path) -> None:
    async with AsyncBatchbell(served.url) as bell:
        first = await bell.submit(file, idempotency_key="night-1")
        again = await bell.submit(file, idempotency_key="night-1")
        other = await bell.submit(file)
        with pytest.raises(ApiError) as caught:
            await bell.submit([line(3)], idempotency_key="night-1")
    assert caught.value.code == "idempotency_key_reused"
    assert (again.id == first.id, other.id == first.id) == (True, False)


async def test_a_server_that_does_not_run_is_not_waited_for(file: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    async with AsyncBatchbell(url) as bell:
        with pytest.raises(ServerUnreachable) as caught:
            await bell.submit(file)
    assert "may have been made" not in str(caught.value)


def broken(kind: type[httpx2.RequestError]) -> ServerUnreachable:
    error = ServerUnreachable("gone")
    error.__cause__ = kind("gone")
    return error


def answered(status: int) -> ServerUnavailable:
    return ServerUnavailable("no", status=status)


def test_the_pauses_grow_and_outlast_a_restart(file: Path) -> None:
    tries = Tries(file, None)
    errors: list[Any] = [broken(httpx2.ReadError), broken(httpx2.ConnectError), answered(503)]
    pauses = [tries.pause_seconds(error) for error in [*errors, broken(httpx2.ReadError)]]
    assert pauses == [FIRST_PAUSE_SECONDS * n for n in (1, 2, 4, 8)]
    with pytest.raises(ServerUnreachable):
        tries.pause_seconds(broken(httpx2.ConnectError))


@pytest.mark.parametrize("error", [answered(500), answered(501), broken(httpx2.ReadTimeout)])
def test_what_does_not_pass_is_not_tried_again(error: Any, file: Path) -> None:
    with pytest.raises(type(error)):
        Tries(file, None).pause_seconds(error)


@pytest.mark.parametrize(
    "source", [iter([{}]), io.BytesIO(b"{}"), Path("/dev/null"), Path("/nowhere")]
)
def test_a_source_that_may_run_dry_is_read_once(source: Any) -> None:
    with pytest.raises(ServerUnreachable):
        Tries(source, None).pause_seconds(broken(httpx2.ReadError))


def test_each_call_has_a_key_of_its_own(file: Path) -> None:
    keys = {Tries(file, None).headers["idempotency-key"] for _ in range(100)}
    assert len(keys) == 100
    assert Tries(file, "mine").headers["idempotency-key"] == "mine"
    assert json.dumps(sorted(keys)).isascii()
