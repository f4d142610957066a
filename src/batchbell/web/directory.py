"""The accounts of each project, as whoever registers a batch needs them: at once."""

from __future__ import annotations

from collections.abc import Mapping

from batchbell.core.model import Account
from batchbell.storage import accounts
from batchbell.web.context import Context
from batchbell.web.remembering import Remembered

ACCOUNTS_KEPT_SECONDS = 0.5
"""An account that another process has added or removed is known within this."""
PROJECTS_KEPT_MAX = 1000


class Directory:
    """Asks the database for a project's accounts twice a second at most."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._known: dict[str, Remembered[Mapping[str, Account]]] = {}

    def forget(self) -> None:
        """Call when an account was added or removed here: it counts from the next request on."""
        self._known.clear()

    async def of(self, project_id: str) -> Mapping[str, Account]:
        """Those that can be watched, by name; the first one is the default."""
        if project_id not in self._known and len(self._known) >= PROJECTS_KEPT_MAX:
            self._known.clear()
        known = self._known.setdefault(
            project_id,
            Remembered(
                lambda: self._load(project_id),
                seconds=ACCOUNTS_KEPT_SECONDS,
                clock=self._context.clock,
            ),
        )
        return await known.get()

    async def _load(self, project_id: str) -> Mapping[str, Account]:
        found = await self._context.store.read(accounts.list_accounts, project_id)
        has_key = self._context.settings.openai_api_key is not None
        return {one.name: one for one in found if has_key or not one.from_environment}
