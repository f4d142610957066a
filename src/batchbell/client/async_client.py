"""The client that is awaited. `make format` makes the blocking one, `client.py`, from this file."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx2

from batchbell.api.accounts import Account, AccountDeleted, AccountTest
from batchbell.api.batches import Batch
from batchbell.api.deliveries import Delivery
from batchbell.api.endpoints import Endpoint, EndpointTest
from batchbell.api.events import Event
from batchbell.api.health import Readiness
from batchbell.api.keys import Key
from batchbell.api.lists import Page
from batchbell.api.projects import Project
from batchbell.api.replays import Replay, ReplayCounts
from batchbell.api.submissions import Submission
from batchbell.api.timeline import Timeline
from batchbell.api.watches import Watch
from batchbell.client import calls, downloads, streaming, submissions
from batchbell.client.calls import PAGE_SIZE, TIMEOUT_SECONDS, Call, WatchSpec, any_spelling
from batchbell.client.downloads import Download, OnBytes, ResultLine
from batchbell.client.errors import ServerUnavailable, ServerUnreachable
from batchbell.client.streaming import Following, OnLost, OnOpen, StreamedEvent
from batchbell.client.submissions import Requests, Tries
from batchbell.client.waits import OnChange, Wait

T = TypeVar("T")


class AsyncBatchbell:
    """Talks to a Batchbell server. Use it in an `async with` block, or `aclose()` it.

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
        self._http = httpx2.AsyncClient(
            base_url=self.url, headers=calls.headers(api_key), timeout=timeout_seconds
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _send(self, call: Call[T]) -> T:
        try:
            answer = await self._http.request(
                call.method, call.path, params=call.query, content=call.content()
            )
        except httpx2.HTTPError as error:
            raise calls.unreachable(self.url, error) from error
        return call.read(answer.status_code, answer.content)

    async def _items(self, call: Call[Page[T]]) -> AsyncIterator[T]:
        following: Call[Page[T]] | None = call
        while following is not None:
            page = await self._send(following)
            for item in page.data:
                yield item
            following = calls.after_page(following, page)

    @any_spelling
    async def watch(
        self,
        batch_id: str,
        url: str,
        *,
        events: Sequence[str] | None = None,
        metadata: Mapping[str, str] | None = None,
        account: str | None = None,
        results: str | None = None,
    ) -> Watch:
        """Have `url` called when the batch ends; the same pair again is the same watch."""
        return await self._send(
            calls.watch(WatchSpec(batch_id, url, events, metadata, account, results))
        )

    async def watch_many(self, specs: Sequence[WatchSpec]) -> list[Watch]:
        """Up to 1,000 watches in one call: all of them, or none."""
        return list((await self._send(calls.watch_many(specs))).data)

    async def get_watch(self, watch_id: str) -> Watch:
        """One watch."""
        return await self._send(calls.get_watch(watch_id))

    def list_watches(
        self, *, batch_id: str | None = None, page_size: int = PAGE_SIZE
    ) -> AsyncIterator[Watch]:
        """All watches, newest first, a page at a time."""
        return self._items(calls.list_watches(batch_id=batch_id, page_size=page_size))

    async def update_watch(self, watch_id: str, **changes: Any) -> Watch:
        """Change its `events`, `metadata` or `results`, for what happens from now on."""
        return await self._send(calls.update_watch(watch_id, changes))

    async def delete_watch(self, watch_id: str) -> None:
        """Forget the watch, and the deliveries that still wait for it."""
        await self._send(calls.delete_watch(watch_id))

    async def batch(self, batch_id: str) -> Batch:
        """One batch."""
        return await self._send(calls.batch(batch_id))

    async def timeline(self, batch_id: str) -> Timeline:
        """The story of one batch: statuses, results, events, deliveries, attempts, in order."""
        return await self._send(calls.timeline(batch_id))

    async def expunge(self, batch_id: str) -> Batch:
        """Remove the payloads of an ended batch: from then on its events are bare."""
        return await self._send(calls.expunge(batch_id))

    async def fetch_results(self, batch_id: str) -> Batch:
        """Have the server fetch the results of an ended batch from its provider.

        At once where a later try is due, and again where they were given up, expunged, or are
        missing on the server. Results that are there stay. Returns at once; `results` and
        `download_results` wait. Raises ApiError: `not_ended` while the batch runs.
        """
        return await self._send(calls.fetch_results(batch_id))

    def batches(
        self,
        *,
        id: str | None = None,
        status: str | None = None,
        outcome: str | None = None,
        provider: str | None = None,
        account: str | None = None,
        model: str | None = None,
        metadata: Mapping[str, str] | None = None,
        since: float | None = None,
        until: float | None = None,
        ended_since: float | None = None,
        ended_until: float | None = None,
        page_size: int = PAGE_SIZE,
    ) -> AsyncIterator[Batch]:
        """The batches that all of it is true of, the last registered first.

        `id` is how ids begin, `metadata` has pairs of the batch's own. Times are seconds since the
        epoch, from the one and before the other: of registering, and of the end.
        """
        return self._items(
            calls.batches(
                id=id,
                status=status,
                outcome=outcome,
                provider=provider,
                account=account,
                model=model,
                metadata=metadata,
                since=since,
                until=until,
                ended_since=ended_since,
                ended_until=ended_until,
                page_size=page_size,
            )
        )

    async def event(self, event_id: str) -> Event:
        """One event, with how its deliveries stand."""
        return await self._send(calls.event(event_id))

    def events(
        self,
        *,
        type: str | None = None,
        batch_id: str | None = None,
        endpoint_id: str | None = None,
        delivery_success: bool | None = None,
        since: float | None = None,
        until: float | None = None,
        page_size: int = PAGE_SIZE,
    ) -> AsyncIterator[Event]:
        """The events that all of it is true of, newest first.

        With `endpoint_id`, its own delivery of each event counts, and its time and order.
        """
        return self._items(
            calls.events(
                type=type,
                batch_id=batch_id,
                endpoint_id=endpoint_id,
                delivery_success=delivery_success,
                since=since,
                until=until,
                page_size=page_size,
            )
        )

    async def stream(
        self,
        *,
        after: str | None = None,
        types: Sequence[str] | None = None,
        on_open: OnOpen | None = None,
        on_lost: OnLost | None = None,
    ) -> AsyncGenerator[StreamedEvent]:
        """Every event from now on, or after one, as it is recorded, and without end.

        A connection that breaks is opened again, and nothing is missed: `on_lost` is called with
        the error and the pause in seconds, `on_open` with each connection. Raises
        ServerUnreachable and ServerUnavailable only before the first one, and ApiError.
        """
        following = Following(after=after, types=types, on_open=on_open, on_lost=on_lost)
        while True:
            try:
                async with self._http.stream(
                    "GET", streaming.PATH, params=following.query, timeout=self._silence()
                ) as answer:
                    if answer.status_code != 200:
                        raise calls.error_of(answer.status_code, await answer.aread())
                    streaming.check(self.url, answer)
                    following.opened()
                    async for line in answer.aiter_lines():
                        if (event := following.take(line)) is not None:
                            yield event
                error: ServerUnreachable | ServerUnavailable = streaming.ended(self.url)
            except httpx2.HTTPError as broken:
                error = calls.unreachable(self.url, broken)
            except (ServerUnavailable, ServerUnreachable) as away:
                error = away
            await asyncio.sleep(following.lost(error, rand=streaming.dice()))

    def _silence(self) -> httpx2.Timeout:
        return httpx2.Timeout(self._http.timeout.connect, read=streaming.SILENCE_SECONDS)

    async def trigger(self, type: str = "batch.completed") -> Event:
        """Record a test event, which streams carry and no endpoint gets."""
        return await self._send(calls.trigger(type))

    async def resend(self, event_id: str, *, endpoint_id: str | None = None) -> list[Delivery]:
        """Deliver an event again, to everyone who was to hear of it or to one endpoint."""
        return list((await self._send(calls.resend(event_id, endpoint_id=endpoint_id))).data)

    async def delivery(self, delivery_id: str) -> Delivery:
        """One delivery with its attempts."""
        return await self._send(calls.delivery(delivery_id))

    def deliveries(
        self,
        *,
        state: str | None = None,
        event_id: str | None = None,
        batch_id: str | None = None,
        endpoint_id: str | None = None,
        type: str | None = None,
        since: float | None = None,
        until: float | None = None,
        page_size: int = PAGE_SIZE,
    ) -> AsyncIterator[Delivery]:
        """The deliveries that all of it is true of, newest first."""
        return self._items(
            calls.deliveries(
                state=state,
                event_id=event_id,
                batch_id=batch_id,
                endpoint_id=endpoint_id,
                type=type,
                since=since,
                until=until,
                page_size=page_size,
            )
        )

    @any_spelling
    async def create_endpoint(self, url: str, name: str, **fields: Any) -> Endpoint:
        """Make an endpoint that hears of the whole project. Its secret is shown this once.

        `fields` are the other fields of `POST /v1/webhook_endpoints`, such as `event_types`.
        """
        return await self._send(calls.create_endpoint({"url": url, "name": name, **fields}))

    async def endpoint(self, endpoint_id: str) -> Endpoint:
        """One endpoint."""
        return await self._send(calls.endpoint(endpoint_id))

    def endpoints(
        self, *, implied: bool = False, page_size: int = PAGE_SIZE
    ) -> AsyncIterator[Endpoint]:
        """All endpoints, newest first; those of watched URLs only if `implied`."""
        return self._items(calls.endpoints(implied=implied, page_size=page_size))

    async def update_endpoint(self, endpoint_id: str, **changes: Any) -> Endpoint:
        """Change some of its fields; None sets an optional field back."""
        return await self._send(calls.update_endpoint(endpoint_id, changes))

    async def delete_endpoint(self, endpoint_id: str) -> None:
        """Delete an endpoint, and the deliveries that still wait for it."""
        await self._send(calls.delete_endpoint(endpoint_id))

    async def rotate_secret(self, endpoint_id: str, *, keep_old_seconds: float = 0) -> Endpoint:
        """Sign with a new secret, shown this once, and with the old ones for that long."""
        return await self._send(calls.rotate_secret(endpoint_id, keep_old_seconds=keep_old_seconds))

    async def test_endpoint(
        self, endpoint_id: str, *, event_type: str = "batch.completed"
    ) -> EndpointTest:
        """Send a test event now, once."""
        return await self._send(calls.test_endpoint(endpoint_id, event_type=event_type))

    async def disable_endpoint(self, endpoint_id: str) -> Endpoint:
        """Have an endpoint called no more until it is enabled; what waits for it is held."""
        return await self._send(calls.disable_endpoint(endpoint_id))

    async def enable_endpoint(self, endpoint_id: str) -> Endpoint:
        """Let a disabled endpoint be called again, or try one behind an open breaker now."""
        return await self._send(calls.enable_endpoint(endpoint_id))

    async def replay(
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
    ) -> Replay:
        """Send many deliveries again, as a job of the server: `failed`, `held`, `missing`, `all`.

        `since` and `until` (seconds since the epoch) bound the time of the event.
        """
        return await self._send(
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

    async def count_replay(
        self,
        *,
        status: str = "failed",
        endpoint_id: str | None = None,
        event_id: str | None = None,
        since: float | None = None,
        until: float | None = None,
        types: Sequence[str] | None = None,
        enable: bool = False,
    ) -> ReplayCounts:
        """What `replay` would do; nothing is sent."""
        return await self._send(
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

    async def get_replay(self, replay_id: str) -> Replay:
        """One replay, with how far it is."""
        return await self._send(calls.get_replay(replay_id))

    def list_replays(self, *, page_size: int = PAGE_SIZE) -> AsyncIterator[Replay]:
        """All replays, newest first."""
        return self._items(calls.list_replays(page_size=page_size))

    async def cancel_replay(self, replay_id: str) -> Replay:
        """Walk no further; what was made due stays so."""
        return await self._send(calls.cancel_replay(replay_id))

    async def ready(self) -> Readiness:
        """Whether the server can work, and if not, why."""
        return await self._send(calls.ready())

    async def wait(
        self, batch_id: str, *, timeout: float | None = None, on_change: OnChange | None = None
    ) -> Batch:
        """Return the batch once it has ended. Raises WaitTimedOut after `timeout` seconds.

        `on_change` is called with the batch as it is first seen, and whenever it has changed.
        """
        wait = Wait(batch_id, started=time.monotonic(), timeout=timeout, on_change=on_change)
        while True:
            try:
                batch = await self.batch(batch_id)
            except (ServerUnreachable, ServerUnavailable) as error:
                wait.miss(error, now=time.monotonic())
            else:
                if wait.see(batch):
                    return batch
            await asyncio.sleep(wait.pause_seconds(now=time.monotonic()))

    @any_spelling
    async def submit(
        self,
        requests: Requests,
        *,
        url: str | None = None,
        endpoint_id: str | None = None,
        endpoint: str | None = None,
        model: str | None = None,
        account: str | None = None,
        events: Sequence[str] | None = None,
        metadata: Mapping[str, str] | None = None,
        results: str | None = None,
        retry_missing: int = 0,
        retry_max_tokens: int | None = None,
        idempotency_key: str | None = None,
    ) -> Submission:
        """Have requests answered: a file of JSON lines, or dicts, each as the provider writes it.

        `url` is called at the end, or the endpoint `endpoint_id`. `endpoint`, such as
        `/v1/responses`, is for requests without a `url`, and `model` for those without one. What
        was not answered is sent again `retry_missing` times, as long as all of that takes
        `retry_max_tokens` at most, by estimate. `wait`, `batch` and `results` take the submission's
        id. Raises ApiError with `problems` where requests are wrong.

        Each call has an `idempotency_key`, by default a new one: the same again makes nothing
        twice. So where the connection breaks, a file or a list is sent again by itself; all else
        can be read once only, and ServerUnreachable names the key for a try of yours.
        """
        query = submissions.query(
            url=url,
            endpoint_id=endpoint_id,
            endpoint=endpoint,
            model=model,
            account=account,
            events=events,
            metadata=metadata,
            results=results,
            retry_missing=retry_missing,
            retry_max_tokens=retry_max_tokens,
        )
        tries = Tries(requests, idempotency_key)
        while True:
            try:
                return await self._hand_in(submissions.chunks_async(requests), query, tries.headers)
            except (ServerUnreachable, ServerUnavailable) as error:
                await asyncio.sleep(tries.pause_seconds(error))

    async def _hand_in(
        self, chunks: AsyncIterator[bytes], query: Mapping[str, str], headers: Mapping[str, str]
    ) -> Submission:
        try:
            answer = await self._http.post(
                calls.SUBMISSIONS,
                content=chunks,
                params=query,
                headers=headers,
                timeout=submissions.ANSWER_SECONDS,
            )
        except httpx2.HTTPError as error:
            raise calls.unreachable(self.url, error) from error
        return calls.SUBMIT.read(answer.status_code, answer.content)

    async def submission(self, submission_id: str) -> Submission:
        """One submission, with its parts."""
        return await self._send(calls.submission(submission_id))

    def submissions(
        self,
        *,
        id: str | None = None,
        status: str | None = None,
        outcome: str | None = None,
        provider: str | None = None,
        account: str | None = None,
        model: str | None = None,
        metadata: Mapping[str, str] | None = None,
        since: float | None = None,
        until: float | None = None,
        ended_since: float | None = None,
        ended_until: float | None = None,
        page_size: int = PAGE_SIZE,
    ) -> AsyncIterator[Submission]:
        """The submissions that all of it is true of, newest first; as `batches`."""
        return self._items(
            calls.submissions(
                id=id,
                status=status,
                outcome=outcome,
                provider=provider,
                account=account,
                model=model,
                metadata=metadata,
                since=since,
                until=until,
                ended_since=ended_since,
                ended_until=ended_until,
                page_size=page_size,
            )
        )

    async def cancel_submission(self, submission_id: str) -> Submission:
        """Cancel what runs, and hand nothing more in. What was answered is kept."""
        return await self._send(calls.cancel_submission(submission_id))

    async def results(
        self, batch_id: str, *, status: str | None = None
    ) -> AsyncIterator[ResultLine]:
        """A line for each request, in the order of the input; waits until they are merged.

        `status` is `succeeded`, `failed` or `not_run`: lines of this fate only.
        """
        async for text in self.result_texts(batch_id, status=status):
            yield downloads.result_line(text)

    async def result_texts(
        self, batch_id: str, *, status: str | None = None
    ) -> AsyncIterator[bytes]:
        """The same, each line as the JSON that it is."""
        path, query = calls.results(batch_id, status=status)
        async with self._opened(path, query, {}) as answer:
            lines = downloads.Lines()
            async for chunk in answer.aiter_bytes():
                for text in lines.take(chunk):
                    yield text

    async def download_results(
        self,
        batch_id: str,
        target: Path,
        *,
        status: str | None = None,
        format: str | None = None,
        on_bytes: OnBytes | None = None,
    ) -> Path:
        """Write the results to a file, which is there when it is whole.

        `format` is `jsonl`, `parquet` or `csv`; without it the ending of the file's name counts,
        and any other is JSON lines. The server makes tables if it has `batchbell[tables]`.

        Goes on with a download that was broken off, also by another process, and tries again for
        itself when the connection breaks.
        """
        download = Download(batch_id, target, status, format)
        for left in reversed(range(downloads.TRIES)):
            try:
                await self._fetch(download, on_bytes)
            except ServerUnreachable as error:
                if not left or downloads.never_reached(error, left):
                    raise
                await asyncio.sleep(downloads.WAIT_SECONDS)
            else:
                break
        download.end()
        return target

    async def _fetch(self, download: Download, on_bytes: OnBytes | None) -> None:
        path, query = download.call()
        async with self._opened(path, query, download.begin()) as answer:
            with download.taking(answer, on_bytes) as take:
                async for chunk in answer.aiter_raw():
                    take(chunk)

    @asynccontextmanager
    async def _opened(
        self, path: str, query: dict[str, str], headers: dict[str, str]
    ) -> AsyncIterator[httpx2.Response]:
        """An answer that is there: asked for again while the results are being merged."""
        try:
            while True:
                async with self._http.stream("GET", path, params=query, headers=headers) as answer:
                    if answer.status_code in downloads.TAKEN:
                        yield answer
                        return
                    error = calls.error_of(answer.status_code, await answer.aread())
                if error.code != downloads.NOT_READY:
                    raise error
                await asyncio.sleep(downloads.WAIT_SECONDS)
        except httpx2.HTTPError as error:
            raise calls.unreachable(self.url, error) from error

    async def accounts(self) -> list[Account]:
        """The accounts that batches are watched in, the default first."""
        return list((await self._send(calls.accounts())).data)

    async def account(self, name: str) -> Account:
        """One account, by name or id, as below."""
        return await self._send(calls.account(name))

    async def add_account(
        self,
        name: str,
        api_key: str,
        *,
        provider: str | None = None,
        base_url: str | None = None,
        discover: bool = False,
        hook_secrets: Sequence[str] = (),
        hook_audience: str | None = None,
    ) -> Account:
        """Add an account, watched from now on. Its secrets are sealed, and never shown again.

        `provider` is `openai` by default. With `discover`, every batch that is made in it is
        found, whoever made it. `hook_secrets` are those that the provider signs its own webhooks
        with, which it sends to the account's `hooks.url`; `hook_audience` is what tokens that sign
        some of them name as their `aud`, where that is not this address.
        """
        wanted = {
            "name": name,
            "api_key": api_key,
            "provider": provider,
            "base_url": base_url,
            "discover": discover,
            "hook_secrets": list(hook_secrets) or None,
            "hook_audience": hook_audience,
        }
        return await self._send(calls.add_account(wanted))

    async def update_account(self, name: str, **changes: str | bool | Sequence[str]) -> Account:
        """Change its `base_url`, `api_key`, `discover`, `hook_secrets`, `hook_audience` or `state`.

        `state` is `active` or `paused`; new `hook_secrets` replace those that are there.
        """
        return await self._send(calls.update_account(name, changes))

    async def pause_account(self, name: str) -> Account:
        """Sweep it no more until it is resumed."""
        return await self._send(calls.pause_account(name))

    async def resume_account(self, name: str) -> Account:
        """Sweep it again, at once."""
        return await self._send(calls.resume_account(name))

    async def test_account(self, name: str) -> AccountTest:
        """List its batches at the provider once."""
        return await self._send(calls.test_account(name))

    async def remove_account(self, name: str, *, force: bool = False) -> AccountDeleted:
        """Remove it and forget its API key. With `force` also where batches have not ended."""
        return await self._send(calls.remove_account(name, force=force))

    async def create_project(self, name: str) -> Project:
        """Make a project. Only for keys of `default`, as what names a `project` below."""
        return await self._send(calls.create_project(name))

    async def projects(self) -> list[Project]:
        """All projects, the oldest first."""
        return list((await self._send(calls.projects())).data)

    async def create_key(self, name: str, *, project: str | None = None) -> Key:
        """Make an API key. Its `key` is shown this once; from now on every caller needs one."""
        return await self._send(calls.create_key(name, project=project))

    async def list_keys(self, *, project: str | None = None) -> list[Key]:
        """The keys, revoked ones too."""
        return list((await self._send(calls.list_keys(project=project))).data)

    async def revoke_key(self, key_id: str, *, project: str | None = None) -> None:
        """Revoke a key."""
        await self._send(calls.revoke_key(key_id, project=project))

    async def secret(self, *, project: str | None = None) -> str:
        """The `whsec_…` secret that signs the webhooks."""
        return (await self._send(calls.secret(project=project))).secret
