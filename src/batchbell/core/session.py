"""Sessions of people who signed in with an API key: a signed text that names the key and its end.

So are proofs: an address with one may be called without the key, by an SDK that sends none there.

Whoever reads the text learns no key. It is good while its key is in force: the signature is made
with what only the server knows of the key, so nothing has to be kept of a session.
"""

from __future__ import annotations

import hashlib
import hmac
import re

from msgspec import Struct

SESSION_SECONDS = 12 * 3600
PROOF_SECONDS = 24 * 3600
WRITTEN = re.compile(r"(key_[0-9a-z]{1,60})\.([1-9][0-9]{0,11})\.([0-9a-f]{64})", re.ASCII)


class Session(Struct, frozen=True):
    """What a session text says. It proves nothing before `is_genuine` has looked at it."""

    key_id: str
    expires: int
    """Seconds since the epoch."""
    signature: str


def begin(key_id: str, *, secret: str, now: float) -> str:
    """The text of a new session of this key."""
    expires = int(now) + SESSION_SECONDS
    return f"{key_id}.{expires}.{_sign('session', key_id, str(expires), secret=secret)}"


def read(text: str) -> Session | None:
    """What the text says; None for what is no session text."""
    match = WRITTEN.fullmatch(text)
    return Session(match[1], int(match[2]), match[3]) if match else None


def is_genuine(session: Session, *, secret: str, now: float) -> bool:
    """Whether we made it with this secret, and it has not run out."""
    signature = _sign("session", session.key_id, str(session.expires), secret=secret)
    return hmac.compare_digest(session.signature, signature) and now < session.expires


def proof(key_id: str, address: str, *, secret: str, now: float) -> str:
    """That whoever has this key may send a file to this address of ours: a text like a session."""
    expires = int(now) + PROOF_SECONDS
    return f"{key_id}.{expires}.{_sign('proof', key_id, str(expires), address, secret=secret)}"


def is_proof(found: Session, address: str, *, secret: str, now: float) -> bool:
    """Whether we made it with this secret for this very address, and it has not run out."""
    signature = _sign("proof", found.key_id, str(found.expires), address, secret=secret)
    return hmac.compare_digest(found.signature, signature) and now < found.expires


def form_token(session_text: str, project_id: str, *, secret: str) -> str:
    """What a form must bring along: no other site can know it, nor a page of another project."""
    return _sign("form", session_text, project_id, secret=secret)


def is_form_token(given: str, session_text: str, project_id: str, *, secret: str) -> bool:
    """Whether this is the token of the session's forms."""
    token = form_token(session_text, project_id, secret=secret)
    return given.isascii() and hmac.compare_digest(given, token)


def _sign(*words: str, secret: str) -> str:
    return hmac.new(secret.encode(), "\n".join(words).encode(), hashlib.sha256).hexdigest()
