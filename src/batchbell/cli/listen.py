"""`listen` and `trigger`: develop against webhooks on your own machine."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from batchbell.cli.connection import connected, key_of
from batchbell.cli.endpoints import show_test
from batchbell.cli.options import ApiKey, Json, Server
from batchbell.cli.output import plain, print_json, say
from batchbell.cli.replays import moment_of

if TYPE_CHECKING:
    from batchbell.client import AsyncBatchbell, StreamedEvent
    from batchbell.core.endpoint import Endpoint
    from batchbell.core.outcome import Outcome
    from batchbell.net.client import Sender
    from batchbell.net.guard import AddressRules
    from batchbell.settings import Settings

FIRST_PAUSE_SECONDS = 1.0
ANSWER_SHOWN = 200


@dataclass(frozen=True, slots=True)
class Tried:
    """One call of the local receiver."""

    attempt: int
    outcome: Outcome
    again_in_seconds: float | None
    """None for the last try."""


class Forwarder:
    """Calls a receiver with each event, one at a time and in order."""

    def __init__(
        self, sender: Sender, receiver: Endpoint, *, timeout_seconds: float, retries: int
    ) -> None:
        self._sender = sender
        self._receiver = receiver
        self._timeout_seconds = timeout_seconds
        self._pauses = (*(FIRST_PAUSE_SECONDS * 2**n for n in range(retries)), None)

    async def forward(self, event: StreamedEvent) -> AsyncIterator[Tried]:
        """Call until it succeeds or no try is left; yields every try as soon as it ended."""
        for attempt, pause in enumerate(self._pauses, start=1):
            outcome = await self._call(event, attempt)
            yield Tried(attempt, outcome, None if outcome.success else pause)
            if outcome.success or pause is None:
                return
            await asyncio.sleep(pause)

    async def _call(self, event: StreamedEvent, attempt: int) -> Outcome:
        from batchbell import __version__
        from batchbell.core.endpoint import request_headers

        body = event.body.encode("ascii")
        headers = request_headers(
            self._receiver,
            user_agent=f"Batchbell/{__version__}",
            message_id=event.id,
            timestamp=int(time.time()),
            body=body,
            attempt=attempt,
        )
        return await self._sender.send(
            self._receiver.url, headers=headers, body=body, timeout_seconds=self._timeout_seconds
        )


def receiver(url: str, secret: str) -> Endpoint:
    """What is called, as if it were an endpoint of the server. Raises InvalidRequest."""
    from batchbell.core import signing
    from batchbell.core.endpoint import Endpoint

    signing.check_secret(secret)
    return Endpoint(id="", project_id="", url=url, secrets=(secret,))


def local_url(text: str) -> str:
    """`localhost:8000/hook` and `8000/hook` are URLs too."""
    if "://" in text:
        return text
    return (
        f"http://localhost:{text}" if text[:1].isdigit() and "." not in text else f"http://{text}"
    )


def local_rules(allow_cidrs: str) -> AddressRules:
    """This machine, by http too, beside what is allowed to webhooks."""
    from batchbell.net.guard import AddressRules, parse_cidrs

    return AddressRules(allow_http=True, allow_loopback=True, allow_cidrs=parse_cidrs(allow_cidrs))


def answer_of(tried: Tried) -> str:
    """What the receiver did, in one line."""
    outcome = tried.outcome
    took = f"{outcome.duration_ms:,.0f} ms"
    if outcome.status is None:
        said = f"failed: {outcome.detail or outcome.fault}"
    elif outcome.location is not None:
        said = (
            f"{outcome.status}: it leads to {outcome.location}, and is not followed; forward there"
        )
    elif outcome.success or not outcome.response_body:
        said = str(outcome.status)
    else:
        said = f"{outcome.status}: {' '.join(outcome.response_body.split())[:ANSWER_SHOWN]}"
    again = tried.again_in_seconds
    return f"{said} ({took})" + (f"; again in {again:g} s" if again is not None else "")


def attempts_json(tries: Sequence[Tried]) -> list[dict[str, object]]:
    """The tries, in the words of the API."""
    return [
        {
            "number": one.attempt,
            "result": "delivered" if one.outcome.success else "failed",
            "status": one.outcome.status,
            "fault": one.outcome.fault,
            "detail": one.outcome.detail,
            "location": one.outcome.location,
            "duration_ms": round(one.outcome.duration_ms, 1),
        }
        for one in tries
    ]


TIMEOUT_SECONDS = 15.0


def listen(
    forward_to: Annotated[
        str | None,
        typer.Option(
            "--forward-to",
            metavar="URL",
            help="POST each event there, signed, such as http://localhost:8000/hook.",
        ),
    ] = None,
    *,
    type_: Annotated[
        list[str] | None,
        typer.Option("--type", metavar="TYPE", help="Such as batch.completed; repeat for more."),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            "--since", metavar="TIME", help="Begin then: 2h, 3d, or 2026-08-01T12:00. Default: now."
        ),
    ] = None,
    secret: Annotated[
        str | None,
        typer.Option(
            "--secret", metavar="SECRET", help="Sign with this whsec_… in place of the project's."
        ),
    ] = None,
    retry: Annotated[
        int,
        typer.Option("--retry", metavar="NUMBER", min=0, max=10, help="Tries after a failed one."),
    ] = 0,
    timeout: Annotated[
        float,
        typer.Option("--timeout", metavar="SECONDS", min=1, help="Wall clock for one call."),
    ] = TIMEOUT_SECONDS,
    json: Json = False,
    server: Server = None,
    api_key: ApiKey = None,
) -> None:
    """Show the project's events as they are recorded, and forward them to your own machine."""
    from batchbell.settings import load_settings

    listener = Listener(
        settings=load_settings(url=server, api_key=api_key),
        forward_to=forward_to and local_url(forward_to),
        types=[word for text in type_ or () for word in text.split(",")],
        since=moment_of(since, "--since"),
        secret=secret,
        retries=retry,
        timeout_seconds=timeout,
        json=json,
    )
    asyncio.run(listener.run())


@dataclass(kw_only=True)
class Listener:
    """One run of `listen`."""

    settings: Settings
    forward_to: str | None
    types: list[str]
    since: float | None
    secret: str | None
    retries: int
    timeout_seconds: float
    json: bool
    _lost: bool = False
    _count: Counter[str] = field(default_factory=Counter)

    async def run(self) -> None:
        """Until Ctrl-C or SIGTERM. Raises what the client raises before it is connected."""
        from batchbell.process import stopped_by_signal

        stopped = asyncio.create_task(stopped_by_signal().wait())
        listening = asyncio.create_task(self._listen())
        await asyncio.wait((stopped, listening), return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        listening.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await listening
        say(self._summary())

    async def _listen(self) -> None:
        from batchbell.client import AsyncBatchbell

        settings = self.settings
        async with (
            AsyncBatchbell(settings.server_url, key_of(settings)) as bell,
            self._forwarder(bell) as forwarder,
            contextlib.aclosing(self._events(bell)) as events,
        ):
            async for event in events:
                await self._handle(event, forwarder)

    def _events(self, bell: AsyncBatchbell) -> AsyncGenerator[StreamedEvent]:
        from batchbell.core.ids import first_id

        after = None if self.since is None else first_id("evt", at=self.since)
        return bell.stream(
            after=after, types=self.types, on_open=self._opened, on_lost=self._interrupted
        )

    @contextlib.asynccontextmanager
    async def _forwarder(self, bell: AsyncBatchbell) -> AsyncIterator[Forwarder | None]:
        if self.forward_to is None:
            yield None
            return
        from batchbell.net.client import WebhookSender

        rules = local_rules(self.settings.allow_cidrs)
        rules.check_url(self.forward_to, param="--forward-to")
        secret = self.secret or await bell.secret()
        endpoint = receiver(self.forward_to, secret)
        say(f"Your webhook signing secret is {secret}")
        async with WebhookSender(lambda: rules) as sender:
            yield Forwarder(
                sender, endpoint, timeout_seconds=self.timeout_seconds, retries=self.retries
            )

    def _opened(self) -> None:
        if self._lost:
            self._lost = False
            say("Connected again; what was recorded meanwhile comes now.")
            return
        there = f", forwarding to {self.forward_to}" if self.forward_to else ""
        say(f"Listening to {self.settings.server_url}{there}. Ctrl-C ends it.")

    def _interrupted(self, error: Exception, _pause_seconds: float) -> None:
        if not self._lost:
            say(f"The connection is lost: {error} Trying until it is there again.")
        self._lost = True

    async def _handle(self, event: StreamedEvent, forwarder: Forwarder | None) -> None:
        about = f"{event.type}  {event.data.get('id')}  {event.id}"
        tries = []
        if forwarder is None:
            self._say(about)
        else:
            async for tried in forwarder.forward(event):
                tries.append(tried)
                self._say(f"{about}  → {answer_of(tried)}")
            self._count["forwarded" if tries[-1].outcome.success else "failed"] += 1
        self._count["events"] += 1
        if self.json:
            self._print_json(event, attempts_json(tries))

    def _say(self, line: str) -> None:
        if not self.json:
            print(f"{datetime.now().astimezone():%H:%M:%S}  {plain(line)}", flush=True)

    def _print_json(self, event: StreamedEvent, attempts: list[dict[str, object]]) -> None:
        import msgspec

        line = {"event": msgspec.Raw(event.body.encode()), "attempts": attempts}
        print(msgspec.json.encode(line).decode(), flush=True)

    def _summary(self) -> str:
        count = self._count
        if self.forward_to is None:
            return f"{count['events']:,} events seen."
        return f"{count['forwarded']:,} events forwarded, {count['failed']:,} failed."


def trigger(
    type_: Annotated[
        str, typer.Argument(metavar="TYPE", help="What the test event tells of.")
    ] = "batch.completed",
    endpoint: Annotated[
        str | None,
        typer.Option(
            "--endpoint", metavar="ID", help="Send it to this endpoint, now and once, instead."
        ),
    ] = None,
    json: Json = False,
    server: Server = None,
    api_key: ApiKey = None,
) -> None:
    """Make a test event, for those who `listen`. No endpoint receives it unless you name one."""
    with connected(server, api_key) as client:
        if endpoint is not None:
            show_test(client.test_endpoint(endpoint, event_type=type_), json=json)
            return
        made = client.trigger(type_)
    if json:
        print_json(made)
    else:
        print(f"{made.id}: {made.type}, for those who listen.")
