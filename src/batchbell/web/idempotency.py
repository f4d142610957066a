"""Calls that may be made again: by their key it is known that they are the same."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from starlette.requests import Request

from batchbell.api.fields import respelt
from batchbell.api.submissions import SubmissionOptions
from batchbell.core.errors import InvalidRequest
from batchbell.storage.submissions import Key
from batchbell.web.errors import Code

HEADER = "Idempotency-Key"
REPLAYED = {"Idempotent-Replayed": "true"}
"""Headers of an answer that tells of what was made before."""
WORD_MAX = 255
OPTIONS = tuple(SubmissionOptions.model_fields)


def key_word(request: Request) -> str | None:
    """The key that the caller has given this call. Raises InvalidRequest."""
    words = request.headers.getlist(HEADER)
    if not words:
        return None
    if len(words) > 1 or not re.fullmatch(rf"[!-~]{{1,{WORD_MAX}}}", words[0]):
        raise InvalidRequest(
            f"{HEADER} must be one word of 1 to {WORD_MAX} visible ASCII characters, such as a"
            " UUID.",
            param=HEADER,
            code=Code.INVALID_VALUE,
        )
    return words[0]


def key_of(word: str, body: Mapping[str, Any], file: Path) -> Key:
    """The key of a body that was read, and of the requests in `file`; call it in a thread.

    The same options and the same lines have the same fingerprint, whatever the body came as, and
    however it calls the URL. Raises InvalidRequest.
    """
    body, _ = respelt(body, "url")
    named = {name: body[name] for name in OPTIONS if body.get(name) is not None}
    try:
        digest = hashlib.sha256(msgspec.json.encode(named, order="sorted"))
    except RecursionError as error:
        raise InvalidRequest("The body is nested too deeply.") from error
    with file.open("rb") as lines:
        digest.update(hashlib.file_digest(lines, "sha256").digest())
    return Key(word, digest.hexdigest())
