"""The body of a call that creates a batch. A child imports this module, so it imports little."""

from __future__ import annotations

import hashlib
import mmap
from dataclasses import replace
from pathlib import Path

import msgspec

from batchbell.providers.protocol import Asked, Native

TAGGED_MAX_BYTES = 32 * 2**20
"""Larger bodies are sent as they are: they are too many at once to be written anew."""


def read_creation(
    native: Native, path: str, file: Path, tag: tuple[str, str]
) -> tuple[Asked, str, Path]:
    """What a body asks for, as far as it can be read, its fingerprint, and what to send.

    Call it in a child. That is another file where a tag could be put in: a batch is recognized by
    nothing else then.
    """
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256")
        digest.update(path.encode())
        try:
            # Mapped, and never closed by hand: what is decoded points into it.
            body = mmap.mmap(content.fileno(), 0, access=mmap.ACCESS_READ)
            fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        except (ValueError, RecursionError):
            return Asked(), digest.hexdigest(), file
        asked = native.asked(path, fields)
        tagged = native.tagged(fields, tag) if len(body) <= TAGGED_MAX_BYTES else None
    if tagged is None:
        return asked, digest.hexdigest(), file
    other = file.with_suffix(".tagged")
    other.write_bytes(tagged)
    return replace(asked, tag=tag, lines=None), digest.hexdigest(), other
