"""Local mode or keys, and what follows from it: where we listen, and which addresses we call."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from dataclasses import dataclass, field

from batchbell.core.errors import SettingsError, StoreUnavailable
from batchbell.net.guard import AddressRules, parse_cidrs
from batchbell.settings import Settings
from batchbell.storage import keys
from batchbell.storage.engine import Store

ACCESS_SECONDS = 1.0
"""How often the keys are looked at again: another process may have made the first one."""
LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(slots=True)
class Access:
    """Whether this is local mode, and so which addresses may be called."""

    settings: Settings
    local: bool = True
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    _rules: AddressRules = field(default_factory=AddressRules)

    async def look(self, store: Store) -> None:
        """Read whether a key was ever made. Raises StoreUnavailable."""
        self.local = not await store.read(keys.ever_made)
        self._rules = AddressRules(
            allow_http=self.local or self.settings.allow_http,
            allow_loopback=self.local,
            allow_cidrs=parse_cidrs(self.settings.allow_cidrs),
        )

    def rules(self) -> AddressRules:
        return self._rules

    async def keep_looking(self, store: Store) -> None:
        """Look again whenever a key changes here, and regularly for those made elsewhere."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ACCESS_SECONDS):
                    await self.changed.wait()
            self.changed.clear()
            with contextlib.suppress(StoreUnavailable):
                await self.look(store)


def bind(settings: Settings, *, local: bool) -> socket.socket:
    """Listen. Raises SettingsError where this host may not be bound, or the port is taken."""
    if local and settings.host not in LOOPBACK:
        raise SettingsError(
            f"No API key was made yet, so Batchbell will not listen on {settings.host}: anybody"
            " there could use it. Make one first: batchbell keys create --name NAME"
        )
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=2048)
    except OSError as error:
        raise SettingsError(
            f"Cannot listen on {settings.host}:{settings.port}: {error.strerror or error}."
            " Set PORT or HOST to another."
        ) from error
