"""The batch APIs, behind one port.

`protocol` is the port. Each dialect is one file and promises the same: its verbs, answers as
`core.model.Snapshot`, failures as the `ProviderError` tree. Each host is a `Profile` of facts in
`profiles`. Nothing outside this room knows a provider's name, path, header, id shape or status
word.

Parsing is strict about what we rely on (an id, a status word) and tolerant about the rest; `values`
and `lists` read it. `calls` judges answers by `verdicts`, `paging` and `search` walk lists: they
are the same for every dialect. An adapter must never sleep, retry, store or decide; pacing and
patience belong to the workers. Nor does it open sockets: it is handed its HTTP (`api.Api`).
"""

from batchbell.providers.protocol import Malformed, Order, Page, Provider
from batchbell.providers.registry import Connect, open_provider

__all__ = ["Connect", "Malformed", "Order", "Page", "Provider", "open_provider"]
