"""The dialects of the batch APIs.

Each adapter is one file and promises the same: four verbs, answers as `core.model.Snapshot`,
failures as the `ProviderError` tree. Parsing is strict about what we rely on (an id, a status
word) and tolerant about the rest. An adapter must never sleep, retry, store or decide; pacing
and patience belong to the watcher. Nor does it open sockets: it is handed its HTTP (`api.Api`).
"""

from batchbell.providers.protocol import Malformed, Page, Provider
from batchbell.providers.registry import ADAPTERS, Connect, open_provider

__all__ = ["ADAPTERS", "Connect", "Malformed", "Page", "Provider", "open_provider"]
