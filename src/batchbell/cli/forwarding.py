"""A stream's events to a URL of this machine, each as a real delivery would come."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from batchbell.client import StreamedEvent
    from batchbell.core.endpoint import Endpoint
    from batchbell.core.outcome import Outcome
    from batchbell.net.client import Sender
    from batchbell.net.guard import AddressRules

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
