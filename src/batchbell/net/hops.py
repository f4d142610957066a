"""Redirects of providers to their storage: where one may lead, and what it may be sent.

A file's content may be at a signed URL of another host. It is fetched without our credentials, by
the same address rules, never over plain HTTP where the API is not. The signature is in the query:
no log, reason or answer shows it.
"""

from __future__ import annotations

from dataclasses import dataclass

from yarl import URL

from batchbell.core.errors import ProviderUnavailable

HOPS_MAX = 5
REDIRECTS = frozenset({301, 302, 303, 307, 308})


@dataclass(frozen=True, slots=True)
class Hop:
    """Where a redirect leads."""

    url: str
    ours: bool
    """Whether it is the API's own origin, which may have our credentials."""

    @property
    def shown(self) -> str:
        """The URL without its query, for the address rules."""
        return self.url.partition("?")[0]


def next_hop(hop: Hop | None, first: str, location: str) -> Hop:
    """The hop that `location` names, from the last one or from the URL that was called first.

    Raises ProviderUnavailable where it may not be followed.
    """
    api = URL(first, encoded=True)
    before = api if hop is None else URL(hop.url, encoded=True)
    try:
        # Joined as it is written: a signature holds for the letters of the URL.
        url = before.join(URL(location, encoded=True)).with_fragment(None)
        fits = url.scheme in ("http", "https") and bool(url.host) and "@" not in url.raw_authority
    except ValueError:
        fits = False
    if not fits:
        raise ProviderUnavailable("The provider redirects to what is no address of the web.")
    if url.scheme == "http" and before.scheme == "https":
        raise ProviderUnavailable(
            f"The provider redirects from https to http ({url.host}): that is not followed."
        )
    ours = (hop is None or hop.ours) and url.origin() == api.origin()
    return Hop(str(url), ours)
