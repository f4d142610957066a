"""Looking through an account's list for a batch that may have been made unseen."""

from __future__ import annotations

from batchbell.core.model import Snapshot
from batchbell.core.twins import Marks, is_past, twins
from batchbell.providers.paging import Lists, Walk

PAGES_MAX = 100


async def find_twins(lists: Lists, marks: Marks) -> tuple[list[Snapshot], bool]:
    """The batches that the marks fit, the likeliest first, and whether all were seen.

    Raises ProviderError.
    """
    found: list[Snapshot] = []
    walk = Walk(lists, pages_max=PAGES_MAX)
    async for page in walk:
        found += twins(marks, page.batches)
        if found or is_past(marks, page.batches):
            return found, True
    return found, walk.whole
