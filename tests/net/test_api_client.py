"""The client for providers, against servers that answer byte by byte as they are told."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from email.parser import BytesParser
from email.policy import HTTP
from pathlib import Path

import pytest

from batchbell.core.errors import ProviderRejected, ProviderUnavailable, SettingsError
from batchbell.net.api import ApiClient
from batchbell.net.pace import Pace
from batchbell.net.sessions import provider_session
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


async def downloaded(client: ApiClient, folder: Path, *, most: int = 10**7) -> bytes:
    await client.download("/", folder / "file", refuse=refuse, most_bytes=most)
    return (folder / "file").read_bytes()


async def test_a_stream_is_longer_than_the_cap_and_the_time_of_a_call(
    receive: Receive, clients: list[ApiClient], tmp_path: Path
) -> None:
    receiver = await receive(
        get_answering(b"HTTP/1.1 200 OK\r\nContent-Length: 500000\r\n\r\n" + b"y" * 500_000)
    )
    client = ApiClient(f"http://127.0.0.1:{receiver.port}", {}, body_max_bytes=1_000)
    clients.append(client)
    assert len(await downloaded(client, tmp_path)) == 500_000


async def test_a_stream_that_falls_silent_is_no_answer(
    receive: Receive, clients: list[ApiClient], tmp_path: Path
) -> None:
    async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        await reader.read()

    receiver = await receive(stall)
    client = ApiClient(f"http://127.0.0.1:{receiver.port}", {}, stall_seconds=0.2)
    clients.append(client)
    with pytest.raises(ProviderUnavailable, match=r"silent for 0\.2 s"):
        await downloaded(client, tmp_path)


async def test_a_stream_that_is_refused_says_what_the_caller_makes_of_it(
    receive: Receive, clients: list[ApiClient], tmp_path: Path
) -> None:
    receiver = await receive(get_answering(OK.replace(b"200 OK", b"410 Gone")))
    client = ApiClient(f"http://127.0.0.1:{receiver.port}", {})
    clients.append(client)
    with pytest.raises(ProviderRejected, match="410"):
        await downloaded(client, tmp_path)


async def test_a_session_that_was_handed_in_stays_open() -> None:
    async with provider_session() as session:
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
    with pytest.raises(SettingsError, match="no base URL") as error:
        ApiClient(base_url, {})
    assert "secret" not in str(error.value)


LARGE = {
    "one of 64 KB": b"X-Policy: " + b"p" * 65_536 + b"\r\n",
    "many": b"".join(b"X-%d: v\r\n" % number for number in range(400)),
}


@pytest.mark.parametrize("headers", LARGE.values(), ids=LARGE.keys())
async def test_large_headers_are_read(
    receive: Receive, clients: list[ApiClient], headers: bytes
) -> None:
    answer = OK.replace(b"\r\n", b"\r\n" + headers, 1)
    receiver = await receive(get_answering(answer))
    clients.append(ApiClient(f"http://127.0.0.1:{receiver.port}", {}))
    assert (await clients[0].get_json_bytes("/"))[0] == 200


async def test_a_client_that_was_closed_stays_closed(receive: Receive) -> None:
    receiver = await receive(get_answering(OK))
    client = ApiClient(f"http://127.0.0.1:{receiver.port}", {})
    await client.get_json_bytes("/")
    await client.aclose()
    await client.aclose()
    with pytest.raises(ProviderUnavailable, match="closed"):
        await client.get_json_bytes("/")
    assert receiver.connections == 1


async def test_a_call_may_be_given_a_time_of_its_own(
    receive: Receive, clients: list[ApiClient]
) -> None:
    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(2**16)
        await asyncio.Event().wait()

    receiver = await receive(hang)
    clients.append(ApiClient(f"http://127.0.0.1:{receiver.port}", {}))
    with pytest.raises(ProviderUnavailable, match=r"No answer within 0\.1 s"):
        await clients[0].post("/batches", b"{}", timeout_seconds=0.1)


async def test_a_stream_whose_head_drips_is_given_up(
    receive: Receive, clients: list[ApiClient], tmp_path: Path
) -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nX-Drip: ")
        while not writer.is_closing():
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.01)

    receiver = await receive(drip)
    clients.append(ApiClient(f"http://127.0.0.1:{receiver.port}", {}, stall_seconds=0.2))
    with pytest.raises(ProviderUnavailable, match=r"No answer within 0\.2 s"):
        await downloaded(clients[0], tmp_path)


# Uploads.


async def test_an_upload_is_a_form_of_known_length(
    receive: Receive, clients: list[ApiClient], tmp_path: Path
) -> None:
    bodies: list[bytes] = []

    async def keep(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await head_of(reader)
        length = next(int(n) for n in re.findall(rb"(?i)content-length: (\d+)", head))
        bodies.append(head + await reader.readexactly(length))
        writer.write(OK)

    receiver = await receive(keep)
    file = tmp_path / "requests.jsonl"
    file.write_bytes(b"x" * 1_000_000)
    clients.append(ApiClient(f"http://127.0.0.1:{receiver.port}", {}))
    fields = {"purpose": "batch", 'a"b': "c"}
    status, _, _ = await clients[0].upload("/files", file, name='q"uote.jsonl', fields=fields)
    assert status == 200
    message = BytesParser(policy=HTTP).parsebytes(bodies[0].partition(b"\r\n")[2])
    parts = list(message.iter_parts())
    assert [part.get_content_disposition() for part in parts] == ["form-data"] * 3
    names = [part.get_param("name", header="content-disposition") for part in parts]
    assert names == ["purpose", "a%22b", "file"]
    assert parts[2].get_filename() == "q%22uote.jsonl"
    assert parts[2].get_payload(decode=True) == b"x" * 1_000_000


async def test_an_upload_that_is_not_taken_is_given_up(
    receive: Receive, clients: list[ApiClient], tmp_path: Path
) -> None:
    async def never_read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        await asyncio.Event().wait()

    receiver = await receive(never_read)
    file = tmp_path / "requests.jsonl"
    file.write_bytes(b"x" * 20_000_000)
    clients.append(ApiClient(f"http://127.0.0.1:{receiver.port}", {}, stall_seconds=0.2))
    with pytest.raises(ProviderUnavailable, match=r"upload fell silent for 0\.2 s"):
        await clients[0].upload("/files", file, name="r.jsonl", fields={})


async def test_an_upload_that_is_taken_and_not_answered_is_given_up(
    receive: Receive, clients: list[ApiClient], tmp_path: Path
) -> None:
    async def never_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(2**16):
            pass

    receiver = await receive(never_answer)
    file = tmp_path / "requests.jsonl"
    file.write_bytes(b"x" * 100_000)
    clients.append(ApiClient(f"http://127.0.0.1:{receiver.port}", {}))
    with pytest.raises(ProviderUnavailable, match=r"No answer within 0\.2 s"):
        await clients[0].upload("/files", file, name="r", fields={}, timeout_seconds=0.2)


@pytest.mark.parametrize(
    ("moved", "waited", "seconds", "reason"),
    [
        (0, 0.0, 60.0, "fell silent for 60 s"),
        (1, 40.0, 20.0, "moved fewer than 1000 bytes a second"),
        (1, 61.0, 0.0, "moved fewer than 1000 bytes a second"),
        (3_600_000, 3_500.0, 60.0, "fell silent for 60 s"),
        (3_600_000, 3_700.0, 0.0, "moved fewer than 1000 bytes a second"),
    ],
)
def test_a_body_must_move(moved: int, waited: float, seconds: float, reason: str) -> None:
    pace = Pace(stall_seconds=60.0, grace_seconds=60.0, bytes_per_second=1000.0)
    pace.moved(moved, waited_seconds=waited)
    assert pace.seconds() == pytest.approx(seconds, abs=0.01)
    assert pace.reason() == reason
