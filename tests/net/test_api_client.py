"""The client for providers, against servers that answer byte by byte as they are told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping

import pytest

from batchbell.core.errors import ProviderRejected, ProviderUnavailable, SettingsError
from batchbell.net.api import ApiClient, api_session
from tests.net.raw_receivers import Handler, Receive, answering

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


async def head_of(reader: asyncio.StreamReader) -> bytes:
    return await reader.readuntil(b"\r\n\r\n")


def get_answering(answer: bytes) -> Handler:
    """Read a request without a body, say this, close."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        writer.write(answer)
        await writer.drain()

    return handle


@pytest.fixture
async def clients() -> AsyncIterator[list[ApiClient]]:
    """Clients put in here are closed at the end."""
    opened: list[ApiClient] = []
    yield opened
    for client in opened:
        await client.aclose()


def refuse(status: int, headers: Mapping[str, str], body: bytes) -> Exception:
    return ProviderRejected(f"{status} {body.decode()}", status=status)


async def test_a_get_brings_status_headers_and_bytes(
    receive: Receive, clients: list[ApiClient]
) -> None:
    receiver = await receive(get_answering(OK.replace(b"200 OK", b"404 No\r\nX-Request-Id: r1")))
    client = ApiClient(f"http://127.0.0.1:{receiver.port}/v1/", {"X-Key": "k"})
    clients.append(client)
    status, headers, body = await client.get_json_bytes("/a%2Fb", {"after": "x&y"})
    assert (status, headers["x-request-id"], body) == (404, "r1", b"{}")
    request = receiver.requests[0].decode()
    assert request.startswith("GET /v1/a%2Fb?after=x%26y HTTP/1.1\r\n")
    assert "X-Key: k\r\n" in request


async def test_a_post_sends_json(receive: Receive, clients: list[ApiClient]) -> None:
    receiver = await receive(answering(OK))
    client = ApiClient(f"http://127.0.0.1:{receiver.port}", {})
    clients.append(client)
    assert (await client.post("/a", b"{}"))[0] == 200
    assert "Content-Type: application/json" in receiver.requests[0].decode()


async def test_a_failed_post_is_not_repeated(receive: Receive, clients: list[ApiClient]) -> None:
    receiver = await receive(answering(b""))
    client = ApiClient(f"http://127.0.0.1:{receiver.port}", {})
    clients.append(client)
    with pytest.raises(ProviderUnavailable):
        await client.post("/a", b"{}")
    assert len(receiver.requests) == 1


async def test_an_answer_that_drips_ends_by_the_wall_clock(
    receive: Receive, clients: list[ApiClient]
) -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while not writer.is_closing():
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.01)

    receiver = await receive(drip)
    client = ApiClient(f"http://127.0.0.1:{receiver.port}", {}, timeout_seconds=0.3)
    clients.append(client)
    with pytest.raises(ProviderUnavailable, match=r"No answer within 0\.3 s"):
        await client.get_json_bytes("/")


async def test_an_answer_over_the_cap_is_no_answer(
    receive: Receive, clients: list[ApiClient]
) -> None:
    receiver = await receive(get_answering(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 5_000))
    client = ApiClient(f"http://127.0.0.1:{receiver.port}", {}, body_max_bytes=1_000)
    clients.append(client)
    with pytest.raises(ProviderUnavailable, match="larger than 1000 bytes"):
        await client.get_json_bytes("/")


async def test_a_stream_is_longer_than_the_cap_and_the_time_of_a_call(
    receive: Receive, clients: list[ApiClient]
) -> None:
    receiver = await receive(
        get_answering(b"HTTP/1.1 200 OK\r\nContent-Length: 500000\r\n\r\n" + b"y" * 500_000)
    )
    client = ApiClient(f"http://127.0.0.1:{receiver.port}", {}, body_max_bytes=1_000)
    clients.append(client)
    sizes = [len(chunk) async for chunk in client.stream("/", refuse=refuse)]
    assert sum(sizes) == 500_000


async def test_a_stream_that_falls_silent_is_no_answer(
    receive: Receive, clients: list[ApiClient]
) -> None:
    async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        await reader.read()

    receiver = await receive(stall)
    client = ApiClient(f"http://127.0.0.1:{receiver.port}", {}, stall_seconds=0.2)
    clients.append(client)
    with pytest.raises(ProviderUnavailable, match=r"silent for 0\.2 s"):
        async for _ in client.stream("/", refuse=refuse):
            pass


async def test_a_stream_that_is_refused_says_what_the_caller_makes_of_it(
    receive: Receive, clients: list[ApiClient]
) -> None:
    receiver = await receive(get_answering(OK.replace(b"200 OK", b"410 Gone")))
    client = ApiClient(f"http://127.0.0.1:{receiver.port}", {})
    clients.append(client)
    with pytest.raises(ProviderRejected, match="410"):
        async for _ in client.stream("/", refuse=refuse):
            pass


async def test_a_session_that_was_handed_in_stays_open() -> None:
    async with api_session() as session:
        client = ApiClient("http://127.0.0.1:9", {}, session=session)
        await client.aclose()
        assert not session.closed


@pytest.mark.parametrize(
    "base_url",
    [
        "",
        "api.openai.com",
        "ftp://api.openai.com",
        "https://",
        "https://user:secret@api.openai.com",
        "https://api.openai.com/v1?x=1",
        "https://api.openai.com/v1#x",
        "https://api.openai.com:port/v1",
    ],
)
def test_what_is_no_base_url_is_a_wrong_setting(base_url: str) -> None:
    with pytest.raises(SettingsError, match="no base URL"):
        ApiClient(base_url, {})
