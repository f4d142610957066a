"""The client that blocks."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx2

from batchbell.client import calls, shapes
from batchbell.client.calls import PAGE_SIZE, TIMEOUT_SECONDS, Call
from batchbell.client.faults import ServerUnavailable, ServerUnreachable
from batchbell.client.reading import Reading
from batchbell.client.setting_up import SettingUp
from batchbell.client.shapes import Page, WatchSpec
from batchbell.client.streaming import Following, OnLost, OnOpen, follow
from batchbell.client.submitting import Submitting
from batchbell.client.waiting import OnChange, Wait

T = TypeVar("T")


class Batchbell(SettingUp, Reading, Submitting):
    """Talks to a Batchbell server. Use it in a `with` block, or `close()` it.

    `url` and `api_key` default to `BATCHBELL_URL` and `BATCHBELL_API_KEY`, and without those to
    `http://127.0.0.1:3000` and no key. Every call may raise ApiError or ServerUnreachable.
    """

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> None:
        self.url = calls.server_url(url)
        self._http = httpx2.Client(
            base_url=self.url, headers=calls.headers(api_key), timeout=timeout_seconds
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _send(self, call: Call[T]) -> T:
        try:
            answer = self._http.request(
                call.method, call.path, params=call.query, content=call.content()
            )
        except httpx2.HTTPError as error:
            raise calls.unreachable(self.url, error) from error
        return call.read(answer.status_code, answer.content)

    def _items(self, call: Call[Page[T]]) -> Iterator[T]:
        following: Call[Page[T]] | None = call
        while following is not None:
            page = self._send(following)
            yield from page.data
            following = calls.after_page(following, page)

    def watch(
        self,
        batch_id: str,
        url: str,
        *,
        events: Sequence[str] | None = None,
        metadata: Mapping[str, str] | None = None,
        account: str | None = None,
        results: str | None = None,
    ) -> shapes.Watch:
        """Have `url` called when the batch ends; the same pair again is the same watch."""
        return self._send(calls.watch(WatchSpec(batch_id, url, events, metadata, account, results)))

    def watch_many(self, specs: Sequence[WatchSpec]) -> list[shapes.Watch]:
        """Up to 1,000 watches in one call: all of them, or none."""
        return list(self._send(calls.watch_many(specs)).data)

    def get_watch(self, watch_id: str) -> shapes.Watch:
        """One watch."""
        return self._send(calls.get_watch(watch_id))

    def list_watches(
        self, *, batch_id: str | None = None, page_size: int = PAGE_SIZE
    ) -> Iterator[shapes.Watch]:
        """All watches, newest first, a page at a time."""
        return self._items(calls.list_watches(batch_id=batch_id, page_size=page_size))

    def update_watch(self, watch_id: str, **changes: Any) -> shapes.Watch:
        """Change its `events`, `metadata` or `results`, for what happens from now on."""
        return self._send(calls.update_watch(watch_id, changes))

    def delete_watch(self, watch_id: str) -> None:
        """Forget the watch, and what it was still to be told."""
        self._send(calls.delete_watch(watch_id))

    def batch(self, batch_id: str) -> shapes.Batch:
        """One batch."""
        return self._send(calls.batch(batch_id))

    def expunge(self, batch_id: str) -> shapes.Batch:
        """Remove the payloads of an ended batch: from then on its events are bare."""
        return self._send(calls.expunge(batch_id))

    def fetch_results(self, batch_id: str) -> shapes.Batch:
        """Have the server fetch the results of an ended batch from its provider.

        At once where a later try is due, and again where they were given up, expunged, or are
        missing on the server. Results that are there stay. Returns at once; `results` and
        `download_results` wait. Raises ApiError: `not_ended` while the batch runs.
        """
        return self._send(calls.fetch_results(batch_id))

    def batches(
        self, *, status: str | None = None, page_size: int = PAGE_SIZE
    ) -> Iterator[shapes.Batch]:
        """All batches, the last registered first."""
        return self._items(calls.batches(status=status, page_size=page_size))

    def event(self, event_id: str) -> shapes.Event:
        """One event, with how its deliveries stand."""
        return self._send(calls.event(event_id))

    def events(
        self,
        *,
        type: str | None = None,
        batch_id: str | None = None,
        delivery_success: bool | None = None,
        page_size: int = PAGE_SIZE,
    ) -> Iterator[shapes.Event]:
        """All events, newest first."""
        return self._items(
            calls.events(
                type=type,
                batch_id=batch_id,
                delivery_success=delivery_success,
                page_size=page_size,
            )
        )

    def stream(
        self,
        *,
        after: str | None = None,
        types: Sequence[str] | None = None,
        on_open: OnOpen | None = None,
        on_lost: OnLost | None = None,
    ) -> Generator[shapes.StreamedEvent]:
        """Every event from now on, or after one, as it is recorded, and without end.

        A connection that breaks is opened again, and nothing is missed: `on_lost` is called with
        the error and the pause in seconds, `on_open` with each connection. Raises
        ServerUnreachable and ServerUnavailable only before the first one, and ApiError.
        """
        following = Following(after=after, types=types, on_open=on_open, on_lost=on_lost)
        return follow(self._http, self.url, following)

    def trigger(self, type: str = "batch.completed") -> shapes.Event:
        """Record a test event, which streams tell and no endpoint is told of."""
        return self._send(calls.trigger(type))

    def resend(self, event_id: str, *, endpoint_id: str | None = None) -> list[shapes.Delivery]:
        """Deliver an event again, to everyone who was to hear of it or to one endpoint."""
        return list(self._send(calls.resend(event_id, endpoint_id=endpoint_id)).data)

    def delivery(self, delivery_id: str) -> shapes.Delivery:
        """One delivery with its attempts."""
        return self._send(calls.delivery(delivery_id))

    def deliveries(
        self,
        *,
        state: str | None = None,
        event_id: str | None = None,
        page_size: int = PAGE_SIZE,
    ) -> Iterator[shapes.Delivery]:
        """All deliveries, newest first."""
        return self._items(calls.deliveries(state=state, event_id=event_id, page_size=page_size))

    def create_endpoint(self, url: str, name: str, **wishes: Any) -> shapes.Endpoint:
        """Make an endpoint that hears of the whole project. Its secret is shown this once.

        `wishes` are the other fields of `POST /v1/webhook_endpoints`, such as `event_types`.
        """
        return self._send(calls.create_endpoint({"url": url, "name": name, **wishes}))

    def endpoint(self, endpoint_id: str) -> shapes.Endpoint:
        """One endpoint."""
        return self._send(calls.endpoint(endpoint_id))

    def endpoints(
        self, *, implied: bool = False, page_size: int = PAGE_SIZE
    ) -> Iterator[shapes.Endpoint]:
        """All endpoints, newest first; those of watched URLs only if `implied`."""
        return self._items(calls.endpoints(implied=implied, page_size=page_size))

    def update_endpoint(self, endpoint_id: str, **changes: Any) -> shapes.Endpoint:
        """Change some of what was wished for; None sets an optional field back."""
        return self._send(calls.update_endpoint(endpoint_id, changes))

    def delete_endpoint(self, endpoint_id: str) -> None:
        """Delete an endpoint, and what it was still to be told."""
        self._send(calls.delete_endpoint(endpoint_id))

    def rotate_secret(self, endpoint_id: str, *, keep_old_seconds: float = 0) -> shapes.Endpoint:
        """Sign with a new secret, shown this once, and with the old ones for that long."""
        return self._send(calls.rotate_secret(endpoint_id, keep_old_seconds=keep_old_seconds))

    def test_endpoint(
        self, endpoint_id: str, *, event_type: str = "batch.completed"
    ) -> shapes.EndpointTest:
        """Send a test event now, once."""
        return self._send(calls.test_endpoint(endpoint_id, event_type=event_type))

    def enable_endpoint(self, endpoint_id: str) -> shapes.Endpoint:
        """Let a disabled endpoint be called again."""
        return self._send(calls.enable_endpoint(endpoint_id))

    def replay(
        self,
        *,
        status: str = "failed",
        endpoint_id: str | None = None,
        event_id: str | None = None,
        since: float | None = None,
        until: float | None = None,
        types: Sequence[str] | None = None,
        enable: bool = False,
        as_new: bool = False,
        pace: float | None = None,
    ) -> shapes.Replay:
        """Send many deliveries again, as a job of the server: `failed`, `held`, `missing`, `all`.

        `since` and `until` (seconds since the epoch) bound the time of the event.
        """
        return self._send(
            calls.replay(
                status=status,
                endpoint_id=endpoint_id,
                event_id=event_id,
                since=since,
                until=until,
                types=types,
                enable=enable,
                as_new=as_new,
                pace=pace,
            )
        )

    def count_replay(
        self,
        *,
        status: str = "failed",
        endpoint_id: str | None = None,
        event_id: str | None = None,
        since: float | None = None,
        until: float | None = None,
        types: Sequence[str] | None = None,
        enable: bool = False,
    ) -> shapes.ReplayCounts:
        """What `replay` would do; nothing is sent."""
        return self._send(
            calls.count_replay(
                status=status,
                endpoint_id=endpoint_id,
                event_id=event_id,
                since=since,
                until=until,
                types=types,
                enable=enable,
            )
        )

    def get_replay(self, replay_id: str) -> shapes.Replay:
        """One replay, with how far it is."""
        return self._send(calls.get_replay(replay_id))

    def list_replays(self, *, page_size: int = PAGE_SIZE) -> Iterator[shapes.Replay]:
        """All replays, newest first."""
        return self._items(calls.list_replays(page_size=page_size))

    def cancel_replay(self, replay_id: str) -> shapes.Replay:
        """Walk no further; what was made due stays so."""
        return self._send(calls.cancel_replay(replay_id))

    def ready(self) -> shapes.Readiness:
        """Whether the server can work, and if not, why."""
        return self._send(calls.ready())

    def wait(
        self, batch_id: str, *, timeout: float | None = None, on_change: OnChange | None = None
    ) -> shapes.Batch:
        """Return the batch once it has ended. Raises WaitTimedOut after `timeout` seconds.

        `on_change` is called with the batch as it is first seen, and whenever it has changed.
        """
        wait = Wait(batch_id, started=time.monotonic(), timeout=timeout, on_change=on_change)
        while True:
            try:
                batch = self.batch(batch_id)
            except (ServerUnreachable, ServerUnavailable) as error:
                wait.miss(error, now=time.monotonic())
            else:
                if wait.see(batch):
                    return batch
            time.sleep(wait.pause_seconds(now=time.monotonic()))
