"""Links to results that need no key: signed, and good for some time only."""

from __future__ import annotations

import hashlib
import hmac

LINK_SECONDS = 7 * 86_400
"""How long a link is good for, counted from when its webhook was first to be sent."""


def link(base_url: str, results_id: str, *, secret: str, now: float) -> str:
    """Where the results are for whoever holds this."""
    expires = int(now) + LINK_SECONDS
    signature = _sign(results_id, expires, secret)
    return f"{base_url}/results/{results_id}?expires={expires}&signature={signature}"


def is_genuine(results_id: str, *, expires: str, signature: str, secret: str) -> bool:
    """Whether we made this link. It may have expired."""
    if not expires.isdecimal() or not expires.isascii() or not signature.isascii():
        return False
    return hmac.compare_digest(signature, _sign(results_id, int(expires[:15]), secret))


def _sign(results_id: str, expires: int, secret: str) -> str:
    words = f"{results_id}.{expires}".encode()
    return hmac.new(secret.encode(), words, hashlib.sha256).hexdigest()
