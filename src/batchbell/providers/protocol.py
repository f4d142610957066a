"""The port: what every dialect can do, and nothing of how.

A dialect hides paths, headers, cursors, ids, status words and the shape of files. What it gives
back is the same for all: a `Snapshot`, lines in OpenAI's shape, or a `ProviderError`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

import msgspec

from batchbell.core.form import Form
from batchbell.core.model import Snapshot
from batchbell.core.results import Arrived
from batchbell.core.twins import Marks
from batchbell.providers.api import Api
from batchbell.providers.profile import Profile


@dataclass(frozen=True, slots=True)
class Malformed:
    """One row of a page that makes no sense; its `id` is None where even that is missing."""

    id: str | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One page of an account's batches, in the provider's order."""

    batches: tuple[Snapshot, ...]
    malformed: tuple[Malformed, ...] = ()
    next_cursor: str | None = None
    """Pass to the next `list_page`; None after the last page."""
    fault: str | None = None
    """What is odd about the page, where some of it was left out."""
    hashes: tuple[int, ...] = ()
    """One for each of `batches`, of its row as it was written. Only of use in this process."""
    unchanged: tuple[str, ...] = ()
    """The ids of batches whose rows the caller knows: these were not read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to run as one batch."""

    requests: Path
    """JSON lines in OpenAI's shape, for a dialect that sends them with the call. They are there
    where `upload` returned None."""
    file: str | None
    """What `upload` returned."""
    endpoint: str
    model: str | None = None
    """The model of the requests, or of the first one."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """The customer's."""
    tag: tuple[str, str] | None = None
    """A name and a value that no other batch has. It goes wherever the provider keeps it: the
    metadata, a name, or nowhere. Where it is kept, a snapshot shows it in its metadata."""
    output_expires_seconds: int | None = None
    """The provider is to delete what it makes so many seconds after it was made."""


class Lines(Protocol):
    """How a dialect writes its files. A line that it cannot read is given back as it is."""

    form: Form
    """How it writes requests, to those who submit some."""

    def own(self, line: bytes) -> bytes:
        """A line of requests in OpenAI's shape, as the dialect writes it."""
        ...

    def request(self, line: bytes) -> bytes:
        """A line of an input file, in OpenAI's shape: `custom_id` says whose it is."""
        ...

    def answer(self, line: bytes) -> bytes:
        """A line of results, in OpenAI's outer shape.

        That is `custom_id`, `response` with `status_code` and `body`, and `error`. The body is
        the provider's own answer, unchanged.
        """
        ...


class Provider(Protocol):
    """An account's way to its provider. Every verb may raise ProviderError.

    References are the dialect's own: a snapshot holds them, only the dialect reads them.
    """

    @property
    def profile(self) -> Profile:
        """The facts of the host."""
        ...

    @property
    def lines(self) -> Lines | None:
        """As `Dialect.lines`."""
        ...

    async def list_page(
        self,
        cursor: str | None = None,
        *,
        open_only: bool = False,
        known: Mapping[int, str] | None = None,
    ) -> Page:
        """Up to `profile.page_size` batches after `cursor`; the first page without one.

        `open_only` leaves out those that have ended, where `profile.list_filters` has `status`.
        `known` are rows that the caller need not see again: their hashes, as earlier pages gave
        them, and the ids of their batches.
        """
        ...

    async def retrieve(self, batch_id: str) -> Snapshot:
        """One batch. Raises ProviderNotFound, or MalformedBatch where the row makes no sense."""
        ...

    async def cancel(self, batch_id: str) -> Snapshot:
        """Ask for an end. The answer is usually `cancelling`; the end is seen by watching."""
        ...

    async def upload(
        self, requests: Path, *, name: str, expires_seconds: int | None = None
    ) -> str | None:
        """Upload requests, JSON lines in OpenAI's shape; returns the reference of the file.

        None where the provider takes requests with `submit` alone. No batch is made, so the call
        may be made again. The provider is to delete the file after `expires_seconds`; without
        them when it likes.
        """
        ...

    async def submit(self, order: Order) -> Snapshot:
        """Have requests run as a batch. Made once, whatever happens.

        Where no clear answer came a batch may have been made all the same: `find` it.
        """
        ...

    async def find(self, marks: Marks) -> tuple[list[Snapshot], bool]:
        """The batches that a call to `submit` may have made, the likeliest first.

        And whether everything was seen: only then does their absence count.
        """
        ...

    async def results(
        self, reference: str, target: Path, *, most_bytes: int, plain: bool = False
    ) -> Arrived:
        """Fetch what a reference of a snapshot names to `target`, as it is sent.

        It may be compressed, and is in the dialect's own shape: `lines` reads it. `plain`
        asks for no compression. More than `most_bytes` is an error.
        """
        ...

    async def delete(self, reference: str) -> None:
        """Delete what a reference names; what is not there is no error."""
        ...


class Gateway(Protocol):
    """How a call of an OpenAI SDK is passed on to a host, and what its answer says.

    Paths are what follows the base URL.
    """

    def batches(self) -> str: ...

    def batch(self, batch_id: str) -> str: ...

    def cancel(self, batch_id: str) -> str: ...

    def files(self) -> str: ...

    def file(self, file_id: str) -> str: ...

    def content(self, file_id: str) -> str: ...

    def snapshot_in(self, body: bytes, profile: Profile) -> Snapshot | None:
        """The batch that an answer describes, if it does."""
        ...

    def file_id_in(self, body: bytes) -> str | None:
        """The id in the answer to an upload."""
        ...


class Verb(StrEnum):
    """What a call of a provider's own SDK is about."""

    CREATE = "create"
    """Make a batch; the answer shows it."""
    BATCH = "batch"
    """Read or cancel a batch; the answer shows it."""
    CONTENT = "content"
    """Read a file, or results: passed on as they come."""
    UPLOAD = "upload"
    """Hand in a file, or a piece of one: passed on as it comes."""
    OTHER = "other"
    """Lists, facts of files, deletions."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A call of a provider's own SDK that is passed on."""

    verb: Verb
    batch_id: str | None = None
    """The batch that it names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a call to create a batch asks for."""

    lines: int | None = None
    """How many requests came with it."""
    input_file_id: str | None = None
    endpoint: str | None = None
    metadata: Mapping[str, str] | None = None
    tag: tuple[str, str] | None = None
    """A pair of the batch's metadata, as snapshots show it, that it has from its caller."""


class Native(Protocol):
    """How calls of a provider's own SDK are passed on below `/{dialect}`.

    Paths are what follows the base URL, and as they were sent.
    """

    root: str
    """What the SDK puts before a path, and base URLs end in."""
    links: frozenset[str]
    """Fields and headers of answers, in lower case, that hold an address of the API: the caller is
    to come back through us."""
    secrets: frozenset[str]
    """Query parameters that hold a key."""

    def passage(self, method: str, path: str, query: str = "") -> Passage | None:
        """What a call is about; None for one that is not passed on."""
        ...

    def location(self, batch_id: str) -> str:
        """The path of a batch."""
        ...

    def asked(self, path: str, body: Mapping[str, msgspec.Raw]) -> Asked:
        """What the body of a CREATE asks for, as far as it can be read."""
        ...

    def tagged(self, body: Mapping[str, msgspec.Raw], tag: tuple[str, str]) -> bytes | None:
        """The body of a CREATE with a tag that snapshots show in their metadata.

        None where the provider has no place for one that was left empty.
        """
        ...

    def snapshot_in(self, body: bytes, profile: Profile) -> Snapshot | None:
        """The batch that an answer describes, if it does."""
        ...

    def error(self, status: int, code: str, message: str) -> Mapping[str, Any]:
        """An error of ours, in the provider's shape."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """One way of speaking, and all that Batchbell needs of it."""

    name: str
    open: Callable[[Profile, Api, str, Callable[[], float]], Provider]
    """Takes the host's facts, HTTP under the account's base URL, the API key, which is to be kept
    out of messages, and a clock. Calls nothing."""
    lines: Lines | None = None
    """How its files are written; None where they are in OpenAI's shape."""
    gateway: Gateway | None = None
    """None where calls of OpenAI's SDKs cannot be passed on."""
    native: Native | None = None
    """None where it has no SDK of its own, or calls of it cannot be passed on."""
