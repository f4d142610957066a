"""Names that we do not know, and the right one that was probably meant.

Whatever speaks to us is held to the names that we declare: a name that is ignored in silence does
something else than its writer thinks. So a field, a query parameter or a variable that we do not
know is refused, and the answer names the nearest right one.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection

CUTOFF = 0.6
MISSPELT = 0.9
"""So near is a word only to one that was meant to be it."""
LISTED_MAX = 30
SHOWN_MAX = 80
"""Characters of a name that is not ours: it may be of any length."""
SAME = (
    {"url", "server", "serverurl", "baseurl"},
    {"url", "webhook", "webhookurl", "callback", "callbackurl", "hook", "hookurl", "targeturl"},
    {"id", "batch", "batchid"},
    {"event", "events", "eventtype", "eventtypes", "type", "types"},
    {"account", "accountid", "accountname", "accounts"},
    {"status", "state"},
    {"apikey", "key", "token"},
    {"limit", "pagesize", "perpage", "count"},
    {"after", "cursor", "startingafter", "page", "offset"},
    {"endpointid", "webhookendpointid", "webhookendpoint", "endpoint"},
    {"secret", "signingsecret", "webhooksecret"},
    {"timeout", "timeoutseconds", "timeoutms"},
)
"""Words that people write for each other, in lower case and without separators."""


def nearest(name: str, known: Collection[str]) -> str | None:
    """The known name that `name` was probably meant to be; None where there is no such."""
    bare = {_bare(one): one for one in sorted(known)}
    wanted = _bare(name[:SHOWN_MAX])
    if wanted in bare:
        return bare[wanted]
    if close := difflib.get_close_matches(wanted, bare, n=1, cutoff=CUTOFF):
        return bare[close[0]]
    alike = {word for words in SAME if wanted in words for word in words}
    return next((one for word, one in bare.items() if word in alike), None)


def misspelt(name: str, known: Collection[str]) -> str | None:
    """The known name that `name` must have been meant to be, where others may be neighbours."""
    bare = {_bare(one): one for one in sorted(known)}
    wanted = _bare(name[:SHOWN_MAX])
    close = difflib.get_close_matches(wanted, bare, n=1, cutoff=MISSPELT)
    return bare[close[0]] if close else None


def hint(name: str, known: Collection[str]) -> str:
    """A sentence that helps whoever has written `name`; empty where nothing is known at all."""
    if meant := nearest(name, known):
        return f"Did you mean {meant!r}?"
    if not known:
        return "There are none here."
    listed = sorted(known)[:LISTED_MAX]
    more = ", …" if len(known) > LISTED_MAX else ""
    return f"Known here: {', '.join(listed)}{more}."


def shown(name: str) -> str:
    """A name that is not ours, as a message quotes it."""
    return repr(name if len(name) <= SHOWN_MAX else f"{name[:SHOWN_MAX]}…")


def _bare(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
