"""What the receiver keeps, and each way it behaves, seen from a raw client."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from batchbell.core import signing
from batchbell.sandbox import (
    Behaviour,
    Drip,
    Endless,
    Garbage,
    GzipBomb,
    Hang,
    Hold,
    QuickReceiver,
    Received,
    Receiver,
    Reset,
    Respond,
    Stall,
    redirect,
)

SECRET = signing.make_secret(b"s" * 24)
SECONDS = 10


@asynccontextmanager
async def raw_call(
    receiver: Receiver | QuickReceiver, path: str = "/hook", body: bytes = b"{}", headers: str = ""
) -> AsyncIterator[asyncio.StreamReader]:
    """One request on a bare socket; yields what comes back."""
    reader, writer = await asyncio.open_connection(receiver.host, receiver.port)
    opening = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    writer.write(opening.encode() + body)
    try:
        async with asyncio.timeout(SECONDS):
            yield reader
    finally:
        writer.transport.abort()


async def test_a_request_is_kept_with_everything_that_came(receiver: Receiver) -> None:
    async with raw_call(receiver, "/hook?x=1", b"ring", "X-Bell: Loud\r\n") as reader:
        head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    [received] = await receiver.wait_for(1)
    assert (received.method, received.path, received.body) == ("POST", "/hook?x=1", b"ring")
    assert received.headers["x-bell"] == "Loud"
    assert received.peer[0] == "127.0.0.1"
    assert received.verified is None
    assert receiver.counts == {"/hook": 1}


async def test_a_connection_is_used_again(receiver: Receiver, http: aiohttp.ClientSession) -> None:
    for n in range(3):
        async with http.post(receiver.url(), data=b"%d" % n) as answer:
            assert answer.status == 200
    assert [received.body for received in receiver.received] == [b"0", b"1", b"2"]
    assert len({received.peer for received in receiver.received}) == 1


async def test_a_chunked_body_is_put_together(
    receiver: Receiver, http: aiohttp.ClientSession
) -> None:
    async def parts() -> AsyncIterator[bytes]:
        yield b"ding"
        yield b"dong"

    async with http.post(receiver.url(), data=parts()):
        pass
    assert receiver.received[0].body == b"dingdong"


async def test_answers_follow_the_given_order_and_the_last_one_stays(
    receiver: Receiver, http: aiohttp.ClientSession
) -> None:
    receiver.behave("/hook", Respond(503, {"retry-after": "4"}), Respond(204))
    seen = []
    for _ in range(3):
        async with http.post(receiver.url()) as answer:
            seen.append((answer.status, answer.headers.get("retry-after")))
    assert seen == [(503, "4"), (204, None), (204, None)]
    async with http.post(receiver.url("/other")) as answer:
        assert answer.status == 200


async def test_a_function_may_choose_the_answer(
    receiver: Receiver, http: aiohttp.ClientSession
) -> None:
    def choose(received: Received) -> Behaviour:
        return Respond(500 if received.body == b"bad" else 200)

    receiver.default = choose
    seen = []
    for body in (b"good", b"bad"):
        async with http.post(receiver.url(), data=body) as answer:
            seen.append(answer.status)
    assert seen == [200, 500]


async def test_a_late_answer_is_a_whole_one(
    receiver: Receiver, http: aiohttp.ClientSession
) -> None:
    receiver.behave("/hook", Respond(201, body=b"late", delay_seconds=0.01))
    async with http.post(receiver.url()) as answer:
        assert (answer.status, await answer.read()) == (201, b"late")


async def test_a_held_call_is_answered_on_release(
    receiver: Receiver, http: aiohttp.ClientSession
) -> None:
    receiver.behave("/hook", Hold(Respond(202)))
    call = asyncio.create_task(http.post(receiver.url()))
    await receiver.wait_for(1)
    assert not call.done()
    receiver.release()
    assert (await call).status == 202


async def test_waiting_in_vain_says_what_came(receiver: Receiver) -> None:
    with pytest.raises(TimeoutError, match="0 of 1 requests"):
        await receiver.wait_for(1, timeout=0.01)


async def test_waiting_for_a_path_leaves_others_out(receiver: Receiver) -> None:
    for path in ("/a", "/b?x=1", "/b"):
        async with raw_call(receiver, path) as reader:
            await reader.readuntil(b"\r\n\r\n")
    assert [r.path for r in await receiver.wait_for(2, path="/b")] == ["/b?x=1", "/b"]


async def test_signatures_are_verified_and_bad_ones_counted() -> None:
    async with (
        Receiver(secret=SECRET, clock=lambda: 1_700_000_000.0) as receiver,
        aiohttp.ClientSession() as http,
    ):
        good = signing.headers([SECRET], message_id="evt_1", timestamp=1_700_000_000, body=b"{}")
        for body in (b"{}", b"{ }"):
            async with http.post(receiver.url(), data=body, headers=good):
                pass
        assert [received.verified for received in receiver.received] == [True, False]
        assert receiver.bad_signatures == 1


async def test_a_redirect_names_its_target(receiver: Receiver) -> None:
    receiver.behave("/hook", redirect("http://127.0.0.1:1/inside"))
    async with raw_call(receiver) as reader:
        head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 307 ")
    assert b"\r\nlocation: http://127.0.0.1:1/inside\r\n" in head


async def test_a_reset_is_seen_as_one(receiver: Receiver) -> None:
    receiver.behave("/hook", Reset())
    async with raw_call(receiver) as reader:
        with pytest.raises(ConnectionResetError):
            await reader.read()


async def test_a_reset_may_follow_the_headers(receiver: Receiver) -> None:
    receiver.behave("/hook", Reset(status=200))
    async with raw_call(receiver) as reader:
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        with pytest.raises(ConnectionResetError):
            await reader.read()


async def test_garbage_is_not_http(receiver: Receiver) -> None:
    receiver.behave("/hook", Garbage())
    async with raw_call(receiver) as reader:
        assert not (await reader.read()).startswith(b"HTTP/")


async def test_a_bomb_is_small_until_it_is_unpacked(receiver: Receiver) -> None:
    receiver.behave("/hook", GzipBomb(megabytes=8))
    async with raw_call(receiver) as reader:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.partition("content-length: ")[2].partition("\r\n")[0])
        body = await reader.readexactly(length)
    assert "content-encoding: gzip" in head
    assert length < 20_000
    assert len(gzip.decompress(body)) == 8 * 2**20


async def test_a_body_drips(receiver: Receiver) -> None:
    receiver.behave("/hook", Drip(seconds=0.001))
    async with raw_call(receiver) as reader:
        await reader.readuntil(b"\r\n\r\n")
        assert await reader.readexactly(5) == b"....."


async def test_headers_drip(receiver: Receiver) -> None:
    receiver.behave("/hook", Drip(seconds=0.0001, headers_too=True))
    async with raw_call(receiver) as reader:
        await reader.readuntil(b"x-slow: ...")


async def test_an_endless_body_goes_on_as_long_as_it_is_read(receiver: Receiver) -> None:
    receiver.behave("/hook", Endless())
    async with raw_call(receiver) as reader:
        await reader.readuntil(b"\r\n\r\n")
        assert len(await reader.readexactly(5 * 2**20)) == 5 * 2**20


HOSTILE = [Hang(), Hold(), Drip(), Drip(headers_too=True), Stall(), Endless()]


@pytest.mark.parametrize("behaviour", HOSTILE, ids=repr)
async def test_whoever_never_ends_ends_when_the_receiver_is_closed(behaviour: Behaviour) -> None:
    before = asyncio.all_tasks()
    async with Receiver() as receiver:
        receiver.behave("/hook", behaviour)
        async with raw_call(receiver) as reader:
            await receiver.wait_for(1)
            await receiver.stop()
            try:
                while await reader.read(2**20):
                    pass
            except ConnectionError:
                pass
        assert receiver.open_connections == 0
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize("behaviour", HOSTILE, ids=repr)
async def test_a_caller_that_gives_up_leaves_nothing_behind(
    receiver: Receiver, behaviour: Behaviour
) -> None:
    receiver.behave("/hook", behaviour)
    async with raw_call(receiver):
        await receiver.wait_for(1)
        [gone] = [connection.gone for connection in receiver._connections]
    await asyncio.wait_for(gone, SECONDS)
    assert receiver.open_connections == 0
    receiver.release()


async def test_a_stalled_body_stays_away(receiver: Receiver, http: aiohttp.ClientSession) -> None:
    receiver.behave("/hook", Stall(status=202))
    async with http.post(receiver.url()) as answer:
        assert answer.status == 202
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(answer.read(), 0.05)


async def test_bytes_that_are_not_http_are_refused(receiver: Receiver) -> None:
    reader, writer = await asyncio.open_connection(receiver.host, receiver.port)
    writer.write(b"\x16\x03\x01 hello\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
    writer.close()
    await writer.wait_closed()


async def test_a_stopped_receiver_comes_back_on_the_same_port(
    receiver: Receiver, http: aiohttp.ClientSession
) -> None:
    url = receiver.url()
    await receiver.stop()
    with pytest.raises(aiohttp.ClientConnectorError):
        await http.post(url)
    await receiver.start()
    async with http.post(url) as answer:
        assert answer.status == 200


async def test_the_quick_receiver_counts_whole_requests() -> None:
    async with QuickReceiver() as receiver:
        reader, writer = await asyncio.open_connection(receiver.host, receiver.port)
        one = b"POST / HTTP/1.1\r\nhost: x\r\nContent-Length: 4\r\n\r\nring"
        writer.write(one + one + one[:-2])
        await receiver.wait_for(2)
        assert (await reader.readexactly(80)).count(b"HTTP/1.1 200 OK") == 2
        assert receiver.total == 2
        writer.write(one[-2:])
        await receiver.wait_for(3)
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize("delay_seconds", [0.0, 0.001])
async def test_the_quick_receiver_serves_an_http_client(
    http: aiohttp.ClientSession, delay_seconds: float
) -> None:
    async with QuickReceiver(delay_seconds=delay_seconds) as receiver:
        for _ in range(3):
            async with http.post(receiver.url(), data=b"x" * 5_000) as answer:
                assert await answer.text() == "ok"
        assert receiver.total == 3
