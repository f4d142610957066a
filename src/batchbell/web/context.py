"""What the HTTP surface is given to work with. `runtime` makes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from batchbell.core.model import Mint
from batchbell.files.shelf import Shelf
from batchbell.net.client import Sender
from batchbell.net.guard import AddressRules
from batchbell.net.relay import Relay
from batchbell.observability import Metrics
from batchbell.settings import Settings
from batchbell.storage.engine import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """One server's parts."""

    store: Store
    settings: Settings
    metrics: Metrics
    clock: Callable[[], float]
    mint: Mint
    rules: Callable[[], AddressRules]
    """The address rules that are in force now."""
    keys_changed: Callable[[], None]
    """Call after a key was made or revoked: local mode may have begun or ended."""
    shelf: Shelf
    """Where merged results are, and requests until they are handed in."""
    sender: Sender
    """Sends test events, under the same address rules as every webhook."""
    relay: Relay
    """Passes calls on to providers."""
    workers_alive: Callable[[], Mapping[str, bool]]
    """Whether each worker of this process has shown life lately; empty without workers."""
