"""Passing calls on, against servers that answer byte by byte as they are told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from batchbell.core.errors import InvalidRequest, ProviderUnavailable
from batchbell.core.twins import NOT_ANSWERED, NOT_REACHED
from batchbell.net.guard import AddressRules
from batchbell.net.headers import backward, onward
from batchbell.net.pace import Pace
from batchbell.net.relay import Onward, Relay
from batchbell.providers.registry import ANSWER_PREFIXES
from tests.net.raw_receivers import Receive, Receiver, answering

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
CHUNK = bytes(2**16)


@pytest.fixture
async def relay() -> AsyncIterator[Relay]:
    async with Relay(answer_seconds=20, stall_seconds=20) as relay:
        yield relay


@pytest.fixture
async def hasty() -> AsyncIterator[Relay]:
    """Of little patience."""
    async with Relay(answer_seconds=0.1, stall_seconds=0.1) as relay:
        yield relay


def to(receiver: Receiver, **how: Any) -> Onward:
    return Onward(**{"method": "POST", "url": receiver.url(), "headers": [], **how})


async def parts(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def never() -> AsyncIterator[bytes]:
    yield b"one"
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("sent", "passed"),
    [
        ("Authorization", False),
        ("bb-account", False),
        ("Host", False),
        ("Cookie", False),
        ("X-Forwarded-For", False),
        ("Transfer-Encoding", False),
        ("X-Mine", False),
        ("Content-Length", True),
        ("Range", True),
        ("OpenAI-Project", True),
        ("User-Agent", True),
    ],
)
def test_which_headers_go_on(sent: str, passed: bool) -> None:
    raw = [(sent.encode(), b"x"), (b"Connection", b"keep-alive, X-Mine")]
    assert onward(raw) == ([(sent.lower().encode(), b"x")] if passed else [])


@pytest.mark.parametrize(
    ("sent", "passed"),
    [
        ("Set-Cookie", False),
        ("Date", False),
        ("Keep-Alive", False),
        ("Alt-Svc", False),
        ("Refresh", False),
        ("Link", False),
        ("Clear-Site-Data", False),
        ("Access-Control-Allow-Origin", False),
        ("Strict-Transport-Security", False),
        ("X-Accel-Redirect", False),
        ("Location", False),
        ("Retry-After", True),
        ("Content-Disposition", True),
        ("X-Request-Id", True),
        ("x-ratelimit-remaining-requests", True),
        ("openai-processing-ms", True),
        ("Content-Encoding", True),
    ],
)
def test_which_headers_come_back(sent: str, passed: bool) -> None:
    found = backward([(sent.encode(), b"x")], ANSWER_PREFIXES)
    assert found == ([(sent.lower().encode(), b"x")] if passed else [])


async def test_a_body_goes_on_under_its_own_length(receive: Receive, relay: Relay) -> None:
    receiver = await receive(answering(OK))
    headers = [(b"content-length", b"6"), (b"authorization", b"Bearer sk")]
    reply = await relay.send(to(receiver, headers=headers, body=parts(b"abc", b"def")))
    assert (reply.status, await reply.read()) == (200, b"{}")
    head = receiver.requests[0].lower()
    assert b"content-length: 6\r\n" in head
    assert b"transfer-encoding" not in head
    assert b"accept" not in head
    assert b"authorization: bearer sk\r\n" in head


async def test_nothing_is_held_of_what_the_provider_does_not_take(
    receive: Receive, relay: Relay
) -> None:
    """The caller's body is asked for no faster than the provider reads."""
    reading, taken = asyncio.Event(), 0

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await reading.wait()
        await reader.readexactly(1000 * len(CHUNK))
        writer.write(OK)

    async def endless() -> AsyncIterator[bytes]:
        nonlocal taken
        for _ in range(1000):
            taken += 1
            yield CHUNK

    receiver = await receive(slow)
    headers = [(b"content-length", str(1000 * len(CHUNK)).encode())]
    sending = asyncio.create_task(relay.send(to(receiver, headers=headers, body=endless())))
    before = -1
    while before != taken:  # until the sockets of both sides are full
        before = taken
        for _ in range(100):
            await asyncio.sleep(0)
    assert 0 < taken < 500
    reading.set()
    assert await (await sending).read() == b"{}"
    assert taken == 1000


async def test_what_is_packed_stays_packed(receive: Receive, relay: Relay) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc"
    reply = await relay.send(to(await receive(answering(answer)), body=b""))
    assert (b"content-encoding", b"gzip") in reply.headers
    assert await reply.read() == b"abc"


async def test_a_provider_that_is_not_there_has_seen_nothing(
    receive: Receive, relay: Relay
) -> None:
    with pytest.raises(ProviderUnavailable, match="refused") as caught:
        await relay.send(Onward(method="GET", url="http://127.0.0.1:9/v1/files", headers=[]))
    assert caught.value.code == NOT_REACHED


async def test_a_provider_that_hangs_up_may_have_seen_all(receive: Receive, relay: Relay) -> None:
    receiver = await receive(answering(b""))
    with pytest.raises(ProviderUnavailable) as caught:
        await relay.send(to(receiver, body=b"{}"))
    assert caught.value.code == NOT_ANSWERED
    assert receiver.connections == 1


async def test_an_answer_that_is_cut_off_is_not_taken_for_whole(
    receive: Receive, relay: Relay
) -> None:
    cut = b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nhalf"
    reply = await relay.send(to(await receive(answering(cut)), body=b""))
    with pytest.raises(ProviderUnavailable, match="cut off"):
        await reply.read()
    reply.close()


async def test_an_answer_that_is_too_long_to_be_read_whole_is_left(
    receive: Receive, relay: Relay
) -> None:
    reply = await relay.send(to(await receive(answering(OK)), body=b""))
    with pytest.raises(ProviderUnavailable, match="larger than 1 bytes"):
        await reply.read(most=1)
    reply.close()


async def test_silence_ends_a_call(receive: Receive, hasty: Relay) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.Event().wait()

    with pytest.raises(ProviderUnavailable, match="No answer within") as caught:
        await hasty.send(to(await receive(silent), body=b""))
    assert caught.value.code == NOT_ANSWERED


async def test_silence_ends_an_answer(receive: Receive, hasty: Relay) -> None:
    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nhalf")
        await asyncio.Event().wait()

    reply = await hasty.send(to(await receive(half), body=b""))
    with pytest.raises(ProviderUnavailable, match="fell silent"):
        await reply.read()
    reply.close()


async def test_an_answer_that_drips_is_given_up(
    receive: Receive, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.01)

    monkeypatch.setitem(Pace.__init__.__kwdefaults__, "grace_seconds", 0.2)
    reply = await relay.send(to(await receive(drip), body=b""))
    with pytest.raises(ProviderUnavailable, match="moved fewer than"):
        await reply.read()
    reply.close()


async def test_a_caller_whose_body_stands_still_is_told_so(receive: Receive) -> None:
    headers = [(b"content-length", b"6")]
    async with Relay(answer_seconds=20, stall_seconds=0.1) as relay:
        with pytest.raises(InvalidRequest) as caught:
            await relay.send(to(await receive(answering(OK)), headers=headers, body=never()))
    assert (caught.value.status, caught.value.code) == (408, "body_stalled")


async def test_a_body_that_fails_fails_the_call_with_its_own_error(
    receive: Receive, relay: Relay
) -> None:
    class Left(Exception):
        pass

    gone = asyncio.Event()

    async def reads(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(2**16):
            pass
        gone.set()

    async def failing() -> AsyncIterator[bytes]:
        yield b"one"
        raise Left

    with pytest.raises(Left):
        await relay.send(to(await receive(reads), body=failing()))
    await gone.wait()


async def test_a_call_that_is_cancelled_ends_at_the_provider_too(
    receive: Receive, relay: Relay
) -> None:
    asked, gone = asyncio.Event(), asyncio.Event()

    async def waits(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        await reader.read()
        gone.set()

    sending = asyncio.create_task(relay.send(to(await receive(waits), body=b"")))
    await asked.wait()
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    await gone.wait()


async def test_a_redirect_is_not_followed(receive: Receive, relay: Relay) -> None:
    moved = b"HTTP/1.1 307 Moved\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"
    with pytest.raises(ProviderUnavailable, match="is the base URL right"):
        await relay.send(to(await receive(answering(moved)), body=b""))


async def test_an_address_that_came_by_api_is_judged(receive: Receive, relay: Relay) -> None:
    receiver = await receive(answering(OK))
    for rules in (AddressRules(), AddressRules(allow_http=True)):
        with pytest.raises(ProviderUnavailable) as caught:
            await relay.send(to(receiver, body=b"", rules=rules))
        assert caught.value.code == NOT_REACHED
    assert receiver.connections == 0
    open_rules = AddressRules(allow_http=True, allow_loopback=True)
    reply = await relay.send(to(receiver, body=b"", rules=open_rules))
    assert (reply.status, await reply.read()) == (200, b"{}")
