"""Batches that nobody named: found in the list of an account that discovers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from batchbell.api.batches import MetadataWebhook
from batchbell.core import polling
from batchbell.core.errors import AddressRefused, InvalidRequest
from batchbell.core.model import Snapshot
from batchbell.core.submission import TAG
from batchbell.net.guard import AddressRules
from batchbell.providers.protocol import Page
from batchbell.storage.sweeps import Find
from batchbell.storage.watches import Registration

OVERLAP_SECONDS = 300.0
"""How far each look reaches back behind the one before: the provider's clock is not ours, and a
list may show a batch late."""

Known = Callable[[Sequence[str]], Awaitable[set[str]]]
"""Which of these ids we know already."""


class Discovery:
    """One walk through a list, from the newest batch to those made before `since`."""

    def __init__(self, since: float, known: Known, *, now: float) -> None:
        self.since = since
        self.reached: float = max(since, now - OVERLAP_SECONDS)
        """What the next walk has to go back to, once this one is over."""
        self.over = False
        self._known = known

    async def sift(self, page: Page) -> list[Snapshot]:
        """The batches of the page that are young enough, and not known."""
        since = int(self.since)  # providers count whole seconds
        young = [
            b
            for b in page.batches
            if b.created_at is not None and b.created_at >= since and not _is_part(b)
        ]
        known = await self._known([b.id for b in young]) if young else set()
        unknown = [b for b in young if b.id not in known]
        past = polling.reaches([b.created_at for b in page.batches], since)
        self.over = page.next_cursor is None or (not unknown if past is None else past)
        return unknown


def _is_part(seen: Snapshot) -> bool:
    """Whether it is a part of a submission, which tells of itself."""
    return TAG in (seen.metadata or {})


def find_of(seen: Snapshot, account_id: str, rules: AddressRules) -> Find:
    """What is to become of an unknown batch: its own `webhook_url` is called, if it may be."""
    named = {name: url for name, url in MetadataWebhook.of(seen.metadata or {}).items() if url}
    if not named:
        return Find(snapshot=seen)
    param = " and ".join(f"metadata.{name}" for name in named)
    if len(named) > 1:
        return Find(snapshot=seen, refused=f"{param} mean the same: neither is called.")
    [url] = named.values()
    try:
        rules.check_url(url, param=param)
    except (AddressRefused, InvalidRequest) as error:
        return Find(snapshot=seen, refused=f"{param} is not called: {error}")
    registration = Registration(account_id=account_id, batch_id=seen.id, url=url)
    return Find(snapshot=seen, registrations=(registration,))
