"""Every call, once: what is sent, and what the answer means. No bytes travel here."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import wraps
from typing import Any, Generic, TypeVar, cast
from urllib.parse import quote

import msgspec

from batchbell.api.accounts import Account, AccountDeleted, AccountTest
from batchbell.api.batches import Batch
from batchbell.api.deliveries import Delivery
from batchbell.api.endpoints import Endpoint, EndpointDeleted, EndpointTest
from batchbell.api.errors import PassedError, PassedErrorBody
from batchbell.api.events import Event
from batchbell.api.fields import respelt
from batchbell.api.health import Readiness
from batchbell.api.keys import Key, KeyDeleted, WebhookSecret
from batchbell.api.lists import Page
from batchbell.api.projects import Project
from batchbell.api.replays import Replay, ReplayCounts
from batchbell.api.submissions import Submission
from batchbell.api.timeline import Timeline
from batchbell.api.watches import Watch, WatchDeleted, WatchList
from batchbell.client.errors import ApiError, ServerUnreachable, api_error
from batchbell.core import server as core

T = TypeVar("T")
Item = TypeVar("Item")
Method = TypeVar("Method", bound=Callable[..., Any])

DEFAULT_URL = "http://127.0.0.1:3000"
PAGE_SIZE = 100
TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One HTTP call, and the type of its answer."""

    method: str
    path: str
    answer: type[T]
    query: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    accept: frozenset[int] = frozenset({200, 201})

    def content(self) -> bytes | None:
        return None if self.body is None else msgspec.json.encode(self.body)

    def read(self, status: int, content: bytes) -> T:
        """The answer. Raises ApiError for an error, and for what this server cannot have said."""
        if status not in self.accept:
            raise error_of(status, content)
        try:
            return msgspec.json.decode(content, type=self.answer)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            message = f"This is no answer of a Batchbell server: {error}. Is its URL right?"
            raise ApiError(message, status=status) from error


def error_of(status: int, content: bytes) -> ApiError:
    """What the server said of a failure, or its status where it said nothing that we know."""
    try:
        error = msgspec.json.decode(content, type=PassedErrorBody).error
    except (msgspec.DecodeError, UnicodeDecodeError):
        error = None
    if not isinstance(error, PassedError) or error.message is None:
        return api_error(f"The server answered with HTTP {status}.", status=status)
    return api_error(
        error.message,
        status=status,
        code=None if error.code is None else str(error.code),
        param=error.param,
        problems=error.problems or (),
    )


def any_spelling(method: Method) -> Method:
    """The method, which takes `webhook_url` and `webhookUrl` for `url`, too; but one of them."""

    @wraps(method)
    def spelt(*args: Any, **named: Any) -> Any:
        same, given = respelt(named, "url")
        if len(given) > 1:
            raise TypeError(f"{' and '.join(given)} mean the same. Pass one of them.")
        return method(*args, **same)

    return cast("Method", spelt)


class WatchSpec(msgspec.Struct, frozen=True, omit_defaults=True):
    """What to watch, for `watch_many`; what is left out is the server's default."""

    batch_id: str
    url: str
    events: Sequence[str] | None = None
    metadata: Mapping[str, str] | None = None
    account: str | None = None
    results: str | None = None


def server_url(url: str | None) -> str:
    """Where the server is: as given, else `BATCHBELL_URL`, else this machine."""
    return core.server_url(url or os.environ.get("BATCHBELL_URL") or DEFAULT_URL)


def headers(api_key: str | None) -> dict[str, str]:
    """With the key as given, else `BATCHBELL_API_KEY`, else none."""
    key = api_key or os.environ.get("BATCHBELL_API_KEY")
    sent = {"content-type": "application/json", "accept": "application/json"}
    return sent | ({"authorization": f"Bearer {key}"} if key else {})


def unreachable(url: str, error: Exception) -> ServerUnreachable:
    """No connection, or it broke."""
    why = re.sub(r"^\[Errno -?\d+\] ", "", str(error)).rstrip(".") or type(error).__name__
    return ServerUnreachable(f"No answer from {url}: {why}. Is `batchbell serve` running there?")


def _id(identity: str) -> str:
    return quote(identity, safe="")


def _query(**wanted: Any) -> dict[str, str]:
    given = {name: value for name, value in wanted.items() if value is not None}
    return {
        name: str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in given.items()
    }


def after_page(call: Call[Page[Item]], page: Page[Item]) -> Call[Page[Item]] | None:
    """The call for the page after this one; None after the last."""
    if not page.has_more or page.last_id is None:
        return None
    return replace(call, query={**call.query, "after": page.last_id})


def results(
    batch_id: str, *, status: str | None = None, format: str | None = None
) -> tuple[str, dict[str, str]]:
    """Path and query: the answer is no JSON document, and may be larger than memory."""
    return f"/v1/batches/{_id(batch_id)}/results", _query(status=status, format=format)


def watch(spec: WatchSpec) -> Call[Watch]:
    return Call("POST", "/v1/watches", Watch, body=spec)


def watch_many(specs: Sequence[WatchSpec]) -> Call[WatchList]:
    return Call("POST", "/v1/watches", WatchList, body={"watches": specs})


def get_watch(watch_id: str) -> Call[Watch]:
    return Call("GET", f"/v1/watches/{_id(watch_id)}", Watch)


def update_watch(watch_id: str, changes: Mapping[str, Any]) -> Call[Watch]:
    return Call("POST", f"/v1/watches/{_id(watch_id)}", Watch, body=changes)


def delete_watch(watch_id: str) -> Call[WatchDeleted]:
    return Call("DELETE", f"/v1/watches/{_id(watch_id)}", WatchDeleted)


def list_watches(*, batch_id: str | None, page_size: int) -> Call[Page[Watch]]:
    query = _query(limit=page_size, batch_id=batch_id)
    return Call("GET", "/v1/watches", Page[Watch], query)


def batch(batch_id: str) -> Call[Batch]:
    """What the server saw last: it looks often enough, and a wait must not make it look more."""
    return Call("GET", f"/v1/batches/{_id(batch_id)}", Batch, query={"fresh": "false"})


def timeline(batch_id: str) -> Call[Timeline]:
    return Call("GET", f"/v1/batches/{_id(batch_id)}/timeline", Timeline)


def expunge(batch_id: str) -> Call[Batch]:
    return Call("POST", f"/v1/batches/{_id(batch_id)}/expunge", Batch)


def fetch_results(batch_id: str) -> Call[Batch]:
    path = f"/v1/batches/{_id(batch_id)}/results"
    return Call("POST", path, Batch, accept=frozenset({202}))


def batches(*, page_size: int, **asked: Any) -> Call[Page[Batch]]:
    return Call("GET", "/v1/batches", Page[Batch], _filter(page_size, **asked))


def _filter(
    page_size: int, *, metadata: Mapping[str, str] | None = None, **asked: Any
) -> dict[str, str]:
    """What a list of batches, or of submissions, is asked for."""
    pairs = {f"metadata[{name}]": value for name, value in (metadata or {}).items()}
    return _query(limit=page_size, **asked) | pairs


def event(event_id: str) -> Call[Event]:
    return Call("GET", f"/v1/events/{_id(event_id)}", Event)


def events(*, page_size: int, **asked: Any) -> Call[Page[Event]]:
    return Call("GET", "/v1/events", Page[Event], _query(limit=page_size, **asked))


def trigger(type: str) -> Call[Event]:
    return Call("POST", "/v1/events", Event, body={"type": type})


def resend(event_id: str, *, endpoint_id: str | None) -> Call[Page[Delivery]]:
    body = {} if endpoint_id is None else {"endpoint_id": endpoint_id}
    return Call("POST", f"/v1/events/{_id(event_id)}/resend", Page[Delivery], body=body)


def delivery(delivery_id: str) -> Call[Delivery]:
    return Call("GET", f"/v1/deliveries/{_id(delivery_id)}", Delivery)


def deliveries(*, page_size: int, **asked: Any) -> Call[Page[Delivery]]:
    return Call("GET", "/v1/deliveries", Page[Delivery], _query(limit=page_size, **asked))


ENDPOINTS = "/v1/webhook_endpoints"


def create_endpoint(fields: Mapping[str, Any]) -> Call[Endpoint]:
    return Call("POST", ENDPOINTS, Endpoint, body=fields)


def endpoint(endpoint_id: str) -> Call[Endpoint]:
    return Call("GET", f"{ENDPOINTS}/{_id(endpoint_id)}", Endpoint)


def endpoints(*, implied: bool, page_size: int) -> Call[Page[Endpoint]]:
    query = _query(limit=page_size, implied=implied)
    return Call("GET", ENDPOINTS, Page[Endpoint], query)


def update_endpoint(endpoint_id: str, changes: Mapping[str, Any]) -> Call[Endpoint]:
    return Call("POST", f"{ENDPOINTS}/{_id(endpoint_id)}", Endpoint, body=changes)


def delete_endpoint(endpoint_id: str) -> Call[EndpointDeleted]:
    return Call("DELETE", f"{ENDPOINTS}/{_id(endpoint_id)}", EndpointDeleted)


def rotate_secret(endpoint_id: str, *, keep_old_seconds: float) -> Call[Endpoint]:
    path = f"{ENDPOINTS}/{_id(endpoint_id)}/rotate_secret"
    body = {"keep_old_secret_active_seconds": keep_old_seconds}
    return Call("POST", path, Endpoint, body=body)


def test_endpoint(endpoint_id: str, *, event_type: str) -> Call[EndpointTest]:
    path = f"{ENDPOINTS}/{_id(endpoint_id)}/test"
    return Call("POST", path, EndpointTest, body={"event_type": event_type})


def disable_endpoint(endpoint_id: str) -> Call[Endpoint]:
    return Call("POST", f"{ENDPOINTS}/{_id(endpoint_id)}/disable", Endpoint)


def enable_endpoint(endpoint_id: str) -> Call[Endpoint]:
    return Call("POST", f"{ENDPOINTS}/{_id(endpoint_id)}/enable", Endpoint)


def replay(**wanted: Any) -> Call[Replay]:
    return Call("POST", "/v1/replays", Replay, body=wanted)


def count_replay(**wanted: Any) -> Call[ReplayCounts]:
    return Call("POST", "/v1/replays", ReplayCounts, body={**wanted, "dry_run": True})


def get_replay(replay_id: str) -> Call[Replay]:
    return Call("GET", f"/v1/replays/{_id(replay_id)}", Replay)


def list_replays(*, page_size: int) -> Call[Page[Replay]]:
    return Call("GET", "/v1/replays", Page[Replay], _query(limit=page_size))


def cancel_replay(replay_id: str) -> Call[Replay]:
    return Call("POST", f"/v1/replays/{_id(replay_id)}/cancel", Replay)


def accounts() -> Call[Page[Account]]:
    return Call("GET", "/v1/accounts", Page[Account])


ACCOUNTS = "/v1/accounts"


def account(word: str) -> Call[Account]:
    return Call("GET", f"{ACCOUNTS}/{_id(word)}", Account)


def add_account(wanted: Mapping[str, Any]) -> Call[Account]:
    return Call("POST", ACCOUNTS, Account, body=wanted)


def update_account(word: str, changes: Mapping[str, Any]) -> Call[Account]:
    return Call("POST", f"{ACCOUNTS}/{_id(word)}", Account, body=changes)


def pause_account(word: str) -> Call[Account]:
    return Call("POST", f"{ACCOUNTS}/{_id(word)}/pause", Account)


def resume_account(word: str) -> Call[Account]:
    return Call("POST", f"{ACCOUNTS}/{_id(word)}/resume", Account)


def test_account(word: str) -> Call[AccountTest]:
    return Call("POST", f"{ACCOUNTS}/{_id(word)}/test", AccountTest)


def remove_account(word: str, *, force: bool) -> Call[AccountDeleted]:
    path = f"{ACCOUNTS}/{_id(word)}"
    return Call("DELETE", path, AccountDeleted, _query(force=force or None))


def create_project(name: str) -> Call[Project]:
    return Call("POST", "/v1/projects", Project, body={"name": name})


def projects() -> Call[Page[Project]]:
    return Call("GET", "/v1/projects", Page[Project])


def create_key(name: str, *, project: str | None) -> Call[Key]:
    return Call("POST", "/v1/keys", Key, body={"name": name, "project_id": project})


def list_keys(*, project: str | None) -> Call[Page[Key]]:
    return Call("GET", "/v1/keys", Page[Key], _query(project_id=project))


def revoke_key(key_id: str, *, project: str | None) -> Call[KeyDeleted]:
    return Call("DELETE", f"/v1/keys/{_id(key_id)}", KeyDeleted, _query(project_id=project))


def secret(*, project: str | None) -> Call[WebhookSecret]:
    return Call("GET", "/v1/secret", WebhookSecret, _query(project_id=project))


def ready() -> Call[Readiness]:
    return Call("GET", "/readyz", Readiness, accept=frozenset({200, 503}))


SUBMISSIONS = "/v1/submissions"
SUBMIT = Call("POST", SUBMISSIONS, Submission)
"""Its body is sent as it is read."""


def submission(submission_id: str) -> Call[Submission]:
    return Call("GET", f"{SUBMISSIONS}/{_id(submission_id)}", Submission)


def submissions(*, page_size: int, **asked: Any) -> Call[Page[Submission]]:
    return Call("GET", SUBMISSIONS, Page[Submission], _filter(page_size, **asked))


def cancel_submission(submission_id: str) -> Call[Submission]:
    return Call("POST", f"{SUBMISSIONS}/{_id(submission_id)}/cancel", Submission)
