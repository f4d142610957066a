"""Links to results that need no key: signed, and good for some time only."""

from __future__ import annotations

import hashlib
import hmac
import re

WRITTEN = re.compile(r"[1-9][0-9]{0,11}", re.ASCII)
"""How the time of expiry is written."""
LINK_SECONDS = 7 * 86_400
"""How long a link is good for, counted from when its webhook was first to be sent."""


def link(base_url: str, results_id: str, *, secret: str, now: float) -> str:
    """Where the results are for whoever holds this."""
    expires = str(int(now) + LINK_SECONDS)
    signature = _sign(results_id, expires, secret)
    return f"{base_url}/results/{results_id}?expires={expires}&signature={signature}"


def is_genuine(results_id: str, *, expires: str, signature: str, secret: str) -> bool:
    """Whether we made this link, to the letter. It may have expired.

    Only one way to write the time is ours: another one with the same value would have the same
    signature, and a longer one could say another time.
    """
    if not WRITTEN.fullmatch(expires) or not signature.isascii():
        return False
    return hmac.compare_digest(signature, _sign(results_id, expires, secret))


def _sign(results_id: str, expires: str, secret: str) -> str:
    words = f"{results_id}.{expires}".encode()
    return hmac.new(secret.encode(), words, hashlib.sha256).hexdigest()
