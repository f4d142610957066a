"""The webhook sender against receivers that behave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from batchbell.core.outcome import Fault, Outcome
from batchbell.net import dialer
from batchbell.net.client import WebhookSender
from batchbell.net.guard import AddressRules, parse_cidrs
from tests.net.raw_receivers import Receive, answering, read_request

LOCAL = AddressRules(allow_http=True, allow_loopback=True)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
HEADERS = {"webhook-id": "evt_1", "content-type": "application/json", "user-agent": "Batchbell/0"}


@pytest.fixture
async def sender() -> AsyncIterator[WebhookSender]:
    async with WebhookSender(lambda: LOCAL, clock=lambda: 1_000.0) as sender:
        yield sender


async def send(sender: WebhookSender, url: str, *, timeout_seconds: float = 10.0) -> Outcome:
    return await sender.send(url, headers=HEADERS, body=b'{"a":1}', timeout_seconds=timeout_seconds)


async def keep_answering(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await read_request(reader):
        writer.write(OK)


async def test_a_2xx_is_an_outcome_with_all_there_is_to_know(
    sender: WebhookSender, receive: Receive
) -> None:
    receiver = await receive(answering(OK))
    outcome = await send(sender, receiver.url())
    assert outcome.status == 200
    assert outcome.fault is None
    assert outcome.response_body == "ok"
    assert outcome.response_headers == {"content-length": "2"}
    assert outcome.remote_address == "127.0.0.1"
    assert outcome.request_headers == HEADERS
    assert outcome.started_at == 1_000.0
    assert outcome.duration_ms > 0


async def test_only_our_headers_are_sent_and_no_packing_is_asked_for(
    sender: WebhookSender, receive: Receive
) -> None:
    receiver = await receive(answering(OK))
    await send(sender, receiver.url())
    lines = receiver.requests[0].decode().strip().split("\r\n")
    assert lines[0] == "POST /hook HTTP/1.1"
    names = {line.split(":")[0].lower() for line in lines[1:]}
    assert names == {"host", "content-length", *HEADERS}


async def test_a_connection_is_used_again_and_cookies_are_not(
    sender: WebhookSender, receive: Receive
) -> None:
    async def baking(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await read_request(reader):
            writer.write(b"HTTP/1.1 204 No\r\nSet-Cookie: a=secret; Path=/\r\n\r\n")

    receiver = await receive(baking)
    outcomes = [await send(sender, receiver.url()) for _ in range(3)]
    assert receiver.connections == 1
    assert [outcome.status for outcome in outcomes] == [204, 204, 204]
    assert outcomes[0].response_headers == {"set-cookie": "***"}
    assert not any(b"cookie" in request.lower() for request in receiver.requests)


async def test_the_query_reaches_the_receiver_as_it_was_given(
    sender: WebhookSender, receive: Receive
) -> None:
    receiver = await receive(answering(OK))
    await send(sender, receiver.url() + "/a%2Fb?token=%7E+x&y#fragment")
    assert receiver.requests[0].startswith(b"POST /hook/a%2Fb?token=%7E+x&y HTTP/1.1\r\n")


async def test_retry_after_is_read_in_seconds(sender: WebhookSender, receive: Receive) -> None:
    receiver = await receive(
        answering(b"HTTP/1.1 429 Slow\r\nRetry-After: 17\r\nContent-Length: 0\r\n\r\n")
    )
    outcome = await send(sender, receiver.url())
    assert (outcome.status, outcome.retry_after_seconds) == (429, 17.0)


async def test_a_body_over_a_megabyte_is_sent_whole(
    sender: WebhookSender, receive: Receive
) -> None:
    sizes = []

    async def measure(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sizes.append(len(await read_request(reader)))
        writer.write(OK)

    receiver = await receive(measure)
    body = b"x" * 3_000_000
    outcome = await sender.send(receiver.url(), headers=HEADERS, body=body, timeout_seconds=10)
    assert outcome.status == 200
    assert sizes[0] == len(receiver.requests[0]) + len(body)


async def test_a_kept_connection_that_had_died_unseen_costs_no_attempt(
    sender: WebhookSender, receive: Receive
) -> None:
    receiver = await receive(answering(OK))  # closes after each answer without saying so
    outcomes = [await send(sender, receiver.url()) for _ in range(5)]
    assert [outcome.status for outcome in outcomes] == [200] * 5
    assert receiver.connections == 5


async def test_a_fresh_connection_that_is_closed_is_not_tried_again(
    sender: WebhookSender, receive: Receive
) -> None:
    receiver = await receive(answering(b""))
    outcome = await send(sender, receiver.url())
    assert outcome.fault is Fault.RESET
    assert len(receiver.requests) == 1


async def test_cancelling_a_call_closes_its_connection(
    sender: WebhookSender, receive: Receive
) -> None:
    called, gone = asyncio.Event(), asyncio.Event()

    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        called.set()
        await reader.read()
        gone.set()

    receiver = await receive(wait)
    task = asyncio.create_task(send(sender, receiver.url()))
    await called.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await gone.wait()


async def test_what_a_private_receiver_says_is_not_shown(receive: Receive) -> None:
    rules = AddressRules(allow_http=True, allow_cidrs=parse_cidrs("127.0.0.0/8"))
    receiver = await receive(answering(OK))
    async with WebhookSender(lambda: rules) as sender:
        outcome = await send(sender, receiver.url())
    assert outcome.status == 200
    assert outcome.response_body is None


async def test_new_rules_hold_for_connections_that_were_kept(receive: Receive) -> None:
    rules = [LOCAL]
    receiver = await receive(keep_answering)
    async with WebhookSender(lambda: rules[0]) as sender:
        assert (await send(sender, receiver.url())).status == 200
        rules[0] = AddressRules(allow_http=True)
        outcome = await send(sender, receiver.url())
        assert outcome.fault is Fault.REFUSED
        rules[0] = LOCAL
        assert (await send(sender, receiver.url())).status == 200
    assert receiver.connections == 2


async def test_new_rules_do_not_cut_off_a_call_under_way(receive: Receive) -> None:
    rules = [LOCAL]
    called, go_on = asyncio.Event(), asyncio.Event()

    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        called.set()
        await go_on.wait()
        writer.write(OK)

    receiver = await receive(wait)
    async with WebhookSender(lambda: rules[0]) as sender:
        first = asyncio.create_task(send(sender, receiver.url()))
        await called.wait()
        rules[0] = AddressRules(allow_http=True)
        assert (await send(sender, receiver.url())).fault is Fault.REFUSED
        go_on.set()
        assert (await first).status == 200


async def test_more_calls_than_connections_wait_their_turn(receive: Receive) -> None:
    receiver = await receive(keep_answering)
    async with WebhookSender(lambda: LOCAL, max_connections=2) as sender:
        outcomes = await asyncio.gather(*(send(sender, receiver.url()) for _ in range(20)))
    assert {outcome.status for outcome in outcomes} == {200}
    assert receiver.connections <= 2


async def test_one_that_waits_for_a_slot_waits_within_its_time(receive: Receive) -> None:
    called, go_on = asyncio.Event(), asyncio.Event()

    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await read_request(reader):
            called.set()
            await go_on.wait()
            writer.write(OK)

    receiver = await receive(wait)
    async with WebhookSender(lambda: LOCAL, max_connections=1) as sender:
        first = asyncio.create_task(send(sender, receiver.url()))
        await called.wait()
        assert (await send(sender, receiver.url(), timeout_seconds=0.05)).fault is Fault.TIMEOUT
        cancelled = asyncio.create_task(send(sender, receiver.url()))
        third = asyncio.create_task(send(sender, receiver.url()))
        await asyncio.sleep(0)
        cancelled.cancel()
        go_on.set()
        assert [(await one).status for one in (first, third)] == [200, 200]
    assert len(receiver.requests) == 2
    assert cancelled.cancelled()


async def test_closing_ends_calls_at_every_stage(receive: Receive) -> None:
    called, asked = asyncio.Event(), asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        called.set()
        await reader.read()

    async def never(host: str) -> Sequence[str]:
        asked.set()
        await asyncio.Event().wait()
        return []

    receiver = await receive(hang)
    sender = WebhookSender(lambda: LOCAL, max_connections=2, lookup=never)
    urls = (receiver.url(), "http://slow.example.com/", receiver.url())
    calls = [asyncio.create_task(send(sender, url)) for url in urls]
    await called.wait()
    await asked.wait()
    await sender.aclose()
    assert [(await call).fault for call in calls] == [Fault.RESET] * 3
    assert (await send(sender, receiver.url())).fault is Fault.RESET
    assert receiver.connections == 1


async def test_a_kept_connection_is_tried_again_but_once(receive: Receive) -> None:
    """The second time it is a fresh one, whose end is the receiver's answer."""
    served = 0

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal served
        served += 1
        if await read_request(reader) and served == 1:
            writer.write(OK)
            await read_request(reader)

    receiver = await receive(once)
    async with WebhookSender(lambda: LOCAL) as sender:
        outcomes = [await send(sender, receiver.url()) for _ in range(2)]
    assert [outcome.fault for outcome in outcomes] == [None, Fault.RESET]
    assert (receiver.connections, len(receiver.requests)) == (2, 3)


async def test_the_outcome_comes_after_the_begin_however_soon_it_is_known() -> None:
    said: list[Outcome] = []
    async with WebhookSender(AddressRules) as sender:
        sender.begin("http://plain.example.com/", headers={}, body=b"", done=said.append)
        assert said == []
        await asyncio.sleep(0)
    assert [outcome.fault for outcome in said] == [Fault.REFUSED]


# Names: a lookup that tests hand in stands for DNS.


class Names:
    """Answers with each given list once, the last one for ever."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def __call__(self, host: str) -> Sequence[str]:
        self.asked.append(host)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def only(cidr: str) -> AddressRules:
    return AddressRules(allow_http=True, allow_cidrs=parse_cidrs(cidr))


async def test_the_host_header_keeps_the_name(receive: Receive) -> None:
    receiver = await receive(answering(OK))
    names = Names(["127.0.0.1"])
    async with WebhookSender(lambda: LOCAL, lookup=names) as sender:
        outcome = await send(sender, receiver.url("hooks.example.com"))
    assert outcome.status == 200
    assert names.asked == ["hooks.example.com"]
    assert f"Host: hooks.example.com:{receiver.port}".encode() in receiver.requests[0]


async def test_a_name_that_rebinds_to_loopback_is_refused_with_a_reason(
    receive: Receive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pitfall 27: a blocked address comes with an explanation."""
    monkeypatch.setattr(dialer, "NAMES_KEPT_SECONDS", 0)
    receiver = await receive(answering(OK), host="0.0.0.0")
    names = Names(["127.0.0.2"], ["127.0.0.1"])
    async with WebhookSender(lambda: only("127.0.0.2"), lookup=names) as sender:
        assert (await send(sender, receiver.url("rebind.example.com"))).status == 200
        outcome = await send(sender, receiver.url("rebind.example.com"))
    assert outcome.fault is Fault.REFUSED
    assert "127.0.0.1 is a loopback address" in str(outcome.detail)
    assert "BATCHBELL_ALLOW_CIDRS" in str(outcome.detail)
    assert receiver.connections == 1


@pytest.mark.parametrize(
    "answer",
    [["127.0.0.2", "10.0.0.1"], ["169.254.169.254", "127.0.0.2"], ["127.0.0.2", "::1"]],
)
async def test_one_bad_address_refuses_the_whole_name(receive: Receive, answer: list[str]) -> None:
    receiver = await receive(answering(OK), host="127.0.0.2")
    async with WebhookSender(lambda: only("127.0.0.2"), lookup=Names(answer)) as sender:
        outcome = await send(sender, receiver.url("mixed.example.com"))
    assert outcome.fault is Fault.REFUSED
    assert receiver.connections == 0


async def test_a_name_without_addresses_is_a_dns_fault() -> None:
    async with WebhookSender(lambda: LOCAL, lookup=Names([])) as sender:
        outcome = await send(sender, "http://gone.example.com/secret-path")
    assert outcome.fault is Fault.DNS
    assert "gone.example.com" in str(outcome.detail)
    assert "secret-path" not in str(outcome.detail)


async def test_a_name_that_the_system_does_not_know_is_a_dns_fault(sender: WebhookSender) -> None:
    outcome = await send(sender, "http://no-such-name.invalid/")
    assert outcome.fault is Fault.DNS


async def test_a_name_server_that_hangs_is_a_dns_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batchbell.net.names.DNS_TIMEOUT_SECONDS", 0.05)

    async def hang(host: str) -> Sequence[str]:
        await asyncio.Event().wait()
        return []

    async with WebhookSender(lambda: LOCAL, lookup=hang) as sender:
        outcome = await send(sender, "http://slow.example.com/")
    assert outcome.fault is Fault.DNS
    assert "no answer within 0.05 s" in str(outcome.detail)


async def test_the_systems_names_are_asked_once_for_many(receive: Receive) -> None:
    receiver = await receive(keep_answering)
    async with WebhookSender(lambda: LOCAL) as sender:
        url = receiver.url("localhost")
        outcomes = await asyncio.gather(*(send(sender, url) for _ in range(5)))
    assert {outcome.status for outcome in outcomes} == {200}
