"""What is known of one host: facts, and nothing that calls.

A host that speaks a dialect that is here already is a `Profile`, and no code.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import urlsplit

from batchbell.core.limits import Limits
from batchbell.core.model import Snapshot, Status
from batchbell.core.polling import PAGE_SIZE
from batchbell.core.submission import Expiry
from batchbell.providers.entra import TOKEN


@dataclass(frozen=True, slots=True)
class Auth:
    """The header that carries the API key, and what stands before the key."""

    header: str = "Authorization"
    before: str = "Bearer "


class ListStyle(StrEnum):
    """How a host lists its batches."""

    PAGES = "pages"
    """Page by page, each with a cursor to the next."""
    WHOLE = "whole"
    """All in one answer, whatever it says of more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpiryRange:
    """The times after which a host can be asked to delete files, in seconds."""

    floor_seconds: int
    ceiling_seconds: int

    def nearest(self, seconds: int | None) -> int | None:
        """The nearest time that the host takes; None, its own time, stays None."""
        if seconds is None:
            return None
        return min(max(seconds, self.floor_seconds), self.ceiling_seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """The webhooks that a host sends itself, signed as https://www.standardwebhooks.com says."""

    secret_variable: str
    """The environment variable that holds the secret they are signed with."""
    events: Mapping[str, Status]
    """The types that announce an end, and which end."""
    batch_id: str = "id"
    """The field of `data` that holds the batch's id."""
    before_id: str = ""
    """What a batch's id begins with here, where `data` may leave it out."""
    keys_path: str | None = None
    """Where, below the base URL, its public keys are: a JWKS document. With these it signs the
    webhooks that single batches ask for, by tokens. None where it signs none so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A host, by its own documents. Accounts name it as their `provider`."""

    name: str
    """What `provider` says, and the account that a key variable makes is called."""
    title: str
    """As the host calls itself."""
    dialect: str
    """The name in `registry.DIALECTS`."""
    base_url: str | None
    """Where the API is; None where every customer has an address of their own."""
    key_variables: tuple[str, ...]
    """The environment variables of its SDK that hold the API key: the first that is set counts."""
    base_url_variable: str | None = None
    """The one that names another address."""
    path: str = ""
    """What the path of each of its addresses ends in: its SDK is given the rest alone."""
    hosts: tuple[str, ...] = ()
    """Where else the host itself answers: names, and all names below them."""
    auth: Auth = Auth()
    signs_in: bool = False
    """Whether it takes tokens of Entra ID in place of a key, which go as `Auth()` says."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Sent with every call, such as the version of the API."""
    limits: Limits = field(default_factory=Limits)
    """What it takes as one batch."""
    windows: tuple[str, ...] = ("24h",)
    """The completion windows that it takes; the first is what submissions ask for."""
    expiry: ExpiryRange | None = None
    """None where it cannot be asked when to delete files."""
    retention_seconds: float | None = None
    """How long it keeps results; None where it does not say, or keeps them."""
    retained_from_creation: bool = False
    """Whether that counts from when the batch was made, and not from its end."""
    answers_in_order: bool = False
    """Whether results stand in the order of the requests."""
    returns_inputs: bool = True
    """Whether a file that was uploaded can be downloaded."""
    runs_on: bool = False
    """Whether a batch runs on after `expires_at`, until it is done or cancelled."""
    list_style: ListStyle = ListStyle.PAGES
    page_size: int = PAGE_SIZE
    """How many batches a page may have, and is asked for."""
    list_filters: frozenset[str] = frozenset()
    """By what its list can be filtered: `status`, `created_after`, `metadata`."""
    submissions: bool = True
    """Whether Batchbell hands in requests there."""
    batch_ids: str | None = None
    """The shape of its batches' ids, as a regular expression; None where ids may look like
    anything."""
    ids_are_shared: bool = False
    """Whether other hosts may have ids of that shape, as of UUIDs."""
    home_ids: str | None = None
    """The shape of ids at the host itself, where others that go by its name may have any."""
    look_seconds: float = 0.0
    """The fewest seconds between two looks that it asks for; see `look_seconds_at`."""
    statuses: Mapping[str, Status] = field(default_factory=dict)
    """Its own status words, in lower case, beside those of the dialect."""
    hooks: Hooks | None = None
    """None where it sends no webhooks about batches."""

    @property
    def key_variable(self) -> str:
        """The variable that is named to people: the provider's own, which comes last."""
        return self.key_variables[-1]

    def address(self, given: str) -> str:
        """The base URL that is meant by an address that has no slash at its end.

        It is completed by as much of `path` as it lacks, so that the spelling for the host's SDK
        and that for OpenAI's SDK are both right.
        """
        steps = self.path.split("/")[1:]
        there = urlsplit(given).path.split("/")[1:]
        for count in range(len(steps), 0, -1):
            if there[-count:] == steps[:count]:
                return "/".join([given, *steps[count:]])
        return f"{given}{self.path}"

    def is_own(self, base_url: str) -> bool:
        """Whether the host itself answers at this address, and no proxy or imitation of it."""
        name = urlsplit(base_url).hostname or ""
        own = urlsplit(self.base_url or "").hostname
        return name == own or any(name == one or name.endswith(f".{one}") for one in self.hosts)

    def look_seconds_at(self, base_url: str) -> float:
        """The fewest seconds between two looks at this address; 0 where another one answers."""
        return self.look_seconds if self.is_own(base_url) else 0.0

    def may_have(self, batch_id: str, *, base_url: str) -> bool:
        """Whether a batch of an account at this address may be called so."""
        shape = self.batch_ids or (self.home_ids if self.is_own(base_url) else None)
        return shape is None or re.fullmatch(shape, batch_id) is not None

    def expiry_near(self, wanted: Expiry) -> Expiry:
        """The times nearest to those wanted that this host takes; none where it takes none."""
        if self.expiry is None:
            return Expiry()
        return Expiry(
            input_seconds=self.expiry.nearest(wanted.input_seconds),
            output_seconds=self.expiry.nearest(wanted.output_seconds),
        )

    def results_expire_at(self, seen: Snapshot) -> float | None:
        """Until when the host keeps the results of a batch that has ended; None where none can be
        said. Whoever made the batch may have asked for less."""
        if self.retention_seconds is None or seen.status is None or not seen.names_answers:
            return None
        ended_at = seen.timestamps.get(f"{seen.status}_at")
        since = seen.created_at if self.retained_from_creation else ended_at
        return None if since is None else since + self.retention_seconds

    def credentials(self, api_key: str) -> dict[str, str]:
        """The headers that say whose a call is."""
        key = api_key.strip()
        auth = Auth() if self.signs_in and TOKEN.fullmatch(key) else self.auth
        return {auth.header: f"{auth.before}{key}"}
